//! The receiver of a response and of the interim responses before it.

use http::{HeaderMap, StatusCode};

/// The receiver of a response.
pub trait Listener {
    /// Whether to keep the field of this name, in any case. Fields that frame the response are always kept.
    fn wants(&self, name: &[u8]) -> bool;
    /// Called for each interim response.
    fn heard(&self, status: StatusCode, fields: &HeaderMap);
}
