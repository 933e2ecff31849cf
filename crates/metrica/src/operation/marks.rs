//! Marks: the properties of an operation in the last column of the table.
//!
//! 1. A mark is a word, with an optional condition after a colon. A line with an unknown mark is rejected.
//! 2. `destructive:name=value` is destructive if the query parameter `name` has that value, `destructive:body.name=value` if
//!    the member `name` of the JSON body has it, at any depth.
//! 3. `shares` grants access to the login in `user_login`, `shares:perhaps` to the login in the body if there is one,
//!    `shares:anyone` to everybody, and `shares:secret` to anyone who learns the response.

use super::OperationId;
use std::fmt;

/// The condition under which an operation is destructive; see `docs/destructive.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Destructive {
    /// Never destructive.
    #[default]
    Never,
    /// Always destructive.
    Always,
    /// Destructive if the request contains this setting.
    With(Setting),
}

/// A query parameter or a member of a JSON body, and its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// The part of the request that contains it.
    pub place: Place,
    /// The name of the parameter or member.
    pub name: &'static str,
    /// The value that makes the operation destructive.
    pub value: &'static str,
}

/// The part of a request that contains a [`Setting`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The query.
    Query,
    /// The JSON body.
    Body,
}

/// The recipients of access that they did not have before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Shares {
    /// Nobody.
    #[default]
    Nothing,
    /// The login in `user_login` of the path, query or body.
    Named,
    /// Everybody.
    Anyone,
    /// The login in `user_login` of the body, if there is one: grants can be part of a larger object.
    Perhaps,
    /// Anyone who learns the response, which is a secret.
    Secret,
}

/// The kind of access that Metrica counts by the hour when it is added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Adds {
    /// None.
    #[default]
    Nothing,
    /// A grant of access to a counter.
    Grant,
    /// A delegate.
    Delegate,
}

/// The marks of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Marks {
    pub(super) upload: bool,
    pub(super) long: bool,
    pub(super) bulk: bool,
    pub(super) acts: bool,
    pub(super) deprecated: bool,
    pub(super) destructive: Destructive,
    pub(super) shares: Shares,
    pub(super) adds: Adds,
}

impl Marks {
    /// Parses the marks of a column; `None` if one is unknown (rule 1).
    pub(super) fn parse(column: &'static str) -> Option<Self> {
        let mut marks = Self::default();
        for mark in column.split(',').filter(|mark| *mark != "-") {
            match mark.split_once(':').unwrap_or((mark, "")) {
                ("upload", "") => marks.upload = true,
                ("long", "") => marks.long = true,
                ("bulk", "") => marks.bulk = true,
                ("acts", "") => marks.acts = true,
                ("deprecated", "") => marks.deprecated = true,
                ("destructive", "") => marks.destructive = Destructive::Always,
                ("destructive", setting) => marks.destructive = Destructive::With(Setting::parse(setting)?),
                ("shares", "") => marks.shares = Shares::Named,
                ("shares", "perhaps") => marks.shares = Shares::Perhaps,
                ("shares", "anyone") => marks.shares = Shares::Anyone,
                ("shares", "secret") => marks.shares = Shares::Secret,
                ("adds", "grant") => marks.adds = Adds::Grant,
                ("adds", "delegate") => marks.adds = Adds::Delegate,
                _ => return None,
            }
        }
        Some(marks)
    }
}

impl Setting {
    /// Parses the condition of `destructive` (rule 2).
    fn parse(text: &'static str) -> Option<Self> {
        let (name, value) = text.split_once('=')?;
        let (place, name) = name.strip_prefix("body.").map_or((Place::Query, name), |name| (Place::Body, name));
        Some(Self { place, name, value })
    }
}

impl Destructive {
    /// Converts the flag of an operation in the configuration.
    #[must_use]
    pub const fn of(is_destructive: bool) -> Self {
        if is_destructive { Self::Always } else { Self::Never }
    }

    /// The setting that decides, if the operation is not always or never destructive.
    #[must_use]
    pub const fn setting(self) -> Option<Setting> {
        match self {
            Self::With(setting) => Some(setting),
            Self::Never | Self::Always => None,
        }
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, self.value)
    }
}

impl OperationId {
    /// Whether the operation changes which accounts have access to which counters.
    #[must_use]
    pub fn changes_access(self) -> bool {
        let id = self.as_str();
        matches!(id, "counters.create" | "counter.delete" | "counter.undelete")
            || CHANGE_ACCESS.iter().any(|prefix| id.starts_with(prefix))
                && !id.contains(".get")
                && !id.ends_with(".list")
    }
}

/// The beginnings of the ids of operations that give or take access.
const CHANGE_ACCESS: [&str; 6] = ["grant.", "grants.", "delegate.", "delegates.", "account.", "accounts."];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_parsed_or_the_line_is_rejected() {
        let query = Setting { place: Place::Query, name: "action", value: "delete_keys" };
        let body = Setting { place: Place::Body, ..query };
        let of = |text| Marks::parse(text).map(|marks| (marks.destructive, marks.shares, marks.acts));
        for (text, expected) in [
            ("-", Some((Destructive::Never, Shares::Nothing, false))),
            ("upload,destructive", Some((Destructive::Always, Shares::Nothing, false))),
            ("destructive:action=delete_keys", Some((Destructive::With(query), Shares::Nothing, false))),
            ("destructive:body.action=delete_keys", Some((Destructive::With(body), Shares::Nothing, false))),
            ("acts,shares:secret", Some((Destructive::Never, Shares::Secret, true))),
            ("shares,deprecated", Some((Destructive::Never, Shares::Named, false))),
            ("shares:anyone", Some((Destructive::Never, Shares::Anyone, false))),
            ("destructive:action", None),
            ("acts:x", None),
            ("adds", None),
            ("bulk:x", None),
            ("shared", None),
        ] {
            assert_eq!(of(text), expected, "{text}");
        }
    }
}
