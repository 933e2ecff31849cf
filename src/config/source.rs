//! The configuration's file and its permissions.

use std::path::Path;

use super::document;
use super::error::Error;
use crate::files::guard::Refusal;
use crate::files::{ExternalFile, Purpose};

/// Reads `file`, at most one byte more than the maximum size. A file that everyone can write is not read, because it
/// decides permissions.
///
/// # Errors
/// [`Error::Unreadable`] when it cannot be read, [`Error::Permissions`] when everyone can write it.
pub fn bytes(file: &Path) -> Result<Vec<u8>, Error> {
    let unreadable = |error: std::io::Error| Error::Unreadable {
        file: file.to_owned(),
        message: format!("cannot read the configuration: {error}"),
        code: error.raw_os_error(),
    };
    let opened = ExternalFile::new(Purpose::Configuration, file).open().map_err(|refusal| match refusal {
        Refusal::Missing(error) | Refusal::Unreadable(error) => unreadable(error),
        refusal @ (Refusal::Writable(_) | Refusal::Permissions { .. }) => {
            Error::Permissions { file: file.to_owned(), message: format!("the configuration is rejected: {refusal}") }
        }
    })?;
    crate::files::reading::read_from(opened, document::MAXIMUM_BYTES).map_err(unreadable)
}
