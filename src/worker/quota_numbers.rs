//! The numbers by which the quota broker knows the names of a configuration.

use crate::policy::names::CallerId;
use crate::quota::{Caller, Class, Egress, Owner};

/// The numbers by which the broker knows the names of a configuration.
#[derive(Debug, Clone)]
pub struct QuotaNumbers {
    /// The egress.
    pub egress: Egress,
    /// By position of the token.
    pub owners: Vec<Owner>,
    /// By the number of the caller's id: its number here and its class.
    pub callers: CallerNumbers,
    /// The caller of the gate's own requests.
    pub own: Caller,
}

/// The callers of a configuration, found without hashing.
#[derive(Debug, Clone)]
pub struct CallerNumbers(Vec<Option<(Caller, Class)>>);

impl CallerNumbers {
    /// The number and the class of a caller.
    #[must_use]
    pub fn get(&self, id: CallerId) -> Option<(Caller, Class)> {
        *self.0.get(id.number())?
    }
}

impl FromIterator<(CallerId, (Caller, Class))> for CallerNumbers {
    fn from_iter<I: IntoIterator<Item = (CallerId, (Caller, Class))>>(callers: I) -> Self {
        let mut all = Vec::new();
        for (id, numbers) in callers {
            if all.len() <= id.number() {
                all.resize(id.number() + 1, None);
            }
            if let Some(place) = all.get_mut(id.number()) {
                *place = Some(numbers);
            }
        }
        Self(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quota::{Broker, CallerSettings, Now, Settings};

    #[test]
    fn each_caller_has_its_own_number_and_class() {
        let [first, second, other] = ["first", "second", "other"].map(CallerId::new);
        let settings = Settings { callers: [second, first].map(CallerSettings::new).to_vec(), ..Settings::default() };
        let broker = Broker::new(&settings, Now::default());
        let of = |id, class| (id, (broker.caller(id).unwrap(), class));
        let expected = [of(second, Class::Batch), of(first, Class::Interactive)];
        let numbers = CallerNumbers::from_iter(expected);
        assert_eq!(
            [numbers.get(second), numbers.get(first), numbers.get(other)],
            [Some(expected[0].1), Some(expected[1].1), None]
        );
    }
}
