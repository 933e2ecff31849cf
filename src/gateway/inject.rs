//! Inject: what the caller sent as a credential stays here, and the token goes on, last.
//!
//! 1. Whatever the caller sent, exactly one `Authorization` leaves: ours.
//! 2. A request without a token that its decision lists does not leave (`token_unavailable`, 503).
//! 3. The target that leaves is the one that policy read ([`Target`]).
//! 4. A request that has waited is decided again before it leaves, and goes with the token of that decision.
//!
//! [`Target`]: strict_http::target::Target

use std::rc::Rc;

use http::header::{ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, EXPECT, TE, VIA};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version};
use hyper::body::Body;

use super::authorize::Permitted;
use super::connection::Connection;
use super::exchange::Exchange;
use super::headers::clean_request;
use super::identify::Received;
use super::record::REQUEST_ID;
use super::stage::Stage;
use crate::body::RequestBody;
use crate::body::held::{Held, Say, UpstreamSay};
use crate::metrics::Credential;
use crate::policy::decide::{Asked, Owed};
use crate::policy::rejection::Rejection;
use crate::policy::via;
use crate::response::fields;
use crate::response::secret::Secret;
use crate::upstream::{Listener, Outgoing, Pool};
use crate::worker::{Sender, Snapshot};

/// A request that may leave, with a token on it and nothing of the caller's that should not.
pub struct Outbound {
    request: Outgoing<RequestBody>,
    permit: Permit,
}

/// What lets a request leave: its latest decision, and what goes with that.
pub struct Permit {
    /// What is said about the request.
    pub exchange: Rc<Exchange>,
    /// What it owes to the caller's rules before it leaves.
    pub owed: Option<Box<Owed>>,
    /// What becomes of interim responses to it.
    pub wishes: InterimWishes,
    sender: Sender,
    asked: Asked,
    /// What it was decided with.
    snapshot: Rc<Snapshot>,
}

impl Outbound {
    /// The request, and what lets it leave.
    pub fn into_parts(self) -> (Outgoing<RequestBody>, Permit) {
        (self.request, self.permit)
    }
}

impl Permit {
    /// Which token goes out.
    pub const fn sender(&self) -> Sender {
        self.sender
    }

    /// The connections that the request may leave on.
    pub fn pool(&self) -> Rc<Pool<RequestBody>> {
        self.snapshot.pool.clone()
    }

    /// Decides again where something has changed since the latest decision; whether it has. Behind the last wait before
    /// `request` leaves, this says no (rule 4).
    ///
    /// # Errors
    /// Why the request is refused now.
    pub fn renew(&mut self, request: &mut Outgoing<RequestBody>) -> Result<bool, Rejection> {
        let now = self.exchange.worker().snapshot();
        if Rc::ptr_eq(&now, &self.snapshot) {
            return Ok(false);
        }
        let decided = self.asked.again(self.exchange.connection.evidence, &now.known())?;
        let mut decision = self.exchange.decided(decided)?;
        let ready = now.ready(decision.tokens().first())?;
        self.exchange.change_caller(decision.caller());
        self.exchange.set_sender(ready.sender)?;
        request.fields.insert(AUTHORIZATION, ready.authorization.clone());
        self.wishes.secret = secret_of(&ready.authorization)?;
        self.sender = ready.sender;
        self.owed = decision.take_owed();
        self.snapshot = now.clone();
        Ok(true)
    }
}

/// What becomes of the upstream's interim responses.
pub struct InterimWishes {
    /// The request's body waits for a 100.
    asked: Option<UpstreamSay>,
    /// The caller's connection, which takes the others: it speaks HTTP/1.1.
    caller: Option<Rc<Connection>>,
    /// What may not come back in them.
    secret: Secret,
}

impl InterimWishes {
    /// The answer is here: a body that waits is wanted no more. Whether an interim response held the token.
    #[must_use]
    pub fn answered(&self) -> bool {
        if let Some(asked) = &self.asked {
            asked.decide(Say::NotWanted);
        }
        self.caller.as_ref().is_some_and(|caller| caller.interim.take_reflected())
    }

    /// What went out with the request and may not come back.
    pub const fn secret(&self) -> &Secret {
        &self.secret
    }

    /// The body that waits, if one does.
    pub fn into_asked(self) -> Option<UpstreamSay> {
        self.asked
    }
}

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct Inject;

impl Stage<Permitted> for Inject {
    type Out = Outbound;

    fn run(&self, permitted: Permitted) -> Result<Outbound, Rejection> {
        let Permitted { received, asked, mut decision } = permitted;
        let Received { exchange, snapshot, mut head, encoded: _, body } = received;
        let ready = snapshot.ready(decision.tokens().first())?;
        exchange.set_sender(ready.sender)?;
        let authorization = &ready.authorization;
        let wanted = clean_request(&mut head.headers, |kind| exchange.credential_dropped(kind));
        if decision.target().held_credentials() {
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
        let secret = secret_of(authorization)?;
        let wishes = InterimWishes { asked: interim.then(UpstreamSay::default), caller, secret };
        let body = RequestBody::new(body, version, exchange.clone(), wishes.asked.clone().map(Held::new));
        let (owed, target) = (decision.take_owed(), decision.target().clone().into_origin_form());
        let request = Outgoing { method: head.method, target, fields: head.headers, body };
        let permit = Permit { exchange, owed, wishes, sender: ready.sender, asked, snapshot: snapshot.clone() };
        Ok(Outbound { request, permit })
    }
}

impl Listener for InterimWishes {
    fn wants(&self, name: &[u8]) -> bool {
        fields::is_to_come_back(name)
    }

    fn heard(&self, status: StatusCode, received: &HeaderMap) {
        match (status, &self.asked, &self.caller) {
            // The caller's 100 is the server's to send, when the body is read.
            (StatusCode::CONTINUE, Some(asked), _) => asked.decide(Say::Wanted),
            (StatusCode::CONTINUE, None, _) | (_, _, None) => {}
            (status, _, Some(caller)) => {
                let (bytes, reflected) = fields::interim_response(status, received, &self.secret);
                caller.interim.push(&bytes, reflected);
            }
        }
    }
}

/// What may not come back of this `Authorization`.
fn secret_of(authorization: &HeaderValue) -> Result<Secret, Rejection> {
    Secret::of(authorization).ok_or_else(|| Rejection::internal("a token goes out in its scheme"))
}

/// The fields of our own hop to the upstream.
fn for_this_hop(fields: &mut HeaderMap, method: &Method, body: &impl Body, interim: bool, trailers: bool) {
    if interim {
        fields.insert(EXPECT, HeaderValue::from_static("100-continue"));
    }
    if trailers {
        fields.insert(TE, HeaderValue::from_static("trailers"));
        fields.insert(CONNECTION, HeaderValue::from_static("te"));
    }
    // The client takes a GET of unknown length for one without a body, unless it is told.
    if matches!(*method, Method::GET | Method::HEAD) && !body.is_end_stream() && body.size_hint().exact().is_none() {
        fields.insert(http::header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
}
