//! Marks: what the table says of an operation beside its path and scopes.
//!
//! 1. A mark is a word; behind a colon stands what it depends on. A line with a mark that is not known is no line.
//! 2. `destructive:name=value` is destructive where the parameter `name` of the query has that value,
//!    `destructive:body.name=value` where the member `name` of its JSON body has it, wherever that stands in it.
//! 3. `shares` gives access to whom `user_login` names, `shares:perhaps` to whom it names in the body if it does, `shares:anyone`
//!    to everybody, `shares:secret` to whoever gets to know its answer.

use std::fmt;

/// When an operation is destructive; `docs/destructive.md` says what that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Destructive {
    /// Never.
    #[default]
    Never,
    /// Whatever is asked of it.
    Always,
    /// Where it is asked for so.
    With(Setting),
}

/// A parameter, or a member of a JSON body, and its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// Where it stands.
    pub place: Place,
    /// What it is called.
    pub name: &'static str,
    /// Its value.
    pub value: &'static str,
}

/// Where a [`Setting`] stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the query.
    Query,
    /// In the JSON body.
    Body,
}

/// Whom an operation gives access to what they had none to before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Shares {
    /// Nobody.
    #[default]
    Nothing,
    /// Whom `user_login` of its path, query or body names.
    Named,
    /// Everybody.
    Anyone,
    /// Whom `user_login` in its body names, if it does: of something else, grants are a part.
    Perhaps,
    /// Whoever gets to know its answer, which is a secret.
    Secret,
}

/// The marks of one line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Marks {
    pub(super) upload: bool,
    pub(super) long: bool,
    pub(super) acts: bool,
    pub(super) deprecated: bool,
    pub(super) destructive: Destructive,
    pub(super) shares: Shares,
}

impl Marks {
    /// Those of a column; `None` where one is not known (rule 1).
    pub(super) fn parse(column: &'static str) -> Option<Self> {
        let mut marks = Self::default();
        for mark in column.split(',').filter(|mark| *mark != "-") {
            match mark.split_once(':').unwrap_or((mark, "")) {
                ("upload", "") => marks.upload = true,
                ("long", "") => marks.long = true,
                ("acts", "") => marks.acts = true,
                ("deprecated", "") => marks.deprecated = true,
                ("destructive", "") => marks.destructive = Destructive::Always,
                ("destructive", setting) => marks.destructive = Destructive::With(Setting::parse(setting)?),
                ("shares", "") => marks.shares = Shares::Named,
                ("shares", "perhaps") => marks.shares = Shares::Perhaps,
                ("shares", "anyone") => marks.shares = Shares::Anyone,
                ("shares", "secret") => marks.shares = Shares::Secret,
                _ => return None,
            }
        }
        Some(marks)
    }
}

impl Setting {
    /// Rule 2.
    fn parse(text: &'static str) -> Option<Self> {
        let (name, value) = text.split_once('=')?;
        let (place, name) = name.strip_prefix("body.").map_or((Place::Query, name), |name| (Place::Body, name));
        Some(Self { place, name, value })
    }
}

impl Destructive {
    /// As an operation of a configuration says it.
    #[must_use]
    pub const fn of(is_destructive: bool) -> Self {
        if is_destructive { Self::Always } else { Self::Never }
    }

    /// What has to be asked for, where that decides.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_read_or_the_line_is_none() {
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
            ("shared", None),
        ] {
            assert_eq!(of(text), expected, "{text}");
        }
    }
}
