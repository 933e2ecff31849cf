//! `POST /recheck`: asks Metrica again about every rejected token and every refused operation.
//!
//! 1. It exists only if `admin.recheck` is set. It changes no permissions: it brings forward the questions that the
//!    gate asks on its own, within the same budget.
//! 2. It runs once a minute at most.
//! 3. `Host` must be `localhost` or an IP address. Any other name is refused, because a web page can make a name
//!    resolve to this address (DNS rebinding). Requests with headers that only browsers send are refused as well.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::{HOST, ORIGIN};
use http::{HeaderMap, HeaderValue};
use strict_http::host::Host;
use tokio::sync::Notify;
use tokio::time::Instant;

/// The shortest time between two runs (rule 2).
const PAUSE: Duration = Duration::from_secs(60);

/// The handler of `POST /recheck`.
pub struct Recheck {
    wanted: Arc<Notify>,
    last: Mutex<Option<Instant>>,
}

impl Recheck {
    /// Returns a handler that notifies `wanted`.
    #[must_use]
    pub const fn new(wanted: Arc<Notify>) -> Self {
        Self { wanted, last: Mutex::new(None) }
    }

    /// Requests a recheck.
    ///
    /// # Errors
    /// The seconds until the next one is allowed (rule 2).
    pub fn ask(&self, now: Instant) -> Result<(), u64> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let left = last.map_or(Duration::ZERO, |last| (last + PAUSE).saturating_duration_since(now));
        if !left.is_zero() {
            return Err(left.as_secs().max(1));
        }
        *last = Some(now);
        self.wanted.notify_one();
        Ok(())
    }
}

/// Whether `Host` is `localhost` or an IP address, which no web page can make resolve to this address.
#[must_use]
pub fn has_own_host(fields: &HeaderMap) -> bool {
    let mut hosts = fields.get_all(HOST).iter();
    let is_ours = |host: &HeaderValue| match Host::of(host.as_bytes()) {
        Some(Host::Address(_)) => true,
        Some(Host::Name(name)) => name.eq_ignore_ascii_case(b"localhost"),
        None => false,
    };
    matches!((hosts.next(), hosts.next()), (Some(host), None) if is_ours(host))
}

/// Whether the request meets rule 3.
#[must_use]
pub fn is_from_this_network(fields: &HeaderMap) -> bool {
    let of_a_browser = fields.contains_key(ORIGIN) || fields.keys().any(|name| name.as_str().starts_with("sec-fetch-"));
    has_own_host(fields) && !of_a_browser
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_2_a_recheck_is_done_once_a_minute() {
        let (recheck, start) = (Recheck::new(Arc::default()), Instant::now());
        assert_eq!(recheck.ask(start), Ok(()));
        assert_eq!(recheck.ask(start + Duration::from_secs(18)), Err(42));
        assert_eq!(recheck.ask(start + PAUSE), Ok(()));
    }

    #[test]
    fn rule_3_a_name_is_not_enough() {
        let of = |fields: &[(&'static str, &'static str)]| {
            let pair = |(name, value): &(&'static str, &'static str)| {
                (http::HeaderName::from_static(name), HeaderValue::from_static(value))
            };
            let mut map = HeaderMap::new();
            fields.iter().map(pair).for_each(|(name, value)| _ = map.append(name, value));
            is_from_this_network(&map)
        };
        for host in ["localhost", "LOCALHOST:9090", "127.0.0.1:9090", "[::1]:9090", "10.0.0.7"] {
            assert!(of(&[("host", host)]), "{host}");
        }
        for host in ["evil.example:9090", "localhost.evil.example", "", "127.0.0.1.evil.example", "a b"] {
            assert!(!of(&[("host", host)]), "{host}");
        }
        assert!(!of(&[]) && !of(&[("host", "localhost"), ("host", "localhost")]));
        for browser in [("origin", "null"), ("sec-fetch-site", "same-origin"), ("sec-fetch-mode", "navigate")] {
            assert!(!of(&[("host", "localhost"), browser]), "{browser:?}");
        }
    }
}
