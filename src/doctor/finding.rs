//! Findings: every possible result of the doctor, with its text and its advice.
//!
//! 1. The list is closed. A text contains values of the configuration, numbers, and words that
//!    [`crate::health::identity`] validated; nothing else from a response.
//! 2. Every finding that needs action has advice.

use std::fmt;

use metrica::scope::ScopeSet;

use crate::health::question::Obstacle;
use crate::names::TokenAlias;

/// The permission of an account for a counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// The account owns the counter.
    Own,
    /// The account may read and change the counter.
    Edit,
    /// The account may read the counter as an analyst.
    Analyst,
    /// The account may read the counter as an analyst, within an access filter.
    AnalystWithFilter,
    /// The account may read the counter.
    View,
    /// The account sees only the public data of the counter.
    Public,
    /// The API returned an unknown word.
    Other,
}

impl Level {
    /// Returns the level for a word of the API.
    #[must_use]
    pub fn of(word: &str) -> Self {
        let words = [Self::Own, Self::Edit, Self::Analyst, Self::AnalystWithFilter, Self::View, Self::Public];
        words.into_iter().find(|level| level.as_str() == word).unwrap_or(Self::Other)
    }

    /// Returns the word of the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::Edit => "edit",
            Self::Analyst => "analyst",
            Self::AnalystWithFilter => "analyst_access_filter",
            Self::View => "view",
            Self::Public => "public_stat",
            Self::Other => "other",
        }
    }

    /// Whether the level allows changes to the counter; true for an unknown level.
    #[must_use]
    pub const fn writes(self) -> bool {
        matches!(self, Self::Own | Self::Edit | Self::Other)
    }
}

/// The severity of a finding, in increasing order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// As expected.
    Well,
    /// For information.
    Note,
    /// A problem that does not make requests fail yet.
    Warning,
    /// The question could not be answered.
    Unknown,
    /// Requests fail or will fail.
    Wrong,
}

impl Severity {
    /// Returns the name in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Well => "well",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Unknown => "unknown",
            Self::Wrong => "wrong",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::Other { "a permission that is not known here" } else { self.as_str() })
    }
}

/// A number of days, printed with its unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Days(pub u64);

impl fmt::Display for Days {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} day{}", self.0, if self.0 == 1 { "" } else { "s" })
    }
}

/// Another token of the same owner that was used to ask for a counter, if the token itself cannot read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AskedThrough(pub Option<TokenAlias>);

impl fmt::Display for AskedThrough {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |alias| write!(f, " (seen with token {alias} of the same owner)"))
    }
}

/// The page that shows the rights of an application, by its client id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rights(pub Option<Box<str>>);

impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://oauth.yandex.com/client/{}/info", self.0.as_deref().unwrap_or("CLIENT_ID"))
    }
}

macro_rules! findings {
    ($($(#[doc = $doc:literal])+ $variant:ident $({ $($field:ident: $type:ty),* })?
        = $name:literal, $severity:ident, $check:literal, $result:literal, $advice:literal;)*) => {
        /// A finding about one token.
        #[derive(Debug, Clone, PartialEq, Eq)]
        #[expect(missing_docs, reason = "the fields are what their names say")]
        pub enum Finding {
            $($(#[doc = $doc])+ $variant $({ $($field: $type),* })?,)*
        }

        impl Finding {
            /// The JSON name and the standing of every finding.
            pub const ALL: &[(&'static str, Severity)] = &[$(($name, Severity::$severity),)*];

            /// Returns the name in JSON.
            #[must_use]
            pub const fn name(&self) -> &'static str {
                match self { $(Self::$variant { .. } => $name,)* }
            }

            /// Returns the severity.
            #[must_use]
            pub const fn severity(&self) -> Severity {
                match self { $(Self::$variant { .. } => Severity::$severity,)* }
            }

            /// Returns the name of the check.
            #[must_use]
            pub const fn check(&self) -> &'static str {
                match self { $(Self::$variant { .. } => $check,)* }
            }

            /// Returns the result as text.
            #[must_use]
            #[allow(unused_variables, reason = "not every text has every field")]
            pub fn result(&self) -> String {
                match self { $(Self::$variant $({ $($field),* })? => format!($result),)* }
            }

            /// Returns the advice; empty if no action is needed.
            #[must_use]
            #[allow(unused_variables, reason = "not every text has every field")]
            pub fn advice(&self) -> String {
                match self { $(Self::$variant $({ $($field),* })? => format!($advice),)* }
            }
        }
    };
}

findings! {
    /// The file holds a token.
    File = "file", Well, "file", "holds a well-formed token", "";
    /// The permissions or the owner of the file are wrong.
    FilePermissions { said: String, mend: String } = "file_permissions", Wrong, "file", "{said}", "{mend}";
    /// The file is missing, cannot be read, or holds no token.
    FileContent { said: String } = "file_content", Wrong, "file", "{said}",
        "write the token, and nothing else, to the file";
    /// The token is shorter than any known token of Yandex.
    Short = "token_short", Warning, "file", "the token is shorter than any that Yandex is known to have issued",
        "see whether the file holds all of it";
    /// Two names with different owners have the same token.
    TokenOfTwo { other: TokenAlias, owner: Box<str>, others: Box<str> } = "token_of_two", Wrong, "file",
        "the file holds the token of {other}, which is configured to be of {others}, and this one of {owner}: one token has one owner",
        "issue a token while signed in as {owner} and write it to this file; or correct 'owner'";
    /// A standby holds the same token as the one that it stands by for.
    StandbySame { other: TokenAlias } = "standby_same", Wrong, "file",
        "the file holds the token of {other}, and one stands by for the other: both end together",
        "issue a second token (of another application, or with a device_id of its own) and write it to the standby's file";
    /// Two names have the same token.
    TokenTwice { other: TokenAlias } = "token_twice", Warning, "file", "the file holds the token of {other} too",
        "name it once, or issue a token of its own with fewer rights (of another application)";
    /// The token expires in more than 30 days.
    Expires { days: Days } = "expires", Well, "expiry", "in {days}", "";
    /// The token expires within 30 days.
    ExpiresSoon { days: Days } = "expires_soon", Warning, "expiry", "in {days}",
        "issue a new token in time, and set 'expires' to its day";
    /// The token has expired.
    Expired { days: Days } = "expired", Wrong, "expiry", "{days} ago, as 'expires' says",
        "issue a new token, and set 'expires' to its day";

    /// A place cannot be reached, and the cause is permanent.
    Unreachable { said: String, mend: String } = "unreachable", Wrong, "connection", "{said}", "{mend}";
    /// A place cannot be reached, and the cause may be temporary.
    UnreachableNow { said: String, mend: String } = "unreachable_now", Unknown, "connection", "{said}", "{mend}";

    /// The configuration has no `identity`.
    IssuerNotAsked = "issuer_not_asked", Note, "owner", "not asked: the configuration has no 'identity'",
        "with identity.url https://login.yandex.ru/info, which then receives the token, owner and application are compared";
    /// Yandex ID did not identify the issuer.
    IssuerUnknown { why: Obstacle } = "issuer_unknown", Unknown, "owner", "cannot say now: {why}", "try again";
    /// Yandex ID rejects the token; Metrica accepts it or gave no answer.
    IssuerInvalid = "issuer_invalid", Wrong, "owner", "Yandex ID takes the token for invalid",
        "ask again in some minutes; if it stays so, issue a new token and write it to the file";
    /// The issuer is the configured account.
    Owner { login: Box<str> } = "owner", Well, "owner", "{login}, as configured", "";
    /// The issuer is known and no account is configured.
    OwnerSeen { login: Box<str> } = "owner_seen", Well, "owner", "{login} (the key 'owner' would hold it to that)", "";
    /// The issuer is another account than the configured one.
    OwnerOther { login: Box<str>, stated: Box<str> } = "owner_other", Wrong, "owner",
        "{login}, and not {stated}, which is configured",
        "sign in at Yandex as {stated} and issue the token again; or correct 'owner'";
    /// The issuer is a person, and the configured account belongs to an organisation.
    OwnerPersonal { login: Box<str>, stated: Box<str> } = "owner_personal", Wrong, "owner",
        "{login}, who issued it personally; {stated} is an account of an organisation",
        "add the right passport:business to the application, and issue the token on behalf of the organisation";
    /// The application is the configured one.
    Application { client_id: Box<str> } = "application", Well, "application", "{client_id}, as configured", "";
    /// The application is known and none is configured.
    ApplicationSeen { client_id: Box<str> } = "application_seen", Well, "application",
        "{client_id} (the key 'client_id' would hold it to that)", "";
    /// The application is another one than the configured one.
    ApplicationOther { client_id: Box<str>, stated: Box<str> } = "application_other", Wrong, "application",
        "{client_id}, and not {stated}, which is configured",
        "issue the token with client_id={stated}; or correct 'client_id'";

    /// Metrica accepts the token.
    Alive = "alive", Well, "alive", "Metrica takes the token", "";
    /// Metrica and Yandex ID reject the token.
    Dead = "dead", Wrong, "alive",
        "dead: neither Metrica nor Yandex ID takes the token (expired, revoked, password changed, or application edited)",
        "issue a new token and write it to the file";
    /// Metrica rejects the token; Yandex ID was not asked or gave no answer.
    Invalid = "invalid", Wrong, "alive",
        "Metrica takes the token for invalid (expired, revoked, password changed, or application edited)",
        "issue a new token and write it to the file";
    /// Metrica rejects the token, and Yandex ID accepts it.
    Disputed = "disputed", Wrong, "alive", "Metrica takes the token for invalid, Yandex ID does not",
        "ask again in some minutes; if it stays so, issue a new token and write it to the file";
    /// Metrica gave no answer.
    AliveUnknown { why: Obstacle, mend: &'static str } = "alive_unknown", Unknown, "alive", "cannot say now: {why}", "{mend}";

    /// The token has `metrika:read`, as declared.
    Read = "read", Well, "read", "metrika:read is there, as declared", "";
    /// The token does not have `metrika:read`, as declared.
    NoRead = "no_read", Well, "read", "metrika:read is neither there nor declared", "";
    /// The token does not have `metrika:read`, which is declared.
    ReadMissing { rights: Rights } = "read_missing", Wrong, "read",
        "metrika:read is declared and not there: the list of counters, which needs nothing else, is refused",
        "issue a token with an application that has it ({rights} shows the rights of this one): rights are fixed when a \
         token is issued, and an application whose rights are edited loses all its tokens";
    /// Like `ReadMissing`, for a token that a person issued for an organisation.
    ReadPersonal = "read_personal", Wrong, "read", "everything is refused, as it is to a token that was issued personally",
        "add the right passport:business to the application, and issue the token on behalf of the organisation";
    /// The token has `metrika:read`, which is not declared.
    ReadUndeclared = "read_undeclared", Warning, "read",
        "metrika:read is there and not declared: the token can do more than the configuration says",
        "declare it, or issue the token with an application that has fewer rights";
    /// No response shows whether the token has `metrika:read`.
    ReadUnknown = "read_unknown", Unknown, "read", "whether metrika:read is there could not be told", "try again";
    /// Declared scopes that only a write would prove.
    WriteUnproven { scopes: ScopeSet, rights: Rights } = "write_unproven", Note, "write",
        "{scopes}: declared, and not to be proven without a write",
        "compare with the rights of the application: {rights}";

    /// The owner may change a counter.
    Counter { level: Level, seen: AskedThrough } = "counter", Well, "counter", "{level}{seen}", "";
    /// The owner may only read a counter, and its callers do not write.
    CounterLooks { level: Level, seen: AskedThrough } = "counter_looks", Well, "counter",
        "{level}: it can be read, but for its list of grants{seen}", "";
    /// Callers may write to a counter, and the owner may only read it.
    CounterViewOnly { level: Level, seen: AskedThrough } = "counter_view_only", Wrong, "counter",
        "{level}, and callers may write: writes are refused, and so is its list of grants{seen}",
        "grant the token's owner the right to edit; no scope helps";
    /// Like `CounterViewOnly`, for a counter that the configuration does not name.
    CounterSeenViewOnly { level: Level, seen: AskedThrough } = "counter_seen_view_only", Warning, "counter",
        "{level}, and callers that name no counters may write: writes to it are refused{seen}",
        "grant the token's owner the right to edit if callers write to it; no scope helps";
    /// The owner has no grant for the counter.
    CounterNotGranted { seen: AskedThrough } = "counter_not_granted", Wrong, "counter", "the token's owner has no grant{seen}",
        "let the counter's owner grant access, or use a token of an account that has it; no scope helps";
    /// The counter is refused, and no response shows whether the scope or the grant is missing.
    CounterOpen = "counter_open", Wrong, "counter", "refused; whether the scope or the grant is missing could not be told",
        "see that the application has metrika:read, and the owner access to the counter";
    /// The counter belongs to an organisation.
    CounterOfOrganisation = "counter_in_connect", Wrong, "counter", "refused: it belongs to an organisation",
        "let an administrator of the organisation grant the token's owner access in its web interface; the API cannot";
    /// The counter does not exist.
    CounterAbsent = "counter_absent", Wrong, "counter", "there is no such counter",
        "correct its number under 'counters' of the callers, or take it out there";
    /// The account has no access, and another token of the same callers serves the counter.
    CounterElsewhere { other: TokenAlias } = "counter_elsewhere", Note, "counter",
        "not accessible to this account; token {other} of the same callers serves it", "";
    /// The token cannot read, and no other token of its owner can.
    CounterUnseen = "counter_unseen", Note, "counter", "cannot be seen with this token, which does not read",
        "configure one of the same account that does, and 'owner' for both; or look in the counter's settings";
    /// The question about the counter was not answered.
    CounterUnknown { why: Obstacle } = "counter_unknown", Unknown, "counter", "cannot say now: {why}", "try again";
    /// There are more counters than the limit.
    CountersCut { asked: usize, of: usize } = "counters_cut", Note, "counters", "{asked} of {of} were looked at",
        "ask for one with --counter, which goes first";
    /// No counter is named; the first counters that the owner sees were examined.
    CountersSeen { asked: usize, of: usize } = "counters_seen", Note, "counters",
        "none is named: {asked} of the {of} that the owner sees were looked at, and none that it does not see",
        "name those that matter with --counter, or under 'counters' of the callers";
    /// No counter is named, and the owner sees none.
    CountersNone = "counters_none", Warning, "counters", "none is named, and the owner sees none",
        "let a counter's owner grant this account access, or issue the token while signed in as one that has it";
    /// No counter is named, and the token cannot list any.
    CountersNotAsked = "counters_not_asked", Note, "counters", "none was asked for: none is named, and the token does not show any",
        "name one with --counter, and configure a token of the same account that reads, with 'owner' for both";
    /// An obstacle ended the questions before the remaining counters.
    CountersSkipped { skipped: usize } = "counters_skipped", Note, "counters",
        "{skipped} more were not asked for: what stopped the questions before would stop these",
        "run the doctor again when that is over";

    /// A report succeeded.
    Report = "report", Well, "report", "works", "";
    /// A report on a visible counter is refused.
    ReportRefused = "report_refused", Wrong, "report", "refused, although the counter can be seen",
        "look at the counter's access filters, and ask again in some minutes";
    /// The request for a report was not answered.
    ReportUnknown { why: Obstacle } = "report_unknown", Unknown, "report", "cannot say now: {why}", "try again";
    /// The owner represents an account that a caller may name.
    Represents { login: Box<str> } = "represents", Well, "ulogin", "{login} is represented by the owner", "";
    /// The owner does not represent an account that a caller may name.
    NotRepresented { login: Box<str> } = "not_represented", Warning, "ulogin",
        "{login} is no account that the owner represents: requests with it are refused",
        "let it make the owner its representative; a client of Direct needs nothing";
    /// The request for the represented accounts was not answered.
    AccountsUnknown { why: Obstacle } = "accounts_unknown", Unknown, "ulogin", "cannot say now: {why}", "try again";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_of_the_api_is_a_level() {
        for word in ["own", "edit", "view", "analyst", "analyst_access_filter", "public_stat"] {
            assert_eq!(Level::of(word).as_str(), word);
        }
        assert_eq!(Level::of("root\u{1b}"), Level::Other);
        assert!(Level::Own.writes() && !Level::View.writes() && !Level::AnalystWithFilter.writes());
    }

    #[test]
    fn rule_2_what_is_not_well_says_what_to_do() {
        let why = Obstacle::Timeout;
        for finding in [
            Finding::Short,
            Finding::Expired { days: Days(1) },
            Finding::Dead,
            Finding::ReadMissing { rights: Rights(None) },
            Finding::CounterUnknown { why },
        ] {
            assert!(finding.severity() > Severity::Note && !finding.advice().is_empty(), "{finding:?}");
        }
        assert_eq!(Finding::Expires { days: Days(1) }.result(), "in 1 day");
        assert_eq!(Finding::Alive.advice(), "");
    }
}
