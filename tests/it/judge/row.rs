//! The format of a row of the judge's table.

use super::world::Death;

/// The cause of a request that is refused for its content, whatever token and account may: the one place that has
/// its name.
pub const REFUSED_BY_CONTENT: &str = "request_refused";

/// A row: the state, the request, and the expected reports.
///
/// Names in braces are replaced by accounts and counters of the row's own world ([`super::cast`]).
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// The state in words.
    pub cause: &'static str,
    /// The tokens of the caller.
    pub tokens: &'static [Tok],
    /// The caller's permissions and rules.
    pub caller: &'static str,
    /// Yandex ID may be asked whose a token is.
    pub identity: bool,
    /// On a gate of its own: tokens of several rows that end together would be an outage.
    pub alone: bool,
    /// The steps before the request.
    pub before: &'static [Step],
    /// The refused request: method and target.
    pub request: &'static str,
    /// The status of the refusal.
    pub status: u16,
    /// The reasons that are true; the first is the one that is wanted.
    pub reasons: &'static [&'static str],
    /// Beside `ambiguous`, reasons that may be given until the gate can know better.
    pub meanwhile: &'static [&'static str],
    /// The hint for the caller.
    pub hint: Hint,
    /// The operator's remedy in the documentation beside the reason.
    pub advice: &'static str,
    /// The metric that counts the refusal.
    pub metric: Metric,
    /// The alert that reads the metric.
    pub alert: Alert,
    /// The output of `metrika-gate doctor --counter N`.
    pub doctor: Doctor,
    /// The reason why the wire cannot tell, for a row that stays `ambiguous`.
    pub why: &'static str,
}

/// A token of a row.
#[derive(Debug, Clone, Copy)]
pub struct Tok {
    /// Its name in the configuration.
    pub alias: &'static str,
    /// Its owner.
    pub of: &'static str,
    /// The scopes that it was issued with.
    pub has: &'static str,
    /// The scopes that the configuration declares.
    pub declared: &'static str,
    /// More keys of its entry in the configuration.
    pub keys: &'static str,
    /// Something about it is not as usual.
    pub kind: Kind,
}

/// The kind of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A token as Yandex issues it.
    Usual,
    /// Shorter than any that Yandex issues.
    Mangled,
    /// Issued personally for an organisation, and everything is refused to it.
    Personal,
    /// Its file is missing.
    Missing,
}

/// Reads, as declared.
pub const READS: Tok = Tok { alias: "t", of: "shop", has: "read", declared: "read", keys: "", kind: Kind::Usual };
/// Reads and writes, as declared.
pub const BOTH: Tok = Tok { has: "read write", declared: "read write", ..READS };
/// Reads, and is declared to write too.
pub const NO_WRITE: Tok = Tok { declared: "read write", ..READS };
/// Writes, as declared; a second token beside `t`.
pub const WRITES: Tok = Tok { alias: "w", has: "write", declared: "write", ..READS };

/// Something that happens before.
#[derive(Debug, Clone, Copy)]
pub enum Step {
    /// A request that is answered with success.
    Works(&'static str),
    /// A request that is refused, for this reason as soon as the gate can know it.
    Refused(&'static str, &'static str),
    /// A grant: counter, login, and `edit`, `view` or `analyst`.
    Grant(&'static str, &'static str, &'static str),
    /// A grant that is taken away.
    Take(&'static str, &'static str),
    /// The statistics of a counter are no longer public.
    Hide(&'static str),
    /// The first no longer represents the second.
    Unrepresent(&'static str, &'static str),
    /// A token ends.
    Die(&'static str, Death),
    /// `GET /path` (`*` at the end matches anything) is answered by an intermediary.
    Break(&'static str, Broken),
    /// The file of a token holds another one, with these scopes.
    Replace(&'static str, &'static str),
    /// The results of probes are no longer fresh: the gate may ask again.
    Age,
    /// SIGHUP.
    HangUp,
    /// `POST /recheck`.
    Recheck,
}

/// A response in the place of Metrica's.
#[derive(Debug, Clone, Copy)]
pub enum Broken {
    /// A balancer's page.
    Page(u16),
    /// A page of success, as of a captive portal.
    Portal,
    /// An error of Metrica: status and type.
    Error(u16, &'static str),
}

/// Words that a hint must contain and words that would be untrue in it; in lower case.
#[derive(Debug, Clone, Copy)]
pub struct Hint {
    /// All of these.
    pub with: &'static [&'static str],
    /// Not one of these.
    pub without: &'static [&'static str],
}

/// The metrics that count a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    /// `metrika_gate_auth_failures_total` and `metrika_gate_refusals_total` with `origin="upstream"`.
    Metrica,
    /// The same with `origin="gate"`, and `metrika_gate_denied_total`.
    Gate,
    /// `metrika_gate_denied_total` alone: it is neither a 401 nor a 403.
    Denied,
    /// `metrika_gate_quota_rejections_total`.
    Quota,
}

/// The expected alert.
#[derive(Debug, Clone, Copy)]
pub enum Alert {
    /// An alert that reads the metric with the row's reason.
    Reads(&'static str),
    /// An alert that reads the state of the token: its name, and the state.
    State(&'static str, &'static str),
    /// An alert that reads whether the token is loaded.
    Loaded(&'static str),
    /// No alert, and why that is right.
    None(&'static str),
}

/// The expected output of the doctor.
#[derive(Debug, Clone, Copy)]
pub enum Doctor {
    /// A line with these words about this counter and this token.
    Says(&'static str, &'static str, &'static str),
    /// Nothing about the cause, and why.
    None(&'static str),
}

/// A row with the defaults.
pub const ROW: Row = Row {
    cause: "",
    tokens: &[READS],
    caller: "scopes: [metrika:read, metrika:write]",
    identity: false,
    alone: false,
    before: &[],
    request: "",
    status: 403,
    reasons: &[],
    meanwhile: &[],
    hint: Hint { with: &[], without: &[] },
    advice: "",
    metric: Metric::Metrica,
    alert: Alert::Reads("MetrikaGateAccessDenied"),
    doctor: Doctor::None(""),
    why: "",
};

/// The token ended.
pub const ENDED: Row = Row {
    reasons: &["token_invalid"],
    // A refused caller waits for a probe; if that has no response in time, the gate refuses the next request.
    hint: Hint { with: &["token", "operator"], without: &["metrika:", "grant", "no access", "lacks a scope"] },
    advice: "expired or revoked",
    alone: true,
    alert: Alert::State("MetrikaGateTokenSuspended", "suspended"),
    doctor: Doctor::Says("own", "t", "expired, revoked, password changed"),
    ..ROW
};

/// The token lacks a scope.
pub const SCOPE: Row = Row {
    reasons: &["scope_missing"],
    hint: Hint { with: &["metrika:"], without: &["no access", "represent", "edit"] },
    advice: "oauth.yandex.com",
    ..ROW
};

/// The same, of `metrika:read`.
pub const READ_SCOPE: Row = Row {
    hint: Hint { with: &["needs metrika:read;"], without: SCOPE.hint.without },
    doctor: Doctor::Says("own", "t", "the token lacks metrika:read, which is declared"),
    ..SCOPE
};

/// The same, of `metrika:write`.
pub const WRITE_SCOPE: Row = Row {
    tokens: &[NO_WRITE],
    hint: Hint { with: &["needs metrika:write;"], without: SCOPE.hint.without },
    doctor: Doctor::Says("own", "t", "declared, but only a write could verify that"),
    ..SCOPE
};

/// The account has no grant on a counter.
pub const GRANT: Row = Row {
    reasons: &["counter_not_granted"],
    hint: Hint { with: &["no access", "counter"], without: &["metrika:", "lacks a scope", "represent"] },
    advice: "grant",
    doctor: Doctor::Says("none", "t", "the token's owner has no grant"),
    ..ROW
};

/// The account may look at a counter and no more.
pub const VIEW: Row = Row {
    tokens: &[BOTH],
    reasons: &["counter_view_only"],
    hint: Hint { with: &["counter", "edit"], without: &["metrika:", "lacks a scope", "no access"] },
    advice: "grant edit access",
    doctor: Doctor::Says("view", "t", "but callers may write: Metrica refuses writes"),
    ..ROW
};

/// Neither token nor account is at fault.
pub const CONTENT: Row = Row {
    reasons: &[REFUSED_BY_CONTENT],
    hint: Hint { with: &["body"], without: &["metrika:", "lacks a scope", "no access", "represent"] },
    advice: "body",
    doctor: Doctor::None("the doctor sees the token and the counter, which are right, and not the request"),
    ..ROW
};

/// The token is of another account.
pub const OTHER_OWNER: Row = Row {
    reasons: &["owner_mismatch"],
    hint: Hint { with: &["token", "another account"], without: &["metrika:", "lacks a scope", "grant"] },
    advice: "signed in as",
    alert: Alert::Reads("MetrikaGateTokenRefused"),
    ..ROW
};

/// The token is not an organisation's.
pub const ORGANISATION: Row = Row {
    reasons: &["organization_token_required"],
    hint: Hint { with: &["organisation", "on its behalf"], without: &["metrika:", "grant"] },
    advice: "passport:business",
    alert: Alert::Reads("MetrikaGateTokenRefused"),
    ..ROW
};

/// The account does not represent the login in `ulogin`.
pub const REPRESENTATIVE: Row = Row {
    reasons: &["not_representative"],
    hint: Hint { with: &["ulogin", "represent"], without: &["metrika:", "lacks a scope", "no access"] },
    advice: "representative",
    doctor: Doctor::None("it looks at the logins under ulogin of the callers, and this one names none"),
    ..ROW
};

/// The wire cannot tell.
pub const UNKNOWABLE: Row = Row {
    reasons: &["ambiguous"],
    hint: Hint { with: &["access", "scope"], without: &[] },
    advice: "doctor --counter",
    ..ROW
};

/// A quota.
pub const QUOTA: Row = Row {
    status: 429,
    hint: Hint { with: &[], without: &["metrika:", "lacks a scope", "no access"] },
    metric: Metric::Quota,
    alert: Alert::Reads("MetrikaGateQuotaExhausted"),
    doctor: Doctor::Says("own", "t", "a quota is exceeded"),
    ..ROW
};

/// The gate refuses by itself.
pub const OWN: Row = Row {
    hint: Hint { with: &["caller"], without: &["metrica refused"] },
    metric: Metric::Gate,
    alert: Alert::Reads("MetrikaGateCallerRefused"),
    doctor: Doctor::None("nothing was sent, so Metrica has nothing to say; explain says which rule it is"),
    ..ROW
};
