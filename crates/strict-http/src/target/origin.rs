//! The origin form of a checked target, which is sent upstream (RFC 9112, section 3.2.1).

use http::Uri;
use http::uri::PathAndQuery;

use super::canonical::{Changed, changed};
use super::{BadTarget, Broken, Names, Rule, check, without_credentials};

/// A checked target: policy reads it, and it is sent upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    form: OriginForm,
    names: Names,
    held_credentials: bool,
    changed: Option<Broken>,
}

/// A path that begins with a slash, and a query. Only a checked target becomes one, so the request line is always valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OriginForm(PathAndQuery);

impl Target {
    /// Returns the path and query of `uri` without credential pairs, if they follow the rules of [`super`]. An absolute form
    /// without a path has the path `/` (RFC 9110, section 4.2.3).
    ///
    /// # Errors
    /// [`BadTarget`] if the target breaks a rule.
    pub fn check(uri: &Uri, limit: usize) -> Result<Self, BadTarget> {
        Self::canonical(uri, limit, |_| false)
    }

    /// Checks the canonical form of `uri`; `is_path` returns whether the catalogue has a path.
    ///
    /// # Errors
    /// [`BadTarget`] if the target breaks a rule.
    pub fn canonical(uri: &Uri, limit: usize, is_path: impl Fn(&str) -> bool) -> Result<Self, BadTarget> {
        let checked = check(uri.path(), uri.query(), limit);
        match checked {
            Ok(names) if !names.has(Names::LOOSE) => Self::of(uri, names),
            Err(BadTarget::TooLong) => Err(BadTarget::TooLong),
            checked => Self::changed(uri, limit, is_path).unwrap_or_else(|| Self::of(uri, checked?)),
        }
    }

    /// Checks the canonical form if it differs from the original.
    #[cold]
    fn changed(uri: &Uri, limit: usize, is_path: impl Fn(&str) -> bool) -> Option<Result<Self, BadTarget>> {
        let Changed { target, first } = changed(uri.path(), uri.query(), is_path)?;
        let checked = || {
            let form = PathAndQuery::from_maybe_shared(target).map_err(of_one_meaning)?;
            let names = check(form.path(), form.query(), limit)?;
            let target = Self::of(&Uri::from(form), names)?;
            Ok(Self { changed: Some(first), ..target })
        };
        Some(checked())
    }

    /// Builds the target from a checked `uri` that contains `names`.
    fn of(uri: &Uri, names: Names) -> Result<Self, BadTarget> {
        let cleaned = uri.query().and_then(|query| without_credentials(uri.path(), query));
        let held_credentials = cleaned.is_some();
        let form = match (cleaned, uri.path_and_query()) {
            (Some(cleaned), _) => PathAndQuery::from_maybe_shared(cleaned).map_err(of_one_meaning)?,
            (None, Some(whole)) if whole.as_str().starts_with('/') => whole.clone(),
            (None, whole) => {
                let query = whole.map_or("", PathAndQuery::as_str);
                PathAndQuery::try_from(format!("/{query}")).map_err(of_one_meaning)?
            }
        };
        Ok(Self { form: OriginForm(form), names, held_credentials, changed: None })
    }

    /// The path.
    #[must_use]
    pub fn path(&self) -> &str {
        self.form.0.path()
    }

    /// The query.
    #[must_use]
    pub fn query(&self) -> Option<&str> {
        self.form.0.query()
    }

    /// The names in the query that matter to policy.
    #[must_use]
    pub const fn names(&self) -> Names {
        self.names
    }

    /// Whether credential pairs were removed from the query.
    #[must_use]
    pub const fn held_credentials(&self) -> bool {
        self.held_credentials
    }

    /// The rule that the original target broke, if another form of it is sent.
    #[must_use]
    pub const fn was_changed(&self) -> Option<Broken> {
        self.changed
    }

    /// The target as it is sent in the request line.
    #[must_use]
    pub fn origin_form(&self) -> &str {
        self.form.as_str()
    }

    /// Converts into the form that is sent upstream.
    #[must_use]
    pub fn into_origin_form(self) -> OriginForm {
        self.form
    }
}

fn of_one_meaning<E>(_: E) -> BadTarget {
    BadTarget::Ambiguous(Rule::Form.at(0))
}

impl OriginForm {
    /// The text for a request line.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl From<OriginForm> for PathAndQuery {
    fn from(form: OriginForm) -> Self {
        form.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outgoing_target_begins_with_a_slash() {
        for (uri, expected) in [
            ("/a/b?c=d", Some("/a/b?c=d")),
            ("http://host/a?c", Some("/a?c")),
            ("http://host?c=d", Some("/?c=d")),
            ("http://host", Some("/")),
            ("http://host?oauth_token=x", Some("/")),
            ("/a?oauth_token=x&b=c", Some("/a?b=c")),
            ("*", None),
            ("host:443", None),
            ("/a//b", None),
        ] {
            let target = Target::check(&uri.parse().unwrap(), 1000);
            assert_eq!(
                target.ok().map(|target| target.into_origin_form().as_str().to_owned()).as_deref(),
                expected,
                "{uri}"
            );
        }
    }

    #[test]
    fn policy_reads_the_outgoing_target() {
        let target = Target::check(&"http://host?ids=1&access_token=x".parse().unwrap(), 1000).unwrap();
        assert_eq!((target.path(), target.query(), target.held_credentials()), ("/", Some("ids=1"), true));
        assert!(target.names().has(Names::IDS));
    }
}
