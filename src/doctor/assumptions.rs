//! Asks what the gate relies on ([`super::assumed`]), with one token of the operator's.
//!
//! 1. Every request is a GET without a body, and goes where the configuration sends requests, over the same verified TLS.
//!    Nothing is sent again; they are written by hand, as what is asked is what the gate itself never sends (a raw `<`).
//! 2. The token goes to Metrica, and to the place of `identity` where there is one. The invalid token is made up.
//! 3. Of an answer nothing is shown but its status, the type of its error and whether fields are there.
//! 4. What cannot be told from an answer (a quota, no connection) is not asked, never held.

use http::HeaderValue;
use metrica::error_type::ErrorType;

use super::assumed::Assumed;
use super::finding::Level;
use super::raw::{Answer, fetch};
use crate::config::{self, Config};
use crate::probe::identity;
use crate::probe::question::{OPEN_COUNTER, accounts_in, permission_in};
use crate::token::Token;
use crate::upstream::Upstream;
use crate::upstream::dial::dial;
use crate::upstream::lookup::LookUps;

/// What was found of an assumption.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is so.
    Held,
    /// It is not.
    Not,
    /// It was not asked, or no answer told.
    NotAsked,
}

impl Verdict {
    /// As it is printed.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Not => "not",
            Self::NotAsked => "not asked",
        }
    }
}

/// An assumption, and what was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Which.
    pub assumed: Assumed,
    /// Whether it is so.
    pub verdict: Verdict,
    /// What was seen (rule 3), or why it was not asked.
    pub seen: String,
}

/// A token that nobody has: well-formed, and no one's.
const BAD_TOKEN: &str = "OAuth y0_AgAAAAAnobodyAAAAAAnobodyAAAAAAnobodyAAAAAAnobody";

/// A counter that is nobody's who asks: the first of all.
const FOREIGN_COUNTER: &str = "/management/v1/counter/1";

const LIST: &str = "/management/v1/counters?per_page=2";

/// Somewhere to ask, and what was learnt beside the questions.
struct Asker<'a> {
    upstream: &'a Upstream,
    outcomes: Vec<Outcome>,
    quota: Option<Answer>,
}

/// Asks about everything with `token`, one question after another. Belongs on a runtime of one thread.
///
/// # Errors
/// When connections cannot be prepared at all.
pub async fn check(config: &Config, token: &Token) -> anyhow::Result<Vec<Outcome>> {
    let with_http2 = config::Upstream { http2: true, ..config.upstream.clone() };
    let without = config::Upstream { http2: false, ..config.upstream.clone() };
    let upstream = Upstream::new(without)?;
    let mut asker = Asker { upstream: &upstream, outcomes: Vec::new(), quota: None };
    match dial(&Upstream::new(with_http2)?, &LookUps::default()).await {
        Ok(dialled) => asker.tell(Assumed::Http2, dialled.http2, if dialled.http2 { "h2" } else { "http/1.1 only" }),
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
        Some(answer) => asker.tell(Assumed::Quota, is_known_quota(&answer), &answer.shown()),
        None => asker.not_asked(Assumed::Quota, "none was met"),
    }
    let mut outcomes = asker.outcomes;
    for assumed in Assumed::ALL {
        if let Some(why) = assumed.of().unasked {
            outcomes.push(Outcome { assumed: *assumed, verdict: Verdict::NotAsked, seen: why.to_owned() });
        }
    }
    outcomes.sort_by_key(|outcome| Assumed::ALL.iter().position(|assumed| *assumed == outcome.assumed));
    Ok(outcomes)
}

fn is_known_quota(answer: &Answer) -> bool {
    matches!(answer.status, 420 | 429) && answer.error().as_str().starts_with("quota_")
}

impl Asker<'_> {
    fn tell(&mut self, assumed: Assumed, held: bool, seen: &str) {
        let verdict = if held { Verdict::Held } else { Verdict::Not };
        self.outcomes.push(Outcome { assumed, verdict, seen: seen.to_owned() });
    }

    fn not_asked(&mut self, assumed: Assumed, why: &str) {
        self.outcomes.push(Outcome { assumed, verdict: Verdict::NotAsked, seen: why.to_owned() });
    }

    /// Asks, and tells what `judge` makes of the answer (rule 4).
    async fn about(
        &mut self,
        assumed: Assumed,
        target: &str,
        authorization: Option<&HeaderValue>,
        judge: impl FnOnce(&Answer) -> bool,
    ) -> Option<Answer> {
        let answer = self.ask(target, authorization).await;
        match &answer {
            Ok(answer) => {
                let held = judge(answer);
                self.tell(assumed, held, &answer.shown());
            }
            Err(why) => self.not_asked(assumed, why),
        }
        answer.ok()
    }

    /// An answer that is no quota's.
    async fn ask(&mut self, target: &str, authorization: Option<&HeaderValue>) -> Result<Answer, String> {
        let answer = fetch(self.upstream, target, authorization, "identity").await?;
        if answer.is_quota() {
            let shown = answer.shown();
            self.quota = Some(answer);
            return Err(format!("a quota was met: {shown}"));
        }
        Ok(answer)
    }

    /// What errors look like.
    async fn errors(&mut self) {
        let bad = HeaderValue::from_static(BAD_TOKEN);
        let is_known = |answer: &Answer| matches!(answer.error(), ErrorType::InvalidToken | ErrorType::Unauthorized);
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

    /// What the token shows.
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
                self.not_asked(assumed, "the list of counters was not answered");
            }
            return;
        };
        match fetch(self.upstream, LIST, Some(&own), "gzip").await {
            Ok(answer) => match answer.coding.as_deref() {
                None | Some("identity") => self.tell(Assumed::Coding, true, "plain, where gzip was asked for"),
                Some("gzip") => self.tell(Assumed::Coding, true, "gzip"),
                Some(_) => self.tell(Assumed::Coding, false, "another coding"),
            },
            Err(why) => self.not_asked(Assumed::Coding, &why),
        }
        let counters = Counters::read(&list.body);
        self.tell(
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
        let Some(counter) = counters.first else {
            for assumed in
                [Assumed::PermissionInList, Assumed::PermissionOfOne, Assumed::EncodedLess, Assumed::IdsTwice]
            {
                self.not_asked(assumed, "the owner sees no counter");
            }
            return;
        };
        self.tell(
            Assumed::PermissionInList,
            counters.has_fields,
            if counters.has_fields { "permission and owner_login" } else { "a field is missing" },
        );
        self.about(Assumed::PermissionOfOne, &format!("/management/v1/counter/{counter}"), Some(&own), |answer| {
            permission_in(&answer.body).is_some_and(|word| Level::of(&word) != Level::Other)
        })
        .await;
        self.spellings(counter, &own).await;
    }

    /// What the gate writes in another form has to mean the same.
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

    /// The second form is what the gate sends: it has to work where the first does.
    async fn alike(&mut self, assumed: Assumed, one: &str, two: &str, own: &HeaderValue) {
        match (self.ask(one, Some(own)).await, self.ask(two, Some(own)).await) {
            (Ok(one), Ok(two)) => {
                let seen = format!("as it came {}, as the gate sends it {}", one.shown(), two.shown());
                self.tell(assumed, two.status == 200, &seen);
            }
            (Err(why), _) | (_, Err(why)) => self.not_asked(assumed, &why),
        }
    }

    async fn issuer(&mut self, elsewhere: &Upstream, path: &str, token: &Token) {
        let own = token.authorization();
        match fetch(elsewhere, &format!("{path}?format=json"), Some(&own), "identity").await {
            Ok(answer) => {
                let held = answer.status == 200 && identity::read(&answer.body, &[own]).is_some();
                self.tell(
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

/// What a list of counters shows.
#[derive(Debug, Default)]
struct Counters {
    is_list: bool,
    first: Option<u64>,
    has_fields: bool,
}

impl Counters {
    fn read(body: &[u8]) -> Self {
        let body: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
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
