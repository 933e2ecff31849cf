//! The JSON schema and the reader accept the same keys, kinds, words and numbers.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use jsonschema::Validator;
use metrika_gate::config::Config;
use serde_json::Value as Json;
use serde_yaml::Value;

use super::reference::{at, complete_reference, files, in_repository, mappings, reference};
use crate::harness::gate::program;

fn schema() -> Json {
    let output = program().arg("schema").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The schema itself is checked with the meta-schema of its draft.
fn validator(schema: &Json) -> Validator {
    jsonschema::draft202012::meta::validate(schema)
        .unwrap_or_else(|error| panic!("{error} at {}", error.instance_path()));
    jsonschema::draft202012::new(schema).unwrap()
}

fn json(document: &Value) -> Json {
    serde_json::to_value(document).unwrap()
}

/// The mistakes that the schema finds in `document`.
fn wrong(validator: &Validator, document: &Value) -> Vec<String> {
    let document = json(document);
    validator.iter_errors(&document).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

/// The mistakes that the reader finds.
fn mistakes(document: &Value) -> Vec<String> {
    match Config::parse(&serde_yaml::to_string(document).unwrap(), Path::new("r")) {
        Ok(_) => Vec::new(),
        Err(error) => error.to_string().lines().map(str::to_owned).collect(),
    }
}

/// Every value in a document, with the way to it.
fn values(value: &Value, at: &str, found: &mut Vec<String>) {
    if !at.is_empty() {
        found.push(at.to_owned());
    }
    match value {
        Value::Mapping(mapping) => {
            for (key, value) in mapping {
                let key = key.as_str().unwrap();
                values(value, &if at.is_empty() { key.to_owned() } else { format!("{at}.{key}") }, found);
            }
        }
        Value::Sequence(elements) => {
            elements.iter().enumerate().for_each(|(index, value)| values(value, &format!("{at}[{index}]"), found));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Tagged(_) => {}
    }
}

/// The part of the schema for the value at `path`, as in `listeners[0].unix`; of several kinds, the one that `fits`.
fn part<'a>(schema: &'a Json, path: &str, fits: impl Fn(&Json) -> bool) -> Option<&'a Json> {
    let alternatives = |schema: &'a Json| match schema.get("anyOf") {
        Some(Json::Array(alternatives)) => alternatives.iter().collect(),
        _ => vec![schema],
    };
    let mut found = alternatives(schema);
    for step in path.split(['.', '[']).filter(|step| !step.is_empty()) {
        let next = |schema: &&'a Json| match step.strip_suffix(']') {
            Some(_) => schema.get("items"),
            None => schema["properties"]
                .get(step)
                .or_else(|| schema.get("additionalProperties").filter(|more| more.is_object())),
        };
        found = found.iter().filter_map(next).flat_map(alternatives).collect();
    }
    found.into_iter().find(|schema| fits(schema))
}

#[test]
fn every_configuration_that_is_shipped_keeps_to_the_schema() {
    let validator = validator(&schema());
    let folder = files();
    let shipped = std::fs::read_to_string(in_repository("config/gate.yaml")).unwrap();
    for text in [reference(), complete_reference(folder.path()), shipped] {
        assert_eq!(wrong(&validator, &serde_yaml::from_str(&text).unwrap()), [""; 0]);
    }
    let mut manifests = 0;
    for file in below(&in_repository("deploy"), "yaml").iter().filter(|file| file.ends_with("gate.yaml")) {
        let text = std::fs::read_to_string(file).unwrap();
        assert_eq!(wrong(&validator, &serde_yaml::from_str(&text).unwrap()), [""; 0], "{}", file.display());
        manifests += 1;
    }
    assert!(manifests > 0, "the manifests have configurations");
}

/// A part of a configuration in a page keeps to the schema, without the keys that it leaves out.
#[test]
fn every_example_in_the_pages_keeps_to_the_schema() {
    let mut schema = schema();
    without_required(&mut schema);
    let validator = validator(&schema);
    let known: BTreeSet<String> = schema["properties"].as_object().unwrap().keys().cloned().collect();
    let pages = below(&in_repository("docs"), "md").into_iter().chain([in_repository("README.md")]);
    let mut examples = 0;
    for page in pages {
        let text = std::fs::read_to_string(&page).unwrap();
        for block in text.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap()) {
            let Ok(document @ Value::Mapping(_)) = serde_yaml::from_str::<Value>(block) else { continue };
            let keys = document.as_mapping().unwrap().keys();
            if keys.into_iter().any(|key| !key.as_str().is_some_and(|key| known.contains(key))) {
                continue;
            }
            assert_eq!(wrong(&validator, &document), [""; 0], "{}:\n{block}", page.display());
            examples += 1;
        }
    }
    assert!(examples >= 8, "{examples} examples were found");
}

fn without_required(schema: &mut Json) {
    match schema {
        Json::Object(object) => {
            object.remove("required");
            object.values_mut().for_each(without_required);
        }
        Json::Array(elements) => elements.iter_mut().for_each(without_required),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => {}
    }
}

fn below(folder: &Path, ending: &str) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(below(&path, ending));
        } else if path.extension().is_some_and(|found| found == ending) {
            found.push(path);
        }
    }
    found
}

/// The reader lists the keys that it knows when it meets another one.
#[test]
fn the_reader_and_the_schema_know_the_same_keys() {
    let (schema, folder) = (schema(), files());
    let validator = validator(&schema);
    let document: Value = serde_yaml::from_str(&complete_reference(folder.path())).unwrap();
    let mut places = Vec::new();
    mappings(&document, "", &mut places);
    places.retain(|place| !["tokens", "counter_groups"].contains(&place.as_str()));
    assert!(places.len() > 25, "{places:?}");
    for place in places {
        let mut asked = document.clone();
        at(&mut asked, &place).as_mapping_mut().unwrap().insert("zzzzzzzzzzzzzzzz".into(), 1.into());
        let said = mistakes(&asked).join("\n");
        let (_, known) = said.split_once("expected one of ").unwrap_or_else(|| panic!("{place}: {said}"));
        let known: BTreeSet<&str> = known.lines().next().unwrap().split(", ").collect();
        let part = part(&schema, &place, |part| part.get("properties").is_some()).unwrap_or_else(|| panic!("{place}"));
        let stated: BTreeSet<&str> = part["properties"].as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(stated, known, "src/config/schema.rs, {place}");
        assert!(!wrong(&validator, &asked).is_empty(), "{place}: an unknown key");
        // And each required key.
        for key in &known {
            let mut without = document.clone();
            if at(&mut without, &place).as_mapping_mut().unwrap().remove(*key).is_none() {
                continue;
            }
            let said = mistakes(&without);
            let is_missing = |line: &String| line.contains(&format!("the key '{key}' is missing"));
            assert_eq!(
                part["required"].as_array().is_some_and(|keys| keys.iter().any(|required| required == key)),
                said.iter().any(is_missing),
                "is {place}.{key} required? {said:?}"
            );
        }
    }
}

/// `callers[].match` for `callers[1].match`, and `tokens.*` for a token.
fn kind_of_place(place: &str) -> String {
    let steps = place.split('.').enumerate().map(|(position, step)| {
        let is_name = position == 1 && (place.starts_with("tokens.") || place.starts_with("counter_groups."));
        let key = step.split('[').next().unwrap();
        if is_name { "*".to_owned() } else { format!("{key}{}", "[]".repeat(step.matches('[').count())) }
    });
    steps.collect::<Vec<_>>().join(".")
}

#[test]
fn the_reader_and_the_schema_expect_the_same_kinds() {
    let (schema, folder) = (schema(), files());
    let validator = validator(&schema);
    let document: Value = serde_yaml::from_str(&complete_reference(folder.path())).unwrap();
    let mut places = Vec::new();
    values(&document, "", &mut places);
    // Each kind of place once: most are met in several elements.
    let mut met = BTreeSet::new();
    places.retain(|place| met.insert(kind_of_place(place)));
    let others = [
        Value::Null,
        true.into(),
        7.into(),
        "zzzz".into(),
        Value::Sequence(Vec::new()),
        Value::Mapping(serde_yaml::Mapping::new()),
    ];
    let mut rejected = BTreeMap::<bool, usize>::new();
    for place in places {
        for other in &others {
            let mut changed = document.clone();
            *at(&mut changed, &place) = other.clone();
            let (said, found) = (mistakes(&changed), wrong(&validator, &changed));
            let shown = format!("{place} as {other:?}: the reader finds {said:?}, the schema {found:?}");
            assert!(!said.is_empty() || found.is_empty(), "the schema is too strict: {shown}");
            // A wrong kind, where it stands; the content of texts and relations between keys are the reader's.
            let is_of_kind = |line: &&String| {
                let kinds = ["nothing", "true or false", "a number", "a list", "a mapping", "a value of another kind"];
                let stands = [format!(" {place}: "), format!(" {place}[0]: ")];
                stands.iter().any(|stands| line.contains(stands.as_str()))
                    && (kinds.iter().any(|kind| line.contains(&format!(": is {kind}; expected")))
                        || line.contains("is empty; expected"))
            };
            let is_wrong_kind = said.iter().find(is_of_kind).is_some();
            assert!(!is_wrong_kind || !found.is_empty(), "the schema is too lax: {shown}");
            *rejected.entry(is_wrong_kind).or_default() += 1;
        }
    }
    assert!(rejected[&true] > 300 && rejected[&false] > 100, "{rejected:?}");
}

/// The reader's messages name the words and the bounds.
#[test]
fn the_reader_and_the_schema_know_the_same_words_and_bounds() {
    let (schema, folder) = (schema(), files());
    let document: Value = serde_yaml::from_str(&complete_reference(folder.path())).unwrap();
    let mut places = Vec::new();
    values(&document, "", &mut places);
    let (mut words, mut bounds) = (0, 0);
    for place in places {
        let expected = |value: Value| {
            let mut changed = document.clone();
            *at(&mut changed, &place) = value;
            let said = mistakes(&changed);
            let line = said.into_iter().find(|line| line.contains(&format!(" {place}: ")))?;
            Some(line.split_once("expected ")?.1.to_owned())
        };
        if let Some(part) = part(&schema, &place, |part| part.get("enum").is_some()) {
            let stated: BTreeSet<_> = part["enum"].as_array().unwrap().iter().filter_map(Json::as_str).collect();
            let said = expected("zzzz".into()).unwrap_or_else(|| panic!("{place} accepts any word"));
            let said = said.replace(" (includes HEAD)", "").replace(" or ", ", ");
            // A list of counters may also be the word `auto`, which its message does not put like the other words.
            if stated != BTreeSet::from(["auto"]) {
                assert_eq!(stated, said.split(", ").collect(), "src/config/schema.rs, {place}");
            }
            words += 1;
        }
        if let Some(part) = part(&schema, &place, |part| part.get("minimum").is_some()) {
            let said = expected((-1).into()).unwrap_or_else(|| panic!("{place} accepts any number"));
            let said = said.strip_prefix("a number from ").unwrap_or_else(|| panic!("{place}: {said}"));
            let (from, to) = said.split_once(" to ").unwrap();
            let stated = (part["minimum"].as_i64().unwrap(), part["maximum"].as_i64().unwrap());
            assert_eq!(stated, (from.parse().unwrap(), to.parse().unwrap()), "src/config/schema.rs, {place}");
            bounds += 1;
        }
    }
    assert!(words > 15 && bounds > 20, "{words} words, {bounds} bounds");
}

#[test]
fn the_keys_are_described_by_the_reference() {
    let schema = schema();
    let described = |path: &str| {
        let part = part(&schema, path, |part| part.get("description").is_some());
        part.unwrap_or_else(|| panic!("{path} is not described"))["description"].as_str().unwrap()
    };
    assert_eq!(described("listeners[0].name"), "what `match.listener` of a caller refers to");
    assert!(described("listeners[0].http2").ends_with("first bytes of a connection decide"), "continuation lines");
    assert!(described("listeners[0].tls").starts_with("callers connect over TLS"), "a key that is commented out");
    assert!(described("listeners").starts_with("The listeners for callers"), "above a key of the root");
    assert!(described("upstream.timeouts.connect").starts_with("to resolve the name"));
    assert!(described("tokens.crm.owner").starts_with("the login that issued it"));
    assert!(described("callers[0].match.source").starts_with("TCP: addresses"));
    assert!(described("quota.store").starts_with("The Redis"));
    let text = schema.to_string();
    let (all, with) = (text.matches("\"type\"").count(), text.matches("\"description\"").count());
    assert!(with > 80, "{with} of {all} values are described");
}

#[test]
fn a_new_configuration_names_the_schema_for_editors() {
    let output = program().arg("init").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let line = text.lines().find(|line| line.starts_with("# yaml-language-server: $schema=")).expect("the hint");
    let file = line.rsplit('=').next().unwrap();
    assert!(text.contains(&format!("metrika-gate schema > {file}")), "how the file is made: {text}");
}
