//! The quota broker: callers share the limits of Metrica instead of meeting them.
//!
//! The broker is a value without clock, lock, task or connection. One place owns it, for example a mutex that all workers
//! share: a decision takes less than a microsecond, and Metrica allows 30 requests a second.
//!
//! 1. **Limits are data** ([`Limit`]): each counts some kinds of requests for an owner, an egress address or a counter. A request
//!    takes a place of every limit that counts it, or of none. A limit enforces, observes or is off.
//! 2. **Time is an argument** ([`Now`]). A day or an hour restarts when the wall clock passes its end in step with the
//!    monotonic clock. A step of the wall clock gives nothing back, except one of 12 hours forward or more: then the clock was
//!    not set, or the machine slept.
//! 3. **Margins.** Rates are spaced so that no second has more than the documented number. Windows are exact. Days restart
//!    at midnight GMT.
//! 4. **Memory is bounded**: 4096 counters, of which the least spent are forgotten first, the bounds of the queue, and
//!    what the configuration names.
//! 5. **The queue is fair**: start-time fair queuing over the callers of an owner, by weight and by the measured mean time
//!    that a request of the caller holds a slot; first in, first out within a caller, among requests of one class under the
//!    same limits. Better classes go first; a waiting request competes with one more class on equal terms every 10 seconds.
//!    Owners that wait for one egress take turns.
//! 6. **The last slot is kept from batch** while another class of the owner was served within 60 seconds, if the owner has
//!    more than one.
//! 7. **Budgets**: `per_day` and `per_5m` (reports) are upper bounds of a caller for each owner. A `share` of the day is lent to
//!    others until 80 % of the day are spent; then each caller is held to its own share, and those without a share to what
//!    is not promised.
//! 8. **Deadlines**: a request waits for at most the caller's `wait` and the rest of its own time. One with a longer expected
//!    wait is refused on arrival, and one that a limit holds beyond its deadline is refused at once. A request that leaves
//!    takes nothing with it; one that leaves after it was sent keeps its slot for 5 seconds.
//! 9. **Learning** from 420 and 429 by type. Parallel: one slot fewer, and one more after each 30 quiet seconds; with
//!    one slot, a pause that doubles. By address: a pause of a second and 30 % slower, down to 30 %, and 10 % more each minute.
//!    By login: the 5 minutes or the day are over if the gate spent 80 % of them, else one probing request after 30 s, 60 s
//!    and so on. By counter: likewise, for that counter. Grants and delegates: the hour is over. GET and HEAD that
//!    parallel or the address refused are sent again inside their deadline, at most twice.
//! 10. **Refusals** ([`Refusal`]) name the limit, have a reason and a documented type, and a `Retry-After` after which the request
//!     succeeds if no other comes meanwhile.
//! 11. **Draining**: every waiting request is refused at once. [`Broker::save`] and [`Broker::restore`] carry the counts
//!     of the day to the next process.
//! 12. **A fleet**: gates share the limits through a store, with one script that decides for all of them ([`Call`],
//!     [`Broker::join_fleet`]). While the store is away, a gate uses its part of the limits, or refuses.
//!
//! ```
//! use metrika_gate::policy::names::CallerId;
//! use metrika_gate::quota::{
//!     Answer, Broker, CallerSettings, Class, Counters, EgressName, Groups, Now, Outcome, OwnerName, Request, SECOND,
//!     Settings, Taken,
//! };
//!
//! let (owner, egress, caller) = (OwnerName::new("shop"), EgressName::new("default"), CallerId::new("etl"));
//! let settings = Settings {
//!     owners: vec![owner],
//!     egresses: vec![egress],
//!     callers: vec![CallerSettings::new(caller)],
//!     ..Settings::default()
//! };
//! let mut now = Now { at: 0, unix: 1_800_000_000 };
//! let mut broker = Broker::new(&settings, now);
//! let request = Request {
//!     owner: broker.owner(owner).unwrap(),
//!     caller: broker.caller(caller).unwrap(),
//!     egress: broker.egress(egress).unwrap(),
//!     groups: Groups::CLIENT_READ,
//!     class: Class::Normal,
//!     counters: Counters::of(&[44_147_844]),
//!     rest: 60 * SECOND,
//! };
//! // Three slots are free; the fourth request waits until one is released.
//! let mut leases = Vec::new();
//! for _ in 0..3 {
//!     let Answer::Granted(lease) = broker.ask(now, request.clone()) else { panic!("a slot is free") };
//!     leases.push(lease);
//!     now.at += SECOND;
//! }
//! let Answer::Wait(ticket) = broker.ask(now, request) else { panic!("no slot is free") };
//! let _ = broker.finish(leases.remove(0), now, Outcome::Done);
//! // The owner of the broker wakes the tasks of these tickets, and calls `due` at `next`.
//! assert_eq!(broker.woken().collect::<Vec<_>>(), [ticket]);
//! let Taken::Granted(lease) = broker.take(ticket) else { panic!("its turn came") };
//! // A task that ends early gives its lease up; the slot is free 5 seconds later.
//! broker.abandon(lease, now);
//! ```

mod answer;
mod broker;
mod budget;
mod call;
mod clock;
mod configure;
mod counters;
mod entry;
mod estimate;
mod fleet;
mod fleet_call;
mod fleet_orders;
mod fleet_reply;
mod fleet_restore;
mod learning;
mod ledger;
mod limit;
mod line;
mod meter;
mod part;
mod pause;
mod refusal;
mod saved;
mod setup;
mod snapshot;
mod turns;

#[cfg(test)]
mod bench;
#[cfg(test)]
mod fleet_counts;
#[cfg(test)]
mod fleet_losses;
#[cfg(test)]
mod fleet_midnight;
#[cfg(test)]
mod fleet_oracle;
#[cfg(test)]
mod fleet_tests;
#[cfg(test)]
mod interleavings;
#[cfg(test)]
mod servers;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod world;

pub use answer::{Answer, Next, Outcome, Request, Taken};
pub use broker::Broker;
pub use call::{Call, Reply, SCRIPT, Told};
pub use clock::{Micros, Now, SECOND};
pub use counters::Counters;
pub use entry::{Lease, Ticket};
pub use fleet::{FleetSettings, OnLoss};
pub use limit::{Groups, Key, Limit, LimitName, Limits, Mode, Shape};
pub use refusal::{After, Reason, Refusal};
pub use saved::{BadCounts, SavedCounts};
pub use setup::{Bounds, Caller, CallerSettings, Class, Egress, EgressName, Owner, OwnerName, Settings};
pub use snapshot::{CallerRow, FleetRow, LimitRow, OwnerRow, QuotaSnapshot};
