//! Examines a token that is not in its place yet: a command has received it, and installs it only if it is right.

use std::time::SystemTime;

use super::{Doctor, Report, Wanted};
use crate::config::{Config, TokenSource};
use crate::health::question::Question;
use crate::policy::names::TokenAlias;
use crate::token::Token;

/// Examines `token` as the one of `source`. Must run on a single-threaded runtime.
///
/// # Errors
/// When no certificate can be trusted, or TLS cannot be set up.
pub async fn examine_candidate(
    config: &Config,
    source: &TokenSource,
    token: Token,
    now: SystemTime,
    tell: &mut dyn FnMut(TokenAlias, Question),
) -> anyhow::Result<Report> {
    let wanted = Wanted::default();
    let mut doctor = Doctor::new(config, &wanted, now, tell)?;
    doctor.secrets.push(token.authorization());
    let mut examined: Vec<_> = doctor.admit(source, token).await.into_iter().collect();
    if !examined.is_empty() {
        doctor.look_at_counters(&mut examined, 0).await;
    }
    Ok(doctor.report)
}
