//! Identify: determines the caller. See [`crate::policy::decide::identify`].
//!
//! 1. A client certificate is checked at every request, with the configuration of that time (`config/client_auth.rs`).
//! 2. After a certificate that is not accepted any more, the connection ends.

use std::rc::Rc;
use std::time::SystemTime;

use http::request::Parts;
use strict_http::target::Broken;

use super::exchange::Exchange;
use super::service_account;
use super::stage::Stage;
use crate::body::caller_body::CallerBody;
use crate::config::certificates::ClientCertificateFault;
use crate::policy::caller::Proofs;
use crate::policy::decide::{self, Identified};
use crate::policy::rejection::{Reason, Rejection};
use crate::worker::Snapshot;

/// A request as it arrived.
pub struct Received {
    /// The record of the request.
    pub exchange: Rc<Exchange>,
    /// The snapshot that decides the request.
    pub snapshot: Rc<Snapshot>,
    /// The request head.
    pub head: Parts,
    /// The rule that the query broke before it was percent-encoded.
    pub encoded: Option<Broken>,
    /// The request body.
    pub body: CallerBody,
}

/// A request of a configured caller.
pub struct WithCaller {
    /// The request.
    pub received: Received,
    /// The caller.
    pub caller: Identified,
}

/// The stage that identifies the caller.
#[derive(Debug, Clone, Copy)]
pub struct Identify;

impl Stage<Received> for Identify {
    type Out = WithCaller;

    fn run(&self, received: Received) -> Result<WithCaller, Rejection> {
        let Received { exchange, snapshot, head, encoded: _, body: _ } = &received;
        let accounts = exchange.worker().accounts(snapshot);
        let evidence = &exchange.connection.evidence;
        let proofs = check_certificate(exchange, snapshot).and_then(|()| proofs(head, exchange, snapshot));
        let caller = proofs.and_then(|proofs| {
            decide::identify(evidence, exchange.proofs.get_or_init(|| proofs), &snapshot.known(&accounts))
        });
        let known = caller.as_ref().ok().and_then(|caller| snapshot.generation.policy.callers.get(caller.position()));
        exchange.begin(known.map(|caller| caller.id));
        Ok(WithCaller { caller: caller?, received })
    }
}

/// Checks again, after a wait, what proves the caller: its certificate and the token of its service account. Keys are compared
/// with those of the configuration by the decision.
///
/// # Errors
/// The refusal that applies now.
pub fn check_proofs_again(exchange: &Exchange, snapshot: &Snapshot) -> Result<(), Rejection> {
    check_certificate(exchange, snapshot)?;
    let verified = exchange.verified_account.get();
    verified.map_or(Ok(()), |verified| service_account::check_again(verified, exchange, snapshot))
}

/// Checks the certificate of the connection (rules 1 and 2).
///
/// # Errors
/// `certificate_required`, `certificate_expired` or `certificate_rejected`.
fn check_certificate(exchange: &Exchange, snapshot: &Snapshot) -> Result<(), Rejection> {
    let transport = &exchange.connection.transport;
    let Some(client) = transport.client() else { return Ok(()) };
    let listener = exchange.connection.evidence.listener;
    let checked = match (snapshot.generation.handshakes.clients(listener), &client.certificate) {
        (Some(trust), certificate) => trust.check(certificate.as_ref(), SystemTime::now()),
        (None, None) => Ok(()),
        // No authority is trusted any more.
        (None, Some(_)) => Err(ClientCertificateFault::UnknownAuthority),
    };
    checked.map_err(|fault| {
        transport.end();
        let reason = match fault {
            ClientCertificateFault::Missing => Reason::CertificateRequired,
            ClientCertificateFault::Expired => Reason::CertificateExpired,
            ClientCertificateFault::NotYetValid
            | ClientCertificateFault::UnknownAuthority
            | ClientCertificateFault::Purpose
            | ClientCertificateFault::Invalid => Reason::CertificateRejected,
        };
        Rejection::because(reason, anyhow::anyhow!("{fault}"))
    })
}

impl Exchange {
    /// Returns the verified proofs of the request; later decisions read them again.
    #[must_use]
    pub fn proofs(&self) -> &Proofs {
        self.proofs.get().unwrap_or(&Proofs::NONE)
    }
}

/// Reads the proofs that a request offers, beside those of its tunnel.
fn proofs(head: &Parts, exchange: &Exchange, snapshot: &Snapshot) -> Result<Proofs, Rejection> {
    let key = exchange.connection.transport.key().by_request(&head.headers, &head.uri)?;
    let verified = service_account::verified(&head.headers, exchange, snapshot)?;
    let service_account = verified.map(|verified| exchange.verified_account.get_or_init(|| verified).account.clone());
    Ok(Proofs { key, service_account })
}
