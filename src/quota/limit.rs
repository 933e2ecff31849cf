//! The limits as data (rule 1 of the module).

use metrica::error_type::ErrorType;
use metrica::operation::{Adds, Operation, QuotaGroup};

use super::clock::Micros;

macro_rules! limit_names {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal, $error_type:ident;)*) => {
        /// The name of a limit: the key in the configuration and the label of metrics.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum LimitName {
            $($(#[doc = $doc])+ $variant,)*
        }

        impl LimitName {
            /// All names.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The name used in the configuration, metrics and logs.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The documented type of Metrica for a request over this limit.
            #[must_use]
            pub const fn error_type(self) -> ErrorType {
                match self { $(Self::$variant => ErrorType::$error_type,)* }
            }
        }
    };
}

limit_names! {
    /// Requests in flight of one owner.
    Parallel = "parallel", QuotaParallelRequests;
    /// Requests per second of one egress address.
    ByIp = "by_ip", QuotaRequestsByIp;
    /// Requests per second to the Logs API of one egress address.
    LogsByIp = "logs_by_ip", QuotaRequestsByIp;
    /// Reports of one owner within 5 minutes.
    Reports5m = "reports_5m", QuotaRequestsByUid;
    /// Requests of one owner within a day of GMT.
    Day = "day", QuotaRequestsByUid;
    /// Requests for one counter within a day of GMT.
    CounterDay = "counter_day", QuotaRequestsByCounterId;
    /// Grants of access to one counter within an hour.
    Grants = "grants", QuotaGrantsRequests;
    /// Delegates that one owner adds within an hour.
    Delegates = "delegates", QuotaDelegateRequests;
}

/// The kinds of requests, as a set: the quota groups of the catalogue, grants and delegates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Groups(u8);

impl Groups {
    /// Reads of management data.
    pub const CLIENT_READ: Self = Self(1);
    /// Changes of management data.
    pub const CLIENT_WRITE: Self = Self(2);
    /// Reports.
    pub const REPORT_READ: Self = Self(4);
    /// The Logs API.
    pub const LOGS: Self = Self(8);
    /// Grants of access.
    pub const GRANTS: Self = Self(16);
    /// New delegates.
    pub const DELEGATES: Self = Self(32);
    /// Every kind.
    pub const ALL: Self = Self(63);

    /// The kinds of an operation.
    #[must_use]
    pub const fn of(operation: &Operation) -> Self {
        let group = match operation.quota {
            QuotaGroup::ClientRead => Self::CLIENT_READ,
            QuotaGroup::ClientWrite => Self::CLIENT_WRITE,
            QuotaGroup::ReportRead => Self::REPORT_READ,
            QuotaGroup::Logs => Self::LOGS,
        };
        match operation.adds {
            Adds::Nothing => group,
            Adds::Grant => group.with(Self::GRANTS),
            Adds::Delegate => group.with(Self::DELEGATES),
        }
    }

    /// The kinds of both.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The kinds as bits, in the order of their declaration.
    pub(super) const fn bits(self) -> u8 {
        self.0
    }

    /// Whether the two have a kind in common.
    #[must_use]
    pub const fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// The object that a limit counts for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Key {
    /// The login that owns the token.
    Owner,
    /// The address from which requests reach Metrica.
    Egress,
    /// The counter.
    Counter,
}

/// The way in which a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Shape {
    /// The requests in flight.
    Slots,
    /// The requests per second, evenly spaced. A burst is as large as the margin, so that no second has more than the documented
    /// number.
    PerSecond,
    /// The requests within any window of this length.
    Window(Micros),
    /// The requests until midnight GMT.
    PerDay,
    /// The requests until the hour of GMT ends.
    PerHour,
}

/// The effect of a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Mode {
    /// Requests wait or are refused.
    #[default]
    Enforce,
    /// Requests are counted, and so are those that would have waited.
    Observe,
    /// Nothing is counted, except slots: requests in flight outlive a change of the configuration.
    Off,
}

/// One limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// Its name.
    pub name: LimitName,
    /// The object that it counts for.
    pub key: Key,
    /// The kinds of requests that it counts.
    pub applies: Groups,
    /// The way in which it counts.
    pub shape: Shape,
    /// The number in Metrica's documentation.
    pub documented: u32,
    /// The number that the gate allows.
    pub limit: u32,
    /// Its effect.
    pub mode: Mode,
    /// The kinds of requests that it counts in this mode.
    counted: Groups,
}

impl Limit {
    const fn new(name: LimitName, key: Key, applies: Groups, shape: Shape, documented: u32, limit: u32) -> Self {
        Self { name, key, applies, shape, documented, limit, mode: Mode::Enforce, counted: applies }
    }

    /// The part of one of so many gates: at least 1.
    pub(super) fn divide(&mut self, replicas: u32) {
        self.limit = (self.limit / replicas.max(1)).max(1);
        self.documented = (self.documented / replicas.max(1)).max(self.limit);
    }

    const fn set_mode(&mut self, mode: Mode) {
        let is_counted = !matches!(mode, Mode::Off) || matches!(self.shape, Shape::Slots);
        self.counted = if is_counted { self.applies } else { Groups(0) };
        self.mode = mode;
    }

    /// Whether it makes this request wait.
    pub(super) const fn holds(&self, groups: Groups) -> bool {
        matches!(self.mode, Mode::Enforce) && self.applies.meets(groups)
    }

    /// Whether it counts this request.
    pub(super) const fn counts(&self, groups: Groups) -> bool {
        self.counted.meets(groups)
    }
}

const FIVE_MINUTES: Micros = 300_000_000;

/// The limits of an owner, with margins of 0, 5, 2 and 0 percent.
const OF_OWNER: [Limit; 4] = [
    Limit::new(LimitName::Parallel, Key::Owner, Groups::ALL, Shape::Slots, 3, 3),
    Limit::new(LimitName::Reports5m, Key::Owner, Groups::REPORT_READ, Shape::Window(FIVE_MINUTES), 200, 190),
    Limit::new(LimitName::Day, Key::Owner, Groups::ALL, Shape::PerDay, 5000, 4900),
    Limit::new(LimitName::Delegates, Key::Owner, Groups::DELEGATES, Shape::PerHour, 3, 3),
];
/// The limits of an egress, with a margin of 10 percent.
const OF_EGRESS: [Limit; 2] = [
    Limit::new(LimitName::ByIp, Key::Egress, Groups::ALL, Shape::PerSecond, 30, 27),
    Limit::new(LimitName::LogsByIp, Key::Egress, Groups::LOGS, Shape::PerSecond, 10, 9),
];
/// The limits of a counter.
const OF_COUNTER: [Limit; 2] = [
    Limit::new(LimitName::CounterDay, Key::Counter, Groups::ALL, Shape::PerDay, 5000, 4900),
    Limit::new(LimitName::Grants, Key::Counter, Groups::GRANTS, Shape::PerHour, 3, 3),
];

/// All limits, each once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    pub(super) owner: [Limit; 4],
    pub(super) egress: [Limit; 2],
    pub(super) counter: [Limit; 2],
}

impl Default for Limits {
    fn default() -> Self {
        Self { owner: OF_OWNER, egress: OF_EGRESS, counter: OF_COUNTER }
    }
}

impl Limits {
    /// Every limit.
    pub fn all(&self) -> impl Iterator<Item = &Limit> {
        self.owner.iter().chain(&self.egress).chain(&self.counter)
    }

    pub(super) fn all_mut(&mut self) -> impl Iterator<Item = &mut Limit> {
        self.owner.iter_mut().chain(&mut self.egress).chain(&mut self.counter)
    }

    /// Changes the number of a limit; a number of 0 becomes 1.
    #[must_use]
    pub fn with_limit(mut self, name: LimitName, limit: u32) -> Self {
        for changed in self.all_mut().filter(|one| one.name == name) {
            changed.limit = limit.max(1);
            changed.documented = changed.documented.max(changed.limit);
        }
        self
    }

    /// Changes the mode of a limit.
    #[must_use]
    pub fn with_mode(mut self, name: LimitName, mode: Mode) -> Self {
        self.all_mut().filter(|one| one.name == name).for_each(|changed| changed.set_mode(mode));
        self
    }

    /// Changes the mode of every limit.
    #[must_use]
    pub fn with_modes(mut self, mode: Mode) -> Self {
        self.all_mut().for_each(|changed| changed.set_mode(mode));
        self
    }

    /// The share of one of `replicas` gates that do not know each other: at least 1 of each limit.
    #[must_use]
    pub fn divided(mut self, replicas: u32) -> Self {
        self.all_mut().for_each(|limit| limit.divide(replicas));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_1_each_limit_occurs_once_with_its_margin() {
        let limits = Limits::default();
        let mut names: Vec<_> = limits.all().map(|limit| limit.name).collect();
        names.sort();
        assert_eq!(names, LimitName::ALL);
        for (name, limit, documented) in [
            (LimitName::Parallel, 3, 3),
            (LimitName::ByIp, 27, 30),
            (LimitName::LogsByIp, 9, 10),
            (LimitName::Reports5m, 190, 200),
            (LimitName::Day, 4900, 5000),
            (LimitName::CounterDay, 4900, 5000),
            (LimitName::Grants, 3, 3),
            (LimitName::Delegates, 3, 3),
        ] {
            let found = limits.all().find(|one| one.name == name).unwrap();
            assert_eq!((found.limit, found.documented), (limit, documented), "{}", name.as_str());
        }
    }

    #[test]
    fn rule_1_the_catalogue_determines_which_limits_apply() {
        let catalogue = metrica::operation::Catalogue::built_in();
        let of = |id: &str| {
            let operation = catalogue.operations().iter().find(|operation| operation.id.as_str() == id).unwrap();
            let limits = Limits::default();
            limits.all().filter(|limit| limit.counts(Groups::of(operation))).map(|limit| limit.name).collect::<Vec<_>>()
        };
        let usual = [LimitName::Parallel, LimitName::Day, LimitName::ByIp, LimitName::CounterDay];
        for (id, more) in [
            ("counters.list", None),
            ("report.table", Some(LimitName::Reports5m)),
            ("log_requests.list", Some(LimitName::LogsByIp)),
            ("grants.create", Some(LimitName::Grants)),
            ("delegates.create", Some(LimitName::Delegates)),
        ] {
            let mut expected: Vec<_> = usual.into_iter().chain(more).collect();
            let mut found = of(id);
            expected.sort();
            found.sort();
            assert_eq!(found, expected, "{id}");
        }
    }

    #[test]
    fn rule_1_replicas_divide_and_leave_one() {
        let divided = Limits::default().divided(4);
        let numbers: Vec<_> = divided.all().map(|limit| limit.limit).collect();
        assert_eq!(numbers, [1, 47, 1225, 1, 6, 2, 1225, 1]);
    }
}
