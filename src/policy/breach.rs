//! Breaches: the rules of [`super::rules`] that a request can break. The log and the caller receive the same message.

use metrica::operation::Setting;

use crate::policy::rejection::{Reason, sentence};

/// A broken rule, with details.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Breach {
    /// The operation is destructive (rule 1).
    #[error("the API cannot undo this operation, and the caller has destructive: deny")]
    Destructive,
    /// The setting makes the operation destructive (rule 1).
    #[error(
        "{0} makes this an operation that the API cannot undo, or cannot be distinguished from one, and the caller has destructive: deny"
    )]
    Setting(Setting),
    /// The operation grants somebody else access (rule 8).
    #[error("the operation gives somebody else access, and the caller has sharing: deny")]
    Sharing,
    /// The response would be a script (rule 2).
    #[error(
        "JSONP (`callback`) is not allowed for this caller; leave callback out, or set callback: allow for the caller"
    )]
    Callback,
    /// The request reads Measurement Protocol tokens (rule 3).
    #[error(
        "the parameter field requests measurement_tokens; remove it, or set measurement_tokens: allow for the caller"
    )]
    Secret,
    /// The response is a Measurement Protocol token (rule 3).
    #[error(
        "the response contains a Measurement Protocol token; set measurement_tokens: allow for the caller to permit it"
    )]
    SecretAnswer,
    /// This counter is not allowed, with the place where it is named (rule 4).
    #[error("counter {0} in {1} is not listed under counters of the caller")]
    Counter(u64, &'static str),
    /// A counter is unreadable, with the place where it is named (rule 4).
    #[error("the counter in {0} is unreadable; write counters as in ids=1,2 or /counter/1")]
    Unreadable(&'static str),
    /// No counter is named (rule 4).
    #[error("the request names no counter; name counters of the caller, as in ids=1,2")]
    NoCounter,
    /// The operation affects the whole account (rule 4).
    #[error("the operation affects the whole account, and the caller is limited to counters")]
    Account,
    /// The list of all counters is not allowed (rule 5).
    #[error(
        "the request lists all counters of the account; name counters of the caller in counter_ids, or set list: filter for the caller, which works for JSON without callback"
    )]
    List,
    /// A filtered list has a parameter that searches (rule 5).
    #[error(
        "a filtered list accepts paging parameters only, because the number of results would reveal counters of others"
    )]
    Search,
    /// A login in this parameter is not allowed (rule 6).
    #[error("a login in {0} is not listed under ulogin of the caller")]
    Login(&'static str),
    /// `ulogin` is missing (rule 6).
    #[error(
        "the request has no ulogin and concerns the whole account of the token's owner, and the caller has ulogin_absent: deny; add an allowed ulogin"
    )]
    NoLogin,
    /// Access is granted to a login that is not allowed (rule 9).
    #[error(
        "the request gives access to a user who is not listed under grantees of the caller, or whose login is unreadable; name one in user_login"
    )]
    Grantee,
    /// The type or encoding of the body cannot be checked (rule 7).
    #[error(
        "the body is not declared as JSON in UTF-8, so the gate cannot check the rules of the caller; send it with Content-Type: application/json, or upload a file as multipart/form-data"
    )]
    BodyKind,
    /// The body is ambiguous or unreadable (rule 7).
    #[error(
        "the body is not unambiguous JSON, or has an invalid counter, login or action; send one document without repeated keys"
    )]
    Body,
    /// The name of a part could be read as a parameter (rule 7).
    #[error(
        "a part of the body has the name of a parameter that the rules of the caller cover; send parameters in the query, and name the file's part file"
    )]
    Part,
    /// The name of a part is ambiguous (rule 7).
    #[error(
        "the name of a part of the body is ambiguous; use only letters, digits, _, - and ., in a line of at most 4096 bytes"
    )]
    PartName,
    /// The body is too long (rule 7).
    #[error(
        "the decompressed body exceeds 1 MiB, the most that the gate reads to check the rules of the caller; send upload data as multipart/form-data"
    )]
    BodyLength,
}

impl Breach {
    /// The message for the caller, which is about its own request and rule.
    #[must_use]
    pub fn message(self) -> String {
        sentence(self)
    }

    /// The reason returned to the caller.
    #[must_use]
    pub const fn reason(self) -> Reason {
        match self {
            Self::Destructive | Self::Setting(_) => Reason::DestructiveDenied,
            Self::Sharing => Reason::SharingDenied,
            Self::Callback => Reason::CallbackDenied,
            Self::Secret | Self::SecretAnswer => Reason::SecretDenied,
            Self::Counter(..) | Self::Unreadable(_) | Self::NoCounter | Self::Account => Reason::CounterDenied,
            Self::List | Self::Search => Reason::ListDenied,
            Self::Login(_) | Self::NoLogin | Self::Grantee => Reason::LoginDenied,
            Self::BodyKind | Self::Body | Self::Part | Self::PartName => Reason::BodyUnreadable,
            Self::BodyLength => Reason::BodyTooLarge,
        }
    }
}
