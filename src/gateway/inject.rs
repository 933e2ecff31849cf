//! Inject: what the caller sent as a credential stays here, and the token goes on, last.
//!
//! 1. Whatever the caller sent, exactly one `Authorization` leaves: ours.
//! 2. A request without a usable token does not leave (`token_unavailable`, 503).
//! 3. The target that leaves is the one that policy read ([`Target`]).
//!
//! [`Target`]: crate::target::Target

use std::rc::Rc;

use http::header::{ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, EXPECT, TE, VIA};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version};
use hyper::body::Body;

use super::authorize::Permitted;
use super::body::{Asked, Held, RequestBody, Say};
use super::connection::Connection;
use super::exchange::{Exchange, REQUEST_ID};
use super::headers::{self, clean_request};
use super::identify::Received;
use super::owed::Owed;
use super::reflection::Secret;
use super::stage::Stage;
use super::via;
use crate::metrics::Credential;
use crate::rejection::Rejection;
use crate::upstream::http1::Listener;
use crate::upstream::{Outgoing, Pool};
use crate::worker::Sender;

/// A request that may leave, with a token on it and nothing of the caller's that should not.
pub struct Outbound {
    /// What is said about it.
    pub exchange: Rc<Exchange>,
    /// The connections it may leave on.
    pub pool: Rc<Pool<RequestBody>>,
    /// What it owes to the caller's rules before it does.
    pub owed: Option<Box<Owed>>,
    request: Outgoing<RequestBody>,
    sender: Sender,
    wishes: InterimWishes,
}

impl Outbound {
    /// Which token it carries.
    pub const fn sender(&self) -> Sender {
        self.sender
    }

    /// Everything else.
    pub fn into_parts(self) -> (Rc<Exchange>, Rc<Pool<RequestBody>>, Outgoing<RequestBody>, InterimWishes) {
        (self.exchange, self.pool, self.request, self.wishes)
    }
}

/// What becomes of the upstream's interim responses.
pub struct InterimWishes {
    /// The request's body waits for a 100.
    asked: Option<Asked>,
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
    pub fn into_asked(self) -> Option<Asked> {
        self.asked
    }
}

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct Inject;

impl Stage<Permitted> for Inject {
    type Out = Outbound;

    fn run(&self, mut permitted: Permitted) -> Result<Outbound, Rejection> {
        let (grant, owed) = (permitted.grant(), permitted.owed());
        let Permitted { received: Received { exchange, snapshot, mut head, body }, target, .. } = permitted;
        let ready = snapshot.ready(grant.token_position())?;
        exchange.set_sender(ready.sender);
        let authorization = &ready.authorization;
        let asked = clean_request(&mut head.headers, |kind| exchange.credential_dropped(kind));
        if target.held_credentials() {
            exchange.credential_dropped(Credential::QueryParameter);
        }
        let version = head.version;
        let via = via::value(version);
        let http11 = version == Version::HTTP_11;
        let interim = asked.interim && http11 && !body.is_end_stream();
        let fields = &mut head.headers;
        for_this_hop(fields, &head.method, &body, interim, asked.trailers);
        fields.insert(ACCEPT_ENCODING, asked.coding);
        fields.insert(REQUEST_ID, exchange.request_id.clone());
        fields.insert(VIA, via);
        fields.insert(AUTHORIZATION, authorization.clone());
        let caller = http11.then(|| exchange.connection.clone());
        let secret = Secret::of(authorization);
        let wishes = InterimWishes { asked: interim.then(Asked::default), caller, secret };
        let body = RequestBody::new(body, version, exchange.clone(), wishes.asked.clone().map(Held::new));
        let request = Outgoing { method: head.method, target: target.into_origin_form(), fields: head.headers, body };
        Ok(Outbound { pool: snapshot.pool.clone(), exchange, owed, request, sender: ready.sender, wishes })
    }
}

impl Listener for InterimWishes {
    fn wants(&self, name: &[u8]) -> bool {
        headers::is_to_come_back(name)
    }

    fn heard(&self, status: StatusCode, fields: &HeaderMap) {
        match (status, &self.asked, &self.caller) {
            // The caller's 100 is the server's to send, when the body is read.
            (StatusCode::CONTINUE, Some(asked), _) => asked.decide(Say::Wanted),
            (StatusCode::CONTINUE, None, _) | (_, _, None) => {}
            (status, _, Some(caller)) => {
                let (bytes, reflected) = headers::interim_response(status, fields, &self.secret);
                caller.interim.push(&bytes, reflected);
            }
        }
    }
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
