//! Descriptors: callers who take all that they can leave the rest of the gate alone, and a shortage is no failure of a token.

use std::process::Command;
use std::time::Duration;

use crate::harness::gate::{program, until};
use crate::harness::{Caller, Gate, TWO_CALLERS, Upstream};

const GET: &str = "GET /management/v1/counters HTTP/1.1\r\nHost: localhost\r\n\r\n";
const ANOTHER_TOKEN: &str = "y0_anotherREADtoken0123456789abcdef";

fn shortages(gate: &Gate, need: &str) -> f64 {
    gate.metric(&["descriptor_shortages_total", &format!("needed_for=\"{need}\"")])
}

/// Whether the gate sends this token for reads.
fn sends(gate: &Gate, upstream: &Upstream, token: &str) -> bool {
    gate.get("app", "/management/v1/counters");
    upstream.requests().last().is_some_and(|request| request.contains(token))
}

#[test]
fn callers_that_take_all_descriptors_leave_those_of_the_admin_and_of_files() {
    let upstream = Upstream::plain();
    let gate = Gate::plan(&upstream, TWO_CALLERS).descriptors(256).start();
    let said = gate.until_log(&["the hard limit of file descriptors is too low", "\"descriptors\":256"]);
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    let most = said["limits.connections"].as_u64().unwrap();
    assert!((32..200).contains(&most), "{most} connections of callers");
    let mut held: Vec<Caller> = Vec::new();
    for _ in 0..most {
        let mut caller = gate.connect("app");
        caller.send(GET);
        assert_eq!(caller.answer().summary(), "200");
        held.push(caller);
    }
    let beyond: Vec<_> = (0..400).map(|_| gate.connect("crm")).collect();
    for page in ["/livez", "/readyz", "/startupz", "/metrics", "/usage"] {
        assert_eq!(gate.admin(page).status, 200, "{page}");
    }
    let healthy = program().args(["healthcheck", "--url", &format!("http://{}/readyz", gate.admin_place())]).status();
    assert_eq!(healthy.unwrap().code(), Some(0));
    gate.replace_token("analytics", ANOTHER_TOKEN);
    gate.until_log(&["token reloaded"]);
    let last = held.last_mut().unwrap();
    last.send(GET);
    assert_eq!(last.answer().summary(), "200");
    assert!(upstream.requests().last().unwrap().contains(ANOTHER_TOKEN));
    for need in ["caller", "upstream", "admin", "file"] {
        assert_eq!(shortages(&gate, need), 0.0, "{need}");
    }
    drop((held, beyond));
}

#[test]
fn a_shortage_is_counted_and_no_token_fails_for_it() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TWO_CALLERS);
    gate.allow_descriptors(64);
    let idle: Vec<_> = (0..100).map(|_| gate.connect("app")).collect();
    gate.until_log(&["accept failed"]);
    gate.replace_token("analytics", ANOTHER_TOKEN);
    // A wrong file is believed to be wrong within the second.
    std::thread::sleep(Duration::from_secs(2));
    drop(idle);
    until("the new token is sent", || sends(&gate, &upstream, ANOTHER_TOKEN));
    assert_eq!(gate.metric(&["token_reloads_total", "outcome=\"failure\""]), 0.0);
    assert_eq!(gate.metric(&["config_reloads_total", "outcome=\"failure\""]), 0.0);
    assert!(!gate.log().iter().any(|line| line.contains("not reloaded") || line.contains("was removed")));
    assert!(shortages(&gate, "caller") >= 1.0 && shortages(&gate, "file") >= 1.0);
}

#[test]
fn a_reload_fits_the_descriptor_limit_too() {
    let upstream = Upstream::plain();
    let small = format!(
        "{TWO_CALLERS}limits: {{connections: 10}}\nupstream: {{ca_file: '{{ca}}', connect_to: '{{upstream}}', connections: 10}}\n"
    );
    let gate = Gate::plan(&upstream, &small).descriptors(256).start();
    gate.replace_config(&gate.config().replace("connections: 10}\nup", "connections: 100000}\nup"));
    gate.signal("HUP");
    let said = gate.until_log(&["the hard limit of file descriptors is too low"]);
    assert!(said.contains("\"upstream.connections\":10,"), "{said}");
    gate.until_log(&["configuration reloaded"]);
    assert_eq!(gate.log().iter().filter(|line| line.contains("too low")).count(), 1, "at the start all fitted");
    // The logged limit is the effective one: connections beyond it are refused before descriptors run out.
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    let most = said["limits.connections"].as_u64().unwrap();
    let held: Vec<_> = (0..most + 10).map(|_| gate.connect("app")).collect();
    gate.until_metric(&["connections_refused_total", "limit=\"connections\""], 10.0);
    assert_eq!(shortages(&gate, "caller"), 0.0);
    drop(held);
}

#[test]
fn check_warns_of_connections_beyond_the_descriptor_limit() {
    let upstream = Upstream::plain();
    let plan = Gate::plan(&upstream, &format!("{TWO_CALLERS}limits: {{connections: 9999}}\n"));
    let check = |most: u32| {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("ulimit -n {most} && exec \"$0\" check --config \"$1\"")]);
        let output = shell.arg(crate::harness::gate::binary()).arg(plan.file()).output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(!check(16_384).contains("descriptors"));
    let said = check(1024);
    assert!(
        said.contains("warning: ") && said.contains(" limits.connections: the hard limit of file descriptors is 1024"),
        "{said}"
    );
}
