//! The state of the stand-in, behind one lock, and the dispatch of requests to its parts.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::request::Parts;
use metrica::operation::Catalogue;
use serde_json::{Map, Value, json};

use super::FakeToken;
use super::access::{Call, Keyring, Refused};
use super::answer::Answer;
use super::collections::Collections;
use super::counters::Counters;
use super::knobs::Knobs;
use super::log_requests::LogRequests;
use super::quota::{InFlight, Quota};
use super::refusal::{ErrorType, Refusal};
use super::uploads::Uploads;
use super::{google_form, identity, reports};

/// The state shared by all connections.
pub struct Shared {
    pub catalogue: Catalogue,
    tokens: Vec<FakeToken>,
    world: Mutex<World>,
}

/// The mutable state.
pub struct World {
    pub keyring: Keyring,
    pub knobs: Knobs,
    pub quota: Quota,
    pub counters: Counters,
    pub collections: Collections,
    pub log_requests: LogRequests,
    pub uploads: Uploads,
    pub requests: u64,
    /// The most recent requests, including those to `/info`.
    pub heard: VecDeque<String>,
    last_request: Value,
}

/// The maximum number of requests that are remembered.
const HEARD: usize = 1000;

/// The decision about a request, made when its header has arrived.
pub struct Arrival<'a> {
    /// The configured delay before anything else.
    pub delay: Duration,
    /// Break the connection: after this many bytes of the body, or before the status line.
    pub cut: Option<Option<u64>>,
    pub in_flight: Option<InFlight>,
    pub decision: Result<Call<'a>, Answer>,
}

impl Shared {
    pub fn new(tokens: Vec<FakeToken>) -> Self {
        Self { catalogue: Catalogue::built_in(), world: Mutex::new(World::new(tokens.clone())), tokens }
    }

    pub fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Resets the state to that at the start.
    pub fn reset(&self) {
        *self.world() = World::new(self.tokens.clone());
    }
}

impl World {
    fn new(tokens: Vec<FakeToken>) -> Self {
        let keyring = Keyring::new(tokens);
        let mut collections = Collections::default();
        for (owner, represented) in keyring.representatives() {
            collections.represent(owner, represented);
        }
        Self {
            counters: Counters::new(keyring.counters()),
            keyring,
            knobs: Knobs::default(),
            quota: Quota::default(),
            collections,
            log_requests: LogRequests::default(),
            uploads: Uploads::default(),
            requests: 0,
            heard: VecDeque::new(),
            last_request: Value::Null,
        }
    }

    /// Counts a request and decides how to answer it.
    pub fn arrive<'a>(&mut self, catalogue: &'a Catalogue, peer: IpAddr, head: &Parts) -> Arrival<'a> {
        let path = head.uri.path();
        self.requests += 1;
        if self.heard.len() == HEARD {
            self.heard.pop_front();
        }
        self.heard.push_back(format!("{} {path}", head.method));
        // Field names only: a value can be a secret, and so can a query.
        self.last_request = json!({
            "method": head.method.as_str(),
            "path": path,
            "version": format!("{:?}", head.version),
            "headers": head.headers.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
        });
        let (delay, cut) = (self.knobs.delay(path), self.knobs.cut(path));
        let mut in_flight = None;
        let decision = match self.knobs.failure(path) {
            Some(failure) => Err(failure),
            None if identity::is_asked(head) => Err(identity::answer(&self.keyring, head)),
            None => self.admit(catalogue, peer, head, &mut in_flight),
        };
        Arrival { delay, cut, in_flight, decision }
    }

    fn admit<'a>(
        &mut self,
        catalogue: &'a Catalogue,
        peer: IpAddr,
        head: &Parts,
        in_flight: &mut Option<InFlight>,
    ) -> Result<Call<'a>, Answer> {
        let quota = |error_type: ErrorType| Answer::from(&self.knobs.said(&error_type.into()));
        self.quota.arrive(peer, Instant::now()).map_err(quota)?;
        let refused = |refused: Refused| Answer::from(&self.knobs.said(&refused.refusal)).allowing(refused.allow);
        let call = self.keyring.admit(catalogue, head).map_err(refused)?;
        *in_flight = Some(self.quota.enter(&call.owner).map_err(quota)?);
        Ok(call)
    }

    /// Answers a request whose body has been read.
    pub fn answer(&mut self, call: &Call<'_>, body: &Map<String, Value>) -> Result<Answer, Refusal> {
        match call.noun_and_act() {
            ("counters" | "counter" | "counter_label" | "measurement_token" | "my_grant" | "public_grant", _) => {
                self.counters.answer(call, body, &mut self.keyring, &mut self.collections)
            }
            ("log_requests" | "log_request", _) => self.log_requests.answer(call, &self.knobs),
            ("report", "google_form") => google_form::answer(call),
            ("report", form) => reports::answer(call, form),
            ("offline_threshold" | "call_threshold", "get") => Ok(call.json(&json!({ "visit_join_threshold": 21 }))),
            ("offline_threshold" | "call_threshold", _) => Ok(call.json(&json!({ "success": true }))),
            (noun, _) if Uploads::has(noun) => self.uploads.answer(call, body),
            _ => self.collections.answer(call, body),
        }
    }

    /// The state for the control panel, without secrets.
    pub fn state(&self) -> Value {
        json!({
            "requests": self.requests,
            "in_flight": self.quota.in_flight(),
            "last_request": self.last_request,
            "knobs": self.knobs.state(),
            "quota": { "parallel": self.quota.parallel, "per_second": self.quota.per_second },
            "tokens": self.keyring.state(),
            "counters": self.counters.ids(),
            "uploads": self.uploads.state(),
            "log_requests": self.log_requests.state(&self.knobs),
        })
    }
}
