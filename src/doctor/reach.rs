//! Explains why a place cannot be reached, with a remedy (rule 8 of the doctor).
//!
//! The error of a failed question is one line of text. The doctor connects once more, without a token, and examines the
//! typed error: an expired certificate and a port without TLS need different remedies. A name that a certificate presents
//! is repeated only if it is a host name.

use std::io;
use std::time::{Duration, SystemTime};

use rustls::pki_types::{ServerName, UnixTime};
use rustls::{CertificateError, Error as TlsError};

use super::finding::Finding;
use super::{Doctor, Line};
use crate::config::{self, TokenSource};
use crate::health::question::{Obstacle, Reply};
use crate::upstream::Upstream;
use crate::upstream::dial::{DialError, dial, dialled_place, place};
use crate::upstream::lookup::LookUps;
use crate::upstream::tunnel::{Refused, Tunnel};

/// The reason why a place cannot be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unreached {
    /// The cause.
    pub said: String,
    /// The remedy.
    pub mend: String,
    /// Whether the cause may be temporary; otherwise somebody has to change something.
    pub may_pass: bool,
    /// Whether the proxy is the cause.
    pub is_of_proxy: bool,
}

/// The time for a TCP connection to be accepted, in the test that follows a timeout of [`dial`].
const ACCEPTS_IN: Duration = Duration::from_secs(2);

/// The maximum number of certificate names that are repeated.
const NAMES: usize = 3;

/// Connects to `upstream`, which the configuration describes under `key`. Returns `None` on success.
pub(super) async fn why_not(upstream: &Upstream, key: &str, now: SystemTime) -> Option<Unreached> {
    let error = dial(upstream, &LookUps::default()).await.err()?;
    let (tunnel, host) = (upstream.tunnel.as_ref(), &*upstream.settings.host);
    let at = Dialled { key, place: place(upstream), host, tunnel, now };
    Some(match &error {
        DialError::Proxy { proxy, target, source } => of_proxy(proxy, target, source),
        DialError::Tls { source, .. } => match tls_error(source) {
            Some(error) => at.of_tls(error),
            None => at.other(&error),
        },
        DialError::Connect { source, .. } => at.of_connection(source),
        DialError::Resolve { name, source, .. } => at.may_pass(
            format!("cannot resolve {name} ({source})"),
            format!("correct {key}.connect_to or {key}.url if the name is wrong; otherwise check DNS, and retry"),
        ),
        DialError::Timeout(limit) if accepts(&upstream.settings).await => at.lasting(
            format!("{} accepts the connection but does not respond to the TLS handshake within {limit:?}", at.place),
            at.speak_tls(),
        ),
        DialError::Timeout(limit) => at.may_pass(
            format!("{} did not accept a connection within {limit:?}", at.place),
            format!("allow egress to {} (firewall, network policy), or correct the address; then retry", at.place),
        ),
        DialError::Saturated(_) => at.other(&error),
    })
}

impl Doctor<'_> {
    /// Returns the reason why `place` cannot be reached, if `why` is a failed connection (rule 8). Connects once per place.
    pub(super) async fn unreached(place: &mut super::Place, why: &Obstacle, now: SystemTime) -> Option<Finding> {
        if !matches!(why, Obstacle::Connection(_)) {
            return None;
        }
        if place.unreached.is_none() {
            place.unreached = why_not(&place.upstream, &place.purpose.key(), now).await;
        }
        let Unreached { said, mend, may_pass, is_of_proxy } = place.unreached.clone()?;
        Some(match (is_of_proxy, may_pass) {
            (false, true) => Finding::UnreachableNow { said, mend },
            (false, false) => Finding::Unreachable { said, mend },
            (true, true) => Finding::ProxyFails { said, mend },
            (true, false) => Finding::ProxyRefuses { said, mend },
        })
    }

    /// Reports the proxy once, after a response came through it.
    pub(super) fn report_proxy(&mut self, source: &TokenSource, reply: &Reply) {
        let is_open = !matches!(reply, Reply::Unclear(Obstacle::Connection(_) | Obstacle::Timeout));
        let is_reported = |line: &Line| matches!(line.finding, Finding::Proxy { .. });
        if !is_open || self.report.lines.iter().any(is_reported) {
            return;
        }
        if let Some(tunnel) = &self.metrica.upstream.tunnel {
            let (proxy, target) = (tunnel.proxy.clone(), tunnel.target.clone());
            self.report(source, Finding::Proxy { proxy, target });
        }
    }
}

/// A place that could not be reached.
struct Dialled<'a> {
    /// The key of the configuration.
    key: &'a str,
    /// The host and port that were dialled.
    place: String,
    /// The host name that the certificate must be valid for.
    host: &'a str,
    /// The tunnel that leads there, with a proxy.
    tunnel: Option<&'a Tunnel>,
    now: SystemTime,
}

impl Dialled<'_> {
    fn lasting(&self, said: String, mend: String) -> Unreached {
        Unreached { said, mend, may_pass: false, is_of_proxy: false }
    }

    fn may_pass(&self, said: String, mend: String) -> Unreached {
        Unreached { said, mend, may_pass: true, is_of_proxy: false }
    }

    fn other(&self, error: &dyn std::fmt::Display) -> Unreached {
        self.may_pass(
            format!("{}: {error}", self.place),
            format!("check the server at {} and the proxies in between, and retry", self.place),
        )
    }

    fn speak_tls(&self) -> String {
        format!(
            "set {0}.url or {0}.connect_to to a port that speaks TLS (usually 443): the gate never sends tokens without TLS",
            self.key
        )
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "an error of the system that has no remedy of its own is shown")]
    fn of_connection(&self, error: &io::Error) -> Unreached {
        let place = &self.place;
        match error.kind() {
            io::ErrorKind::ConnectionRefused => self.lasting(
                format!("nothing listens at {place}"),
                format!("correct host and port of {0}.url or {0}.connect_to, or start the server there", self.key),
            ),
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                let mend = self.tunnel.map_or_else(|| self.speak_tls(), unusable);
                self.lasting(format!("{place} closes the connection during the TLS handshake"), mend)
            }
            io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable => self.may_pass(
                format!("no route to {place}"),
                "check the network; set upstream.address_family to ipv4 if IPv6 does not work".to_owned(),
            ),
            _ => self.other(error),
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "errors of rustls are many, and the rest has one remedy")]
    fn of_tls(&self, error: &TlsError) -> Unreached {
        let place = &self.place;
        match error {
            TlsError::InvalidCertificate(error) => self.of_certificate(error),
            TlsError::InvalidMessage(_) => self.lasting(format!("{place} does not speak TLS"), self.speak_tls()),
            TlsError::AlertReceived(alert) => self.lasting(
                format!("{place} rejects the TLS handshake with the alert {alert:?}"),
                format!(
                    "configure it to serve {} with TLS 1.2 or 1.3 and HTTP/1.1, without client certificates; or correct the port",
                    self.host
                ),
            ),
            TlsError::PeerIncompatible(why) => self.lasting(
                format!("{place} and the gate have no common TLS parameters ({why:?})"),
                format!("configure the server at {place} for TLS 1.2 or 1.3"),
            ),
            _ => self.lasting(
                format!("TLS with {place} failed: {error}"),
                format!("configure the server at {place} to serve {} with TLS 1.2 or 1.3 and HTTP/1.1; or correct the port", self.host),
            ),
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "as above")]
    fn of_certificate(&self, error: &CertificateError) -> Unreached {
        let (place, host, key) = (&self.place, self.host, self.key);
        let renew = format!(
            "renew the certificate at {place}; if its dates are correct, set the clock of this machine, which is at {}",
            humantime::format_rfc3339_seconds(self.now)
        );
        match error {
            CertificateError::ExpiredContext { not_after, .. } => {
                self.lasting(format!("the certificate of {place} expired at {}", moment(*not_after)), renew)
            }
            CertificateError::NotValidYetContext { not_before, .. } => {
                self.lasting(format!("the certificate of {place} is valid only from {}", moment(*not_before)), renew)
            }
            CertificateError::Expired => self.lasting(format!("the certificate of {place} has expired"), renew),
            CertificateError::NotValidYet => {
                self.lasting(format!("the certificate of {place} is not valid yet"), renew)
            }
            CertificateError::UnknownIssuer => self.lasting(
                format!("the gate does not trust the issuer of the certificate of {place}"),
                self.trust(),
            ),
            CertificateError::BadSignature => self.lasting(
                format!("the certificate of {place} is not signed by the trusted authority with the same name"),
                self.trust(),
            ),
            CertificateError::NotValidForNameContext { presented, .. } => self.lasting(
                format!("the certificate of {place} is not for {host}{}", names(presented)),
                format!("correct {key}.connect_to, which leads elsewhere, or {key}.url, whose name the certificate must have"),
            ),
            CertificateError::NotValidForName => self.lasting(
                format!("the certificate of {place} is not for {host}"),
                format!("correct {key}.connect_to, which leads elsewhere, or {key}.url, whose name the certificate must have"),
            ),
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => self.lasting(
                format!("the certificate of {place} is not a server certificate"),
                format!("issue one for {host} with the purpose serverAuth, or without a purpose"),
            ),
            // The error of webpki, which is not a direct dependency.
            CertificateError::Other(other) if format!("{other:?}").contains("CaUsedAsEndEntity") => self.lasting(
                format!("{place} presents a CA certificate as its own"),
                format!(
                    "configure a certificate for {host} with basicConstraints=CA:FALSE, signed by that CA (openssl req -x509 creates a CA certificate), and keep the CA certificate in {key}.ca_file"
                ),
            ),
            _ => self.lasting(
                format!("the certificate of {place} is invalid: {error}"),
                format!("configure a certificate for {host} that the gate can verify"),
            ),
        }
    }

    fn trust(&self) -> String {
        if let Some(Tunnel { proxy, target, .. }) = self.tunnel {
            return format!(
                "the proxy probably intercepts TLS (openssl s_client -showcerts -proxy {proxy} -connect {target} shows the chain): have it pass {target} through unchanged; adding its CA to {}.ca_file would show it the tokens",
                self.key
            );
        }
        format!(
            "add the certificate of its CA to {}.ca_file (openssl s_client -showcerts -connect {} shows the chain), and configure the server to send intermediate certificates; if you run no proxy in between, somebody else does",
            self.key, self.place
        )
    }
}

/// Explains why `proxy` opened no tunnel to `target`.
fn of_proxy(proxy: &str, target: &str, refused: &Refused) -> Unreached {
    let allow = || format!("allow CONNECT to {target} in the proxy for this machine");
    let credentials = "write user:password of an account of the proxy to upstream.proxy_auth_file".to_owned();
    let (mend, may_pass) = match refused {
        Refused::Resolve { .. } => ("correct the host of upstream.proxy, or check DNS, and retry".to_owned(), true),
        Refused::Connect(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            ("correct host and port of upstream.proxy, or start the proxy".to_owned(), false)
        }
        Refused::Connect(_) | Refused::ConnectTimeout(_) => {
            (format!("allow egress to {proxy} (firewall, network policy), or correct upstream.proxy; then retry"), true)
        }
        Refused::Timeout(_) => (format!("check that {proxy} is an HTTP proxy and reaches {target}; then retry"), true),
        Refused::Credentials { other_type: true, .. } => (
            "enable Basic in the proxy, or allow this machine without credentials: the gate has no other type"
                .to_owned(),
            false,
        ),
        Refused::Credentials { .. } => (credentials, false),
        Refused::Denied(_) => (allow(), false),
        Refused::Failed(_) => (format!("check that the proxy can resolve and reach {target}; then retry"), true),
        Refused::Closed(_) | Refused::Protocol(_) => {
            (format!("set upstream.proxy to an HTTP proxy that accepts CONNECT in clear text, and {}", allow()), false)
        }
    };
    let cause = std::error::Error::source(refused).map_or_else(String::new, |cause| format!(" ({cause})"));
    Unreached {
        said: format!("the proxy {proxy} opens no tunnel: {refused}{cause}"),
        mend,
        may_pass,
        is_of_proxy: true,
    }
}

/// Returns the remedy for a tunnel that ends at once.
fn unusable(Tunnel { proxy, target, .. }: &Tunnel) -> String {
    format!("check in the log of the proxy {proxy} why it closes the tunnel to {target}, and allow it there")
}

/// Returns the error of rustls that an I/O error wraps.
fn tls_error(error: &io::Error) -> Option<&TlsError> {
    error.get_ref()?.downcast_ref()
}

fn moment(time: UnixTime) -> String {
    let time = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(time.as_secs()));
    time.map_or_else(|| "an invalid time".to_owned(), |time| humantime::format_rfc3339_seconds(time).to_string())
}

/// Returns the host names among the names of a certificate, which rustls formats as `DnsName("...")`.
fn names(presented: &[String]) -> String {
    let bare = presented.iter().filter_map(|name| name.strip_prefix("DnsName(\"")?.strip_suffix("\")"));
    let is_name = |name: &&str| ServerName::try_from(name.trim_start_matches("*.")).is_ok();
    let names: Vec<_> = bare.filter(is_name).take(NAMES).collect();
    if names.is_empty() { String::new() } else { format!(", but for {}", names.join(", ")) }
}

/// Whether the address accepts TCP connections.
async fn accepts(settings: &config::Upstream) -> bool {
    let (host, port, _) = dialled_place(settings);
    let connected = tokio::net::TcpStream::connect((host, port));
    tokio::time::timeout(ACCEPTS_IN, connected).await.is_ok_and(|connected| connected.is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_host_names_of_a_certificate_are_repeated() {
        let presented =
            ["DnsName(\"a.example\")", "DnsName(\"*.b.example\")", "DnsName(\"two words\")", "IpAddress(1)"];
        assert_eq!(names(&presented.map(str::to_owned)), ", but for a.example, *.b.example");
        assert_eq!(names(&["DnsName(\"\u{1b}[31m\")".to_owned()]), "");
    }
}
