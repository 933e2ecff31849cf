//! Bodies that were read ahead hold memory while their requests wait for their turn.

use fake_metrica::Quota;

use super::sharing::{TOKEN, config, flood, metrica};
use crate::harness::gate::until;
use crate::harness::{Caller, Gate};

const MIB: usize = 1024 * 1024;

/// Half of the read-ahead budget of a worker holds so many of the bodies below.
const FIT: usize = 8;

fn body() -> String {
    let name = "x".repeat(MIB - 1000);
    format!("{{\"goal\":{{\"name\":\"{name}\",\"type\":\"action\"}}}}")
}

/// A change whose body is nearly a megabyte, which rules need to the end.
fn change() -> Vec<u8> {
    let body = body();
    let head = format!(
        "POST /management/v1/counter/101/goals HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    [head.into_bytes(), body.into_bytes()].concat()
}

/// The same in one chunk; the gate learns its size only with its end.
fn change_in_chunks() -> Vec<u8> {
    let body = body();
    let head = "POST /management/v1/counter/101/goals HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                Transfer-Encoding: chunked\r\n\r\n";
    format!("{head}{:x}\r\n{body}\r\n0\r\n\r\n", body.len()).into_bytes()
}

fn waiting(gate: &Gate) -> f64 {
    gate.metric(&["quota_waiting", "caller=\"dash\""])
}

#[test]
fn waiting_requests_hold_at_most_half_of_the_memory_for_bodies() {
    let fake = metrica(Quota { parallel: Some(3), ..Quota::default() });
    fake.turn("slow?ms=4000").unwrap();
    let config = config("{}", "", ", counters: [101]");
    let plan = Gate::plan_for(&fake.address().to_string(), fake.ca_pem(), &config).token("shop", TOKEN);
    let gate = plan.workers(1).start();
    let change = change();
    std::thread::scope(|scope| {
        let greedy = scope.spawn(|| flood(&gate, "greedy", 3, 1));
        gate.until_metric(&["quota_in_use", "owner=\"shop\""], 3.0);
        let mut callers: Vec<Caller> = Vec::new();
        for number in 1..=FIT {
            let mut caller = gate.connect("polite");
            caller.send(&change);
            let wanted = f64::from(u32::try_from(number).unwrap());
            until("it waits", || (waiting(&gate) - wanted).abs() < 0.1);
            callers.push(caller);
        }
        for _ in 0..4 {
            let answer = gate.send("polite", &change);
            assert_eq!((answer.status, answer.field("x-gate-error")), (429, Some("quota_full")), "not overloaded");
            assert!(answer.field("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
        }
        // A request without a body holds nothing.
        let small = scope.spawn(|| super::sharing::get(&gate, "polite").status);
        until("it waits too", || waiting(&gate) > 8.5);
        assert_eq!(greedy.join().unwrap(), [200; 3]);
        fake.turn("slow?ms=0").unwrap();
        for caller in &mut callers {
            let answer = caller.answer();
            assert!(answer.field("x-gate-error").is_none(), "{}", answer.summary());
        }
        assert_eq!(small.join().unwrap(), 200);
    });
    assert_eq!(gate.metric(&["denied_total", "overloaded"]), 0.0);
    // What they held is free again.
    let answer = gate.send("polite", &change);
    assert!(answer.field("x-gate-error").is_none(), "{}", answer.summary());
    assert_eq!(fake.quota_use().login("shop").most_in_parallel, 3);
}

/// A buffer whose final size is unknown can take more memory than its content, and that is counted.
#[test]
fn memory_beyond_the_bytes_of_a_body_counts() {
    let fake = metrica(Quota { parallel: Some(3), ..Quota::default() });
    fake.turn("slow?ms=4000").unwrap();
    let config = config("{}", "", ", counters: [101]");
    let plan = Gate::plan_for(&fake.address().to_string(), fake.ca_pem(), &config).token("shop", TOKEN);
    let gate = plan.workers(1).start();
    let change = change_in_chunks();
    std::thread::scope(|scope| {
        let greedy = scope.spawn(|| flood(&gate, "greedy", 3, 1));
        gate.until_metric(&["quota_in_use", "owner=\"shop\""], 3.0);
        let mut callers: Vec<Caller> = (0..2 * FIT).map(|_| gate.connect("polite")).collect();
        for (number, caller) in callers.iter_mut().enumerate() {
            caller.send(&change);
            let handled = || waiting(&gate) + gate.metric(&["quota_refused_total", "caller=\"dash\""]);
            until("it waits or is refused", || handled() > f64::from(u32::try_from(number).unwrap()) + 0.5);
        }
        let waiting = waiting(&gate);
        assert!((4.0..=8.0).contains(&waiting), "{waiting}");
        assert_eq!(greedy.join().unwrap(), [200; 3]);
        fake.turn("slow?ms=0").unwrap();
        let all = callers.len();
        let errors = callers.iter_mut().map(|caller| caller.answer().field("x-gate-error").map(str::to_owned));
        let full = errors.flatten().inspect(|error| assert_eq!(error, "quota_full")).count();
        assert!(
            (waiting - f64::from(u32::try_from(all - full).unwrap())).abs() < 0.1,
            "{waiting} waited, {full} refused"
        );
    });
}
