//! The candidates among a caller's tokens, as `explain` shows them.

use http::HeaderValue;
use metrica::operation::Operation;
use metrica::subject::Subject;
use serde_json::{Value, json};
use strict_http::target::Target;

use crate::config::{Config, ConfiguredAccounts};
use crate::policy::choice::Fit;
use crate::policy::names::TokenAlias;
use crate::policy::rules::Call;
use crate::policy::{Policy, Wish};

/// The tokens that a caller can use for a request, the preferred one first. Only the configuration is known; a running gate
/// also knows the counters that it learnt.
pub(super) struct CandidateTokens(Vec<(TokenAlias, Fit)>);

impl CandidateTokens {
    /// The candidates of the caller at `position` for a request that chooses this `account`, if any; none if there is only
    /// one, because nothing is chosen then.
    pub(super) fn of(
        config: &Config,
        policy: &Policy,
        position: usize,
        (operation, target, subject): (&Operation, &Target, &Subject),
        account: Option<&HeaderValue>,
    ) -> Self {
        let (path, query, names) = (target.path(), target.query(), target.names());
        let call = Call { operation, path, query, names, subject };
        let wish = Wish { account: account.map(HeaderValue::as_bytes), tried: None };
        let candidates = policy.preference(position, &call, &ConfiguredAccounts(&config.tokens), wish);
        let candidates: Vec<_> = candidates.into_iter().map(|(token, fit)| (token.alias, fit)).collect();
        Self(if candidates.len() > 1 { candidates } else { Vec::new() })
    }

    /// The line for people, if there is a choice.
    pub(super) fn line(&self) -> Option<String> {
        let one = |(alias, fit): &(TokenAlias, Fit)| format!("{alias} ({})", meaning(*fit));
        (!self.0.is_empty()).then(|| self.0.iter().map(one).collect::<Vec<_>>().join(", "))
    }

    /// The same as JSON.
    pub(super) fn json(&self) -> Value {
        let one = |(alias, fit): &(TokenAlias, Fit)| json!({"token": alias.as_str(), "access": word(*fit)});
        self.0.iter().map(one).collect()
    }
}

const fn word(fit: Fit) -> &'static str {
    match fit {
        Fit::Granted => "granted",
        Fit::Unknown => "unknown",
        Fit::Lacking => "lacking",
    }
}

const fn meaning(fit: Fit) -> &'static str {
    match fit {
        Fit::Granted => "its account has access",
        Fit::Unknown => "access not known",
        Fit::Lacking => "its account lacks access",
    }
}
