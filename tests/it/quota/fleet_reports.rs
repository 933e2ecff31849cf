//! The reports of 5 minutes over a store that loses everything: the stand-in's own count of them is the judge.

use fake_metrica::Quota;

use super::fleet::{is_up, sleep};
use super::sharing::{TOKEN, config, metrica};
use crate::harness::Gate;
use crate::harness::gate::until;
use crate::harness::store::{SERVERS, Store};

const LIMIT: u64 = 20;

fn report(gate: &Gate) -> u16 {
    gate.get("greedy", "/stat/v1/data?ids=101&metrics=ym:s:visits").status
}

/// Three gates send four reports each. The store loses them, while the gates go on; then they send what is left.
fn no_report_is_forgotten(what: &str, lose: impl Fn(&mut Store, &mut dyn FnMut())) {
    for server in SERVERS {
        let (fake, mut store) = (metrica(Quota::default()), Store::start(server));
        let quota = format!(
            "{{limits: {{by_ip: {{mode: off}}, reports_5m: {{limit: {LIMIT}}}}}, store: {{redis: 'redis://127.0.0.1:{}', lease: 1s}}}}",
            store.port
        );
        let config = config(&quota, ", quota: {wait: 1s}", "");
        let plan = || Gate::plan_for(&fake.address().to_string(), fake.ca_pem(), &config).token("shop", TOKEN).start();
        let gates = [plan(), plan(), plan()];
        let all_up = || until("the store decides for every gate", || gates.iter().all(is_up));
        all_up();
        sleep(1000);
        for _ in 0..4 {
            assert_eq!(gates.each_ref().map(report), [200; 3]);
        }
        let sent = || fake.quota_use().login("shop").most_reports_5m;
        lose(&mut store, &mut || gates.iter().for_each(|gate| assert!(matches!(report(gate), 200 | 429))));
        all_up();
        sleep(1000);
        let before = sent();
        // Each is refused at once, where no place is free before its deadline.
        (0..LIMIT).for_each(|_| gates.iter().for_each(|gate| assert!(matches!(report(gate), 200 | 429))));
        println!("{}, {what}: {before} reports before the store decides again, {} in all", server.1, sent());
        assert_eq!(sent(), LIMIT, "{what}: every place was used, and none twice");
    }
}

#[test]
fn reports_are_known_to_a_store_that_was_killed_and_comes_back_empty() {
    no_report_is_forgotten("restarted empty", |store, ask| {
        store.kill();
        ask();
        sleep(500);
        ask();
        store.restart();
    });
}

#[test]
fn reports_are_known_to_a_store_that_is_emptied() {
    no_report_is_forgotten("emptied", |store, ask| {
        let _ = store.ask(&["FLUSHALL"]);
        ask();
        ask();
    });
}
