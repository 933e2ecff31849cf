//! The remedies of failed handshakes with callers.

use rustls::{AlertDescription, Error, PeerIncompatible};

/// Returns the remedy for a failed handshake.
#[must_use]
pub fn remedy(error: &Error) -> &'static str {
    if let Error::AlertReceived(alert) = error {
        return of_alert(*alert);
    }
    if *error == Error::NoApplicationProtocol {
        return "the client offers only HTTP/2; set http2: true for the listener, or configure the client for HTTP/1.1";
    }
    if let Error::PeerIncompatible(kind) = error {
        return of_incompatible(kind);
    }
    if matches!(error, Error::InvalidMessage(_)) {
        return "the client does not speak TLS; check its URL of the gate";
    }
    "check the TLS settings of the client"
}

const TRUST: &str = "the client does not trust the certificate; give it the certificate of the authority that issued it (metrika-gate ca bundle), in its own setting for certificate authorities";

const NAME: &str = "the client connected to a name that the certificate does not have, or regards the certificate as invalid; compare the host in the client's URL with the names of the certificate";

const TIME: &str =
    "the client regards the certificate as expired or not yet valid; compare the clocks, and renew the certificate";

fn of_alert(alert: AlertDescription) -> &'static str {
    if matches!(alert, AlertDescription::UnknownCA | AlertDescription::CertificateUnknown) {
        TRUST
    } else if matches!(alert, AlertDescription::CertificateExpired) {
        TIME
    } else if matches!(alert, AlertDescription::BadCertificate | AlertDescription::UnsupportedCertificate) {
        NAME
    } else {
        "the client ended the handshake; its own message names the reason"
    }
}

fn of_incompatible(kind: &PeerIncompatible) -> &'static str {
    let is_version = matches!(
        kind,
        PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::Tls13RequiredForQuic
            | PeerIncompatible::SupportedVersionsExtensionRequired
    );
    if is_version {
        "the client offers neither TLS 1.2 nor TLS 1.3; update it"
    } else {
        "the client and the gate have no cipher suite, group or signature in common; update the client"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_has_a_remedy() {
        for (error, expected) in [
            (Error::AlertReceived(AlertDescription::UnknownCA), "ca bundle"),
            (Error::AlertReceived(AlertDescription::CertificateExpired), "clocks"),
            (Error::AlertReceived(AlertDescription::BadCertificate), "names of the certificate"),
            (Error::AlertReceived(AlertDescription::InternalError), "its own message"),
            (Error::NoApplicationProtocol, "http2: true"),
            (Error::PeerIncompatible(PeerIncompatible::Tls12NotOfferedOrEnabled), "neither TLS 1.2"),
            (Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon), "in common"),
            (Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType), "does not speak TLS"),
            (Error::DecryptError, "TLS settings"),
        ] {
            assert!(remedy(&error).contains(expected), "{error}");
        }
    }
}
