//! TLS towards callers: the certificate of a listener, the authority that issues it, and the settings of handshakes.
//!
//! 1. A [`Leaf`] is a certificate that can be served: its chain, and the private key that fits it.
//! 2. An [`Authority`] is a private certificate authority that can issue certificates for Metrica's names, for `localhost`
//!    and for the names given at its creation, and for nothing else (`config/constraints.rs`).
//! 3. [`Handshakes`] has the settings of each listener: TLS 1.2 and 1.3, HTTP/1.1, and HTTP/2 where the listener enables it.
//! 4. Sessions are resumed by tickets, whose keys are replaced every six hours and never leave the process. Each listener has
//!    its own, which a new certificate does not replace. A change of the authorities for certificates of clients replaces them,
//!    so that no session outlives the trust in its certificate.
//! 5. With `client_ca`, clients present certificates too (`config/client_auth.rs`).

pub use super::authority::{Authority, AuthorityError, LEAF_DAYS, NewKey, RENEW_BEFORE};
pub use super::client_auth::{ClientAuth, ClientCertificate, ClientCertificateFault, ClientTrust, RefusedCertificate};
pub use super::handshakes::{HandshakeSettings, Handshakes, OneHandshake, OwnListeners};
pub use super::leaf::{Leaf, LeafError, Untimely, first_end};
