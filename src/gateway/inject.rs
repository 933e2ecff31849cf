//! Inject: removes every credential of the caller, and adds the token last.
//!
//! 1. Exactly one `Authorization` leaves, the gate's, whatever the caller sent.
//! 2. A request without a token that its decision lists does not leave (`token_unavailable`, 503).
//! 3. The target that leaves is the one that policy read ([`Target`]).
//! 4. A request that has waited is decided again before it leaves, and carries the token of that decision. A content type
//!    that only an earlier decision changed is restored.
//!
//! [`Target`]: strict_http::target::Target

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, EXPECT, TE, VIA};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version};
use hyper::body::Body;
use tokio::time::Instant;

use super::authorize::Permitted;
use super::body_policy::OriginalContentType;
use super::connection::Connection;
use super::exchange::Exchange;
use super::headers::clean_request;
use super::identify::{Received, check_proofs_again};
use super::record::REQUEST_ID;
use super::stage::Stage;
use crate::body::RequestBody;
use crate::body::held::{ContinueDecision, ContinueSignal, Held};
use crate::metrics::Credential;
use crate::policy::decide::{AdmittedRequest, BodyPolicy, Candidates};
use crate::policy::offered::has_only_keys;
use crate::policy::rejection::Rejection;
use crate::policy::via;
use crate::response::fields;
use crate::upstream::{Listener, Outgoing, Pool};
use crate::worker::{Generation, Secret, Snapshot, TokenUse, Turn};

/// A request that may leave: it carries a token, and only fields of the caller that are allowed.
pub struct Outbound {
    /// Boxed: 270 bytes that Forward would copy a dozen times.
    request: Box<Outgoing<RequestBody>>,
    permit: Permit,
}

/// The permission for a request to leave: the latest decision, and the data that it needs.
pub struct Permit {
    /// The record of the request.
    pub exchange: Rc<Exchange>,
    /// The rules to apply before the request leaves.
    pub body_policy: Option<Box<BodyPolicy>>,
    /// The handling of interim responses.
    pub wishes: InterimWishes,
    token_use: TokenUse,
    /// The turn of the request, once it has come.
    pub turn: Option<Turn>,
    /// The tokens of another account to try once if Metrica denies this read for lack of access.
    next: Option<Candidates>,
    asked: AdmittedRequest,
    /// The caller's own content type, if the latest decision allowed to change it.
    original_content_type: Option<OriginalContentType>,
    /// The snapshot that the latest decision was made with.
    snapshot: Rc<Snapshot>,
    /// The revision of the facts that the latest decision was made with, if they decided.
    revision: Option<u64>,
    /// The time, as long as the request has waited for nothing since it was read.
    begun: Cell<Option<Instant>>,
}

impl Outbound {
    /// Splits into the request and its permit.
    pub fn into_parts(self) -> (Box<Outgoing<RequestBody>>, Permit) {
        (self.request, self.permit)
    }
}

impl Permit {
    /// Returns the token that is sent.
    pub const fn token_use(&self) -> TokenUse {
        self.token_use
    }

    /// Records that the request has waited.
    pub fn has_waited(&self) {
        self.begun.set(None);
    }

    /// Returns the present, and the age of the request. Before the first wait no clock is read, nor at the first call.
    pub fn now(&self) -> (Instant, Duration) {
        self.begun.take().map_or_else(
            || {
                let now = Instant::now();
                (now, now.saturating_duration_since(self.exchange.started))
            },
            |begun| (begun, Duration::ZERO),
        )
    }

    /// Returns the pool of connections that the request may leave on.
    pub fn pool(&self) -> Rc<Pool<RequestBody>> {
        self.snapshot.pool.clone()
    }

    /// Records that the content type was changed from `original`. Of several changes, the first is from the caller's own.
    pub fn content_type_changed(&mut self, original: Option<OriginalContentType>) {
        self.original_content_type = self.original_content_type.take().or(original);
    }

    /// Decides again if the snapshot, or the facts that chose the token, have changed since the latest decision; returns whether
    /// they have. After the last wait
    /// before `request` leaves, this must return `false` (rule 4).
    ///
    /// # Errors
    /// The reason why the request is now refused.
    pub fn renew(&mut self, request: &mut Outgoing<RequestBody>) -> Result<bool, Rejection> {
        let now = self.exchange.worker().snapshot();
        let revision = self.exchange.worker().learning.revision();
        if Rc::ptr_eq(&now, &self.snapshot) && self.revision.is_none_or(|decided| decided == revision) {
            return Ok(false);
        }
        check_proofs_again(&self.exchange, &now)?;
        let accounts = self.exchange.worker().accounts(&now);
        let identity = (&self.exchange.connection.evidence, self.exchange.proofs());
        let decided = self.asked.again(identity, &now.known(&accounts))?;
        let mut decision = self.exchange.decided(decided)?;
        let ready = now.ready(decision.tokens().first())?;
        self.exchange.change_caller(decision.caller());
        self.exchange.set_token_use(ready.token_use)?;
        request.fields.insert(AUTHORIZATION, ready.authorization.clone());
        if let Some(original) = self.original_content_type.take() {
            original.restore(&mut request.fields);
        }
        self.wishes.secret = ready.secret.clone();
        if self.token_use.alias != ready.token_use.alias {
            // It was the turn of another owner.
            self.turn = None;
        }
        self.token_use = ready.token_use;
        self.body_policy = decision.take_body_policy();
        self.set_next(decision.next());
        self.revision = decision.is_choice().then_some(revision);
        self.snapshot = now.clone();
        Ok(true)
    }

    /// Sets the tokens to try next. The caller gets no interim response of a response that it may not get.
    fn set_next(&mut self, next: Option<Candidates>) {
        self.next = next;
        self.wishes.is_held.set(next.is_some());
    }

    /// Returns the generation that the latest decision was made with.
    pub fn generation(&self) -> &Arc<Generation> {
        &self.snapshot.generation
    }

    /// Returns the position of the token that is sent.
    pub fn token_position(&self) -> Option<usize> {
        self.snapshot.generation.tokens.iter().position(|slot| slot.alias == self.token_use.alias)
    }

    /// Whether the request may have to be sent again after a refusal.
    pub fn may_be_refused(&self) -> bool {
        self.has_next() || self.turn.as_ref().is_some_and(Turn::is_counted)
    }

    /// Whether the decision lists a token of another account.
    pub const fn has_next(&self) -> bool {
        self.next.is_some()
    }

    /// Gives `request` the token of another account that the decision lists.
    ///
    /// # Errors
    /// An internal error if it lists none, or the token makes no field.
    pub fn try_next(&mut self, request: &mut Outgoing<RequestBody>) -> Result<(), Rejection> {
        let next = self.next.ok_or_else(|| Rejection::internal("the decision lists another account"))?;
        self.set_next(None);
        // A later decision returns neither to this token nor to a third one.
        self.asked.was_tried_with(self.token_use.alias);
        let ready = self.snapshot.ready(next.first())?;
        self.exchange.tried_next_account(ready.token_use)?;
        request.fields.insert(AUTHORIZATION, ready.authorization.clone());
        self.wishes.secret = ready.secret.clone();
        self.token_use = ready.token_use;
        self.turn = None;
        Ok(())
    }
}

/// The handling of the upstream's interim responses.
pub struct InterimWishes {
    /// Set if the request's body waits for a 100.
    asked: Option<ContinueSignal>,
    /// The caller's connection, which receives the other interim responses; set only for HTTP/1.1.
    caller: Option<Rc<Connection>>,
    /// The secret that is removed from them.
    secret: Secret,
    /// Whether they are dropped, because the final response may not go to the caller.
    is_held: Cell<bool>,
}

impl InterimWishes {
    /// Records that the response has arrived, so that a waiting body is no longer sent. Returns whether an interim
    /// response contained the token.
    #[must_use]
    pub fn answered(&self) -> bool {
        if let Some(asked) = &self.asked {
            asked.decide(ContinueDecision::NotWanted);
        }
        self.caller.as_ref().is_some_and(|caller| caller.interim.take_reflected())
    }

    /// Returns the secret of the request, which must not reach the caller.
    pub const fn secret(&self) -> &Secret {
        &self.secret
    }

    /// Takes the handle of the waiting body, if there is one.
    pub const fn take_asked(&mut self) -> Option<ContinueSignal> {
        self.asked.take()
    }
}

/// The stage that prepares the request for the upstream.
#[derive(Debug, Clone, Copy)]
pub struct Inject;

impl Stage<Permitted> for Inject {
    type Out = Outbound;

    fn run(&self, permitted: Permitted) -> Result<Outbound, Rejection> {
        let Permitted { received, asked, mut decision } = permitted;
        let Received { exchange, snapshot, mut head, encoded: _, body } = received;
        let ready = snapshot.ready(decision.tokens().first())?;
        exchange.set_token_use(ready.token_use)?;
        let authorization = &ready.authorization;
        let wanted = clean_request(&mut head.headers, exchange.verified_account.get().is_some(), |kind| {
            exchange.credential_dropped(kind)
        });
        // A key has identified the caller and does not count.
        if decision.target().held_credentials() && !has_only_keys(head.uri.query()) {
            exchange.credential_dropped(Credential::QueryParameter);
        }
        let version = head.version;
        let via = via::value(version);
        let http11 = version == Version::HTTP_11;
        let interim = wanted.interim && http11 && !body.is_end_stream();
        let fields = &mut head.headers;
        for_this_hop(fields, &head.method, &body, interim, wanted.trailers);
        fields.insert(ACCEPT_ENCODING, wanted.coding);
        fields.insert(REQUEST_ID, exchange.request_id.value().clone());
        fields.insert(VIA, via);
        fields.insert(AUTHORIZATION, authorization.clone());
        let caller = http11.then(|| exchange.connection.clone());
        let secret = ready.secret.clone();
        let next = decision.next();
        let is_held = Cell::new(next.is_some());
        let wishes = InterimWishes { asked: interim.then(ContinueSignal::default), caller, secret, is_held };
        let body = RequestBody::new(body, version, exchange.clone(), wishes.asked.clone().map(Held::new));
        let revision = decision.is_choice().then(|| exchange.worker().learning.revision());
        let (body_policy, target) = (decision.take_body_policy(), decision.target().clone().into_origin_form());
        let request = Box::new(Outgoing { method: head.method, target, fields: head.headers, body });
        let begun = Cell::new(Some(exchange.started));
        let permit = Permit {
            exchange,
            body_policy,
            wishes,
            token_use: ready.token_use,
            turn: None,
            next,
            asked,
            original_content_type: None,
            snapshot: snapshot.clone(),
            revision,
            begun,
        };
        Ok(Outbound { request, permit })
    }
}

impl Listener for InterimWishes {
    fn wants(&self, name: &[u8]) -> bool {
        fields::is_to_come_back(name)
    }

    fn heard(&self, status: StatusCode, received: &HeaderMap) {
        match (status, &self.asked, &self.caller) {
            // The server sends the caller's 100 when the body is read.
            (StatusCode::CONTINUE, Some(asked), _) => asked.decide(ContinueDecision::Wanted),
            (StatusCode::CONTINUE, None, _) | (_, _, None) => {}
            _ if self.is_held.get() => {}
            (status, _, Some(caller)) => {
                let (bytes, reflected) = fields::interim_response(status, received, &self.secret);
                caller.interim.push(&bytes, reflected);
            }
        }
    }
}

/// Sets the fields of the gate's own hop to the upstream.
fn for_this_hop(fields: &mut HeaderMap, method: &Method, body: &impl Body, interim: bool, trailers: bool) {
    if interim {
        fields.insert(EXPECT, HeaderValue::from_static("100-continue"));
    }
    if trailers {
        fields.insert(TE, HeaderValue::from_static("trailers"));
        fields.insert(CONNECTION, HeaderValue::from_static("te"));
    }
    // Without this field, the client treats a GET of unknown length as one without a body.
    if matches!(*method, Method::GET | Method::HEAD) && !body.is_end_stream() && body.size_hint().exact().is_none() {
        fields.insert(http::header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
}
