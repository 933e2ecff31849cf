//! The interface of `store.lua`, the script in the store of a fleet.
//!
//! Names of the configuration, ids of counters and numbers only: never a token, a URL or a query. Times are milliseconds.

use serde::{Deserialize, Serialize};

/// The script that decides for all gates at once.
pub const SCRIPT: &str = include_str!("store.lua");

/// One call of the script.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Call {
    /// The gate.
    pub me: String,
    /// The number of the call: the store ignores one that arrives after a later one.
    pub(super) number: u64,
    /// The length of a lease.
    pub lease: u64,
    /// The time of the server, in a test; otherwise the server reads its clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<u64>,
    /// The gates that were seen last; none before the first answer.
    pub(super) gates: u32,
    pub(super) day: u64,
    pub(super) hour: u64,
    pub(super) day_ends: u64,
    pub(super) hour_ends: u64,
    pub(super) budgets: u8,
    pub(super) shares: u32,
    pub(super) limits: std::collections::BTreeMap<&'static str, CallLimit>,
    /// The owners, where the gate forgot what it asked for before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) hello: Option<Vec<&'static str>>,
    /// The gate leaves the fleet.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) stops: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) leave: Vec<Item>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) done: Vec<Item>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) learn: Vec<Item>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) hold: Vec<Held>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) abandoned: Vec<Abandoned>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) restore: Vec<Spent>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) counters: Vec<CounterSpent>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) ask: Vec<Item>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) look: Vec<&'static str>,
}

impl Call {
    /// Whether it only shows that the gate lives.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.leave.is_empty()
            && self.done.is_empty()
            && self.learn.is_empty()
            && self.ask.is_empty()
            && self.look.is_empty()
            && self.hello.is_none()
    }
}

/// One limit.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct CallLimit {
    pub(super) n: u32,
    pub(super) documented: u32,
    pub(super) mode: u8,
}

/// The requests of one owner that the gate has in flight.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Held {
    pub(super) o: &'static str,
    pub(super) ids: Vec<String>,
}

/// A request that its gate gave up after it was sent: its slot is in use for so long.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Abandoned {
    pub(super) o: &'static str,
    pub(super) id: String,
    pub(super) ms: u64,
}

/// The counts of an owner, as the gate knows them: requests of the day, of all and by caller; delegates of the hour; reports of the
/// last 5 minutes by caller, each with its id and its age.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Spent {
    pub(super) o: &'static str,
    pub(super) d: u32,
    pub(super) c: std::collections::BTreeMap<&'static str, u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) h: Option<u32>,
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub(super) r: std::collections::BTreeMap<&'static str, std::collections::BTreeMap<String, u64>>,
}

/// The counts of a counter, as the gate knows them: requests of the day, grants of the hour.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct CounterSpent {
    pub(super) id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) d: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) h: Option<u32>,
}

/// One request, its charges and its end. The short names keep calls small.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Item {
    pub(super) id: String,
    /// Owner, egress and caller.
    pub(super) o: &'static str,
    pub(super) e: &'static str,
    pub(super) c: &'static str,
    /// Class: 0 interactive, 1 normal, 2 batch.
    pub(super) k: u64,
    /// Kinds.
    pub(super) g: u8,
    /// Counters, as text: a number of Lua has 53 bits.
    pub(super) n: Vec<String>,
    /// The step of its caller's tag, in microseconds.
    pub(super) s: u64,
    /// The time that it has waited.
    pub(super) w: u64,
    /// `per_day`, `per_5m` and `share` of its caller.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) d: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) f: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) h: Option<u8>,
    /// Its slot remains in use for so long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) later: Option<u64>,
    /// Metrica did not refuse it, so long ago it began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) fine: Option<u64>,
    /// The limit that refused it, and the time for which that is used up, if it surely is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) limit: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) full: Option<u64>,
}

/// The result of a call.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Reply {
    pub(super) granted: Vec<Granted>,
    pub(super) refused: Vec<LimitedUntil>,
    /// Requests that a limit holds for so long.
    pub(super) held: Vec<LimitedUntil>,
    pub(super) owners: Vec<Seen>,
    /// The store is empty, and grants nothing for so long.
    pub learning: u64,
    /// Requests in flight of this gate whose lease had ended.
    pub(super) lost: u64,
    /// Whether the store has lost the requests that this gate entered.
    pub(super) is_emptied: bool,
    /// The gates that live, this one included.
    pub replicas: u32,
}

/// A message to one gate.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Told {
    pub(super) granted: Option<Granted>,
    pub(super) refused: Option<LimitedUntil>,
    /// Every gate is asked to make a call: the store is new.
    pub(super) call: bool,
    /// Every gate has made one, and waiting requests can be granted.
    pub(super) look: bool,
    /// An owner for which a request of this gate may have room after this time.
    pub(super) owner: Option<String>,
    pub(super) wake: Option<u64>,
}

/// A request that may be sent, with the requests of the day of its owner and its caller.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Granted {
    pub(super) id: String,
    /// The day of the two counts: the clocks of two gates may be on both sides of midnight.
    pub(super) today: u64,
    pub(super) day: u32,
    pub(super) mine: u32,
}

/// A request that a limit, or its caller's budget of it, holds for so long.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct LimitedUntil {
    pub(super) id: String,
    pub(super) limit: String,
    pub(super) ms: u64,
}

/// One owner, over all gates.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Seen {
    pub(super) owner: String,
    /// The day of the count.
    pub(super) today: u64,
    /// Requests of that day.
    pub(super) day: u32,
    /// The time after which a request of this gate may have room.
    pub(super) wake: Option<u64>,
}
