//! The reasons why files cannot be used, for readiness.

use super::descriptors::is_shortage;
use super::guard::Refusal;
use super::{ExternalFile, Purpose, was_replaced_behind_a_mount};

impl ExternalFile {
    /// Returns a message with the reason why the file cannot be used now. A shortage of descriptors is no property of the
    /// file and gives no message.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        let path = super::reading::shown(&self.path);
        match self.check() {
            Ok(()) if was_replaced_behind_a_mount(&self.path) => {
                Some(format!("{path} was replaced outside of its mount, so the gate still sees the old file"))
            }
            Ok(()) => None,
            // Only tokens of `token login` have one.
            Err(Refusal::Missing(_)) if matches!(self.purpose, Purpose::Record(_)) => None,
            Err(Refusal::Missing(_)) => Some(format!("{path} is missing")),
            Err(Refusal::Unreadable(error)) if is_shortage(&error) => None,
            Err(Refusal::Unreadable(error)) => Some(format!("cannot read {path}: {error}")),
            Err(Refusal::Writable(error)) => Some(format!("{path} is rejected: {error}")),
            Err(Refusal::Permissions { what, mend }) => Some(format!("{path} {what}; {mend}")),
        }
    }
}
