//! The counts of the day over a restart: `state_dir`.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use fake_metrica::Fake;

use super::sharing::{TOKEN, config, get, metrica};
use crate::cli::commands::outcome;
use crate::harness::Gate;
use crate::harness::gate::program;

/// A gate with a `state_dir`, whose file has `before`.
fn start(fake: &Fake, before: Option<&str>) -> Gate {
    let config = config("{}", "", "") + "\nstate_dir: '{folder}/state'\n";
    let plan = Gate::plan_for(&fake.address().to_string(), fake.ca_pem(), &config).token("shop", TOKEN);
    let folder = plan.folder().join("state");
    std::fs::create_dir(&folder).unwrap();
    if let Some(before) = before {
        std::fs::write(folder.join("quota.json"), before).unwrap();
    }
    plan.start()
}

/// The count of the day of the account, and whether it is of the whole day.
fn day(gate: &Gate) -> (u64, bool) {
    let state: serde_json::Value = serde_json::from_str(&gate.admin("/quota").text()).unwrap();
    let limits = state["owners"][0]["limits"].as_array().unwrap();
    let day = limits.iter().find(|limit| limit["limit"] == "day").unwrap();
    (day["used"].as_u64().unwrap(), day["is_known"].as_bool().unwrap())
}

fn end(mut gate: Gate) -> Gate {
    gate.signal("TERM");
    assert!(gate.wait().success());
    gate
}

fn written(gate: &Gate) -> String {
    std::fs::read_to_string(gate.file("state/quota.json")).unwrap()
}

#[test]
fn a_restart_keeps_the_counts_of_the_day() {
    let fake = metrica(fake_metrica::Quota::default());
    let gate = start(&fake, None);
    assert_eq!(day(&gate), (0, false));
    for listener in ["greedy", "greedy", "polite"] {
        assert_eq!(get(&gate, listener).status, 200);
    }
    // A gate that may write there wrote it within its sandbox.
    let gate = end(gate);
    let file = gate.file("state/quota.json");
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::read_dir(file.parent().unwrap()).unwrap().count(), 1, "nothing is left beside it");
    let text = written(&gate);
    assert!(!text.contains("canary") && !text.contains("http"), "{text}");
    let next = gate.again().unwrap();
    next.until_log(&["continuing with the counts of the day"]);
    assert_eq!(day(&next), (3, true));
    assert_eq!(get(&next, "polite").status, 200);
    drop(end(next));
    let last = gate.again().unwrap();
    assert_eq!(day(&last), (4, true));
    let callers: serde_json::Value = serde_json::from_str(&last.admin("/quota").text()).unwrap();
    let spent = |id: &str| {
        let rows = callers["owners"][0]["callers"].as_array().unwrap();
        rows.iter().find(|row| row["caller"] == id).unwrap()["spent_today"].as_u64()
    };
    assert_eq!((spent("etl"), spent("dash")), (Some(2), Some(2)));
}

#[test]
fn a_file_that_cannot_be_used_is_ignored_and_logged() {
    let fake = metrica(fake_metrica::Quota::default());
    let yesterday = r#"{"version":1,"day":20000,"owners":{"shop":{"spent":9,"callers":{"etl":9}}},"counters":{}}"#;
    let later = yesterday.replace("\"version\":1", "\"version\":2");
    for (before, said) in [
        ("y0_canary-in-the-wrong-place", "damaged"),
        (r#"{"version":1,"canary":0}"#, "damaged"),
        (yesterday, "another day"),
        (later.as_str(), "version 2"),
    ] {
        let gate = start(&fake, Some(before));
        let line = gate.until_log(&["the counts of the day were not restored", said]);
        assert!(line.contains("\"level\":\"WARN\"") && !line.contains("canary"), "{line}");
        assert_eq!((day(&gate), get(&gate, "polite").status), ((0, false), 200));
        let gate = end(gate);
        assert!(written(&gate).contains("\"spent\":1"), "it is replaced");
    }
}

/// The start does not depend on the folder; readiness and the log name it.
#[test]
fn a_folder_that_others_can_write_is_not_used() {
    let fake = metrica(fake_metrica::Quota::default());
    let gate = start(&fake, None);
    let folder = gate.file("state");
    let set = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    set(&folder, 0o777);
    assert_eq!(get(&gate, "polite").status, 200);
    let gate = end(gate);
    gate.until_log(&["the counts of the day were not written", "writable by everyone"]);
    assert!(!gate.file("state/quota.json").exists());
    set(&folder, 0o700);
    std::fs::remove_dir(&folder).unwrap();
    let next = gate.again().unwrap();
    assert_eq!(get(&next, "polite").status, 200);
    assert!(next.admin("/readyz?verbose").text().contains("[!] state: "));
}

#[test]
fn check_looks_at_the_folder() {
    let fake = metrica(fake_metrica::Quota::default());
    let check = |quota: &str, before: &dyn Fn(&Path)| {
        let config = config(quota, "", "") + "\nstate_dir: '{folder}/state'\n";
        let config = if quota.is_empty() { config.replace("quota: \n", "\n") } else { config };
        let plan = Gate::plan_for(&fake.address().to_string(), fake.ca_pem(), &config).token("shop", TOKEN);
        before(&plan.folder().join("state"));
        outcome(program().args(["check", "--config"]).arg(plan.file()))
    };
    let make = |folder: &Path| std::fs::create_dir(folder).unwrap();
    assert_eq!(check("{}", &make).0, 0);
    let (code, out, error) = check("{}", &|_| ());
    assert_eq!(code, 77, "{out}{error}");
    assert!(out.contains("state_dir") && out.contains("its folder does not exist"), "{out}{error}");
    let (code, out, error) = check("", &make);
    assert_eq!(code, 0, "{out}{error}");
    assert!(out.contains("state_dir has no effect without quota"), "{out}{error}");
}
