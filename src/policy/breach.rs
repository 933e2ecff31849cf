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
        "with {0} the operation is one that the API cannot undo, or what stands there cannot be told from it, and the caller has destructive: deny"
    )]
    Setting(Setting),
    /// The operation grants somebody else access (rule 8).
    #[error("the operation gives somebody else access, and the caller has sharing: deny")]
    Sharing,
    /// The response would be a script (rule 2).
    #[error("the parameter callback makes a script of the answer; callback: allow of the caller would let it")]
    Callback,
    /// The request reads Measurement Protocol tokens (rule 3).
    #[error("the parameter field asks for measurement_tokens; measurement_tokens: allow of the caller would let it")]
    Secret,
    /// The response is a Measurement Protocol token (rule 3).
    #[error("its answer is a token of the Measurement Protocol; measurement_tokens: allow of the caller would let it")]
    SecretAnswer,
    /// This counter is not allowed, with the place where it is named (rule 4).
    #[error("counter {0} in {1} is not among counters of the caller")]
    Counter(u64, &'static str),
    /// A counter is unreadable, with the place where it is named (rule 4).
    #[error("what {0} names as a counter cannot be read; ids=1,2 and /counter/1 can be")]
    Unreadable(&'static str),
    /// No counter is named (rule 4).
    #[error("no counter is named, so that it could be any; name those of the caller, as in ids=1,2")]
    NoCounter,
    /// The operation affects the whole account (rule 4).
    #[error("it works on the whole account, and the caller is limited to counters")]
    Account,
    /// The list of all counters is not allowed (rule 5).
    #[error(
        "it lists all counters of the account; name those of the caller in counter_ids, or list: filter of the caller would show them, as JSON and without callback"
    )]
    List,
    /// A filtered list has a parameter that searches (rule 5).
    #[error(
        "a list that is filtered takes no parameters but those of paging: the number of what it finds would tell of counters of others"
    )]
    Search,
    /// A login in this parameter is not allowed (rule 6).
    #[error("a login in {0} is not among ulogin of the caller")]
    Login(&'static str),
    /// `ulogin` is missing (rule 6).
    #[error(
        "no ulogin is named, so that it is about the whole account of the token's owner, and the caller has ulogin_absent: deny"
    )]
    NoLogin,
    /// Access is granted to a login that is not allowed (rule 9).
    #[error(
        "it gives access to somebody who is not among grantees of the caller, or whom the gate cannot read; user_login names one"
    )]
    Grantee,
    /// The type or encoding of the body cannot be checked (rule 7).
    #[error(
        "the body is not said to be JSON in UTF-8, so that it cannot be held to the rules of the caller; send it with Content-Type: application/json, or a file of an upload as multipart/form-data"
    )]
    BodyKind,
    /// The body is ambiguous or unreadable (rule 7).
    #[error(
        "the body is not JSON with one meaning, or what stands for a counter, a login or an action in it is none; send one document without repeated keys"
    )]
    Body,
    /// The name of a part could be read as a parameter (rule 7).
    #[error(
        "a part of the body could be taken for a parameter that the rules of the caller are about; send parameters in the query, and name the part of the file file"
    )]
    Part,
    /// The name of a part is ambiguous (rule 7).
    #[error(
        "the name of a part of the body cannot be read in one way; it has letters, digits, _, - and . alone, and its line no more than 4096 bytes"
    )]
    PartName,
    /// The body is too long (rule 7).
    #[error(
        "the body is longer than the 1 MiB, unpacked, that are read to hold it to the rules of the caller; send data of an upload as multipart/form-data"
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
