//! Lists of objects: one implementation for every kind in `kinds`.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::access::Call;
use super::answer::Answer;
use super::kinds::{Created, Kind, Whose};
use super::refusal::{ErrorType, Refusal};

type Item = Map<String, Value>;

/// The number of the first object in a list.
const FIRST_NUMBER: u64 = 101;

/// All lists requested so far.
#[derive(Default)]
pub struct Collections {
    /// Lists by name and owner.
    lists: HashMap<(&'static str, String), Vec<Item>>,
}

impl Collections {
    /// Answers an operation on a list or on one object in it.
    pub fn answer(&mut self, call: &Call<'_>, body: &Item) -> Result<Answer, Refusal> {
        let (noun, act) = call.noun_and_act();
        let Some(kind) = Kind::of(noun) else {
            return Err(Refusal::because(ErrorType::BackendError, "The stand-in does not implement this operation"));
        };
        let list = self.list(kind, whose(kind, call));
        match act {
            "list" => Ok(call.json(&json!({ kind.plural: list }))),
            "create" | "map" => create(list, kind, call, body),
            "replace" => {
                list.clear();
                create_all(list, kind, call, body)?;
                Ok(call.json(&json!({ kind.plural: list })))
            }
            "get" => find(list, kind, call, body).map(|item| call.json(&json!({ kind.singular: item }))),
            "update" => {
                let item = find(list, kind, call, body)?;
                let changes = given(kind, body)?;
                item.extend(changes.into_iter().filter(|(field, _)| field != kind.key));
                Ok(call.json(&json!({ kind.singular: item })))
            }
            "delete" | "remove_counter" => {
                let key = key(kind, call, body)?;
                let before = list.len();
                list.retain(|item| item.get(kind.key) != Some(&key));
                if list.len() == before { Err(ErrorType::NotFound.into()) } else { Ok(success(call)) }
            }
            _ => Err(Refusal::because(ErrorType::BackendError, "The stand-in does not implement this operation")),
        }
    }

    /// Returns the list of a counter or an account, for responses that include it.
    pub fn of(&mut self, plural: &str, whose: String) -> Option<&Vec<Item>> {
        Kind::of(plural).map(|kind| &*self.list(kind, whose))
    }

    /// Replaces the list of accounts that an account represents.
    pub fn represent(&mut self, owner: &str, accounts: &[String]) {
        let Some(kind) = Kind::of("accounts") else { return };
        let list = self.list(kind, owner.to_owned());
        list.clear();
        for login in accounts {
            add(list, kind, [(kind.key.to_owned(), json!(login))].into_iter().collect());
        }
    }

    fn list(&mut self, kind: &'static Kind, whose: String) -> &mut Vec<Item> {
        self.lists.entry((kind.list_noun, whose)).or_insert_with(|| {
            let mut list = Vec::new();
            for label in kind.labels {
                let item = [(kind.label.to_owned(), json!(label))].into_iter().collect();
                add(&mut list, kind, item);
            }
            list
        })
    }
}

fn whose(kind: &Kind, call: &Call<'_>) -> String {
    match kind.whose {
        Whose::Counter => call.counter().to_string(),
        Whose::Account => call.owner.clone(),
        Whose::Everybody => String::new(),
    }
}

fn create(list: &mut Vec<Item>, kind: &Kind, call: &Call<'_>, body: &Item) -> Result<Answer, Refusal> {
    if kind.created == Created::Success {
        create_all(list, kind, call, body)?;
        return Ok(success(call));
    }
    let mut item = given(kind, body)?;
    let is_there = |field: &str| item.get(field).is_some_and(|value| !value.is_null());
    if let Some(missing) = kind.required.iter().find(|field| !is_there(field)) {
        return Err(Refusal::missing(missing));
    }
    if kind.is_by_login() {
        let login = key(kind, call, body)?;
        if list.iter().any(|other| other.get(kind.key) == Some(&login)) {
            return Err(ErrorType::Conflict.into());
        }
        item.insert(kind.key.to_owned(), login);
    }
    let item = add(list, kind, item);
    Ok(call.json(&if kind.created == Created::List {
        json!({ kind.plural: list })
    } else {
        json!({ kind.singular: item })
    }))
}

/// Returns the object in a body. White space around its type is removed: the quick start sends `messenger ` and receives
/// `messenger`.
fn given(kind: &Kind, body: &Item) -> Result<Item, Refusal> {
    let mut item = match inner(body, kind.singular) {
        Some(item) => item.clone(),
        None if kind.required.is_empty() => body.clone(),
        None => return Err(Refusal::missing(kind.singular)),
    };
    if let Some(given) = item.get_mut("type").filter(|_| !kind.types.is_empty()) {
        let known = kind.types.iter().find(|known| given.as_str().is_some_and(|given| given.trim() == **known));
        *given = json!(known.ok_or_else(|| Refusal::invalid("type"))?);
    }
    Ok(item)
}

/// Adds the objects that the body has under the plural key.
fn create_all(list: &mut Vec<Item>, kind: &Kind, call: &Call<'_>, body: &Item) -> Result<(), Refusal> {
    for item in body.get(kind.plural).and_then(Value::as_array).into_iter().flatten() {
        let item = item.as_object().cloned().ok_or(ErrorType::InvalidJson)?;
        if kind.is_by_login() {
            key(kind, call, &item)?;
        }
        add(list, kind, item);
    }
    Ok(())
}

/// Fills in the defaults of an object and adds it.
fn add(list: &mut Vec<Item>, kind: &Kind, given: Item) -> Item {
    let defaults = serde_json::from_str::<Item>(kind.defaults);
    debug_assert!(defaults.is_ok(), "the defaults of {} are an object", kind.plural);
    let mut item: Item = defaults.into_iter().flatten().chain(given).collect();
    if !kind.is_by_login() {
        let last = list.iter().filter_map(|item| item.get(kind.key).and_then(Value::as_u64)).max();
        item.insert(kind.key.to_owned(), json!(last.map_or(FIRST_NUMBER, |last| last + 1)));
    }
    list.push(item.clone());
    item
}

fn find<'a>(list: &'a mut [Item], kind: &Kind, call: &Call<'_>, body: &Item) -> Result<&'a mut Item, Refusal> {
    let key = key(kind, call, body)?;
    list.iter_mut().find(|item| item.get(kind.key) == Some(&key)).ok_or_else(|| ErrorType::NotFound.into())
}

/// The key that identifies the requested object: the number in the path, or the login in the query or the body.
fn key(kind: &Kind, call: &Call<'_>, body: &Item) -> Result<Value, Refusal> {
    if !kind.is_by_login() {
        return call.number().map(Value::from);
    }
    let in_body = inner(body, kind.singular).unwrap_or(body).get(kind.key).and_then(Value::as_str);
    match call.query.get(kind.key).or(in_body) {
        Some(login) if !login.is_empty() => Ok(json!(login)),
        _ => Err(Refusal::missing(kind.key)),
    }
}

/// Returns the object under a key of the body, if there is one.
pub fn inner<'a>(body: &'a Item, key: &str) -> Option<&'a Item> {
    body.get(key).and_then(Value::as_object)
}

pub fn success(call: &Call<'_>) -> Answer {
    call.json(&json!({ "success": true }))
}
