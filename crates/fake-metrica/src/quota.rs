//! The quotas of the API (<https://yandex.com/dev/metrika/en/intro/quotas>): the stand-in enforces those that are configured,
//! and counts the use of all.
//!
//! 1. Every limit is off by default. All limits that apply to a request are checked; then the request is charged to all of
//!    them, or to none.
//! 2. `parallel`: a request holds a slot of its login from the arrival of its header until its last byte was handed to the
//!    socket. If the client leaves earlier, the slot stays taken for the configured time.
//! 3. `by_ip` and `logs_by_ip`: an address has so many requests in any second. A Logs API request counts towards both.
//! 4. `reports_5m`: a login has so many requests for `/stat/v1/data*` in any 5 minutes. The request that exceeds the limit
//!    locks the reports of the login for 5 minutes.
//! 5. `day` and `counter_day`: a login and a counter have so many requests from midnight to midnight, GMT. A report over
//!    several counters charges each of them once.
//! 6. `grants` and `delegates`: a counter has so many changes that grant access, and a login so many that add delegates,
//!    from one full hour to the next.
//! 7. A request with a valid token is charged to its login, whatever the response. A counter is charged only if the token
//!    has access to it, and an address for every request.
//! 8. A refused request is charged to no limit, unless [`Quota::refused`] selects some.
//! 9. An outsider uses the same login elsewhere: it takes every slot that is free or becomes free until it has its share,
//!    and spends from the other limits. It never makes a login exceed its slots.
//! 10. The clock of the quotas moves forward on request, so that a day or a lock can be over.
//!
//! The documentation does not specify which login `ulogin` charges, whether refused requests count, which type the limit of
//! reports has, and whether a refused request restarts a lock of reports; [`Quota`] has a setting for each.

use std::borrow::Cow;
use std::time::Duration;

use http::StatusCode;
use serde::Serialize;
use serde_json::{Value, json};

use super::refusal::{ErrorType, Refusal};

pub mod charge;
pub mod lease;
pub mod ledger;
pub mod panel;
pub mod usage;
pub mod window;

/// A limit of the API, in the order in which the stand-in checks them. The documentation does not specify an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// Requests per second and address.
    ByIp,
    /// Requests to the Logs API per second and address.
    LogsByIp,
    /// Parallel requests per login.
    Parallel,
    /// Requests for reports per 5 minutes and login.
    #[serde(rename = "reports_5m")]
    Reports5m,
    /// Requests per day and login.
    Day,
    /// Requests per day and counter.
    CounterDay,
    /// Changes that grant access, per hour and counter.
    Grants,
    /// Changes that add delegates, per hour and login.
    Delegates,
}

impl Limit {
    /// All limits, in the order in which they are checked.
    pub const ALL: [Self; 8] = [
        Self::ByIp,
        Self::LogsByIp,
        Self::Parallel,
        Self::Reports5m,
        Self::Day,
        Self::CounterDay,
        Self::Grants,
        Self::Delegates,
    ];

    /// Its name in the control panel.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ByIp => "by_ip",
            Self::LogsByIp => "logs_by_ip",
            Self::Parallel => "parallel",
            Self::Reports5m => "reports_5m",
            Self::Day => "day",
            Self::CounterDay => "counter_day",
            Self::Grants => "grants",
            Self::Delegates => "delegates",
        }
    }
}

/// The error types of refusals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TypeNames {
    /// The ones that clients have received: `quota_parallel_requests_by_uid` for parallel requests.
    #[default]
    Live,
    /// The ones of the documentation: `quota_parallel_requests`.
    Documented,
}

/// The limits that a refused request is charged to; the documentation does not specify any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RefusedCount {
    /// None.
    #[default]
    Nowhere,
    /// Those of the day, of the login and of the counters.
    Day,
    /// All, except that it holds no slot. Reports stay locked for 5 minutes after the last refused request.
    Everywhere,
}

/// The login that a request with `ulogin` is charged to; the documentation does not specify it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Charged {
    /// The one that issued the token.
    #[default]
    Owner,
    /// The one that `ulogin` names.
    Represented,
}

/// The limits to enforce, `None` for off and 0 to refuse everything, and the decisions that the documentation leaves open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quota {
    /// Parallel requests per login; 3 according to the documentation.
    pub parallel: Option<u32>,
    /// Requests per second and address; 30.
    pub by_ip: Option<u32>,
    /// Requests to the Logs API per second and address; 10.
    pub logs_by_ip: Option<u32>,
    /// Requests for `/stat/v1/data*` per 5 minutes and login; 200.
    pub reports_5m: Option<u32>,
    /// Requests per day and login; 5000.
    pub day: Option<u32>,
    /// Requests per day and counter; 5000.
    pub counter_day: Option<u32>,
    /// Changes that grant access, per hour and counter; 3.
    pub grants: Option<u32>,
    /// Changes that add delegates, per hour and login; 3.
    pub delegates: Option<u32>,
    /// The status of refusals: 429, or 420 as the English documentation has it.
    pub status: StatusCode,
    /// The error types of refusals.
    pub names: TypeNames,
    /// The error type of the limit `reports_5m`.
    pub reports_type: Cow<'static, str>,
    /// The limits that a refused request is charged to.
    pub refused: RefusedCount,
    /// The login that a request with `ulogin` is charged to.
    pub ulogin: Charged,
    /// The time for which a request whose client has left holds its slot.
    pub abandoned: Duration,
}

impl Default for Quota {
    fn default() -> Self {
        Self {
            parallel: None,
            by_ip: None,
            logs_by_ip: None,
            reports_5m: None,
            day: None,
            counter_day: None,
            grants: None,
            delegates: None,
            status: StatusCode::TOO_MANY_REQUESTS,
            names: TypeNames::default(),
            reports_type: Cow::Borrowed(ErrorType::QuotaByUser.as_str()),
            refused: RefusedCount::default(),
            ulogin: Charged::default(),
            abandoned: Duration::ZERO,
        }
    }
}

impl Quota {
    /// All limits at the values of the documentation.
    #[must_use]
    pub fn documented() -> Self {
        let mut quota = Self::default();
        for limit in Limit::ALL {
            *quota.limit_mut(limit) = Some(match limit {
                Limit::Parallel | Limit::Grants | Limit::Delegates => 3,
                Limit::ByIp => 30,
                Limit::LogsByIp => 10,
                Limit::Reports5m => 200,
                Limit::Day | Limit::CounterDay => 5000,
            });
        }
        quota
    }

    /// The value of a limit, if it is enforced.
    #[must_use]
    pub const fn limit(&self, limit: Limit) -> Option<u32> {
        match limit {
            Limit::ByIp => self.by_ip,
            Limit::LogsByIp => self.logs_by_ip,
            Limit::Parallel => self.parallel,
            Limit::Reports5m => self.reports_5m,
            Limit::Day => self.day,
            Limit::CounterDay => self.counter_day,
            Limit::Grants => self.grants,
            Limit::Delegates => self.delegates,
        }
    }

    /// The value of a limit, to be set.
    pub const fn limit_mut(&mut self, limit: Limit) -> &mut Option<u32> {
        match limit {
            Limit::ByIp => &mut self.by_ip,
            Limit::LogsByIp => &mut self.logs_by_ip,
            Limit::Parallel => &mut self.parallel,
            Limit::Reports5m => &mut self.reports_5m,
            Limit::Day => &mut self.day,
            Limit::CounterDay => &mut self.counter_day,
            Limit::Grants => &mut self.grants,
            Limit::Delegates => &mut self.delegates,
        }
    }

    /// The response to a request that exceeds a limit.
    pub(crate) fn refusal(&self, limit: Limit) -> Refusal {
        let error_type = match (limit, self.names) {
            (Limit::ByIp | Limit::LogsByIp, _) => ErrorType::QuotaByAddress,
            (Limit::Parallel, TypeNames::Live) => ErrorType::QuotaParallelByUser,
            (Limit::Parallel, TypeNames::Documented) => ErrorType::QuotaParallel,
            (Limit::Reports5m | Limit::Day, _) => ErrorType::QuotaByUser,
            (Limit::CounterDay, _) => ErrorType::QuotaByCounter,
            (Limit::Grants, _) => ErrorType::QuotaGrants,
            (Limit::Delegates, _) => ErrorType::QuotaDelegates,
        };
        let mut refusal = Refusal::from(error_type);
        refusal.status = self.status;
        if limit == Limit::Reports5m {
            // An invented type keeps the message of the documented one.
            let known = ErrorType::parse(&self.reports_type).unwrap_or(error_type);
            refusal.message = known.message().into();
            refusal.error_type = self.reports_type.clone();
        }
        refusal
    }

    /// The settings for the control panel.
    pub(crate) fn state(&self) -> Value {
        let limits = Limit::ALL.into_iter().map(|limit| (limit.as_str().to_owned(), json!(self.limit(limit))));
        let mut state: serde_json::Map<String, Value> = limits.collect();
        let settings = [
            ("status", json!(self.status.as_u16())),
            ("names", json!(if self.names == TypeNames::Live { "live" } else { "documented" })),
            ("reports_type", json!(self.reports_type)),
            (
                "refused",
                json!(match self.refused {
                    RefusedCount::Nowhere => "nowhere",
                    RefusedCount::Day => "day",
                    RefusedCount::Everywhere => "everywhere",
                }),
            ),
            ("ulogin", json!(if self.ulogin == Charged::Owner { "owner" } else { "represented" })),
            ("abandoned_ms", json!(self.abandoned.as_millis())),
        ];
        state.extend(settings.map(|(name, value)| (name.to_owned(), value)));
        Value::Object(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_has_its_type_status_and_message() {
        let live = Quota::default();
        let documented =
            Quota { names: TypeNames::Documented, status: StatusCode::from_u16(420).unwrap(), ..Quota::default() };
        for (limit, seen, listed) in [
            (Limit::ByIp, "quota_requests_by_ip", "quota_requests_by_ip"),
            (Limit::LogsByIp, "quota_requests_by_ip", "quota_requests_by_ip"),
            (Limit::Parallel, "quota_parallel_requests_by_uid", "quota_parallel_requests"),
            (Limit::Reports5m, "quota_requests_by_uid", "quota_requests_by_uid"),
            (Limit::Day, "quota_requests_by_uid", "quota_requests_by_uid"),
            (Limit::CounterDay, "quota_requests_by_counter_id", "quota_requests_by_counter_id"),
            (Limit::Grants, "quota_grants_requests", "quota_grants_requests"),
            (Limit::Delegates, "quota_delegate_requests", "quota_delegate_requests"),
        ] {
            assert_eq!((live.refusal(limit).status.as_u16(), &*live.refusal(limit).error_type), (429, seen));
            assert_eq!(
                (documented.refusal(limit).status.as_u16(), &*documented.refusal(limit).error_type),
                (420, listed)
            );
            let known = ErrorType::parse(seen).unwrap();
            assert!(known.russian().unwrap().starts_with("Превышена квота на количество "), "{seen}");
        }
    }

    #[test]
    fn the_limit_of_reports_has_any_type() {
        let quota = Quota { reports_type: "quota_reports".into(), ..Quota::default() };
        assert_eq!(quota.refusal(Limit::Reports5m).error_type, "quota_reports");
        assert_eq!(quota.refusal(Limit::Day).error_type, "quota_requests_by_uid");
    }

    #[test]
    fn every_limit_has_a_documented_value_and_is_off_by_default() {
        for limit in Limit::ALL {
            assert!(Quota::documented().limit(limit).is_some());
            assert_eq!(Quota::default().limit(limit), None);
            assert_eq!(json!(limit), limit.as_str());
        }
    }
}
