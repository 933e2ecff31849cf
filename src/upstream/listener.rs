//! Who waits for a response, and hears of the interim ones before it.

use http::{HeaderMap, StatusCode};

/// Who waits for a response.
pub trait Listener {
    /// Whether a field of this name, in any case, is of use. Those that frame the response are kept in any case.
    fn wants(&self, name: &[u8]) -> bool;
    /// An interim response came.
    fn heard(&self, status: StatusCode, fields: &HeaderMap);
}
