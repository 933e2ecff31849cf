//! Token files in places that change: behind links, in folders that come and go, away for a moment.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::harness::files::write_private;
use crate::harness::gate::until;
use crate::harness::{Gate, READ_TOKEN, TWO_CALLERS, Upstream};

const NEW_TOKEN: &str = "y0_canaryNEWcanary0123456789abcdefg";
const COUNTERS: &str = "/management/v1/counters";

/// The reader's token is in `file` of the gate's folder.
fn with_file(file: &str) -> String {
    format!(
        "{TWO_CALLERS}
tokens:
  analytics: {{file: '{{folder}}/{file}', scopes: [metrika:read]}}
  crm: {{file: '{{folder}}/crm', scopes: [metrika:write]}}
"
    )
}

fn replace(file: &Path, token: &str) {
    write_private(&file.with_extension("new"), token);
    std::fs::rename(file.with_extension("new"), file).unwrap();
}

/// Whether a request goes out with `token`.
fn is_used(gate: &Gate, upstream: &Upstream, token: &str) -> bool {
    let before = upstream.requests().len();
    gate.get("app", COUNTERS).status == 200
        && upstream.requests().len() > before
        && upstream.requests().pop().unwrap().contains(&format!("OAuth {token}\r\n"))
}

/// Waits until requests go out with the new token, and holds it to a time.
#[track_caller]
fn used_within(gate: &Gate, upstream: &Upstream, limit: Duration) {
    let start = Instant::now();
    until("the new token is in use", || is_used(gate, upstream, NEW_TOKEN));
    assert!(start.elapsed() < limit, "it took {:?}", start.elapsed());
}

#[test]
fn a_token_behind_a_link_is_watched_where_it_is() {
    let upstream = Upstream::plain();
    let plan = Gate::plan(&upstream, &with_file("linked"));
    let secrets = plan.folder().join("other/secrets");
    std::fs::create_dir_all(&secrets).unwrap();
    write_private(&secrets.join("token"), READ_TOKEN);
    symlink(secrets.join("token"), plan.folder().join("linked")).unwrap();
    let gate = plan.start();
    assert!(is_used(&gate, &upstream, READ_TOKEN));
    replace(&secrets.join("token"), NEW_TOKEN);
    used_within(&gate, &upstream, Duration::from_secs(2));
    assert_eq!(gate.metric(&["token_reloads_total", "failure"]), 0.0);
    // The link may lead elsewhere from one moment to the next, and is followed there.
    let elsewhere = gate.file("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    write_private(&elsewhere.join("token"), READ_TOKEN);
    symlink(elsewhere.join("token"), gate.file("linked.new")).unwrap();
    std::fs::rename(gate.file("linked.new"), gate.file("linked")).unwrap();
    until("the link is followed", || is_used(&gate, &upstream, READ_TOKEN));
    replace(&elsewhere.join("token"), NEW_TOKEN);
    used_within(&gate, &upstream, Duration::from_secs(2));
}

#[test]
fn a_folder_that_is_made_again_is_seen() {
    let upstream = Upstream::plain();
    let plan = Gate::plan(&upstream, &with_file("folder/token"));
    let folder = plan.folder().join("folder");
    let make = |token: &str| {
        std::fs::create_dir(&folder).unwrap();
        write_private(&folder.join("token"), token);
    };
    make(READ_TOKEN);
    let gate = plan.start();
    assert!(is_used(&gate, &upstream, READ_TOKEN));
    std::fs::remove_dir_all(&folder).unwrap();
    until("requests are refused", || gate.get("app", COUNTERS).summary() == "503 token_unavailable");
    make(NEW_TOKEN);
    used_within(&gate, &upstream, Duration::from_secs(3));
    // Changes in the new folder are seen as well.
    replace(&folder.join("token"), READ_TOKEN);
    let start = Instant::now();
    until("the token is in use", || is_used(&gate, &upstream, READ_TOKEN));
    assert!(start.elapsed() < Duration::from_secs(3), "it took {:?}", start.elapsed());
    // In one go: the new folder may have been made before the end of the old one was seen.
    std::fs::remove_dir_all(&folder).unwrap();
    make(NEW_TOKEN);
    used_within(&gate, &upstream, Duration::from_secs(3));
}

#[test]
fn a_reload_while_a_token_is_away_for_a_moment_loses_nothing() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let good = gate.config();
    for round in 0..2 {
        if round > 0 {
            // Also when the configuration has changed.
            gate.replace_config(&good.replace("id: reports", "id: renamed"));
        }
        let reloads = gate.metric(&["config_reloads_total", "success"]);
        std::fs::rename(gate.file("analytics"), gate.file("analytics~")).unwrap();
        gate.signal("HUP");
        let start = Instant::now();
        until("it was reloaded", || gate.metric(&["config_reloads_total", "success"]) > reloads);
        assert_eq!(gate.get("app", COUNTERS).summary(), "200", "the token is away, in round {round}");
        std::fs::rename(gate.file("analytics~"), gate.file("analytics")).unwrap();
        assert!(start.elapsed() < Duration::from_secs(1), "this machine is too busy for this test");
        while start.elapsed() < Duration::from_secs(2) {
            assert_eq!(gate.get("app", COUNTERS).summary(), "200", "the token is back, in round {round}");
        }
        assert_eq!(gate.metric(&["token_loaded{", "analytics"]), 1.0);
    }
    assert_eq!(gate.metric(&["token_reloads_total"]), 0.0, "no token changed");
    assert_eq!(gate.metric(&["denied_total"]), 0.0);
}
