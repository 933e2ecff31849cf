//! `schema`: prints the JSON schema (draft 2020-12) of a configuration, for completion and checks in editors.
//!
//! 1. Names and kinds come from the table in `config/schema.rs`.
//! 2. Descriptions come from the comments of `config/reference.yaml`.
//! 3. A key without a value counts as absent, as for the reader, unless the key is required.

use std::collections::BTreeMap;
use std::io::Write;

use serde_json::{Map, Value, json};

use crate::config::schema::{Key, ROOT, Shape, limits};

/// The commented configuration with every key.
const REFERENCE: &str = include_str!("../../config/reference.yaml");

pub(super) fn schema(out: &mut dyn Write) -> anyhow::Result<u8> {
    serde_json::to_writer_pretty(&mut *out, &document())?;
    writeln!(out)?;
    Ok(0)
}

fn document() -> Value {
    let descriptions = descriptions(REFERENCE);
    let mut root = of_shape(&ROOT, "", &descriptions);
    root.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
    root.insert("title".to_owned(), json!("Configuration of metrika-gate"));
    Value::Object(root)
}

/// Returns the schema of a value at `path`, as in `listeners[].unix.mode`.
fn of_shape(shape: &Shape, path: &str, descriptions: &BTreeMap<String, String>) -> Map<String, Value> {
    let of = |shape: &Shape, path: &str| of_shape(shape, path, descriptions);
    let elements = |element: &Shape| of(element, &format!("{path}[]"));
    match shape {
        Shape::Flag => map([("type", json!("boolean"))]),
        Shape::Number(from, to) => map([("type", json!("integer")), ("minimum", json!(from)), ("maximum", json!(to))]),
        Shape::Text => map([("type", json!("string"))]),
        Shape::Name => map([("type", json!("string")), ("pattern", json!(NAME))]),
        Shape::Word(words) => map([("enum", json!(words))]),
        Shape::List(element) => map([("type", json!("array")), ("items", json!(elements(element)))]),
        Shape::Filled(element) => {
            map([("type", json!("array")), ("items", json!(elements(element))), ("minItems", json!(1))])
        }
        Shape::Table(keys) => of_keys(keys, path, descriptions),
        Shape::Named(value) => map([
            ("type", json!("object")),
            ("propertyNames", json!({"pattern": NAME})),
            ("additionalProperties", json!(of(value, &format!("{path}.*")))),
        ]),
        Shape::Limits(value) => {
            let limit = |name: &'static str| {
                let mut value = optional(of(value, &format!("{path}.{name}")));
                describe(&mut value, &format!("{path}.{name}"), descriptions);
                (name.to_owned(), Value::Object(value))
            };
            closed(limits().map(limit).collect())
        }
        Shape::Either(shapes) => {
            let any: Vec<_> = shapes.iter().map(|shape| of(shape, path)).collect();
            map([("anyOf", json!(any))])
        }
    }
}

fn map<const N: usize>(fields: [(&str, Value); N]) -> Map<String, Value> {
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Returns the schema of a mapping that has no other keys than `properties`.
fn closed(properties: Map<String, Value>) -> Map<String, Value> {
    map([("type", json!("object")), ("properties", Value::Object(properties)), ("additionalProperties", json!(false))])
}

/// The pattern of names; `none` and `unknown` are left to `check`.
const NAME: &str = "^[A-Za-z0-9_.-]{1,64}$";

fn of_keys(keys: &[Key], path: &str, descriptions: &BTreeMap<String, String>) -> Map<String, Value> {
    let property = |key: &Key| {
        let path = if path.is_empty() { key.name.to_owned() } else { format!("{path}.{}", key.name) };
        let value = of_shape(&key.shape, &path, descriptions);
        let mut value = if key.is_required { value } else { optional(value) };
        describe(&mut value, &path, descriptions);
        (key.name.to_owned(), Value::Object(value))
    };
    let mut made = closed(keys.iter().map(property).collect());
    let required: Vec<_> = keys.iter().filter(|key| key.is_required).map(|key| key.name).collect();
    if !required.is_empty() {
        made.insert("required".to_owned(), json!(required));
    }
    made
}

/// Returns `schema` for a key that may have no value (rule 3).
fn optional(mut schema: Map<String, Value>) -> Map<String, Value> {
    if let Some(Value::String(kind)) = schema.get("type") {
        let kinds = json!([kind, "null"]);
        schema.insert("type".to_owned(), kinds);
    } else if let Some(Value::Array(words)) = schema.get_mut("enum") {
        words.push(Value::Null);
    } else if let Some(Value::Array(kinds)) = schema.get_mut("anyOf") {
        kinds.push(json!({"type": "null"}));
    }
    schema
}

fn describe(schema: &mut Map<String, Value>, path: &str, descriptions: &BTreeMap<String, String>) {
    if let Some(description) = descriptions.get(path) {
        schema.insert("description".to_owned(), json!(description));
    }
}

/// The least indentation of a comment's continuation lines; comments with less are about the keys below them.
const BESIDE: usize = 20;

/// Returns the comments of `reference` by the path of their key (rule 2): the comment after a key with its continuation
/// lines, or the comment lines above a key.
fn descriptions(reference: &str) -> BTreeMap<String, String> {
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    let mut open: Vec<(usize, String)> = Vec::new();
    let mut above: Vec<&str> = Vec::new();
    let mut last: Option<String> = None;
    for line in reference.lines() {
        if let Some((indent, key, comment)) = key_line(line) {
            open.retain(|(outer, _)| *outer < indent);
            let above = std::mem::take(&mut above);
            let path = path_of(&open, key);
            let is_new = !found.contains_key(&path);
            let text = if comment.is_empty() { above.join(" ") } else { comment.to_owned() };
            if is_new && !text.is_empty() {
                found.insert(path.clone(), text);
            }
            last = (is_new && !comment.is_empty()).then(|| path.clone());
            open.push((indent, step(&open, key)));
        } else if let Some(comment) = line.trim_start().strip_prefix("# ") {
            if line.len() - line.trim_start().len() < BESIDE {
                above.push(comment.trim());
                continue;
            }
            let described = last.as_ref().and_then(|path| found.get_mut(path));
            described.into_iter().for_each(|text| *text = format!("{text} {}", comment.trim()));
        } else {
            (above, last) = (Vec::new(), None);
        }
    }
    found
}

/// Returns the indentation, the key and the comment of a line `key: value   # comment`, which may be commented out itself.
fn key_line(line: &str) -> Option<(usize, &str, &str)> {
    let body = line.trim_start();
    let body = body.strip_prefix("# ").filter(|rest| !rest.starts_with(' ')).unwrap_or(body);
    let body = body.strip_prefix("- ").unwrap_or(body);
    let (key, rest) = body.split_once(':')?;
    let is_key = !key.is_empty()
        && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte));
    if !is_key || !(rest.is_empty() || rest.starts_with(' ')) {
        return None;
    }
    let of_line = line.len() - line.trim_start().len();
    // A key that is commented out begins where it would without the mark; an element of a list, behind its dash.
    let indent = if line.trim_start().starts_with("- ") { of_line + 2 } else { of_line };
    let comment = rest.split_once(" # ").map_or("", |(_, comment)| comment);
    Some((indent, key, comment.trim()))
}

/// The keys of the root whose values are lists of mappings.
const LISTS: [&str; 3] = ["listeners", "callers", "operations"];

/// The keys of the root whose keys are names.
const NAMES: [&str; 2] = ["tokens", "counter_groups"];

/// Returns the step of `key` in a path, inside the `open` keys.
fn step(open: &[(usize, String)], key: &str) -> String {
    match open {
        [] if LISTS.contains(&key) => format!("{key}[]"),
        [(_, outer)] if NAMES.contains(&outer.as_str()) => "*".to_owned(),
        _ => key.to_owned(),
    }
}

fn path_of(open: &[(usize, String)], key: &str) -> String {
    let outer = open.iter().map(|(_, step)| step.as_str());
    let last = match open {
        [(_, outer)] if NAMES.contains(&outer.as_str()) => "*",
        _ => key,
    };
    outer.chain([last]).collect::<Vec<_>>().join(".")
}
