//! Reload: new tokens and new configurations take the place of the old ones while requests go on, or nothing changes.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::harness::files::write_private;
use crate::harness::gate::{count, until};
use crate::harness::{Caller, Gate, READ_TOKEN, TWO_CALLERS, Upstream};

const NEW_TOKEN: &str = "y0_canaryNEWcanary0123456789abcdefg";
const COUNTERS: &str = "/management/v1/counters";

/// The token that Metrica saw last.
fn last_token(upstream: &Upstream) -> String {
    let head = upstream.requests().pop().unwrap();
    let line = head.lines().find_map(|line| line.strip_prefix("authorization: OAuth ")).unwrap();
    line.to_owned()
}

/// Callers that ask without a pause, each on a connection that stays open.
struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    threads: Vec<std::thread::JoinHandle<Vec<String>>>,
}

impl Load {
    fn on(gate: &Gate) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let one = |_| {
            let (stop, answered, place) = (stop.clone(), answered.clone(), gate.place("app").to_owned());
            std::thread::spawn(move || {
                let mut caller = Caller::connect(&place);
                let mut wrong = Vec::new();
                while !stop.load(Ordering::SeqCst) {
                    caller.send(format!("GET {COUNTERS} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
                    match caller.try_answer(false) {
                        Ok(answer) if answer.status == 200 => {}
                        Ok(answer) => wrong.push(answer.summary()),
                        Err(error) => {
                            wrong.push(error);
                            return wrong;
                        }
                    }
                    answered.fetch_add(1, Ordering::SeqCst);
                }
                wrong
            })
        };
        let threads = (0..4).map(one).collect();
        let load = Self { stop, answered, threads };
        load.go_on();
        load
    }

    /// Waits until some more requests were answered.
    fn go_on(&self) {
        let enough = self.answered.load(Ordering::SeqCst) + 100;
        until("requests are answered", || self.answered.load(Ordering::SeqCst) >= enough);
    }

    /// Ends it: none of its requests may have failed.
    fn end(self) {
        self.go_on();
        self.stop.store(true, Ordering::SeqCst);
        let wrong: Vec<_> = self.threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        assert!(wrong.is_empty(), "{} of {} failed: {wrong:?}", wrong.len(), self.answered.load(Ordering::SeqCst));
    }
}

/// Replaces the token while requests run: all are answered, and the new one is in use within two seconds.
fn replaced_under_load(gate: &Gate, upstream: &Upstream, replace: impl FnOnce()) {
    let load = Load::on(gate);
    assert_eq!(last_token(upstream), READ_TOKEN);
    let start = Instant::now();
    replace();
    until("the new token is in use", || last_token(upstream) == NEW_TOKEN);
    let taken = start.elapsed();
    load.end();
    assert!(taken < Duration::from_secs(2), "it took {taken:?}");
    let heads = upstream.requests();
    let of = |token: &str| heads.iter().filter(|head| head.contains(&format!("OAuth {token}\r\n"))).count();
    assert_eq!(of(READ_TOKEN) + of(NEW_TOKEN), heads.len(), "every request had one of the two");
    gate.until_metric(&["token_reloads_total", "success"], 1.0);
    assert_eq!(gate.metric(&["token_reloads_total", "failure"]), 0.0);
    gate.until_log(&["token reloaded", "\"token\":\"analytics\"", "\"usable\":true"]);
}

#[test]
fn a_token_renamed_over_the_old_one_is_used() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TWO_CALLERS);
    replaced_under_load(&gate, &upstream, || gate.replace_token("analytics", NEW_TOKEN));
}

#[test]
fn a_token_written_over_the_old_one_is_used() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TWO_CALLERS);
    replaced_under_load(&gate, &upstream, || write_private(&gate.file("analytics"), &format!("{NEW_TOKEN}\n")));
}

#[test]
fn a_token_removed_and_replaced_is_used() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TWO_CALLERS);
    replaced_under_load(&gate, &upstream, || {
        std::fs::rename(gate.file("analytics"), gate.file("analytics~")).unwrap();
        write_private(&gate.file("analytics"), NEW_TOKEN);
        std::fs::remove_file(gate.file("analytics~")).unwrap();
    });
}

/// The kubelet's way: `analytics -> ..data/analytics`, `..data -> ..version`, and `..data` is renamed over.
#[test]
fn the_swap_of_a_kubernetes_volume_is_seen() {
    let upstream = Upstream::plain();
    let config = format!(
        "{TWO_CALLERS}
tokens:
  analytics: {{file: '{{folder}}/volume/analytics', scopes: [metrika:read]}}
  crm: {{file: '{{folder}}/volume/crm', scopes: [metrika:write]}}
"
    );
    let plan = Gate::plan(&upstream, &config);
    let volume = plan.folder().join("volume");
    let version = |name: &str, token: &str| {
        std::fs::create_dir_all(volume.join(name)).unwrap();
        write_private(&volume.join(name).join("analytics"), token);
        write_private(&volume.join(name).join("crm"), "y0_canaryCRMcanary0123456789abcdefg");
    };
    version("..2026_01", READ_TOKEN);
    symlink("..2026_01", volume.join("..data")).unwrap();
    for name in ["analytics", "crm"] {
        symlink(Path::new("..data").join(name), volume.join(name)).unwrap();
    }
    let gate = plan.start();
    replaced_under_load(&gate, &upstream, || {
        version("..2026_02", NEW_TOKEN);
        symlink("..2026_02", volume.join("..data_tmp")).unwrap();
        std::fs::rename(volume.join("..data_tmp"), volume.join("..data")).unwrap();
        std::fs::remove_dir_all(volume.join("..2026_01")).unwrap();
    });
}

#[test]
fn a_bad_token_changes_nothing_and_is_logged_and_counted() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let load = Load::on(&gate);
    let bad = ["", "y0_two\nlines", "y0_two words are none", "demo-token-0123456789"];
    for (number, bad) in bad.into_iter().enumerate() {
        gate.replace_token("analytics", bad);
        gate.until_metric(&["token_reloads_total", "failure"], count(number + 1));
        assert_eq!(last_token(&upstream), READ_TOKEN, "{bad:?}");
    }
    gate.until_log(&[
        "the token was not reloaded",
        "\"kept\":\"the previous token stays in use\"",
        "\"token\":\"analytics\"",
        "is empty",
    ]);
    assert_eq!(gate.metric(&["token_loaded{", "analytics"]), 1.0);
    assert_eq!(gate.admin("/readyz").summary(), "200");
    gate.replace_token("analytics", NEW_TOKEN);
    until("the new token is in use", || last_token(&upstream) == NEW_TOKEN);
    load.end();
    assert!(!gate.log().iter().any(|line| line.contains("two words") || line.contains("canary")));
}

#[test]
fn a_token_with_wrong_permissions_changes_nothing() {
    use std::os::unix::fs::PermissionsExt;
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TWO_CALLERS);
    std::fs::write(gate.file("new"), NEW_TOKEN).unwrap();
    std::fs::set_permissions(gate.file("new"), std::fs::Permissions::from_mode(0o644)).unwrap();
    std::fs::rename(gate.file("new"), gate.file("analytics")).unwrap();
    gate.until_log(&["the token was not reloaded", "chmod 0600"]);
    assert_eq!(gate.get("app", COUNTERS).summary(), "200");
    assert_eq!(last_token(&upstream), READ_TOKEN);
    // The remedy in the message fixes it.
    std::fs::set_permissions(gate.file("analytics"), std::fs::Permissions::from_mode(0o600)).unwrap();
    until("the new token is in use", || {
        gate.get("app", COUNTERS);
        last_token(&upstream) == NEW_TOKEN
    });
}

///
#[test]
fn without_its_token_a_request_does_not_leave() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TWO_CALLERS);
    assert_eq!(gate.get("app", COUNTERS).summary(), "200");
    std::fs::rename(gate.file("analytics"), gate.file("elsewhere")).unwrap();
    until("requests are refused", || gate.get("app", COUNTERS).summary() == "503 token_unavailable");
    let sent = upstream.requests().len();
    let answer = gate.get("app", COUNTERS);
    assert_eq!((answer.summary().as_str(), answer.field("retry-after")), ("503 token_unavailable", Some("5")));
    assert_eq!(upstream.requests().len(), sent, "nothing was sent");
    assert_eq!(gate.metric(&["token_loaded{", "analytics"]), 0.0);
    assert_eq!(gate.metric(&["token_loaded{", "crm"]), 1.0);
    // Other callers are served; readiness of one caller is a query of its own.
    let ready = gate.admin("/readyz?verbose");
    assert_eq!((ready.status, ready.text().contains("[!] token analytics")), (200, true));
    for one in ["caller=reports", "caller=crm", "listener=app", "listener=crm"] {
        let ready = gate.admin(&format!("/readyz?{one}"));
        assert_eq!((ready.status, ready.text().contains("[-] token analytics")), (503, true), "{one}");
    }
    for (one, status) in [("caller=none", 404), ("listener=none", 404), ("caller=crm&listener=crm", 400)] {
        assert_eq!(gate.admin(&format!("/readyz?{one}")).status, status, "{one}");
    }
    assert_eq!(gate.admin("/livez").status, 200);
    gate.until_log(&["the token file was removed", "\"token\":\"analytics\""]);
    // Requests with the other token go on.
    let post = "POST /management/v1/counters HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}";
    assert_eq!(gate.send("crm", post).summary(), "200");
    std::fs::rename(gate.file("elsewhere"), gate.file("analytics")).unwrap();
    until("the token is back", || gate.get("app", COUNTERS).summary() == "200");
    until("the caller is ready", || gate.admin("/readyz?caller=reports").status == 200);
}

#[test]
fn a_token_that_comes_later_makes_the_gate_ready() {
    let upstream = Upstream::plain();
    let gate = Gate::plan(&upstream, TWO_CALLERS).without("analytics").without("crm").start();
    assert_eq!(gate.get("app", COUNTERS).summary(), "503 token_unavailable");
    assert_eq!(upstream.connections(), 0, "nothing was sent");
    assert_eq!((gate.admin("/readyz").status, gate.admin("/startupz").status), (503, 503));
    gate.until_log(&["the token file is missing", "\"token\":\"analytics\""]);
    gate.replace_token("analytics", READ_TOKEN);
    until("the gate is ready", || gate.admin("/readyz").status == 200);
    assert_eq!(gate.get("app", COUNTERS).summary(), "200");
    assert_eq!(gate.admin("/startupz").status, 200);
}

#[test]
fn a_folder_that_comes_later_is_seen() {
    let upstream = Upstream::plain();
    let config = format!(
        "{TWO_CALLERS}
tokens:
  analytics: {{file: '{{folder}}/later/analytics', scopes: [metrika:read]}}
  crm: {{file: '{{folder}}/crm', scopes: [metrika:write]}}
"
    );
    let gate = Gate::start(&upstream, &config);
    assert_eq!(gate.get("app", COUNTERS).summary(), "503 token_unavailable");
    std::fs::create_dir(gate.file("later")).unwrap();
    write_private(&gate.file("later/analytics"), READ_TOKEN);
    until("the token is in use", || gate.get("app", COUNTERS).summary() == "200");
}

const WRITE: &str = "POST /management/v1/counters HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}";

/// `TWO_CALLERS`, with the reader allowed to write.
fn with_another_scope(config: &str) -> String {
    let changed = config.replace(
        "match: {listener: app}, scopes: [metrika:read], tokens: [analytics]",
        "match: {listener: app}, scopes: [metrika:read, metrika:write], tokens: [analytics, crm]",
    );
    assert_ne!(changed, config);
    changed
}

#[test]
fn a_changed_configuration_is_used_without_a_lost_request() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let mut caller = gate.connect("app");
    caller.send(WRITE);
    assert_eq!(caller.answer().summary(), "403 scope_denied");
    let load = Load::on(&gate);
    gate.replace_config(&with_another_scope(&gate.config()));
    gate.signal("HUP");
    until("the caller has the scope", || {
        caller.send(WRITE);
        caller.answer().summary() == "200"
    });
    load.end();
    gate.until_log(&["configuration reloaded"]);
    assert_eq!(gate.metric(&["config_last_reload_successful"]), 1.0);
    assert_eq!(gate.metric(&["config_reloads_total", "failure"]), 0.0);
    // Counts go on, and series of the new pair of caller and token exist.
    assert!(gate.metric(&["auth_failures_total", "origin=\"gate\"", "\"reports\"", "scope_denied"]) >= 1.0);
    assert!(!gate.metrics(&["metrika_gate_refusals_total", "origin=\"upstream\"", "token=\"crm\""]).is_empty());
}

#[test]
fn a_changed_configuration_is_seen_without_a_signal() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TWO_CALLERS);
    gate.replace_config(&with_another_scope(&gate.config()));
    until("the caller has the scope", || gate.send("app", WRITE).summary() == "200");
}

#[test]
fn a_signal_alone_reads_everything_again() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TWO_CALLERS);
    assert_eq!(gate.metric(&["config_reloads_total", "success"]), 1.0, "the start is the first load");
    gate.signal("HUP");
    gate.until_metric(&["config_reloads_total", "success"], 2.0);
    assert_eq!(gate.get("app", COUNTERS).summary(), "200");
}

#[test]
fn a_configuration_with_mistakes_changes_nothing() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let good = gate.config();
    let load = Load::on(&gate);
    gate.replace_config(&good.replace("scopes: [metrika:read]", "scopes: [metrika:reed]"));
    gate.signal("HUP");
    gate.until_metric(&["config_last_reload_successful"], 0.0);
    gate.until_log(&[
        "the configuration was not reloaded; the previous one stays in use",
        "metrika:reed",
        "gate.yaml:",
    ]);
    assert!(gate.metric(&["config_reloads_total", "failure"]) >= 1.0);
    assert_eq!(gate.admin("/readyz").status, 200, "the old one serves");
    load.end();
    gate.replace_config(&good);
    gate.until_metric(&["config_last_reload_successful"], 1.0);
}

#[test]
fn a_configuration_that_is_gone_changes_nothing() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TWO_CALLERS);
    std::fs::remove_file(gate.file("gate.yaml")).unwrap();
    gate.signal("HUP");
    gate.until_log(&["the configuration was not reloaded", "cannot read the configuration"]);
    assert_eq!(gate.get("app", COUNTERS).summary(), "200");
}

#[test]
fn a_changed_log_level_needs_a_restart_and_is_reported() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TWO_CALLERS);
    gate.replace_config(&format!("{}log: {{level: debug}}\n", gate.config()));
    gate.signal("HUP");
    gate.until_log(&[
        "\"WARN\"",
        "log.format or log.level changed; restart the gate to apply it; other changes are applied",
    ]);
    gate.until_log(&["configuration reloaded"]);
    gate.replace_config(&format!("{}nobody_knows: 1\n", gate.config()));
    gate.signal("HUP");
    gate.until_log(&["the configuration was not reloaded", "nobody_knows: unknown key"]);
    gate.signal("HUP");
    gate.until_metric(&["config_reloads_total", "failure"], 2.0);
    let errors = gate.log().into_iter().filter(|line| line.contains("the configuration was not reloaded"));
    assert!(errors.clone().all(|line| line.contains("unknown key")), "the mistakes and nothing else: {:?}", gate.log());
}

#[test]
fn a_change_that_needs_a_restart_is_refused_with_the_reason() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let good = gate.config();
    for (changed, key) in [
        (
            good.replacen("name: app", "name: web", 1).replace("listener: app", "listener: web"),
            "listeners changed (app, web)",
        ),
        (good.replace("admin: {address: '127.0.0.1:0'}", "admin: {address: '127.0.0.2:0'}"), "admin changed"),
        (format!("{good}\nworkers: 7\n"), "workers changed"),
    ] {
        assert_ne!(changed, good, "{key}");
        gate.replace_config(&changed);
        gate.signal("HUP");
        gate.until_log(&["the configuration was not reloaded", &format!("{key}; restart the gate to apply it")]);
        gate.until_metric(&["config_last_reload_successful"], 0.0);
        assert_eq!(gate.get("app", COUNTERS).summary(), "200", "{key}");
        gate.replace_config(&good);
        gate.until_metric(&["config_last_reload_successful"], 1.0);
    }
}

/// a request in progress ends as it began.
#[test]
fn a_request_in_progress_keeps_its_first_configuration() {
    let (release, hold) = (crate::harness::Signal::default(), crate::harness::Signal::default());
    let (released, held) = (release.clone(), hold.clone());
    let upstream = Upstream::run(move |conversation| {
        while let Some(head) = conversation.request_head() {
            conversation.request_body(&head);
            if head.contains("/stat/") {
                held.give();
                released.wait("the test lets the answer go");
            }
            conversation.answer("200 OK", "application/json", "{}");
        }
    });
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let mut caller = gate.connect("app");
    caller.send("GET /stat/v1/data HTTP/1.1\r\nHost: localhost\r\n\r\n");
    hold.wait("the request is at Metrica");
    // The caller is gone from the new configuration.
    let config =
        gate.config().replace("{id: reports, match: {listener: app}", "{id: others, match: {source: [127.0.0.77]}");
    gate.replace_config(&config);
    until("the caller is unknown", || gate.get("app", COUNTERS).summary() == "401 unknown_caller");
    release.give();
    assert_eq!(caller.answer().summary(), "200");
    gate.until_metric(&["in_flight_requests"], 0.0);
}
