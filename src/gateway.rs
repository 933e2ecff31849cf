//! The gateway: the path of a request, and what flows along it.
//!
//! ```text
//! Record                               one answer, one line, one count for every exchange, even an abandoned one
//!  -> Identify    Received   -> Known      | 401
//!  -> Admit       Known      -> Admitted   | 400 403 431 508
//!  -> Authorize   Admitted   -> Permitted  | 400 403 404 405 413 414 415 503
//!  -> Inject      Permitted  -> Outbound   |       drops what the caller sent as credentials, adds ours last
//!  -> Forward     Outbound   -> Response   | 403 408 413 415 502 503 504, through crate::response
//! ```
//!
//! The first three are the steps of the one decision ([`crate::policy::decide`]). It is made again after every wait in Forward.
//!
//! Each stage takes one type and makes the next, and only it can: nothing is forwarded without a [`Grant`] and a token,
//! nor with a credential of the caller's still on it. A stage that is left out or misplaced does not compile.
//!
//! What a caller's rules say of a body is the one decision that Forward takes, because it waits: before it takes a
//! connection (`owed`).
//!
//! What comes back is not taken on trust either: Forward hands it to the response path, which has a screen of its own
//! ([`crate::response`]).
//!
//! [`Grant`]: crate::policy::Grant

use std::rc::Rc;

use http::{Request, Response};
use hyper::body::Incoming;
use tower::{Service, ServiceBuilder, service_fn};

use crate::response::ResponseBody;
use crate::worker::Worker;

mod admit;
mod authorize;
pub mod connection;
pub mod exchange;
mod failure;
mod forward;
pub mod headers;
mod identify;
mod inject;
pub mod interim;
mod known;
mod owed;
mod phase;
mod progress;
mod raw_queries;
mod record;
mod rest;
mod stage;
mod stalled;
pub mod transport;

use admit::Admit;
use authorize::Authorize;
use connection::Connection;
use forward::forward;
use identify::Identify;
use inject::Inject;
use record::{CallerLeft, RecordLayer};
pub use record::{refuse_unparsed, whole_answer};
use stage::stage;

/// The stack that serves one connection.
pub fn stack(
    worker: Rc<Worker>,
    connection: Rc<Connection>,
) -> impl Service<Request<Incoming>, Response = Response<ResponseBody>, Error = CallerLeft, Future: 'static> + Clone {
    ServiceBuilder::new()
        // Outermost, so that it sees every end of an exchange, and innermost in time: it counts what was answered.
        .layer(RecordLayer::new(worker, connection))
        // Before everything that answers, so that every count has its caller.
        .layer(stage(Identify))
        // Before policy: a browser or a loop learns nothing of what a caller may.
        .layer(stage(Admit))
        // Before the token is looked at: who may not, learns nothing about tokens.
        .layer(stage(Authorize))
        // Last before the wire: nothing after it can put a credential back or take ours away.
        .layer(stage(Inject))
        .service(service_fn(forward))
}
