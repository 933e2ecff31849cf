//! Findings: every possible result of the doctor, with its text and its advice.
//!
//! 1. The list is closed. A text contains values of the configuration, numbers, and words that
//!    [`crate::health::identity`] validated; nothing else from a response.
//! 2. Every finding that needs action has advice.

use std::fmt;

use metrica::scope::ScopeSet;

use crate::health::question::Obstacle;
use crate::policy::names::TokenAlias;

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
        f.write_str(if *self == Self::Other { "an unknown permission" } else { self.as_str() })
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

/// The page that shows the rights of an application, by its client id and the domain of the site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rights(pub Option<Box<str>>, pub &'static str);

impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://oauth.yandex.{}/client/{}/info", self.1, self.0.as_deref().unwrap_or("CLIENT_ID"))
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
    File = "file", Well, "file", "contains a well-formed token", "";
    /// The permissions or the owner of the file are wrong.
    FilePermissions { said: String, mend: String } = "file_permissions", Wrong, "file", "{said}", "{mend}";
    /// The file is missing, cannot be read, or contains no token.
    FileContent { said: String } = "file_content", Wrong, "file", "{said}",
        "write only the token to the file";
    /// The token is shorter than any known token of Yandex.
    Short = "token_short", Warning, "file", "the token is shorter than any known token of Yandex",
        "check that the file contains the whole token";
    /// Two names with different owners have the same token.
    TokenOfTwo { other: TokenAlias, owner: Box<str>, others: Box<str> } = "token_of_two", Wrong, "file",
        "the file contains the token of {other}, whose configured owner is {others}, not {owner}: a token has one owner",
        "issue a token while signed in as {owner} and write it to this file; or correct 'owner'";
    /// A standby holds the same token as the one that it stands by for.
    StandbySame { other: TokenAlias } = "standby_same", Wrong, "file",
        "the file contains the same token as {other}, and one is the standby of the other: both expire together",
        "issue a second token (of another application, or with a device_id of its own) and write it to the standby's file";
    /// Two names have the same token.
    TokenTwice { other: TokenAlias } = "token_twice", Warning, "file", "the file contains the same token as {other}",
        "configure it once, or issue a separate token with fewer rights (of another application)";
    /// The token expires in more than 30 days.
    Expires { days: Days } = "expires", Well, "expiry", "in {days}", "";
    /// The token expires within 30 days.
    ExpiresSoon { days: Days } = "expires_soon", Warning, "expiry", "in {days}",
        "issue a new token before then, and set 'expires' to its expiry date";
    /// The token has expired.
    Expired { days: Days } = "expired", Wrong, "expiry", "{days} ago, according to 'expires'",
        "issue a new token, and set 'expires' to its expiry date";

    /// A place cannot be reached, and the cause is permanent.
    Unreachable { said: String, mend: String } = "unreachable", Wrong, "connection", "{said}", "{mend}";
    /// A place cannot be reached, and the cause may be temporary.
    UnreachableNow { said: String, mend: String } = "unreachable_now", Unknown, "connection", "{said}", "{mend}";
    /// The proxy opens tunnels to Metrica.
    Proxy { proxy: String, target: String } = "proxy", Well, "proxy", "{proxy} opens tunnels to {target}", "";
    /// The proxy opens no tunnel, until somebody changes something.
    ProxyRefuses { said: String, mend: String } = "proxy_refuses", Wrong, "proxy", "{said}", "{mend}";
    /// The proxy opens no tunnel now.
    ProxyFails { said: String, mend: String } = "proxy_fails", Unknown, "proxy", "{said}", "{mend}";

    /// The configuration has no `identity`.
    IssuerNotAsked = "issuer_not_asked", Note, "owner", "not asked: the configuration has no 'identity'",
        "set identity.url to https://login.yandex.ru/info to compare owner and application; it then receives the token";
    /// Yandex ID did not identify the issuer.
    IssuerUnknown { why: Obstacle } = "issuer_unknown", Unknown, "owner", "unknown: {why}", "try again";
    /// Yandex ID rejects the token; Metrica accepts it or gave no answer.
    IssuerInvalid = "issuer_invalid", Wrong, "owner", "Yandex ID rejects the token as invalid",
        "retry in a few minutes; if this persists, issue a new token with `metrika-gate token login`, or write one to the file";
    /// The issuer is the configured account.
    Owner { login: Box<str> } = "owner", Well, "owner", "{login}, as configured", "";
    /// The issuer is known and no account is configured.
    OwnerSeen { login: Box<str> } = "owner_seen", Well, "owner", "{login} (set 'owner' to have it checked)", "";
    /// The issuer is another account than the configured one.
    OwnerOther { login: Box<str>, stated: Box<str> } = "owner_other", Wrong, "owner",
        "{login}, but {stated} is configured",
        "sign in at Yandex as {stated} and issue the token again; or correct 'owner'";
    /// The issuer is a person, and the configured account belongs to an organisation.
    OwnerPersonal { login: Box<str>, stated: Box<str> } = "owner_personal", Wrong, "owner",
        "{login}, who issued it as a person; {stated} is an account of an organisation",
        "add the right passport:business to the application, and issue the token on behalf of the organisation";
    /// The application is the configured one.
    Application { client_id: Box<str> } = "application", Well, "application", "{client_id}, as configured", "";
    /// The application is known and none is configured.
    ApplicationSeen { client_id: Box<str> } = "application_seen", Well, "application",
        "{client_id} (set 'client_id' to have it checked)", "";
    /// The application is another one than the configured one.
    ApplicationOther { client_id: Box<str>, stated: Box<str> } = "application_other", Wrong, "application",
        "{client_id}, but {stated} is configured",
        "issue the token with client_id={stated}; or correct 'client_id'";

    /// Metrica accepts the token.
    Alive = "alive", Well, "alive", "Metrica accepts the token", "";
    /// Metrica and Yandex ID reject the token.
    Dead = "dead", Wrong, "alive",
        "Metrica and Yandex ID reject the token (expired, revoked, password changed, or application edited)",
        "issue a new token with `metrika-gate token login`, or write one to the file";
    /// Metrica rejects the token; Yandex ID was not asked or gave no answer.
    Invalid = "invalid", Wrong, "alive",
        "Metrica rejects the token as invalid (expired, revoked, password changed, or application edited)",
        "issue a new token with `metrika-gate token login`, or write one to the file";
    /// Metrica rejects the token, and Yandex ID accepts it.
    Disputed = "disputed", Wrong, "alive", "Metrica rejects the token as invalid, but Yandex ID accepts it",
        "retry in a few minutes; if this persists, issue a new token with `metrika-gate token login`, or write one to the file";
    /// Metrica gave no answer.
    AliveUnknown { why: Obstacle, mend: &'static str } = "alive_unknown", Unknown, "alive", "unknown: {why}", "{mend}";

    /// The token has `metrika:read`, as declared.
    Read = "read", Well, "read", "the token has metrika:read, as declared", "";
    /// The token does not have `metrika:read`, which is not declared.
    NoRead = "no_read", Well, "read", "the token does not have metrika:read, which is not declared", "";
    /// The token does not have `metrika:read`, which is declared.
    ReadMissing { rights: Rights } = "read_missing", Wrong, "read",
        "the token lacks metrika:read, which is declared: Metrica refuses the list of counters, which requires only that",
        "issue a token with an application that has it ({rights} shows the rights of this one); a token's rights are fixed when it is issued, and editing an application's rights invalidates all its tokens";
    /// Like `ReadMissing`, for a token that a person issued for an organisation.
    ReadPersonal = "read_personal", Wrong, "read", "Metrica refuses every request, as for a token that was issued by a person instead of the organisation",
        "add the right passport:business to the application, and issue the token on behalf of the organisation";
    /// The token has `metrika:read`, which is not declared.
    ReadUndeclared = "read_undeclared", Warning, "read",
        "the token has metrika:read, which is not declared: it has more rights than configured",
        "declare metrika:read, or issue the token with an application that has fewer rights";
    /// No response shows whether the token has `metrika:read`.
    ReadUnknown = "read_unknown", Unknown, "read", "unknown whether the token has metrika:read", "try again";
    /// Declared scopes that only a write would prove.
    WriteUnproven { scopes: ScopeSet, rights: Rights } = "write_unproven", Note, "write",
        "{scopes}: declared, but only a write could verify that",
        "compare with the application's rights: {rights}";

    /// The owner may change a counter.
    Counter { level: Level, seen: AskedThrough } = "counter", Well, "counter", "{level}{seen}", "";
    /// The owner may only read a counter, and its callers do not write.
    CounterLooks { level: Level, seen: AskedThrough } = "counter_looks", Well, "counter",
        "{level}: readable, except for its list of grants{seen}", "";
    /// Callers may write to a counter, and the owner may only read it.
    CounterViewOnly { level: Level, seen: AskedThrough } = "counter_view_only", Wrong, "counter",
        "{level}, but callers may write: Metrica refuses writes and its list of grants{seen}",
        "grant the token's owner edit access; another scope does not help";
    /// Like `CounterViewOnly`, for a counter that the configuration does not name.
    CounterSeenViewOnly { level: Level, seen: AskedThrough } = "counter_seen_view_only", Warning, "counter",
        "{level}, but callers without 'counters' may write: Metrica refuses writes to it{seen}",
        "grant the token's owner edit access if callers write to it; another scope does not help";
    /// The owner has no grant for the counter.
    CounterNotGranted { seen: AskedThrough } = "counter_not_granted", Wrong, "counter", "the token's owner has no grant{seen}",
        "ask the counter's owner to grant access, or use a token of an account that has it; another scope does not help";
    /// The counter is refused, and no response shows whether the scope or the grant is missing.
    CounterOpen = "counter_open", Wrong, "counter", "refused; unknown whether the scope or the grant is missing",
        "check that the application has metrika:read, and that the owner has access to the counter";
    /// The counter belongs to an organisation.
    CounterOfOrganisation = "counter_in_connect", Wrong, "counter", "refused: it belongs to an organisation",
        "ask an administrator of the organisation to grant the token's owner access in its web interface; the API cannot";
    /// The counter does not exist.
    CounterAbsent = "counter_absent", Wrong, "counter", "the counter does not exist",
        "correct or remove its number under 'counters' of the callers";
    /// The account has no access, and another token of the same callers serves the counter.
    CounterElsewhere { other: TokenAlias } = "counter_elsewhere", Note, "counter",
        "not accessible to this account; token {other} of the same callers serves it", "";
    /// The token cannot read, and no other token of its owner can.
    CounterUnseen = "counter_unseen", Note, "counter", "not checked: this token does not have metrika:read",
        "configure a token of the same account that has it, and 'owner' for both; or check the counter's settings";
    /// The question about the counter was not answered.
    CounterUnknown { why: Obstacle } = "counter_unknown", Unknown, "counter", "unknown: {why}", "try again";
    /// There are more counters than the limit.
    CountersCut { asked: usize, of: usize } = "counters_cut", Note, "counters", "checked {asked} of {of}",
        "choose one with --counter, which is checked first";
    /// No counter is named; the first counters that the owner sees were examined.
    CountersSeen { asked: usize, of: usize } = "counters_seen", Note, "counters",
        "no counter is configured: checked {asked} of the {of} that the owner can see",
        "choose counters with --counter, or configure 'counters' of the callers";
    /// No counter is named, and the owner sees none.
    CountersNone = "counters_none", Warning, "counters", "no counter is configured, and the owner can see none",
        "ask a counter's owner to grant this account access, or sign in as an account that has it and issue the token";
    /// No counter is named, and the token cannot list any.
    CountersNotAsked = "counters_not_asked", Note, "counters", "not checked: no counter is configured, and the token cannot list any",
        "choose one with --counter, and configure a token of the same account with metrika:read, and 'owner' for both";
    /// An obstacle ended the questions before the remaining counters.
    CountersSkipped { skipped: usize } = "counters_skipped", Note, "counters",
        "skipped {skipped} more: the same obstacle would prevent these checks",
        "run the doctor again when the obstacle is resolved";

    /// The public keys of service account tokens are there.
    KeySet { keys: usize, place: String } = "key_set", Well, "keys", "{keys} usable, from {place}", "";
    /// The file with them is old.
    KeySetOld { place: String, days: Days } = "key_set_old", Warning, "keys", "{place} was written {days} ago",
        "write it again (kubectl get --raw /openid/v1/jwks), or use jwks_url: after a rotation by the cluster, new tokens are refused";
    /// The server did not publish them.
    KeySetFailed { said: String } = "key_set_failed", Wrong, "keys", "not received: {said}",
        "check service_accounts.jwks_url, ca_file and bearer_file, and that the gate may connect there; until it receives keys it uses the last ones, and none after a start";

    /// A report succeeded.
    Report = "report", Well, "report", "works", "";
    /// A report on a visible counter is refused.
    ReportRefused = "report_refused", Wrong, "report", "refused, although the counter is visible",
        "check the counter's access filters, and retry in a few minutes";
    /// The request for a report was not answered.
    ReportUnknown { why: Obstacle } = "report_unknown", Unknown, "report", "unknown: {why}", "try again";
    /// The owner represents an account that a caller may name.
    Represents { login: Box<str> } = "represents", Well, "ulogin", "the owner represents {login}", "";
    /// The owner does not represent an account that a caller may name.
    NotRepresented { login: Box<str> } = "not_represented", Warning, "ulogin",
        "the owner does not represent {login}: Metrica refuses requests with it",
        "have {login} add the owner as its representative, unless it is a client of Direct";
    /// The request for the represented accounts was not answered.
    AccountsUnknown { why: Obstacle } = "accounts_unknown", Unknown, "ulogin", "unknown: {why}", "try again";
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
    fn rule_2_a_finding_above_a_note_has_advice() {
        let why = Obstacle::Timeout;
        for finding in [
            Finding::Short,
            Finding::Expired { days: Days(1) },
            Finding::Dead,
            Finding::ReadMissing { rights: Rights(None, "ru") },
            Finding::CounterUnknown { why },
            Finding::KeySetFailed { said: String::new() },
        ] {
            assert!(finding.severity() > Severity::Note && !finding.advice().is_empty(), "{finding:?}");
        }
        assert_eq!(Finding::Expires { days: Days(1) }.result(), "in 1 day");
        assert_eq!(Finding::Alive.advice(), "");
    }
}
