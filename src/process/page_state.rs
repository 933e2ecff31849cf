//! The sections of the status page about traffic, quotas, the upstream, the configuration and the process.

use maud::{Markup, html};

use super::page_callers::as_value;
use super::page_parts::{absent, facts as list, number, seconds, section, span, table, text, time};
use super::page_plots::{Series, highest, legend, lines, part, stacked};
use super::status_page::Facts;
use crate::config::quota::OWN;
use crate::metrics::Histogram;
use crate::metrics::overview::{Results, Sample};
use crate::metrics::process::Reloads;
use crate::quota::{LimitRow, OwnerRow};

/// The problems that an operator should look at.
pub fn attention(facts: &Facts<'_>) -> Markup {
    let lines = facts.readiness.lines().filter_map(|line| Some((line.get(..4)?, line.get(4..)?)));
    let mut problems: Vec<_> =
        lines.filter(|(mark, _)| matches!(*mark, "[!] " | "[-] ")).map(|(_, what)| what.to_owned()).collect();
    let refused = |slot: &&crate::worker::Slot| slot.standing.is_refused();
    problems.extend(facts.generation.tokens.iter().filter(refused).map(|slot| {
        let probe = slot.next_look.map(|next| span(next.saturating_duration_since(tokio::time::Instant::now())));
        let probe =
            probe.map_or_else(|| "a probe is in progress".to_owned(), |left| format!("the next probe is in {left}"));
        format!("token {} is suspended because Metrica rejects it; {probe}", slot.alias)
    }));
    if facts.stalls.0 > 0 {
        problems.push(format!("{} of {} workers do not run their event loop", facts.stalls.0, facts.workers));
    }
    if facts.lines_dropped > 0 {
        problems.push(format!("{} log lines were dropped since the start", number(facts.lines_dropped)));
    }
    let content = html! {
        @if problems.is_empty() {
            p class="quiet" { "Every listener is open, every token is loaded and accepted, and the configuration file is in use." }
        } @else {
            ul class="problems" { @for problem in &problems { li { (problem) } } }
        }
    };
    section("attention", if problems.is_empty() { "Nothing needs attention" } else { "Needs attention" }, &content)
}

/// The requests of the last hour, and the latency of Metrica.
pub fn traffic(facts: &Facts<'_>) -> Markup {
    let series = |class, name| Series {
        class,
        name,
        values: facts.minutes.iter().map(|minute| as_value(of_class(class, &minute.results))).collect(),
    };
    let all = [
        series("fulfilled", "fulfilled"),
        series("metrica", "401 and 403"),
        series("quota", "420 and 429"),
        series("other", "other errors"),
    ];
    let requests: u64 = facts.minutes.iter().map(|minute| minute.results.total()).sum();
    let quantile =
        |quantile: f64| facts.minutes.iter().map(move |minute| minute.upstream.quantile(quantile).unwrap_or(f64::NAN));
    let latency = [
        Series { class: "fulfilled", name: "median", values: quantile(0.5).collect() },
        Series { class: "gate", name: "95th percentile", values: quantile(0.95).collect() },
    ];
    let slowest = latency.iter().flat_map(|one| &one.values).fold(0.0, |most: f64, value| most.max(*value));
    let mut upstream = Histogram::default();
    facts.minutes.iter().for_each(|minute: &Sample| upstream.add(&minute.upstream));
    let of_hour = |one: &Series| {
        let quantile = if one.name == "median" { 0.5 } else { 0.95 };
        upstream.quantile(quantile).map_or_else(|| "–".to_owned(), seconds)
    };
    let results = |minute: &Sample| minute.results;
    let sum =
        |one: &Series| number(facts.minutes.iter().map(results).map(|results| of_class(one.class, &results)).sum());
    let content = html! {
        div class="plots" {
            div {
                h3 { "Requests a minute" }
                (stacked(&format!("Requests in each minute of the last hour: {requests} in all"), &all, &format!("{} a minute", highest(&all))))
                (legend(&all, sum))
            }
            div {
                h3 { "Time to Metrica's response" }
                (lines("Median and 95th percentile of the time to Metrica's response in each minute of the last hour", &latency, &seconds(slowest)))
                (legend(&latency, of_hour))
            }
        }
    };
    section("traffic", "Requests in the last hour", &content)
}

/// Returns the count that the series with this class shows.
fn of_class(class: &str, results: &Results) -> u64 {
    match class {
        "fulfilled" => results.fulfilled,
        "metrica" => results.refused,
        "quota" => results.quota,
        _ => results.other,
    }
}

/// The quotas of accounts and egress addresses.
pub fn quota(facts: &Facts<'_>) -> Markup {
    let Some(quota) = facts.quota else {
        let content =
            html! { p class="quiet" { "The configuration has no " code { "quota" } ": requests are sent at once." } };
        return section("quota", "Quota", &content);
    };
    let egresses = quota.egresses.iter().map(|(name, limits)| (format!("egress {name}"), limits.as_slice()));
    let owners = quota.owners.iter().map(|row| (format!("account {}", row.owner), row.limits.as_slice()));
    let rows: Vec<_> =
        owners.chain(egresses).flat_map(|(of, limits)| limits.iter().map(move |row| limit(&of, row))).collect();
    let callers: Vec<_> = quota.owners.iter().flat_map(callers_of).collect();
    let learned: u64 = quota.learned.iter().map(|(_, count)| count).sum();
    let mut figures = vec![
        ("Waiting requests", text(number(quota.waiting.into()))),
        ("Sent again after a refusal by Metrica", text(number(quota.resent))),
        ("Refusals by Metrica that lowered a limit", text(number(learned))),
    ];
    if let Some(fleet) = &quota.fleet {
        let state = if fleet.is_store_up { ("good", "decides") } else { ("bad", "not reachable") };
        figures.push((
            "Quota store",
            html! { span class={ "badge " (state.0) } { (state.1) } ", " (fleet.replicas) " gates" },
        ));
    }
    let columns = [
        ("Limit", false),
        ("Of", false),
        ("Mode", false),
        ("In use", false),
        ("Used", true),
        ("Allowed now", true),
        ("Configured", true),
    ];
    let of_callers = [
        ("Caller", false),
        ("Account", false),
        ("Waiting", true),
        ("In flight", true),
        ("Today", true),
        ("Since the start", true),
        ("Mean time", true),
    ];
    let content = html! {
        (list(&figures))
        (table("limits", "Limits", &columns, &rows))
        @if !callers.is_empty() {
            h3 { "Use by caller" }
            (table("spent", "Use of the quotas by caller", &of_callers, &callers))
        }
    };
    section("quota", "Quota", &content)
}

fn limit(of: &str, row: &LimitRow) -> Vec<Markup> {
    let (used, effective) = (f64::from(row.used), f64::from(row.effective));
    let class = if row.remaining == 0 { "metrica" } else { "fulfilled" };
    vec![
        html! { code { (row.limit) } },
        text(of),
        text(row.mode),
        part(&format!("{} of {} in use", row.used, row.effective), class, used, effective),
        html! { @if !row.is_known { "at least " } (number(row.used.into())) },
        html! { (number(row.effective.into())) @if row.is_learned { " " span class="badge warn" { "learned" } } },
        text(number(row.allowed.into())),
    ]
}

fn callers_of(owner: &OwnerRow) -> Vec<Vec<Markup>> {
    let row = |caller: &crate::quota::CallerRow| {
        vec![
            if caller.caller == OWN {
                html! { em { "the gate itself" } }
            } else {
                text(caller.caller)
            },
            text(owner.owner),
            text(caller.waiting),
            text(caller.in_flight),
            text(number(caller.spent_today.into())),
            text(number(caller.total)),
            text(format!("{} ms", number(caller.mean_milliseconds))),
        ]
    };
    owner.callers.iter().map(row).collect()
}

/// The upstream: where it is, its connections, latency and errors.
pub fn upstream(facts: &Facts<'_>) -> Markup {
    let settings = &facts.generation.upstream.settings;
    let pool = &facts.overview.pool;
    let connect_to = settings.connect_to.as_ref().map(|(host, port)| format!("{host}:{port}"));
    let proxy = settings.proxy.as_ref().map(|proxy| format!("{}:{}", proxy.host, proxy.port));
    let steps = pool
        .steps
        .iter()
        .filter_map(|(step, durations)| Some(format!("{} {}", step.as_str(), seconds(durations.mean()?))));
    let steps: Vec<_> = steps.collect();
    let waits = pool.waits.count();
    let mean_wait = pool.waits.mean().map_or_else(String::new, |mean| format!(", {} on average", seconds(mean)));
    let mut places = vec![("Host", html! { code { (settings.authority) } })];
    places.extend(connect_to.map(|place| ("Connected to instead", html! { code { (place) } })));
    places.extend(proxy.map(|place| ("Proxy", html! { code { (place) } })));
    places.extend([
        ("Trusted certificates", text(&facts.generation.upstream.roots)),
        (
            "Connections now",
            text(format!(
                "{} active, {} idle, at most {}",
                pool.active,
                pool.idle,
                number(strict_http::number::count(settings.connections))
            )),
        ),
        (
            "Opened and reused",
            text(format!("{} opened, {} requests got an existing one", number(pool.opened), number(pool.reused))),
        ),
        ("Mean time to open a connection", if steps.is_empty() { absent() } else { text(steps.join(", ")) }),
        ("Requests that waited for a place", text(format!("{}{mean_wait}", number(waits)))),
    ]);
    let addresses: Vec<_> = pool
        .addresses
        .iter()
        .map(|(address, opened)| vec![html! { code { (address) } }, text(number(*opened))])
        .collect();
    let operation = |(operation, durations): &(metrica::operation::OperationId, Histogram)| {
        let quantile = |quantile| durations.quantile(quantile).map_or_else(absent, |value| text(seconds(value)));
        vec![
            html! { code { (operation.as_str()) } },
            text(number(durations.count())),
            quantile(0.5),
            quantile(0.95),
            quantile(0.99),
        ]
    };
    let operations: Vec<_> = facts.overview.operations.iter().take(OPERATIONS).map(operation).collect();
    let errors: Vec<_> = facts
        .overview
        .errors
        .iter()
        .map(|(kind, count)| vec![html! { code { (kind.as_str()) } }, text(number(*count))])
        .collect();
    let content = html! {
        (list(&places))
        div class="columns" {
            div {
                h3 { "Errors since the start" }
                @if errors.is_empty() { p class="quiet" { "None." } }
                @else { (table("errors", "Errors towards Metrica since the start", &[("Kind", false), ("Count", true)], &errors)) }
            }
            div {
                h3 { "Addresses" }
                @if addresses.is_empty() { p class="quiet" { "No connection was opened yet." } }
                @else { (table("addresses", "Addresses of Metrica", &[("Address", false), ("Connections opened", true)], &addresses)) }
            }
        }
        @if !operations.is_empty() {
            h3 { "Time to the response since the start" }
            (table("operations", "Time to the response by operation", &[("Operation", false), ("Responses", true), ("Median", true), ("95th percentile", true), ("99th percentile", true)], &operations))
        }
    };
    section("upstream", "Metrica", &content)
}

/// The maximum number of operations in the table of latencies.
const OPERATIONS: usize = 30;

/// The listeners of callers.
pub fn listeners(facts: &Facts<'_>) -> Markup {
    let row = |(name, place): &(crate::policy::names::ListenerName, String)| {
        let connections = facts.overview.listeners.get(name).copied();
        let (open, accepted) = connections.map_or((0, 0), |connections| (connections.open, connections.accepted));
        let certificate = facts.state.certificates.get(name).map_or_else(absent, |end| time(*end, facts.now));
        let authority = facts.state.authorities.get(name).map_or_else(absent, |end| time(*end, facts.now));
        vec![
            text(name.as_str()),
            html! { code { (place) } },
            text(open),
            text(number(accepted)),
            certificate,
            authority,
        ]
    };
    let columns = [
        ("Listener", false),
        ("Address", false),
        ("Open connections", true),
        ("Accepted", true),
        ("Certificate expires", false),
        ("Authority expires", false),
    ];
    let rows: Vec<_> = facts.listeners.iter().map(row).collect();
    section("listeners", "Listeners", &table("listeners-table", "Listeners", &columns, &rows))
}

/// The configuration in use, and the process.
pub fn process(facts: &Facts<'_>) -> Markup {
    let state = facts.state;
    let loads = |reloads: &Reloads| format!("{} succeeded, {} failed", reloads.succeeded, reloads.failed);
    let configuration = match &state.config_refusal {
        None => html! { span class="badge good" { "in use" } },
        Some(why) => html! { span class="badge bad" { "rejected; the previous one is in use" } " " (why) },
    };
    let mut of_configuration = vec![
        ("File", configuration),
        (
            "Hash",
            html! { code { (format!("{:012x}", state.config_hash)) } " (the first 12 digits of " code { "sha256sum" } ")" },
        ),
        ("Loaded", time(state.config.last_success, facts.now)),
        ("Loads", text(loads(&state.config))),
        ("Reloads of tokens", text(loads(&state.tokens))),
    ];
    of_configuration.extend(state.ca_files.iter().map(|(key, end)| {
        (
            if *key == "upstream" { "upstream.ca_file expires" } else { "identity.ca_file expires" },
            time(*end, facts.now),
        )
    }));
    let weak = facts.address_only_callers;
    if weak > 0 {
        let told = format!("{weak} callers are identified only by a network address, which is weak evidence");
        of_configuration.push(("Warning", html! { span class="badge warn" { "warning" } " " (told) }));
    }
    let sandbox = facts.sandbox.map_or("unknown", |sandbox| sandbox.as_str());
    let class = if matches!(sandbox, "full" | "off") { "good" } else { "warn" };
    let of_process = [
        ("Version", text(env!("CARGO_PKG_VERSION"))),
        ("TLS", text("rustls with aws-lc-rs")),
        ("Running", html! { "for " (span(facts.uptime)) }),
        ("Workers", text(facts.workers)),
        ("Stalls of workers", text(number(facts.stalls.1))),
        ("Sandbox", html! { span class={ "badge " (class) } { (sandbox) } }),
        ("Dropped log lines", text(number(facts.lines_dropped))),
    ];
    let content = html! {
        div class="columns" {
            div { h3 { "Configuration" } (list(&of_configuration)) }
            div { h3 { "Build and process" } (list(&of_process)) }
        }
    };
    section("process", "Configuration and process", &content)
}
