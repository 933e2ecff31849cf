//! Diagnosis of a rejected target: which rule it breaks, and where, for whoever fixes the client.
//!
//! Nothing is decided here. Only a target that [`super::check`] has rejected is examined again, so accepted ones cost
//! nothing extra. Messages contain no part of the target, because it can hold a token.

use std::fmt;

use super::canonical::is_raw;
use super::{
    Names, decoded, has_one_spelling, is_credential, is_method, looks_like_credential, may_stand, must_be_encoded,
    name_of, pair_is_plain, segment_is_canonical, stands_for_itself,
};
use crate::cut;

macro_rules! rules {
    ($($variant:ident = $word:literal, $text:literal, $remedy:literal;)*) => {
        /// A rule that a target can break.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Rule {
            $(#[doc = $text] $variant,)*
        }

        impl Rule {
            /// All rules, in the order of the table.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The word used in logs.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }

            const fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            const fn remedy(self) -> &'static str {
                match self { $(Self::$variant => $remedy,)* }
            }

            /// The message for the client, without the position ([`Broken::message`]).
            #[must_use]
            pub const fn message(self) -> &'static str {
                match self { $(Self::$variant => concat!("The request target is invalid: ", $text, ". ", $remedy),)* }
            }
        }
    };
}

rules! {
    // Rule 1 of the module above.
    Beginning = "path_without_slash", "the path does not begin with a slash", "Write the target as /path?query.";
    PathCharacter = "path_character", "the path has an invalid character",
        "Percent-encode it, as UTF-8 if it is not ASCII.";
    // Rules 2 and 4.
    Percent = "percent_sign", "a percent sign is not followed by two hexadecimal digits",
        "Write a literal percent sign as %25.";
    // Rule 2.
    Encoded = "path_encoding", "the path has a percent-encoded character that must not be encoded, or that separates segments",
        "Write letters, digits and hyphens unencoded; an encoded slash, dot or backslash is not allowed.";
    NotText = "path_not_utf8", "the path has percent-encoded bytes that are not UTF-8, or control characters",
        "Encode the text as UTF-8 first.";
    // Rule 3.
    EmptySegment = "empty_segment", "the path has an empty segment (two consecutive slashes)", "Remove one slash.";
    TrailingSlash = "trailing_slash", "the path ends with a slash", "Leave it out.";
    DotSegment = "dot_segment", "the path has a segment of one or two dots", "Write the resolved path.";
    // Rule 4.
    QueryCharacter = "query_character", "the query has a character that must be percent-encoded",
        "Encode the values, for example with curl -G --data-urlencode.";
    // Rule 5.
    NameEncoded = "parameter_name_encoded",
        "a parameter name has a percent-encoded letter, digit, underscore, percent sign or control character",
        "Write the name unencoded.";
    CredentialLike = "parameter_like_credential",
        "a parameter name is equivalent or similar to oauth_token or access_token",
        "Remove it: the gate adds the token.";
    Method = "parameter_method", "the query has the parameter _method", "Send the request with that method instead.";
    Twice = "parameter_twice",
        "one of ids, id, ulogin, direct_client_logins, metrics, dimensions and fields is repeated",
        "Join its values with commas: ids=1,2 instead of ids=1&ids=2.";
    // Rules of `canonical`, enforced for callers with strict: true.
    SpaceInIds = "space_in_ids", "ids has a space beside a number", "Write ids=1,2.";
    EmptyCallback = "empty_callback", "callback has no value", "Leave it out.";
    Semicolon = "semicolon", "a semicolon is followed by a parameter name that must begin its own pair",
        "Separate parameters with an ampersand, and write a semicolon in a value as %3B.";
    Scheme = "target_scheme", "the target is a URL with another scheme than http and https", "Write the target as /path?query.";
    UserInformation = "target_user_information", "the target is a URL with a user or a password",
        "Remove them: callers need no credentials.";
    Form = "target_form", "the target is neither a path nor an http URL without a user", "Write the target as /path?query.";
    Other = "target_ambiguous", "the target is ambiguous", "Write the target as the API documents it.";
}

impl Rule {
    /// This rule, broken at the byte `at`, counted from 0.
    #[must_use]
    pub const fn at(self, at: usize) -> Broken {
        Broken { rule: self, at }
    }
}

/// A broken rule and its position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Broken {
    /// The broken rule.
    pub rule: Rule,
    /// The byte, counted from 0 at the beginning of the path, or of the whole target if that is not only a path.
    pub at: usize,
}

impl Broken {
    /// The message for the client: the rule, the position in its target, and the fix.
    #[must_use]
    pub fn message(self) -> String {
        format!("The request target is invalid: {self}. {}", self.rule.remedy())
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, at byte {}", self.rule.text(), self.at + 1)
    }
}

impl std::error::Error for Broken {}

/// Returns the rule that a rejected target breaks.
#[cold]
pub fn broken(path: &[u8], query: Option<&[u8]>) -> Broken {
    let of_query = || query.and_then(in_query).map(|Broken { rule, at }| rule.at(path.len() + 1 + at));
    in_path(path).or_else(of_query).unwrap_or(Rule::Other.at(0))
}

/// Returns the first character that is not allowed in a path or a request line. Raw characters of a query are accepted if
/// they can be encoded (see [`super::canonical`]), that is, if they are UTF-8.
#[cold]
#[must_use]
pub fn unfit(target: &[u8]) -> Option<Broken> {
    let path = cut::before(target, b'?').len();
    let is_text = str::from_utf8(target).is_ok();
    let is_unfit = |at: usize, byte: u8| {
        if at < path { !may_stand(byte) || byte == b'`' } else { !(may_stand(byte) || is_text && is_raw(byte)) }
    };
    let at = target.iter().enumerate().position(|(at, byte)| is_unfit(at, *byte))?;
    Some(if at < path { Rule::PathCharacter.at(at) } else { Rule::QueryCharacter.at(at) })
}

fn in_path(path: &[u8]) -> Option<Broken> {
    let Some((b'/', rest)) = path.split_first() else { return Some(Rule::Beginning.at(0)) };
    let mut begins = 1;
    let mut segments = rest.split(|byte| *byte == b'/').peekable();
    while let Some(segment) = segments.next().filter(|_| !rest.is_empty()) {
        if !segment_is_canonical(segment) {
            return Some(match (segment, segments.peek()) {
                (b"", None) => Rule::TrailingSlash.at(begins - 1),
                (b"", Some(_)) => Rule::EmptySegment.at(begins),
                (b"." | b"..", _) => Rule::DotSegment.at(begins),
                (other, _) => in_segment(other, begins),
            });
        }
        begins += segment.len() + 1;
    }
    None
}

fn in_segment(segment: &[u8], begins: usize) -> Broken {
    let mut bytes = segment.iter();
    let mut at = begins;
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => match decoded(&mut bytes) {
                None => return Rule::Percent.at(at),
                Some(said) if !must_be_encoded(said) => return Rule::Encoded.at(at),
                Some(_) => {}
            },
            other if !stands_for_itself(*other) => return Rule::PathCharacter.at(at),
            _ => {}
        }
        at = begins + segment.len() - bytes.len();
    }
    Rule::NotText.at(begins)
}

fn in_query(query: &[u8]) -> Option<Broken> {
    let mut bytes = query.iter();
    while let Some(byte) = bytes.next() {
        let at = query.len() - bytes.len() - 1;
        match byte {
            b'%' if decoded(&mut bytes).is_none() => return Some(Rule::Percent.at(at)),
            b'#' | 0..=0x20 | 0x7f.. => return Some(Rule::QueryCharacter.at(at)),
            _ => {}
        }
    }
    let (mut begins, mut names) = (0, Names::default());
    for pair in query.split(|byte| *byte == b'&') {
        if !pair_is_plain(pair) {
            return Some(in_pair(pair).at(begins));
        }
        if !names.add_pair(pair) {
            return Some(Rule::Twice.at(begins));
        }
        begins += pair.len() + 1;
    }
    None
}

fn in_pair(pair: &[u8]) -> Rule {
    let name = name_of(cut::before(pair, b';'));
    if is_method(name) {
        Rule::Method
    } else if looks_like_credential(name) && !is_credential(name_of(pair)) {
        Rule::CredentialLike
    } else if !has_one_spelling(name) {
        Rule::NameEncoded
    } else {
        Rule::Semicolon
    }
}
