//! Spellings: a caller that is limited to one counter does not reach another, however it is written.
//!
//! An oracle reads a request as the most lenient of servers would: percent-encoding taken off up to twice, names in any case
//! and with any marks, values cut at everything that could separate, digits of any form, with signs, zeros and spaces. If
//! it finds the other counter, the gate must have refused; it may refuse more, but no plain spelling.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use http::Uri;
use metrica::operation::{Catalogue, Lookup, Verb};
use metrica::subject::Subject;
use metrika_gate::policy::rules::{Call, Rules, check_body};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use strict_http::grammar;
use strict_http::target::{self, Rule, Target};

use crate::harness::{Gate, Upstream};

const OWN: u64 = 7;
const OTHER: u64 = 44_147_844;

static CATALOGUE: LazyLock<Catalogue> = LazyLock::new(Catalogue::built_in);

fn limited() -> Rules {
    Rules { counters: Some([OWN].into()), logins: Some(["partner".into()].into()), ..Rules::default() }
}

/// The target that goes upstream for a request without a body, if the gate lets it go.
fn sent(verb: Verb, target: &str) -> Option<String> {
    sent_within(&limited(), verb, target)
}

fn passes(verb: Verb, target: &str) -> bool {
    sent(verb, target).is_some()
}

fn is_within(rules: &Rules, verb: Verb, target: &str) -> bool {
    sent_within(rules, verb, target).is_some()
}

fn sent_within(rules: &Rules, verb: Verb, target: &str) -> Option<String> {
    changed_within(rules, verb, target).map(|(sent, _)| sent)
}

/// The same, and the rule that the target broke as it came.
fn changed_within(rules: &Rules, verb: Verb, target: &str) -> Option<(String, Option<Rule>)> {
    if target::unfit(target.as_bytes()).is_some() {
        return None;
    }
    let encoded = grammar::encoded(b"GET ", target.as_bytes(), true);
    let (text, broken) = encoded.map_or((target.into(), None), |(text, broken)| (text, Some(broken)));
    let target = Target::canonical(&Uri::try_from(text).ok()?, 48 * 1024, |path| CATALOGUE.knows(path)).ok()?;
    let (path, query, names) = (target.path(), target.query(), target.names());
    let Lookup::Known(operation) = CATALOGUE.find(verb, path) else { return None };
    let subject = Subject::of(operation, path, query, names);
    rules.check(&Call { operation, path, query, names, subject: &subject }).ok()?;
    Some((target.origin_form().to_owned(), broken.or(target.was_changed()).map(|broken| broken.rule)))
}

/// With percent-encoding taken off once, where it is one.
fn decoded(text: &str) -> String {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, behind @ ..] = rest {
        let byte = behind.get(..2).and_then(|two| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok());
        match (first, byte) {
            (b'%', Some(byte)) => {
                out.push(byte);
                rest = &behind[2..];
            }
            (other, _) => {
                out.push(*other);
                rest = behind;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Every number in a text, in whatever digits, and with whatever before and behind it.
fn numbers(text: &str) -> Vec<u64> {
    let digits = text.chars().map(|letter| match letter {
        '\u{ff10}'..='\u{ff19}' => char::from_digit(u32::from(letter) - 0xff10, 10).unwrap(),
        '\u{660}'..='\u{669}' => char::from_digit(u32::from(letter) - 0x660, 10).unwrap(),
        other => other,
    });
    let digits: String = digits.collect();
    digits.split(|letter: char| !letter.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
}

/// Whether a reader who does not look closely takes a name for one that names counters.
fn names_counters(name: &str) -> bool {
    let name = name.split('[').next().unwrap_or_default().to_lowercase();
    let letters: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    ["ids", "id", "counter", "counters", "counterid", "counterids"].contains(&letters.as_str())
}

/// The oracle of a target.
fn could_name(target: &str, counter: u64) -> bool {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    (0..3).any(|times| {
        let read = |text: &str| (0..times).fold(text.to_owned(), |text, _| decoded(&text));
        let path = read(path).to_lowercase();
        // Some merge slashes.
        let mut segments =
            path.split('/').filter(|segment| !segment.is_empty()).skip_while(|segment| *segment != "counter").skip(1);
        let in_path = segments.next().is_some_and(|segment| numbers(segment).contains(&counter));
        let in_query = query.split(['&', ';']).any(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            names_counters(&read(name)) && numbers(&read(value)).contains(&counter)
        });
        in_path || in_query
    })
}

/// Parameters whose values are joined.
const JOINED: [&str; 4] = ["ids", "metrics", "dimensions", "fields"];

/// A way to read a request.
#[derive(Debug, Clone, Copy)]
struct Reader {
    /// The number of times that percent-encoding is taken off.
    times: usize,
    merges_slashes: bool,
    cuts_at_semicolons: bool,
    last_wins: bool,
}

impl Reader {
    /// Every way.
    fn all() -> impl Iterator<Item = Self> {
        (0..16).map(|bits| Self {
            times: 1 + (bits & 1),
            merges_slashes: bits & 2 != 0,
            cuts_at_semicolons: bits & 4 != 0,
            last_wins: bits & 8 != 0,
        })
    }

    fn decoded(self, text: &str) -> String {
        (0..self.times).fold(text.to_owned(), |text, _| decoded(&text))
    }

    /// The segments of the path.
    fn path(self, target: &str) -> Vec<String> {
        let path = self.decoded(target.split('?').next().unwrap_or_default());
        path.split('/')
            .skip(1)
            .filter(|segment| !self.merges_slashes || !segment.is_empty())
            .map(str::to_owned)
            .collect()
    }

    /// The value of a parameter.
    fn value(self, target: &str, name: &str) -> Option<String> {
        let query = target.split_once('?').map_or("", |(_, query)| query);
        let separators = if self.cuts_at_semicolons { &['&', ';'][..] } else { &['&'] };
        let pairs = query.split(separators).map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let mut values = pairs.filter(|(other, _)| self.decoded(other) == name).map(|(_, value)| self.decoded(value));
        if self.last_wins { values.next_back() } else { values.next() }
    }
}

/// The parts that all readers must read alike: the path and, for a limited caller, the counters of a report and the
/// JSONP callback. (A comma that is encoded twice is a matter between Metrica and a caller without limits.)
fn essence(reader: Reader, target: &str, is_limited: bool) -> (Vec<String>, Option<Vec<u64>>, Option<String>) {
    let value = |name| reader.value(target, name).filter(|_| is_limited);
    (reader.path(target), value("ids").map(|ids| numbers(&ids)), value("callback"))
}

/// The meaning of a request to its author: extra slashes, an empty `callback`, percent signs and spaces beside numbers mean
/// nothing, and separate values of a list are one list.
fn meaning(target: &str) -> (Vec<String>, Vec<(String, String)>) {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let segments = path.split('/').filter(|segment| !segment.is_empty()).map(decoded).collect();
    let mut pairs: Vec<(String, String)> = Vec::new();
    for (name, value) in query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, ""))) {
        let value = if name == "ids" { value.replace("%20", "").replace('+', "") } else { value.to_owned() };
        let value = decoded(&value);
        let is_joined = JOINED.contains(&name);
        let name = decoded(name);
        match pairs.iter_mut().find(|(other, _)| is_joined && *other == name) {
            Some((_, joined)) if joined.is_empty() => *joined = value,
            Some((_, joined)) if !value.is_empty() => *joined = format!("{joined},{value}"),
            Some(_) => {}
            None if (name == "callback" || name.is_empty()) && value.is_empty() => {}
            None => pairs.push((name, value)),
        }
    }
    (segments, pairs)
}

/// A character as it is, encoded once, or twice.
fn encoded(letter: char) -> impl Strategy<Value = String> {
    let percent = |letter: char, sign: &str| {
        letter.to_string().bytes().map(|byte| format!("{sign}{byte:02X}")).collect::<String>()
    };
    prop_oneof![
        12 => Just(letter.to_string()),
        2 => Just(percent(letter, "%")),
        1 => Just(percent(letter, "%").to_lowercase()),
        1 => Just(percent(letter, "%25")),
        1 => Just(letter.to_uppercase().collect()),
    ]
}

fn spelled(text: &str) -> impl Strategy<Value = String> + use<> {
    text.chars().map(encoded).collect::<Vec<_>>().prop_map(|letters| letters.concat())
}

/// A number in the ways that somebody could read it.
fn number(number: u64) -> impl Strategy<Value = String> {
    let wide = |first: u32| {
        let digit = move |digit: char| char::from_u32(first + digit.to_digit(10).unwrap()).unwrap().to_string();
        let percent =
            move |digit: char| digit.to_string().bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
        number.to_string().chars().map(|one| percent(digit(one).chars().next().unwrap())).collect::<String>()
    };
    let text = number.to_string();
    let before = prop::sample::select(vec![
        "",
        "",
        "",
        "",
        "+",
        "-",
        "0",
        "000",
        "%20",
        "%2B",
        "ga:",
        "ga%3A",
        "%22",
        "[",
        "%00",
        "%EF%BB%BF",
    ]);
    let behind =
        prop::sample::select(vec!["", "", "", "", ".0", "%20", "+", ".json", "%22", "]", "%00", "e0", "L", "%2E0"]);
    let digits = prop_oneof![8 => spelled(&text), 1 => Just(wide(0xff10)), 1 => Just(wide(0x660))];
    (before, digits, behind).prop_map(|(before, digits, behind)| format!("{before}{digits}{behind}"))
}

/// A list with the other counter at any place in it.
fn list() -> impl Strategy<Value = String> {
    let separator =
        prop::sample::select(vec![",", ",", ",", "%2C", "%2c", "%252C", ";", "%3B", "+", "%20", "|", ",,", ":"]);
    let element =
        prop_oneof![2 => Just(OWN.to_string()), 1 => number(OWN), 1 => number(OTHER), 1 => Just(OTHER.to_string())];
    prop::collection::vec((element, separator), 1..4).prop_map(|elements| {
        let last = elements.len() - 1;
        elements
            .iter()
            .enumerate()
            .map(|(at, (element, separator))| if at < last { format!("{element}{separator}") } else { element.clone() })
            .collect()
    })
}

fn name() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec![
        "ids",
        "ids",
        "ids",
        "id",
        "counter",
        "counters",
        "counter_id",
        "counter_ids",
        "counterId",
        "counterIds",
        "metrics",
        "filters",
    ]);
    let mark =
        || prop::sample::select(vec!["", "", "", "", "", "[]", "%5B%5D", "[0]", "%20", "+", ".", "_", "-", "!", "%00"]);
    let name = name.prop_flat_map(|name| prop_oneof![3 => Just(name.to_owned()), 1 => spelled(name)]);
    (mark(), name, mark()).prop_map(|(before, name, behind)| format!("{before}{name}{behind}"))
}

fn query() -> impl Strategy<Value = String> {
    let loose =
        prop::sample::select(vec!["callback=", "callback", "ids=", "metrics=<x>", "filters=\"", "ids=7", "x=\u{434}"]);
    let pair = (name(), list()).prop_map(|(name, value)| format!("{name}={value}"));
    let pair = prop_oneof![3 => pair, 1 => loose.prop_map(str::to_owned)];
    let separator = prop::sample::select(vec!["&", "&", "&", "&&", ";", "%26"]);
    prop::collection::vec((pair, separator), 0..4)
        .prop_map(|pairs| pairs.iter().map(|(pair, separator)| format!("{pair}{separator}")).collect::<String>())
        .prop_map(|query| query.trim_end_matches(['&', ';']).to_owned())
}

fn target() -> impl Strategy<Value = (Verb, String)> {
    let in_path = prop_oneof![3 => Just(OWN.to_string()), 1 => list(), 1 => number(OTHER)];
    let before = prop::sample::select(vec![
        "/management/v1/counter/",
        "/export/v1/cloud/counter/",
        "/cdp/api/v1/counter/",
        "/management/v1/Counter/",
        "//management/v1/counter/",
        "/management//v1/counter/",
    ]);
    let behind = prop::sample::select(vec![
        "",
        "/goals",
        "/goals.json",
        ".json",
        ".csv",
        "/schema/types",
        "/logrequests",
        "/",
        "/goals/",
    ]);
    let of_counter =
        (before, in_path, behind).prop_map(|(before, counter, behind)| format!("{before}{counter}{behind}"));
    let report = prop::sample::select(vec![
        "/stat/v1/data",
        "/stat/v1/data.csv",
        "/stat/v1/data/",
        "//stat/v1/data",
        "/stat/v1/data/bytime",
        "/analytics/v3/data/ga",
        "/management/v1/counters",
        "/management/v1/clients",
    ]);
    let path = prop_oneof![1 => of_counter, 2 => report.prop_map(str::to_owned)];
    let verb = prop::sample::select(vec![Verb::Get, Verb::Get, Verb::Head, Verb::Post, Verb::Put, Verb::Delete]);
    (verb, path, query()).prop_map(|(verb, path, query)| {
        let target = if query.is_empty() { path } else { format!("{path}?{query}") };
        (verb, target)
    })
}

/// A target as published clients write it: plain, in each of the forms that become canonical, and now and then in
/// one that is refused.
fn loose_target() -> impl Strategy<Value = (Verb, String)> {
    let path = prop::sample::select(vec![
        "/stat/v1/data",
        "/stat/v1/data.csv",
        "/management/v1/counters",
        "/management/v1/counter/7",
        "/management/v1/counter/7/goals",
        "/management/v1/counter/44147844/goals.json",
        "/management/v1/counter/7/logrequests/evaluate",
    ]);
    let before = prop::sample::select(vec!["", "", "", "", "", "", "/", "/", "//", "/%2F"]);
    let behind = prop::sample::select(vec!["", "", "", "", "", "", "/", "/", "//", "/."]);
    let number = prop_oneof![
        9 => prop::sample::select(vec!["7", "7", "44147844", "+7", "%207", "7+", "7%20", "44147844+"]),
        1 => prop::sample::select(vec!["", "7%207", "%2B7"]),
    ];
    let separator = prop::sample::select(vec![",", ",", ",", ",", "%2C", "%2c", "%2C", "%252C", ";"]);
    let ids = prop::collection::vec((number, separator), 0..4)
        .prop_map(|list| list.into_iter().map(|(number, separator)| format!("{number}{separator}")).collect::<String>())
        .prop_map(|list| format!("ids={}", list.trim_end_matches([',', ';'])));
    let raw = prop::sample::select(vec![
        "a",
        "7",
        "<a>",
        "\"",
        "\u{434}",
        "\u{ff17}",
        "\u{1f600}",
        ";b",
        "%3B",
        "+",
        "%26ids",
        "",
    ]);
    let name = prop::sample::select(vec![
        "metrics",
        "dimensions",
        "fields",
        "metrics",
        "filters",
        "field",
        "x",
        "<x>",
        "\u{ff49}ds",
        "id\"",
        "metrics;ids",
    ]);
    let pair = (name, prop::collection::vec(raw, 0..3)).prop_map(|(name, value)| format!("{name}={}", value.concat()));
    let callback = prop::sample::select(vec![
        "callback=",
        "callback",
        "callback=x",
        "callback=<",
        "Callback=",
        "callback==",
        "ids",
    ]);
    let pair = prop_oneof![3 => ids, 4 => pair, 2 => callback.prop_map(str::to_owned)];
    let separator = prop::sample::select(vec!["&", "&", "&", "&", "&", "&", "&", "&&", ";"]);
    let query = prop::collection::vec((separator, pair), 0..5)
        .prop_map(|pairs| pairs.into_iter().map(|(separator, pair)| format!("{separator}{pair}")).collect::<String>());
    (before, path, behind, query).prop_map(|(before, path, behind, query)| {
        let query = query.trim_start_matches(['&', ';']);
        let question = if query.is_empty() { "" } else { "?" };
        (Verb::Get, format!("{before}{path}{behind}{question}{query}"))
    })
}

/// JSON text with the other counter under a key that names counters, in some spelling and under some nesting.
fn body() -> impl Strategy<Value = String> {
    let escaped = |text: &'static str| {
        let letter = |letter: char| prop_oneof![6 => Just(letter.to_string()), 1 => Just(format!("\\u{:04x}", u32::from(letter))), 1 => Just(letter.to_uppercase().collect())];
        text.chars().map(letter).collect::<Vec<_>>().prop_map(|letters| letters.concat())
    };
    let names =
        vec!["counter_id", "counterId", "counter_ids", "counters", "ids", "counter", "counterIds", "counter-id"];
    let name = prop::sample::select(names).prop_flat_map(escaped);
    let forms = vec![
        "N",
        "\"N\"",
        "[7,N]",
        "[\"7\",\"N\"]",
        "{\"id\":N}",
        "[{\"id\":7},{\"id\":\"N\"}]",
        "N.0",
        "\"+N\"",
        "\" N\"",
        "\"0N\"",
        "[[N]]",
        "\"7,N\"",
        "Ne0",
        "{\"x\":{\"counterId\":N}}",
    ];
    let member = (name, prop::sample::select(forms))
        .prop_map(|(name, form)| format!("\"{name}\":{}", form.replace('N', &OTHER.to_string())));
    let around = prop::sample::select(vec![
        "{M}",
        "{\"a\":1,M}",
        "{M,\"b\":[]}",
        "[{M}]",
        "{\"goal\":{M}}",
        "{\"a\":[[{\"b\":{M}}]]}",
        "{\"counter_id\":7,M}",
        "{M,\"counter_id\":7}",
        "{\"counter\":{\"id\":7,M}}",
        "\u{feff}{M}",
        "{M}{}",
        " {M} ",
    ]);
    (around, member).prop_map(|(around, member)| around.replace('M', &member))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8000, failure_persistence: None, ..ProptestConfig::default() })]

    /// No spelling of another counter passes, neither as it came nor as it goes out.
    #[test]
    fn no_spelling_of_another_counter_passes((verb, target) in prop_oneof![1 => target(), 1 => loose_target()]) {
        if let Some(sent) = sent(verb, &target) {
            prop_assert!(!could_name(&target, OTHER), "{} {}", verb.as_str(), &target);
            prop_assert!(!could_name(&sent, OTHER), "{} {} as {}", verb.as_str(), &target, &sent);
        }
    }

    #[test]
    fn no_body_with_another_counter_passes(body in body()) {
        prop_assert!(check_body(&[OWN], body.as_bytes()).is_err(), "{}", &body);
    }

    /// Nor does a login that is not listed.
    #[test]
    fn no_spelling_of_another_login_passes(
        name in prop::sample::select(vec!["ulogin", "direct_client_logins"]).prop_flat_map(spelled),
        mark in prop::sample::select(vec!["", "[]", "%5B%5D", "%20", "_"]),
        before in prop::sample::select(vec!["", "partner,", "partner%2C", "partner%252C", "partner;", "+"]),
        login in spelled("other"),
    ) {
        let target = format!("/stat/v1/data?ids={OWN}&{name}{mark}={before}{login}");
        prop_assert!(!passes(Verb::Get, &target), "{}", &target);
    }

    /// Nor does what takes something away by a parameter, nor a grant for somebody else.
    #[test]
    fn no_spelling_of_a_denied_operation_passes(
        (path, name, value) in prop::sample::select(vec![
            ("/cdp/api/v1/counter/7/data/contacts/json", "merge_mode", "SAVE"),
            ("/management/v1/counter/7/user_params/uploadings/upload", "action", "delete_keys"),
            ("/management/v1/counter/7/grants", "user_login", "other"),
        ]).prop_flat_map(|(path, name, value)| (Just(path), spelled(name), spelled(value))),
        mark in prop::sample::select(vec!["", "[]", "%5B%5D", "%20", "_"]),
        before in prop::sample::select(vec!["", "x=1&", "x=1;", "merge_mode=APPEND&", "user_login=partner&action=update;"]),
        around in prop::sample::select(vec!["", "+", "%20", "%00", ",", "%22"]),
    ) {
        let denying = Rules { destructive: false, grantees: Some(["partner".into()].into()), ..Rules::default() };
        let target = format!("{path}?{before}{name}{mark}={around}{value}");
        prop_assert!(!is_within(&denying, Verb::Post, &target), "{}", &target);
    }

    /// Plain spellings pass: not everything is refused.
    #[test]
    fn plain_spellings_pass(
        path in prop::sample::select(vec!["/management/v1/counter/7", "/management/v1/counter/7/goals.json", "/stat/v1/data", "/stat/v1/data.csv"]),
        name in prop::sample::select(vec!["ids", "id", "counter_ids"]),
        times in 1..4_usize,
        more in "(&(metrics|filters|date1|pretty)=[a-z0-9:,%2C]{0,9}){0,3}",
    ) {
        let more = more.replace("%2C", "").replace('%', "");
        let target = format!("{path}?{name}={}{more}", vec!["7"; times].join(","));
        prop_assert!(passes(Verb::Get, &target), "{}", &target);
    }
}

/// Outgoing targets have one form, keep their meaning, and mean the same to every reader; every canonical form occurs.
#[test]
fn an_outgoing_target_has_one_reading() {
    let anything = Rules { callback: true, ..Rules::default() };
    let mut met = BTreeMap::new();
    let config = ProptestConfig { cases: 8000, failure_persistence: None, ..ProptestConfig::default() };
    let met_forms = std::cell::RefCell::new(&mut met);
    let outcome = TestRunner::new(config).run(&prop_oneof![1 => target(), 3 => loose_target()], |(verb, target)| {
        for rules in [limited(), anything.clone()] {
            let Some((sent, changed)) = changed_within(&rules, verb, &target) else { continue };
            *met_forms.borrow_mut().entry(changed.map(Rule::word)).or_insert(0) += 1;
            prop_assert_eq!(sent_within(&rules, verb, &sent), Some(sent.clone()), "{}", &target);
            prop_assert_eq!(meaning(&sent), meaning(&target), "{} as {}", &target, &sent);
            let mut readings = Reader::all().map(|reader| (reader, essence(reader, &sent, rules.counters.is_some())));
            let (_, first) = readings.next().unwrap();
            for (reader, essence) in readings {
                prop_assert_eq!(&essence, &first, "{} as {} to {:?}", &target, &sent, reader);
            }
            let readers = Reader::all().filter(|reader| !reader.cuts_at_semicolons);
            for (reader, name) in readers.flat_map(|reader| JOINED.map(|name| (reader, name))) {
                let other = Reader { last_wins: !reader.last_wins, ..reader };
                prop_assert_eq!(reader.value(&sent, name), other.value(&sent, name), "{} as {}", &target, &sent);
            }
        }
        Ok(())
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
    let forms =
        ["trailing_slash", "empty_segment", "query_character", "empty_callback", "parameter_twice", "space_in_ids"];
    assert!(forms.into_iter().all(|form| met.get(&Some(form)).is_some_and(|times| *times > 50)), "{met:?}");
}

/// A handful of them over the wire, in both forms of a target: 400 or 403, and nothing is sent.
#[test]
fn no_spelling_of_another_counter_reaches_metrica() {
    let upstream = Upstream::plain();
    let config = "
listeners: [{name: one, address: '127.0.0.1:0'}]
callers:
  - {id: one, match: {listener: one}, scopes: [metrika:read, metrika:write], tokens: [analytics, crm], counters: [7]}
";
    let gate = Gate::start(&upstream, config);
    let other = OTHER.to_string();
    let encoded: String = other.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let twice = encoded.replace('%', "%25");
    let wide: String = other.bytes().map(|byte| format!("%EF%BC%{:02X}", byte - b'0' + 0x90)).collect();
    let mut tried = 0;
    for number in
        [&other, &encoded, &twice, &wide, &format!("0{other}"), &format!("%2B{other}"), &format!("{other}%20")]
    {
        for target in [
            format!("/management/v1/counter/{number}"),
            format!("/management/v1/counter/{number}.json"),
            format!("/management/v1/counter/{number}/goals"),
            format!("/management/v1/counter/7?ids={number}"),
            format!("/stat/v1/data?ids=7,{number}"),
            format!("/stat/v1/data?ids=7%2C{number}"),
            format!("/stat/v1/data?ids=7;ids={number}"),
            format!("/stat/v1/data?ids=7&ids={number}"),
            format!("/stat/v1/data?ids=7&IDS={number}"),
            format!("/stat/v1/data?ids=7&ids[]={number}"),
            format!("/stat/v1/data?ids=7&ids%5B%5D={number}"),
            format!("/stat/v1/data?ids=7&counterId={number}"),
            format!("/stat/v1/data?id=7&i%64s={number}"),
        ] {
            for whole in [target.clone(), format!("http://localhost{target}"), format!("HTTPS://LOCALHOST{target}")] {
                let host = if whole.starts_with("HTTPS") { "LOCALHOST" } else { "localhost" };
                let answer = gate.send("one", format!("GET {whole} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
                assert!([400, 403].contains(&answer.status), "{whole}: {}", answer.summary());
                assert!(answer.field("x-gate-error").is_some(), "{whole}");
                tried += 1;
            }
        }
    }
    assert_eq!((tried, upstream.connections()), (7 * 13 * 3, 0), "nothing was sent upstream");
    assert_eq!(gate.get("one", "/stat/v1/data?ids=7,7").summary(), "200");
}
