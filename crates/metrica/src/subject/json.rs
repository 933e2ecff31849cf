//! The JSON body of a request, searched for counters and for anything else that is [`Sought`].
//!
//! 1. A counter is the value of a key that the most lenient reader takes for `counterid`, `counterids`, `counter`,
//!    `counters` or `ids`, at any depth: a number, a string of digits, or a list of those. Under `counter` and `counters` it
//!    can also be an object with an `id`, or with counters as keys.
//! 2. An `id` elsewhere is not a counter: goals, segments and labels have one too. An absent or `null` value names none.
//! 3. Any other value in such a place is unreadable: a fraction or an exponent, a sign, zero, text, true, an object in the
//!    place of a number.
//! 4. An ambiguous body is unreadable: invalid JSON, a key twice in one object, or values nested more than 64 deep.
//! 5. An empty body names no counter. A byte order mark before the body is ignored.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use strict_http::target::spelled;

use super::{Counters, counter};

/// The maximum depth (rule 4), which is less than serde_json's own limit.
const DEEPEST: u8 = 64;

/// A search through the values of a body.
pub trait Sought {
    /// A place in which a value is of interest.
    type Place: Copy;

    /// The place of the value under `key`, in an object at the place `outer`; `None` if the value is of no interest.
    fn place(&mut self, key: &str, outer: Option<Self::Place>) -> Option<Self::Place>;

    /// Processes the value at a place; returns whether it is readable.
    fn take(&mut self, place: Self::Place, value: Scalar<'_>) -> bool;
}

/// A value other than an object, an array or `null`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scalar<'a> {
    /// A number without a sign, a fraction or an exponent.
    Number(u64),
    /// A string.
    Text(&'a str),
    /// Any other number, or a boolean.
    Other,
}

/// Searches a body; returns whether it is readable (rules 4 and 5).
#[must_use]
pub fn read(body: &[u8], sought: &mut impl Sought) -> bool {
    if body.is_empty() {
        return true;
    }
    let mut reader = serde_json::Deserializer::from_slice(without_mark(body));
    let walked = Walk { sought, place: None, depth: 0 }.deserialize(&mut reader);
    walked.and_then(|()| reader.end()).is_ok()
}

fn without_mark(body: &[u8]) -> &[u8] {
    body.strip_prefix("\u{feff}".as_bytes()).unwrap_or(body)
}

/// Whether a body begins like an object or an array.
#[must_use]
pub fn begins(body: &[u8]) -> bool {
    matches!(without_mark(body).trim_ascii_start(), [b'{' | b'[', ..])
}

/// Whether a body as a whole is one object or array.
#[must_use]
pub fn is_document(body: &[u8]) -> bool {
    begins(body) && serde_json::from_slice::<serde::de::IgnoredAny>(without_mark(body)).is_ok()
}

/// Returns the counters in the JSON body of a request (rules 1 to 5).
#[must_use]
pub fn counters_in(body: &[u8]) -> Counters {
    let mut found = CountersIn(Vec::new());
    match (read(body, &mut found), &found.0[..]) {
        (false, _) => Counters::Unreadable,
        (true, []) => Counters::None,
        (true, [one]) => Counters::One(*one),
        (true, _) => Counters::Several(found.0.into()),
    }
}

/// The search for counters (rules 1 to 3).
struct CountersIn(Vec<u64>);

/// A place in which a counter is expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Counted {
    /// A counter, or an object that contains one.
    Owner,
    /// A counter only.
    Number,
    /// Inside an object in a place where only a counter is allowed; unreadable.
    Astray,
}

impl Sought for CountersIn {
    type Place = Counted;

    fn place(&mut self, key: &str, outer: Option<Counted>) -> Option<Counted> {
        match (spelled(key.as_bytes()).as_str(), outer) {
            (_, Some(Counted::Number | Counted::Astray)) => Some(Counted::Astray),
            ("counter" | "counters", _) => Some(Counted::Owner),
            ("counterid" | "counterids" | "ids", _) | ("id", Some(Counted::Owner)) => Some(Counted::Number),
            (_, Some(Counted::Owner)) => {
                self.0.extend(counter(key.as_bytes()));
                None
            }
            (_, None) => None,
        }
    }

    fn take(&mut self, place: Counted, value: Scalar<'_>) -> bool {
        let counter = match value {
            _ if place == Counted::Astray => None,
            Scalar::Number(number) => Some(number).filter(|number| *number > 0),
            Scalar::Text(text) => counter(text.as_bytes()),
            Scalar::Other => None,
        };
        self.0.extend(counter);
        counter.is_some()
    }
}

/// Walks through one value and everything in it.
struct Walk<'a, S: Sought> {
    sought: &'a mut S,
    place: Option<S::Place>,
    depth: u8,
}

impl<S: Sought> Walk<'_, S> {
    fn scalar<E: Error>(self, value: Scalar<'_>) -> Result<(), E> {
        let is_fine = self.place.is_none_or(|place| self.sought.take(place, value));
        is_fine.then_some(()).ok_or_else(|| E::custom("unexpected value"))
    }

    fn deeper<E: Error>(&self) -> Result<u8, E> {
        if self.depth < DEEPEST { Ok(self.depth + 1) } else { Err(E::custom("too deep")) }
    }
}

impl<'de, S: Sought> DeserializeSeed<'de> for Walk<'_, S> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de, S: Sought> Visitor<'de> for Walk<'_, S> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        self.scalar(Scalar::Other)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<(), E> {
        self.scalar(Scalar::Number(number))
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        self.scalar(Scalar::Other)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        self.scalar(Scalar::Other)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        self.scalar(Scalar::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        let depth = self.deeper()?;
        let place = self.place;
        while elements.next_element_seed(Walk { sought: &mut *self.sought, place, depth })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let depth = self.deeper()?;
        let mut keys = HashSet::new();
        while let Some(key) = members.next_key_seed(Key)? {
            let place = self.sought.place(&key, self.place);
            if !keys.insert(key) {
                return Err(A::Error::custom("a key twice"));
            }
            members.next_value_seed(Walk { sought: &mut *self.sought, place, depth })?;
        }
        Ok(())
    }
}

/// A key of an object, copied only if it contains escapes.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Cow<'de, str>, D::Error> {
        reader.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_str<E: Error>(self, key: &'de str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Borrowed(key))
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Owned(key.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn found(body: &str) -> Counters {
        counters_in(body.as_bytes())
    }

    #[test]
    fn rule_1_counters_are_read_from_every_place() {
        for (body, expected) in [
            (r#"{"counter_id": 5}"#, &[5][..]),
            (r#"{"counter_id": "5"}"#, &[5]),
            (r#"{"a": [{"b": {"counterIds": [5, "6"]}}], "ids": [7]}"#, &[5, 6, 7]),
            (r#"{"COUNTER-ID": 5, "counters[]": [6]}"#, &[5, 6]),
            (r#"{"counter\u005fid": 5}"#, &[5]),
            (r#"{"counter": {"id": 5, "name": "x"}}"#, &[5]),
            (r#"{"counters": [{"id": "5"}, [{"Id": 6}]]}"#, &[5, 6]),
            (r#"{"counter": {"id": 5, "counter_id": 6, "more": {"ids": 7}}}"#, &[5, 6, 7]),
            (r#"[{"counter_id": 18446744073709551615}]"#, &[u64::MAX]),
            (r#"{"counters": {"5": {}, "6": {"name": "x"}}}"#, &[5, 6]),
            ("{\"\u{ff43}ounter_id\": 5}", &[5]),
            (r#"{"counter_id[0]": 5, "counter%5Fid": 6}"#, &[5, 6]),
            ("{\"counter\u{17f}\": 5, \"\u{131}ds\": 6, \"\u{130}DS\": 7}", &[5, 6, 7]),
        ] {
            assert_eq!(found(body).as_slice(), expected, "{body}");
        }
    }

    #[test]
    fn rule_2_other_members_name_no_counter() {
        for body in [
            r#"{"goal": {"id": 5, "conditions": [{"url": "7"}]}}"#,
            r#"{"counter": {"name": "shop", "goals": [{"id": 5}], "code_options": {"informer": {"id": 6}}}}"#,
            r#"{"counter": null, "counters": [], "ids": [null], "counter_id": [[]]}"#,
            r#"{"counter_flags": true, "counters_total": 1.5, "discounter": -1}"#,
            "5",
            "[5]",
            "null",
        ] {
            assert_eq!(found(body), Counters::None, "{body}");
        }
    }

    #[test]
    fn rule_3_an_invalid_counter_is_unreadable() {
        for value in [
            "1.0",
            "1e3",
            "-1",
            "-0",
            "0",
            "true",
            "\"\"",
            "\"05\"",
            "\"1,2\"",
            "\" 5\"",
            "\"+5\"",
            "\"abc\"",
            "[5, false]",
            "[[1.5]]",
            r#"{"id": "x"}"#,
            r#"{"id": {"id": 1.5}}"#,
            r#"{"id": {"$numberLong": "666"}}"#,
            r#"{"id": [{"value": 666}]}"#,
            "18446744073709551616",
            "\"18446744073709551616\"",
        ] {
            let body = format!(r#"{{"counter": {value}}}"#);
            assert_eq!(found(&body), Counters::Unreadable, "{value}");
        }
    }

    #[test]
    fn rule_4_ambiguous_or_invalid_json_is_unreadable() {
        for body in [
            "{",
            "{} {}",
            " ",
            "{'counter_id': 5}",
            "{\"a\": 01}",
            "{\"a\": NaN}",
            "{\"a\": \"\\ud800\"}",
            r#"{"a": 1, "a": 2}"#,
            r#"{"a": 1, "\u0061": 2}"#,
            r#"{"x": [{"counter_id": 5, "counter_id": 6}]}"#,
        ] {
            assert_eq!(found(body), Counters::Unreadable, "{body}");
        }
        assert_eq!(counters_in(b"{\"a\": \"\xff\"}"), Counters::Unreadable);
        let nested = |depth: usize| [&"[".repeat(depth), &"]".repeat(depth)[..]].concat();
        assert_eq!(found(&nested(64)), Counters::None);
        assert_eq!(found(&nested(65)), Counters::Unreadable);
        let objects = |depth: usize| ["{\"a\":".repeat(depth), "5".to_owned(), "}".repeat(depth)].concat();
        assert_eq!(found(&objects(64)), Counters::None);
        assert_eq!(found(&objects(65)), Counters::Unreadable);
    }

    #[test]
    fn rule_5_an_empty_body_names_none() {
        assert_eq!((found(""), found("\u{feff}{}")), (Counters::None, Counters::None));
        assert_eq!(found("\u{feff}{\"counter_id\": 5}"), Counters::One(5));
        assert_eq!(found("\u{feff}\u{feff}{}"), Counters::Unreadable);
    }

    #[test]
    fn a_hundred_thousand_counters_are_read_in_one_go() {
        let many: Vec<u64> = (1..=100_000).collect();
        assert_eq!(found(&json!({ "ids": many }).to_string()).as_slice(), &many[..]);
    }

    /// A simpler implementation to compare with, which collects in the order of the text; `None` is unreadable.
    fn naive(value: &Value, place: &str, found: &mut Vec<u64>) -> Option<()> {
        match value {
            Value::Null => {}
            Value::Array(elements) => elements.iter().try_for_each(|element| naive(element, place, found))?,
            Value::Object(members) => {
                for (key, value) in members {
                    let plain: String = key.to_lowercase().replace(|c: char| !c.is_alphanumeric(), "");
                    let place = match (place, plain.as_str()) {
                        ("number" | "astray", _) => "astray",
                        (_, "counter" | "counters") => "owner",
                        (_, "counterid" | "counterids" | "ids") | ("owner", "id") => "number",
                        _ => "elsewhere",
                    };
                    naive(value, place, found)?;
                }
            }
            _ if place == "astray" => return None,
            scalar if place != "elsewhere" => {
                let text = scalar.as_str().map_or_else(|| scalar.to_string(), str::to_owned);
                let number: u64 = text.parse().ok().filter(|number| *number > 0)?;
                (number.to_string() == text).then(|| found.push(number))?;
            }
            Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
        Some(())
    }

    fn values() -> impl Strategy<Value = Value> {
        let scalar = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (1_u64..).prop_map(Value::from),
            (1_u64..9).prop_map(|number| Value::from(number.to_string())),
            (1_u64..9).prop_map(Value::from),
            prop_oneof![Just(json!(-1)), Just(json!(1.5)), Just(json!("x")), Just(json!(0)), Just(json!("07"))],
        ];
        let key = prop::sample::select(vec![
            "counter",
            "Counters",
            "counter_id",
            "counterIds",
            "ids",
            "IDS",
            "id",
            "Id",
            "goal",
            "name",
            "grants",
            "counterx",
        ]);
        scalar.prop_recursive(5, 40, 5, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::vec((key.clone(), inner), 0..5).prop_map(|members| members.into_iter().collect()),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_body_is_read_as_by_hand(value in values(), pretty in any::<bool>()) {
            let mut expected = Vec::new();
            let readable = naive(&value, "elsewhere", &mut expected);
            let text = if pretty { serde_json::to_string_pretty(&value).unwrap() } else { value.to_string() };
            let read = found(&text);
            prop_assert_eq!(read == Counters::Unreadable, readable.is_none(), "{}", text);
            if readable.is_some() {
                prop_assert_eq!(read.as_slice(), &expected[..], "{}", text);
            }
        }

        #[test]
        fn no_bytes_are_too_much(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let read = counters_in(&body);
            prop_assert!(read == Counters::Unreadable || body.is_empty() || serde_json::from_slice::<Value>(&body).is_ok());
        }
    }
}
