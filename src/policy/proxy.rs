//! Forward proxy: which targets a listener with `proxy: true` serves.
//!
//! 1. A target is one of Metrica's names, on port 443 or 80. Everything else is refused (`destination_denied`, 403): no address, no
//!    other name, no other port, no user information. The gate connects to none of them: it answers requests for Metrica's
//!    names itself, and forwards them to its upstream.
//! 2. The port decides the content of a tunnel: TLS on 443, clear text on 80. Without it, an absolute target has the port of
//!    its scheme.
//! 3. A request for a target without an authority is one to the listener itself, which serves it like any other listener.

use http::Uri;
use http::uri::Scheme;
use strict_http::connect::Target;
use strict_http::host::{Host, METRICA};

use crate::policy::rejection::Reason;

/// A tunnel that a caller may open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tunnel {
    /// Metrica's name that it leads to.
    pub host: &'static str,
    /// Whether its content is TLS, otherwise clear text.
    pub tls: bool,
}

/// The port of https.
const HTTPS: u16 = 443;
/// The port of http.
const HTTP: u16 = 80;

/// Decides about a CONNECT request (rules 1 and 2).
///
/// # Errors
/// [`Reason::DestinationDenied`].
pub fn tunnel(target: &Target) -> Result<Tunnel, Reason> {
    let host = target.host().and_then(metrica).ok_or(Reason::DestinationDenied)?;
    match target.port() {
        HTTPS => Ok(Tunnel { host, tls: true }),
        HTTP => Ok(Tunnel { host, tls: false }),
        _ => Err(Reason::DestinationDenied),
    }
}

/// Decides about the target of a request that is not CONNECT (rules 1 and 3).
///
/// # Errors
/// [`Reason::DestinationDenied`].
pub fn absolute(uri: &Uri) -> Result<(), Reason> {
    let Some(authority) = uri.authority() else { return Ok(()) };
    let default = if uri.scheme() == Some(&Scheme::HTTPS) { HTTPS } else { HTTP };
    let has_port = authority.as_str().contains(':');
    let named = if has_port { authority.as_str().to_owned() } else { format!("{authority}:{default}") };
    // `host:` has an empty port, which is the default (RFC 3986, section 3.2.3).
    let named = if named.ends_with(':') { format!("{named}{default}") } else { named };
    Target::of(named.as_bytes()).ok_or(Reason::DestinationDenied).and_then(|target| tunnel(&target)).map(drop)
}

fn metrica(host: Host<'_>) -> Option<&'static str> {
    METRICA.into_iter().find(|known| host.is(Host::Name(known.as_bytes())))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn connect(authority: &str) -> Result<Tunnel, Reason> {
        Target::of(authority.as_bytes()).ok_or(Reason::DestinationDenied).and_then(|target| tunnel(&target))
    }

    #[test]
    fn rules_1_and_2_metricas_names_on_two_ports() {
        for host in METRICA {
            assert_eq!(connect(&format!("{host}:443")), Ok(Tunnel { host, tls: true }));
            assert_eq!(connect(&format!("{}.:80", host.to_uppercase())), Ok(Tunnel { host, tls: false }));
            for uri in [
                "http://H/a",
                "http://H:80/a",
                "http://H:443/a",
                "https://H/",
                "https://H:443/",
                "http://H:/",
                "HTTP://H/",
            ] {
                assert_eq!(absolute(&uri.replace('H', host).parse().unwrap()), Ok(()), "{uri}");
            }
        }
        assert_eq!(absolute(&"/management/v1/counters".parse().unwrap()), Ok(()));
        for uri in [
            "http://localhost/",
            "http://127.0.0.1/",
            "http://api-metrika.yandex.net:8080/",
            "http://mc.yandex.ru/",
            "http://[::1]:80/",
            "http://api-metrika.yandex.net.evil.example/",
            "http://evil.example:443/",
            "http://a@api-metrika.yandex.net/",
        ] {
            assert_eq!(absolute(&uri.parse().unwrap()), Err(Reason::DestinationDenied), "{uri}");
        }
    }

    /// An authority of parts that have confused proxies.
    fn authorities() -> impl Strategy<Value = String> {
        let part = prop_oneof![
            prop::sample::select(METRICA.to_vec()).prop_map(str::to_owned),
            prop::sample::select(vec![
                "evil.example",
                "localhost",
                "127.0.0.1",
                "[::1]",
                "[::ffff:127.0.0.1]",
                "0x7f.1",
                "2130706433",
                "169.254.169.254",
                "yandex.net",
                "api-metrika.yandex.net.evil.example",
                "xapi-metrika.yandex.net",
                "api%2dmetrika.yandex.net",
                "api-metrika.yandex.net%00",
                "api-metrika.yandex.net@",
                "user@",
                "user:pass@",
                "http://",
                "https://",
                "//",
                "/",
                "?",
                "#",
                "@",
                ":",
                ".",
                "..",
                ":443",
                ":80",
                ":0",
                ":8080",
                ":65979",
                ":00443",
                ":+443",
                ":443.",
                ":0443",
                "443",
                "80",
                "\\",
                " ",
                "\t",
                "\u{0430}",
                "%40",
                "%3a443",
            ])
            .prop_map(str::to_owned),
        ];
        prop::collection::vec(part, 0..6).prop_map(|parts| parts.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]
        #[test]
        fn rule_1_the_proxy_is_never_open(authority in authorities()) {
            let is_metricas = METRICA.iter().any(|host| {
                let rest = authority.to_ascii_lowercase().strip_prefix(host).map(str::to_owned);
                rest.is_some_and(|rest| matches!(rest.as_str(), ":443" | ":80" | ".:443" | ".:80"))
            });
            prop_assert_eq!(connect(&authority).is_ok(), is_metricas, "{}", authority);
            if let Ok(uri) = format!("http://{authority}").parse::<Uri>() {
                let host = uri.host().unwrap_or_default().trim_end_matches('.').to_ascii_lowercase();
                prop_assert!(absolute(&uri).is_err() || METRICA.contains(&host.as_str()), "{}", authority);
            }
        }
    }
}
