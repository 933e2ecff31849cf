//! The status page, at `/` of the admin listener: the state of the gate for a person with a browser.
//!
//! 1. It exists if `admin.page` is true: by default on a loopback address, and not with `allow_remote`.
//! 2. `Host` must be `localhost` or an IP address, because a web page can make a name of its own resolve to this address
//!    (DNS rebinding). Requests of other sites are refused like everywhere on this listener.
//! 3. The page loads nothing: its style and its script are inline and permitted by their hashes in
//!    `Content-Security-Policy`. It works without the script, which only reads the page again.
//! 4. Every text is escaped by the template. The page contains names of the configuration and numbers, and no token, key or
//!    hash of one: it is made from the same counts as `/metrics`.
//! 5. Requests of callers do nothing for it (`process/history.rs`).

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderMap, HeaderName, REFERRER_POLICY, X_FRAME_OPTIONS};
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::history::History;
use super::page_parts::span;
use super::{page_callers, page_state};
use crate::metrics::Shard;
use crate::metrics::overview::{Overview, Sample};
use crate::metrics::process::{Confinement, ProcessMeters, State};
use crate::policy::names::ListenerName;
use crate::process::readiness::{Readiness, ReadinessSubject};
use crate::process::workers::Workers;
use crate::quota::QuotaSnapshot;
use crate::worker::Generation;

/// The style sheet of the page.
const STYLE: &str = include_str!("page.css");

/// The script of the page.
const SCRIPT: &str = include_str!("page.js");

/// The state that only the page needs.
#[derive(Debug)]
pub struct StatusPage {
    /// The counts of the last hour.
    history: Arc<History>,
    /// The name and the address of each listener.
    listeners: Vec<(ListenerName, String)>,
    /// The number of workers.
    workers: usize,
}

/// The sources of the figures.
pub struct Sources<'a> {
    /// The sum of the workers' counts.
    pub counts: &'a Shard,
    /// The counters of the process.
    pub meters: &'a ProcessMeters,
    /// The readiness of the gate.
    pub readiness: &'a Readiness,
    /// The configuration and the tokens in use.
    pub generation: &'a Generation,
    /// The state of the quota broker, if the configuration has a quota.
    pub quota: Option<&'a QuotaSnapshot>,
    /// The start of the process.
    pub since: SystemTime,
}

/// The figures of one page.
pub struct Facts<'a> {
    /// The configuration and the tokens in use.
    pub generation: &'a Generation,
    /// The states of the process.
    pub state: &'a State,
    /// The sums since the start.
    pub overview: Overview,
    /// The counts of each minute of the last hour.
    pub minutes: Vec<Sample>,
    /// The state of the quota broker, if the configuration has a quota.
    pub quota: Option<&'a QuotaSnapshot>,
    /// The checks of readiness, one a line.
    pub readiness: &'a str,
    /// Whether the gate is ready.
    pub is_ready: bool,
    /// The name and the address of each listener.
    pub listeners: &'a [(ListenerName, String)],
    /// The number of workers.
    pub workers: usize,
    /// The number of stalled workers, and of stalls since the start.
    pub stalls: (usize, u64),
    /// The number of log lines that were dropped.
    pub lines_dropped: u64,
    /// The number of callers that are identified only by a network address.
    pub address_only_callers: usize,
    /// The state of the sandbox, once it is known.
    pub sandbox: Option<Confinement>,
    /// The time since the start of the process.
    pub uptime: Duration,
    /// The time of the page.
    pub now: SystemTime,
}

impl StatusPage {
    /// Returns the page of a gate with these listeners, and starts to take its samples.
    #[must_use]
    pub fn start(workers: &Arc<Workers>, listeners: Vec<(ListenerName, String)>) -> Self {
        let history = Arc::<History>::default();
        tokio::task::spawn_local(history.clone().run(workers.clone()));
        Self { history, listeners, workers: workers.count() }
    }

    /// Returns the page.
    #[must_use]
    pub fn page(&self, sources: &Sources<'_>, now: SystemTime) -> String {
        let state = sources.meters.read();
        let checked = sources.readiness.check(sources.meters, &ReadinessSubject::Anyone);
        let facts = Facts {
            generation: sources.generation,
            state: &state,
            overview: sources.counts.overview(),
            minutes: self.history.minutes(&Sample::of(sources.counts)),
            quota: sources.quota,
            readiness: checked.as_ref().map_or("", |(_, lines)| lines),
            is_ready: checked.as_ref().is_some_and(|(is_ready, _)| *is_ready),
            listeners: &self.listeners,
            workers: self.workers,
            stalls: sources.meters.worker_stalls(),
            lines_dropped: sources.meters.lines_dropped(),
            address_only_callers: sources.meters.address_only_callers(),
            sandbox: sources.meters.confinement(),
            uptime: now.duration_since(sources.since).map_or(Duration::ZERO, |uptime| uptime),
            now,
        };
        document(&facts).into_string()
    }
}

/// The links at the top: the id and the name of each section.
const SECTIONS: [(&str, &str); 8] = [
    ("traffic", "Requests"),
    ("refusals", "401 and 403"),
    ("callers", "Callers"),
    ("tokens", "Tokens"),
    ("quota", "Quota"),
    ("upstream", "Metrica"),
    ("listeners", "Listeners"),
    ("process", "Configuration"),
];

fn document(facts: &Facts<'_>) -> Markup {
    let (class, state) = if facts.is_ready { ("good", "ready") } else { ("bad", "not ready") };
    let at = humantime::format_rfc3339_seconds(facts.now).to_string();
    let shown = at.replace('T', " ").replace('Z', " UTC");
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="robots" content="noindex";
                title { "metrika-gate: " (state) }
                link rel="icon" href="data:,";
                style { (PreEscaped(STYLE)) }
            }
            body {
                a class="skip" href="#attention" { "Skip to the content" }
                header {
                    div class="title" {
                        h1 { "metrika-gate" }
                        a class="button" href="/" { "Refresh" }
                        button id="pause" type="button" hidden { "Pause" }
                    }
                    nav aria-label="Sections" {
                        @for (id, name) in SECTIONS { a href={ "#" (id) } { (name) } " " }
                    }
                    p id="failed" class="failed" role="status" hidden {
                        "The gate did not respond to the last refresh: the figures below are old."
                    }
                }
                main {
                    p class="state" {
                        span class={ "badge " (class) } { (state) }
                        " version " (env!("CARGO_PKG_VERSION")) ", running for " (span(facts.uptime)) ", as of "
                        time datetime=(at) { (shown) }
                    }
                    (page_state::attention(facts))
                    (page_state::traffic(facts))
                    (page_callers::refusals(facts))
                    (page_callers::callers(facts))
                    (page_callers::tokens(facts))
                    (page_state::quota(facts))
                    (page_state::upstream(facts))
                    (page_state::listeners(facts))
                    (page_state::process(facts))
                }
                footer {
                    p {
                        "For programs: "
                        @for path in ["/metrics", "/usage", "/quota", "/readyz?verbose", "/livez", "/startupz"] { a href=(path) { (path) } " " }
                    }
                    p { "Counts begin with the process. The plots have one column a minute." }
                }
                script { (PreEscaped(SCRIPT)) }
            }
        }
    }
}

/// Adds the header fields of the page (rule 3).
///
/// # Errors
/// The policy is no valid field, which its characters exclude.
pub fn set_fields(fields: &mut HeaderMap) -> Result<(), http::header::InvalidHeaderValue> {
    let hash = |text: &str| format!("'sha256-{}'", STANDARD.encode(digest(&SHA256, text.as_bytes())));
    let policy = format!(
        "default-src 'none'; style-src {}; script-src {}; connect-src 'self'; img-src data:; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'",
        hash(STYLE),
        hash(SCRIPT)
    );
    fields.insert(CONTENT_SECURITY_POLICY, HeaderValue::try_from(policy)?);
    fields.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    fields.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    fields.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    for name in ["cross-origin-opener-policy", "cross-origin-resource-policy"] {
        fields.insert(HeaderName::from_static(name), HeaderValue::from_static("same-origin"));
    }
    Ok(())
}
