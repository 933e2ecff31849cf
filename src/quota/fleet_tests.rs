//! A fleet in virtual time, on real stores: the load of one gate on several, with the figures that it has to reach.

use super::servers::{SERVERS, Store};
use super::world::{Client, Pattern, World};
use super::*;

const NEVER: Micros = Micros::MAX;
const READS: Client = Client {
    owner: 0,
    caller: "cron",
    groups: Groups::CLIENT_READ,
    class: Class::Normal,
    service: (400, 3000),
    pattern: Pattern::Loop(2 * SECOND, NEVER),
};

/// The load of `simulation::three_callers`, on so many gates.
fn three_callers(gates: usize, server: (&str, &str), seed: u64) -> World {
    let etl = Client { caller: "etl", service: (800, 6000), pattern: Pattern::Loop(SECOND / 100, NEVER), ..READS };
    let dash = Client { caller: "dash", pattern: Pattern::Bursts(5, 20.0), ..READS };
    let clients: Vec<_> = std::iter::repeat_n(etl, 64).chain([dash, READS]).collect();
    World::fleet(gates, Store::start(server), &clients, &[("etl", 300)], 600, seed).run()
}

#[test]
fn several_gates_share_three_slots_as_one_would() {
    for gates in [1, 3, 5] {
        for server in SERVERS {
            let mut world = three_callers(gates, server, 1);
            let (used, cron) = (world.percent_of(3), world.p95("cron", |seen| seen.granted));
            let dash = world.p95("dash", |seen| seen.ended);
            let store = world.store.as_mut().unwrap();
            let sent = world.sent.len();
            println!(
                "{gates} gates, {}: {used} % of 3 slots, {} refused by Metrica, cron waits {cron} ms, dash takes {dash} ms, {} calls for {sent} requests",
                server.1,
                world.too_many.len(),
                store.calls
            );
            assert!(used >= 97, "{used} % of the slots are used");
        }
    }
}
