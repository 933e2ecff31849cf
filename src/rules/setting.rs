//! Settings: whether a query, or a JSON body, makes an operation destructive.
//!
//! 1. A name is the setting's where the least strict of readers would take it for that: in another case, with marks or
//!    brackets, decoded twice, in wide letters. In another spelling than its own it is refused, whatever its value.
//! 2. A value is fine where it is plainly another: letters, digits, `_` and `-`, which do not spell the setting's.
//! 3. What stands behind a semicolon is looked at as a pair too: some readers take it for an ampersand.
//! 4. In a body it is looked for at any depth; what stands there is a text.

use crate::operation::Setting;
use crate::subject::json::{Scalar, Sought};
use crate::target::{letters, name_of, plain, spelled};

/// Whether it could stand in `query` (rules 1 to 3).
#[cold]
pub(super) fn could_stand_in(query: &str, setting: Setting) -> bool {
    let wanted = letters(setting.name.as_bytes());
    query.split(['&', ';']).any(|pair| {
        let name = name_of(pair.as_bytes());
        let value = pair.as_bytes().get(name.len() + 1..).unwrap_or_default();
        spelled(name) == wanted
            && (name != setting.name.as_bytes() || !is_plainly_another(&plain(value), setting.value))
    })
}

/// Rule 2.
pub(super) fn is_plainly_another(value: &[u8], than: &str) -> bool {
    let is_plain = value.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
    is_plain && letters(value) != letters(than.as_bytes())
}

/// Looks for it in a body (rule 4).
pub(super) struct InBody {
    pub(super) setting: Setting,
    /// Whether it could stand there.
    pub(super) is_there: bool,
}

impl Sought for InBody {
    type Place = ();

    fn place(&self, key: &str, outer: Option<()>) -> Option<()> {
        outer.or_else(|| (spelled(key.as_bytes()) == letters(self.setting.name.as_bytes())).then_some(()))
    }

    fn take(&mut self, (): (), value: Scalar<'_>) -> bool {
        let Scalar::Text(text) = value else { return false };
        self.is_there |= !is_plainly_another(text.as_bytes(), self.setting.value);
        true
    }
}
