//! Tests the assumptions of [`super::assumed`] with one of the operator's tokens.
//!
//! 1. Every request is a GET without a body, sent to the configured upstream over the same verified TLS, and never
//!    retried. Requests are written by hand, because some of them the gate itself never sends (a raw `<`).
//! 2. The token is sent to Metrica, and to the place of `identity` if one is configured. The invalid token is fictitious.
//! 3. The result shows only the status of a response, its error type, and whether fields are present.
//! 4. A response that proves nothing (a quota, no connection) counts as not asked, never as held.

use http::HeaderValue;
use metrica::error_type::ErrorType;
use metrica::response::{accounts_in, permission_in};

use super::assumed::Assumed;
use super::finding::Level;
use super::raw::{RawResponse, fetch};
use crate::config::{self, Config};
use crate::health::identity;
use crate::health::question::OPEN_COUNTER;
use crate::token::Token;
use crate::upstream::Upstream;
use crate::upstream::dial::dial;
use crate::upstream::lookup::LookUps;

/// The result of testing an assumption.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AssumptionResult {
    /// The assumption holds.
    Held,
    /// The assumption does not hold.
    Not,
    /// The assumption was not tested, or the response proved nothing.
    NotAsked,
}

impl AssumptionResult {
    /// Returns the printed form.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Not => "not",
            Self::NotAsked => "not asked",
        }
    }
}

/// An assumption and its test result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The assumption.
    pub assumed: Assumed,
    /// The result.
    pub verdict: AssumptionResult,
    /// The observation (rule 3), or the reason why it was not asked.
    pub seen: String,
}

/// A well-formed token that nobody owns.
const BAD_TOKEN: &str = "OAuth y0_AgAAAAAnobodyAAAAAAnobodyAAAAAAnobodyAAAAAAnobody";

/// The first counter of Metrica, to which no owner of a tested token has a grant.
const FOREIGN_COUNTER: &str = "/management/v1/counter/1";

const LIST: &str = "/management/v1/counters?per_page=2";

/// A run of the tests and its outcomes.
struct AssumptionRun<'a> {
    upstream: &'a Upstream,
    outcomes: Vec<Outcome>,
    quota: Option<RawResponse>,
}

/// Tests all assumptions with `token`, one request after another. Must run on a single-threaded runtime.
///
/// # Errors
/// When no certificate can be trusted, or TLS cannot be set up.
pub async fn check(config: &Config, token: &Token) -> anyhow::Result<Vec<Outcome>> {
    let with_http2 = config::Upstream { http2: true, ..config.upstream.clone() };
    let without = config::Upstream { http2: false, ..config.upstream.clone() };
    let upstream = Upstream::new(without)?;
    let mut asker = AssumptionRun { upstream: &upstream, outcomes: Vec::new(), quota: None };
    match dial(&Upstream::new(with_http2)?, &LookUps::default()).await {
        Ok(dialled) => asker.record(Assumed::Http2, dialled.http2, if dialled.http2 { "h2" } else { "http/1.1 only" }),
        Err(error) => asker.not_asked(Assumed::Http2, &error.to_string()),
    }
    asker.errors().await;
    asker.of_token(token).await;
    match &config.identity {
        Some(place) => {
            let identity = config::Upstream { http2: false, ..place.place.clone() };
            let elsewhere = Upstream::new(identity)?;
            asker.issuer(&elsewhere, &place.path, token).await;
        }
        None => asker.not_asked(Assumed::Issuer, "the configuration has no 'identity'"),
    }
    let quota = asker.quota.take();
    match quota {
        Some(answer) => asker.record(Assumed::Quota, is_known_quota(&answer), &answer.shown()),
        None => asker.not_asked(Assumed::Quota, "no quota was exceeded"),
    }
    let mut outcomes = asker.outcomes;
    for assumed in Assumed::ALL {
        if let Some(why) = assumed.of().unasked {
            outcomes.push(Outcome { assumed: *assumed, verdict: AssumptionResult::NotAsked, seen: why.to_owned() });
        }
    }
    outcomes.sort_by_key(|outcome| Assumed::ALL.iter().position(|assumed| *assumed == outcome.assumed));
    Ok(outcomes)
}

fn is_known_quota(answer: &RawResponse) -> bool {
    matches!(answer.status, 420 | 429) && answer.error().as_str().starts_with("quota_")
}

impl AssumptionRun<'_> {
    fn record(&mut self, assumed: Assumed, held: bool, seen: &str) {
        let verdict = if held { AssumptionResult::Held } else { AssumptionResult::Not };
        self.outcomes.push(Outcome { assumed, verdict, seen: seen.to_owned() });
    }

    fn not_asked(&mut self, assumed: Assumed, why: &str) {
        self.outcomes.push(Outcome { assumed, verdict: AssumptionResult::NotAsked, seen: why.to_owned() });
    }

    /// Sends a request and records the result of `judge` for its response (rule 4).
    async fn about(
        &mut self,
        assumed: Assumed,
        target: &str,
        authorization: Option<&HeaderValue>,
        judge: impl FnOnce(&RawResponse) -> bool,
    ) -> Option<RawResponse> {
        let answer = self.ask(target, authorization).await;
        match &answer {
            Ok(answer) => {
                let held = judge(answer);
                self.record(assumed, held, &answer.shown());
            }
            Err(why) => self.not_asked(assumed, why),
        }
        answer.ok()
    }

    /// Returns the response; one that reports an exceeded quota is kept aside and becomes an error.
    async fn ask(&mut self, target: &str, authorization: Option<&HeaderValue>) -> Result<RawResponse, String> {
        let answer = fetch(self.upstream, target, authorization, "identity").await?;
        if answer.is_quota() {
            let shown = answer.shown();
            self.quota = Some(answer);
            return Err(format!("a quota was exceeded: {shown}"));
        }
        Ok(answer)
    }

    /// Tests the form of errors.
    async fn errors(&mut self) {
        let bad = HeaderValue::from_static(BAD_TOKEN);
        let is_known =
            |answer: &RawResponse| matches!(answer.error(), ErrorType::InvalidToken | ErrorType::Unauthorized);
        self.about(Assumed::WithoutToken, LIST, None, |answer| {
            answer.status == 401 && answer.error() == ErrorType::Unauthorized
        })
        .await;
        self.about(Assumed::BadToken, LIST, Some(&bad), |answer| {
            matches!(answer.status, 401 | 403) && is_known(answer)
        })
        .await;
        let public = report(OPEN_COUNTER);
        self.about(Assumed::PublicWithBadToken, &public, Some(&bad), is_known).await;
    }

    /// Tests the assumptions that need a valid token.
    async fn of_token(&mut self, token: &Token) {
        let own = token.authorization();
        let list = self.about(Assumed::Accepted, LIST, Some(&own), |answer| answer.status == 200).await;
        let needs_list = [
            Assumed::Coding,
            Assumed::ListNeedsNoGrant,
            Assumed::PermissionInList,
            Assumed::PermissionOfOne,
            Assumed::ForeignCounter,
            Assumed::FinalSlash,
            Assumed::EncodedLess,
            Assumed::IdsTwice,
            Assumed::UnknownPath,
            Assumed::Accounts,
        ];
        let Some(list) = list.filter(|list| list.status == 200) else {
            for assumed in needs_list {
                self.not_asked(assumed, "no response to the request for the list of counters");
            }
            return;
        };
        self.coding(&own).await;
        let counters = Counters::read(&list.body);
        self.record(
            Assumed::ListNeedsNoGrant,
            counters.is_list,
            if counters.is_list { "counters and rows" } else { "another form" },
        );
        self.about(Assumed::ForeignCounter, FOREIGN_COUNTER, Some(&own), |answer| {
            answer.status == 403 && answer.error() == ErrorType::AccessDenied
        })
        .await;
        self.about(Assumed::FinalSlash, "/management/v1/counters/?per_page=2", Some(&own), |answer| {
            answer.status == 200
        })
        .await;
        self.about(Assumed::UnknownPath, "/management/v1/nothing-here", Some(&own), |answer| {
            answer.status == 404 && answer.is_json()
        })
        .await;
        self.about(Assumed::Accounts, "/management/v1/accounts", Some(&own), |answer| {
            answer.status == 200 && accounts_in(&answer.body).is_some()
        })
        .await;
        self.of_counters(&counters, &own).await;
    }

    /// Tests the assumptions that need a counter of the owner.
    async fn of_counters(&mut self, counters: &Counters, own: &HeaderValue) {
        let Some(counter) = counters.first else {
            for assumed in
                [Assumed::PermissionInList, Assumed::PermissionOfOne, Assumed::EncodedLess, Assumed::IdsTwice]
            {
                self.not_asked(assumed, "the owner sees no counter");
            }
            return;
        };
        self.record(
            Assumed::PermissionInList,
            counters.has_fields,
            if counters.has_fields { "permission and owner_login" } else { "a field is missing" },
        );
        self.about(Assumed::PermissionOfOne, &format!("/management/v1/counter/{counter}"), Some(own), |answer| {
            permission_in(&answer.body).is_some_and(|word| Level::of(&word) != Level::Other)
        })
        .await;
        self.spellings(counter, own).await;
    }

    /// Tests the coding of a response for which gzip was offered.
    async fn coding(&mut self, own: &HeaderValue) {
        match fetch(self.upstream, LIST, Some(own), "gzip").await {
            Ok(answer) => match answer.coding.as_deref() {
                None | Some("identity") => {
                    self.record(Assumed::Coding, true, "uncompressed, although gzip was requested")
                }
                Some("gzip") => self.record(Assumed::Coding, true, "gzip"),
                Some(_) => self.record(Assumed::Coding, false, "another coding"),
            },
            Err(why) => self.not_asked(Assumed::Coding, &why),
        }
    }

    /// Tests that the canonical forms that the gate sends keep the meaning of the original.
    async fn spellings(&mut self, counter: u64, own: &HeaderValue) {
        let base = report(counter);
        let dimension = "&attribution=last&dimensions=ym:s:";
        let raw = format!("{base}{dimension}<attribution>TrafficSource");
        let encoded = format!("{base}{dimension}%3Cattribution%3ETrafficSource");
        self.alike(Assumed::EncodedLess, &raw, &encoded, own).await;
        let twice = base.replace("ids=", &format!("ids={counter}&ids="));
        let joined = base.replace("ids=", &format!("ids={counter},"));
        self.alike(Assumed::IdsTwice, &twice, &joined, own).await;
    }

    /// Tests two forms of one request. The gate sends the second one, so it must be accepted.
    async fn alike(&mut self, assumed: Assumed, one: &str, two: &str, own: &HeaderValue) {
        match (self.ask(one, Some(own)).await, self.ask(two, Some(own)).await) {
            (Ok(one), Ok(two)) => {
                let seen = format!("original form {}, form that the gate sends {}", one.shown(), two.shown());
                self.record(assumed, two.status == 200, &seen);
            }
            (Err(why), _) | (_, Err(why)) => self.not_asked(assumed, &why),
        }
    }

    async fn issuer(&mut self, elsewhere: &Upstream, path: &str, token: &Token) {
        let own = token.authorization();
        match fetch(elsewhere, &format!("{path}?format=json"), Some(&own), "identity").await {
            Ok(answer) => {
                let held = answer.status == 200 && identity::read(&answer.body, &[own]).is_some();
                self.record(
                    Assumed::Issuer,
                    held,
                    if held { "login and client_id" } else { "no login, or no client_id" },
                );
            }
            Err(why) => self.not_asked(Assumed::Issuer, &why),
        }
    }
}

fn report(counter: u64) -> String {
    format!("/stat/v1/data?ids={counter}&metrics=ym:s:visits&limit=1")
}

/// The properties of a list of counters.
#[derive(Debug, Default)]
struct Counters {
    is_list: bool,
    first: Option<u64>,
    has_fields: bool,
}

impl Counters {
    fn read(body: &[u8]) -> Self {
        let Ok(body) = serde_json::from_slice::<serde_json::Value>(body) else { return Self::default() };
        let Some(counters) = body.get("counters").and_then(serde_json::Value::as_array) else { return Self::default() };
        let has =
            |counter: &serde_json::Value, field: &str| counter.get(field).is_some_and(serde_json::Value::is_string);
        Self {
            is_list: body.get("rows").is_some_and(serde_json::Value::is_u64),
            first: counters.first().and_then(|counter| counter.get("id")?.as_u64()),
            has_fields: counters.iter().all(|counter| has(counter, "permission") && has(counter, "owner_login")),
        }
    }
}
