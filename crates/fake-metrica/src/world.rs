//! The state of the stand-in, behind one lock, and the dispatch of requests to its parts.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::request::Parts;
use metrica::operation::Catalogue;
use serde_json::{Map, Value, json};

use super::access::{Call, Keyring, Refused};
use super::answer::Answer;
use super::collections::Collections;
use super::counters::Counters;
use super::knobs::Knobs;
use super::log_requests::LogRequests;
use super::quota::Quota;
use super::quota::lease::{Lease, Quotas};
use super::refusal::{ErrorType, Refusal};
use super::uploads::Uploads;
use super::{BadKnob, Permission, Settings, control, google_form, identity, oauth, reports};

/// The state shared by all connections.
pub struct Shared {
    pub catalogue: Catalogue,
    pub quotas: Arc<Quotas>,
    /// The tokens, applications and accounts of the start.
    settings: Settings,
    quota: Quota,
    /// The knobs that were turned at the start.
    knobs: Vec<String>,
    world: Mutex<World>,
}

/// The mutable state.
pub struct World {
    pub keyring: Keyring,
    pub authority: oauth::Authority,
    pub knobs: Knobs,
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

/// What happens to a request.
pub enum Decision<'a> {
    /// A request of the API is performed.
    Api(Call<'a>),
    /// A request of the OAuth server is answered when its form has been read.
    OAuth,
    /// The response is known.
    Answered(Answer),
}

/// The decision about a request, made when its header has arrived.
pub struct Arrival<'a> {
    /// The configured delay before anything else.
    pub delay: Duration,
    /// Break the connection: after this many bytes of the body, or before the status line.
    pub cut: Option<Option<u64>>,
    pub lease: Option<Lease>,
    pub decision: Decision<'a>,
}

impl Shared {
    pub fn new(settings: Settings) -> Self {
        let (quota, knobs) = (settings.quota.clone(), settings.knobs.clone());
        let (world, quotas) = (Mutex::new(World::new(&settings)), Quotas::new(quota.clone()));
        Self { catalogue: Catalogue::built_in(), quotas, settings, quota, knobs, world }
    }

    /// Turns the knobs of the start.
    ///
    /// # Errors
    /// The first knob that cannot be turned, and the reason.
    pub fn turn_knobs(&self) -> Result<(), BadKnob> {
        self.knobs.iter().try_for_each(|knob| {
            let is_endless = knob.split('?').next() == Some("reset");
            let endless =
                || Refusal::because(ErrorType::InvalidParameter, "A reset turns the knobs of the start itself");
            let turned = if is_endless { Err(endless()) } else { control::turn(self, knob) };
            // Parameters can be secrets.
            let name = knob.split_once('?').map_or(knob.as_str(), |(name, _)| name).to_owned();
            turned.map(|_| ()).map_err(|refusal| BadKnob { knob: name, message: refusal.message.into_owned() })
        })
    }

    pub fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Resets the state to that at the start.
    pub fn reset(&self) {
        *self.world() = World::new(&self.settings);
        self.quotas.reset(self.quota.clone());
        // They were valid at the start.
        let _ = self.turn_knobs();
    }
}

impl World {
    fn new(settings: &Settings) -> Self {
        let keyring = Keyring::new(settings.tokens.clone());
        let authority = oauth::Authority::new(settings.applications.clone(), settings.accounts.clone());
        let of_accounts = settings.accounts.iter().flat_map(|account| {
            account.counters.iter().map(|(counter, permission)| {
                let is_own = *permission == Permission::Own;
                (*counter, if is_own { account.login.clone() } else { "another-owner".to_owned() })
            })
        });
        let counters = of_accounts.chain(keyring.counters()).collect();
        let mut collections = Collections::default();
        for (owner, represented) in keyring.representatives() {
            collections.represent(owner, represented);
        }
        Self {
            counters: Counters::new(counters),
            keyring,
            authority,
            knobs: Knobs::default(),
            collections,
            log_requests: LogRequests::default(),
            uploads: Uploads::default(),
            requests: 0,
            heard: VecDeque::new(),
            last_request: Value::Null,
        }
    }

    /// Counts a request and decides how to answer it.
    pub fn arrive<'a>(&mut self, shared: &'a Shared, peer: IpAddr, head: &Parts) -> Arrival<'a> {
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
        self.authority.sweep(&mut self.keyring, shared.quotas.now());
        let (lease, decision) = match self.charge(shared, peer, head) {
            Ok(lease) => (lease, self.decide(&shared.catalogue, head)),
            Err(refusal) => (None, Decision::Answered(Answer::from(&self.knobs.said(&refusal)))),
        };
        Arrival { delay, cut, lease, decision }
    }

    /// Charges a request to the quotas; those to the other host have none.
    fn charge(&self, shared: &Shared, peer: IpAddr, head: &Parts) -> Result<Option<Lease>, Refusal> {
        if identity::is_asked(head) || oauth::is_asked(head) {
            return Ok(None);
        }
        let charged = shared.quotas.quota().ulogin;
        shared.quotas.take(&self.keyring.charge(&shared.catalogue, peer, head, charged))
    }

    fn decide<'a>(&mut self, catalogue: &'a Catalogue, head: &Parts) -> Decision<'a> {
        if let Some(failure) = self.knobs.failure(head.uri.path()) {
            return Decision::Answered(failure);
        }
        if oauth::is_asked(head) {
            return Decision::OAuth;
        }
        if identity::is_asked(head) {
            return Decision::Answered(identity::answer(&self.keyring, head));
        }
        let refused = |refused: Refused| Answer::from(&self.knobs.said(&refused.refusal)).allowing(refused.allow);
        self.keyring.admit(catalogue, head).map_or_else(|error| Decision::Answered(refused(error)), Decision::Api)
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
    pub fn state(&self, quotas: &Quotas) -> Value {
        json!({
            "requests": self.requests,
            "in_flight": quotas.in_flight(),
            "last_request": self.last_request,
            "knobs": self.knobs.state(),
            "quota": quotas.quota().state(),
            "tokens": self.keyring.state(),
            "oauth": self.authority.state(),
            "counters": self.counters.ids(),
            "uploads": self.uploads.state(),
            "log_requests": self.log_requests.state(&self.knobs),
        })
    }
}
