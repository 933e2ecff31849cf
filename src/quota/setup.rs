//! What the configuration gives the broker, and the small numbers that stand for its names.

use rustc_hash::FxHashMap;

use super::clock::{Micros, SECOND};
use super::limit::{Limits, Mode};
use crate::policy::names::CallerId;

metrica::interned_names! {
    /// The name of an owner: the login or alias whose limits its tokens share.
    OwnerName;
    /// The name of an egress address.
    EgressName;
}

macro_rules! numbers {
    ($(#[doc = $doc:literal] $name:ident;)*) => {$(
        #[doc = $doc]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub(super) u16);

        impl $name {
            pub(super) fn index(self) -> usize {
                usize::from(self.0)
            }
        }
    )*};
}

numbers! {
    /// An owner of the configuration.
    Owner;
    /// An egress of the configuration.
    Egress;
    /// A caller of the configuration.
    Caller;
}

/// The class of a request. Better classes are served first; a request that waits competes with one more class on equal terms
/// every 10 seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Class {
    /// A person waits.
    Interactive,
    /// The default.
    #[default]
    Normal,
    /// Nobody waits: the default of bulk operations.
    Batch,
}

impl Class {
    /// The class of an operation of a caller: bulk operations are at least batch.
    #[must_use]
    pub fn of(caller: Self, is_bulk: bool) -> Self {
        if is_bulk { Self::Batch } else { caller }
    }

    pub(super) const fn rank(self) -> u64 {
        match self {
            Self::Interactive => 0,
            Self::Normal => 1,
            Self::Batch => 2,
        }
    }
}

/// The settings of a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallerSettings {
    /// Its name.
    pub id: CallerId,
    /// Its weight: the part of the seconds on a slot that it gets while others wait.
    pub weight: u32,
    /// The longest wait.
    pub wait: Micros,
    /// The maximum number of requests in a day, for each owner.
    pub per_day: Option<u32>,
    /// The maximum number of requests in any 5 minutes, for each owner.
    pub per_5m: Option<u32>,
    /// The percentage of the owner's day that is kept for it.
    pub share: Option<u8>,
}

impl CallerSettings {
    /// The defaults.
    #[must_use]
    pub const fn new(id: CallerId) -> Self {
        Self { id, weight: 1, wait: 30 * SECOND, per_day: None, per_5m: None, share: None }
    }
}

/// The maximum numbers of waiting requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Of one caller, for each owner.
    pub per_caller: u32,
    /// Of one owner.
    pub per_owner: u32,
    /// In all.
    pub total: u32,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { per_caller: 64, per_owner: 256, total: 1024 }
    }
}

/// The whole configuration.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// The limits.
    pub limits: Limits,
    /// The bounds of the queue.
    pub bounds: Bounds,
    /// Whether budgets of callers refuse.
    pub budgets: Mode,
    /// The owners.
    pub owners: Vec<OwnerName>,
    /// The egress addresses.
    pub egresses: Vec<EgressName>,
    /// The callers.
    pub callers: Vec<CallerSettings>,
}

/// Every name that was ever configured. A name keeps its number when the configuration changes.
#[derive(Debug, Default)]
pub(super) struct Names {
    pub(super) owners: Table<OwnerName>,
    pub(super) egresses: Table<EgressName>,
    pub(super) callers: Table<CallerId>,
}

/// Names and their numbers.
#[derive(Debug)]
pub(super) struct Table<N> {
    numbers: FxHashMap<N, u16>,
    pub(super) names: Vec<N>,
}

impl<N> Default for Table<N> {
    fn default() -> Self {
        Self { numbers: FxHashMap::default(), names: Vec::new() }
    }
}

impl<N: Copy + Eq + std::hash::Hash> Table<N> {
    /// The number of a name, which may be new. The 65,536th name and later ones have none.
    pub(super) fn add(&mut self, name: N) -> Option<u16> {
        if let Some(known) = self.get(name) {
            return Some(known);
        }
        let number = u16::try_from(self.names.len()).ok()?;
        self.names.push(name);
        self.numbers.insert(name, number);
        Some(number)
    }

    /// The number of the name that fits.
    pub(super) fn find(&self, fits: impl Fn(&N) -> bool) -> Option<u16> {
        self.names.iter().find(|name| fits(name)).and_then(|name| self.get(*name))
    }

    pub(super) fn get(&self, name: N) -> Option<u16> {
        self.numbers.get(&name).copied()
    }
}
