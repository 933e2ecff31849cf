//! The URL and the header fields that `explain` is given.

use http::header::HOST;
use http::uri::Authority;
use http::{HeaderMap, HeaderName, Uri};
use strict_http::grammar;
use strict_http::target::{self, BadTarget, Broken};

use crate::config::{Config, Listener};
use crate::policy::names::ListenerName;
use crate::policy::rejection::Reason;

/// The URL of the request, valid or not: its mistakes are part of the result.
#[derive(Clone, Copy)]
pub(super) struct Url<'a> {
    pub(super) authority: Option<&'a str>,
    pub(super) path: &'a str,
    pub(super) query: Option<&'a str>,
}

/// A target as policy reads it.
pub(super) struct Read {
    /// The target as hyper passes it on.
    pub(super) uri: Uri,
    /// The rule that the target broke before it was percent-encoded.
    pub(super) encoded: Option<Broken>,
}

impl<'a> Url<'a> {
    /// Reads a path and query, or an absolute URL; `None` for anything else.
    pub(super) fn of(url: &'a str) -> Option<Self> {
        let rest = ["http://", "https://"].iter().find_map(|scheme| url.strip_prefix(scheme));
        let (authority, target) = match rest {
            Some(rest) => {
                let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
                (Some(authority), target)
            }
            None => (None, url),
        };
        let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        let path = if authority.is_some() && path.is_empty() { "/" } else { path };
        let is_one = path.starts_with('/') || path == "*";
        (is_one && authority.is_none_or(|authority| authority.parse::<Authority>().is_ok())).then_some(Self {
            authority,
            path,
            query,
        })
    }

    /// Returns the path and query.
    fn whole(self) -> String {
        self.query.map_or_else(|| self.path.to_owned(), |query| format!("{}?{query}", self.path))
    }

    /// Reads the target as the request reader does.
    pub(super) fn read(self) -> Result<Read, BadTarget> {
        let whole = self.whole();
        target::unfit(whole.as_bytes()).map_or(Ok(()), |broken| Err(BadTarget::Ambiguous(broken)))?;
        let encoded = grammar::encoded(b"GET ", whole.as_bytes(), true);
        let (text, encoded) = encoded.map_or((whole.into_bytes(), None), |(text, broken)| (text, Some(broken)));
        let uri = Uri::try_from(text).map_err(|_| BadTarget::Ambiguous(target::Rule::Form.at(0)))?;
        Ok(Read { uri, encoded })
    }
}

/// Returns the listeners that refuse the host of an absolute URL, with their reasons.
pub(super) fn strangers(config: &Config, url: Url<'_>) -> Vec<(ListenerName, Reason)> {
    let Some(authority) = url.authority else { return Vec::new() };
    let refused = |listener: &Listener| {
        let admission = listener.admission_for(&config.upstream.host);
        admission.check_host(authority.as_bytes()).err().map(|refused| (listener.name, refused.reason))
    };
    config.listeners.iter().filter_map(refused).collect()
}

/// Returns the header fields of the request, or `None` if one is malformed. `Host` defaults to the authority of the
/// URL, or else to `localhost`, which every listener accepts.
pub(super) fn fields(given: &[String], authority: Option<&str>) -> Option<HeaderMap> {
    let mut fields = HeaderMap::new();
    for field in given {
        let (name, value) = field.split_once(':')?;
        fields.append(HeaderName::from_bytes(name.trim().as_bytes()).ok()?, value.trim().parse().ok()?);
    }
    if !fields.contains_key(HOST) {
        fields.insert(HOST, authority.unwrap_or("localhost").parse().ok()?);
    }
    Some(fields)
}
