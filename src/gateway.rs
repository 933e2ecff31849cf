//! The gateway: the path of a request, and what flows along it.
//!
//! ```text
//! Record                               one answer, one line, one count for every exchange, even an abandoned one
//!  -> Identify    Received   -> Known      | 401
//!  -> Admit       Known      -> Admitted   | 400 403 431 508
//!  -> Authorize   Admitted   -> Permitted  | 400 403 404 405 413 414 415 503
//!  -> Inject      Permitted  -> Outbound   |       drops what the caller sent as credentials, adds ours last
//!  -> Forward     Outbound   -> Response   | 403 408 413 415 502 503 504
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
//! What comes back is not taken on trust either. Forward lets pass only an answer that has one meaning (`framing`), the
//! fields of a list (`headers`), a place that is on the gate (`redirect`), and a body without the token (`streaming`,
//! which asks `reflection` and `packed`).
//!
//! [`Grant`]: crate::policy::Grant

use std::rc::Rc;

use http::{Request, Response};
use hyper::body::Incoming;
use tower::{Service, ServiceBuilder, service_fn};

use crate::worker::Worker;

mod admit;
mod ahead;
mod authorize;
pub mod body;
pub mod budget;
mod caller_body;
pub mod coding;
pub mod connection;
pub mod exchange;
mod filtered;
mod forward;
pub mod headers;
mod held;
mod identify;
mod inject;
pub mod interim;
pub mod list_filter;
mod owed;
mod packed;
mod record;
mod redirect;
mod reflection;
pub mod refusal;
mod rest;
mod stage;
mod streaming;
pub mod transport;
mod why;

use admit::Admit;
use authorize::Authorize;
use body::ResponseBody;
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
