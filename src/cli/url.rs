//! The URL that `explain` is asked about.

use http::uri::Authority;

use crate::target::{self, BadTarget, Names};

/// The URL that is asked for, right or wrong: what is wrong with it is a part of the answer.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    pub(super) authority: Option<&'a str>,
    pub(super) path: &'a str,
    pub(super) query: Option<&'a str>,
}

impl<'a> Target<'a> {
    /// Reads a path and query, or a whole URL; `None` where it is neither.
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

    /// Holds it to the rules of targets, as the reader of requests and policy do.
    pub(super) fn check(self, limit: usize) -> Result<Names, BadTarget> {
        let whole = self.query.map_or_else(|| self.path.to_owned(), |query| format!("{}?{query}", self.path));
        target::unfit(whole.as_bytes()).map_or(Ok(()), |broken| Err(BadTarget::Ambiguous(broken)))?;
        target::check(self.path, self.query, limit)
    }
}
