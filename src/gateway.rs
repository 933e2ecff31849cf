//! The gateway: the path of a request through its stages.
//!
//! ```text
//! Record                               one response, one log line, one count for every exchange, even an abandoned one
//!  -> Identify    Received   -> WithCaller | 401
//!  -> Admit       WithCaller -> Admitted   | 400 403 421 431 508
//!  -> Authorize   Admitted   -> Permitted  | 400 403 404 405 413 414 415 503
//!  -> Inject      Permitted  -> Outbound   | 503   drops the caller's credentials, adds ours last
//!  -> Forward     Outbound   -> Response   | all of these, and 408 429 502 504, through crate::response
//! ```
//!
//! The first three are the steps of the one decision ([`crate::policy::decide`]). Forward repeats it after every wait.
//!
//! Each stage takes one type and is the only maker of the next: nothing is forwarded without a [`Grant`] and a token, nor
//! with a credential of the caller. A missing or misplaced stage does not compile.
//!
//! Forward checks the body against the caller's rules before it takes a connection (`body_policy`), because that check has to
//! wait for the body.
//!
//! Responses are not trusted either: Forward hands them to the response path, which has its own checks
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
mod body_policy;
pub mod connection;
mod drain;
pub mod exchange;
mod exchange_state;
mod failure;
mod forward;
pub mod headers;
mod identify;
mod inject;
pub mod interim;
pub mod pauses;
mod phase;
mod progress;
mod raw_queries;
mod record;
mod service_account;
mod stage;
mod stalled;
pub mod transport;
mod turn;

use admit::Admit;
use authorize::Authorize;
use connection::Connection;
use forward::forward;
use identify::Identify;
use inject::Inject;
use record::{CallerLeft, RecordLayer};
pub use record::{refuse_early, refuse_unparsed, whole_answer};
use stage::stage;

/// Returns the service that handles the requests of one connection.
pub fn stack(
    worker: Rc<Worker>,
    connection: Rc<Connection>,
) -> impl Service<Request<Incoming>, Response = Response<ResponseBody>, Error = CallerLeft, Future: 'static> + Clone {
    ServiceBuilder::new()
        // Outermost: it sees every end of an exchange, and counts the response that was sent.
        .layer(RecordLayer::new(worker, connection))
        // Before every stage that responds, so that every count has its caller.
        .layer(stage(Identify))
        // Before policy: a browser or a looping request learns nothing about the rights of a caller.
        .layer(stage(Admit))
        // Before the token is looked up: a caller without permission learns nothing about tokens.
        .layer(stage(Authorize))
        // Last before Forward: no later stage can restore a caller's credential or remove ours.
        .layer(stage(Inject))
        .service(service_fn(forward))
}
