//! Breaches: which rule of [`super`] a request breaks, and how. The log and the caller are told the same.

use crate::operation::Setting;
use crate::rejection::{Reason, sentence};

/// Which rule a request breaks, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Breach {
    /// Rule 1.
    #[error("the API cannot undo this operation, and the caller has destructive: deny")]
    Destructive,
    /// Rule 1.
    #[error(
        "with {0} the operation is one that the API cannot undo, or what stands there cannot be told from it, and the caller has destructive: deny"
    )]
    Setting(Setting),
    /// Rule 8.
    #[error("the operation gives somebody else access, and the caller has sharing: deny")]
    Sharing,
    /// Rule 2.
    #[error("the parameter callback makes a script of the answer; callback: allow of the caller would let it")]
    Callback,
    /// Rule 3.
    #[error("the parameter field asks for measurement_tokens; measurement_tokens: allow of the caller would let it")]
    Secret,
    /// Rule 3.
    #[error("its answer is a token of the Measurement Protocol; measurement_tokens: allow of the caller would let it")]
    SecretAnswer,
    /// Rule 4: this counter, and where it stands.
    #[error("counter {0} in {1} is not among counters of the caller")]
    Counter(u64, &'static str),
    /// Rule 4, and where it stands.
    #[error("what {0} names as a counter cannot be read; ids=1,2 and /counter/1 can be")]
    Unreadable(&'static str),
    /// Rule 4.
    #[error("no counter is named, so that it could be any; name those of the caller, as in ids=1,2")]
    NoCounter,
    /// Rule 4.
    #[error("it works on the whole account, and the caller is limited to counters")]
    Account,
    /// Rule 5.
    #[error(
        "it lists all counters of the account; name those of the caller in counter_ids, or list: filter of the caller would show them, as JSON and without callback"
    )]
    List,
    /// Rule 5.
    #[error(
        "a list that is filtered takes no parameters but those of paging: the number of what it finds would tell of counters of others"
    )]
    Search,
    /// Rule 6.
    #[error("a login in {0} is not among ulogin of the caller")]
    Login(&'static str),
    /// Rule 6.
    #[error(
        "no ulogin is named, so that it is about the whole account of the token's owner, and the caller has ulogin_absent: deny"
    )]
    NoLogin,
    /// Rule 9.
    #[error(
        "it gives access to somebody who is not among grantees of the caller, or whom the gate cannot read; user_login names one"
    )]
    Grantee,
    /// Rule 7.
    #[error(
        "the body is not said to be JSON in UTF-8, so that it cannot be held to the rules of the caller; send it with Content-Type: application/json, or a file of an upload as multipart/form-data"
    )]
    BodyKind,
    /// Rule 7.
    #[error(
        "the body is not JSON with one meaning, or what stands for a counter, a login or an action in it is none; send one document without repeated keys"
    )]
    Body,
    /// Rule 7: a part of it.
    #[error(
        "a part of the body could be taken for a parameter that the rules of the caller are about; send parameters in the query, and name the part of the file file"
    )]
    Part,
    /// Rule 7: a part of it.
    #[error(
        "the name of a part of the body cannot be read in one way; it has letters, digits, _, - and . alone, and its line no more than 4096 bytes"
    )]
    PartName,
    /// Rule 7.
    #[error(
        "the body is longer than the 1 MiB, unpacked, that are read to hold it to the rules of the caller; send data of an upload as multipart/form-data"
    )]
    BodyLength,
}

impl Breach {
    /// The message for the caller: it is its own request, and its own rule.
    #[must_use]
    pub fn message(self) -> String {
        sentence(&self.to_string())
    }

    /// What the caller is told.
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
