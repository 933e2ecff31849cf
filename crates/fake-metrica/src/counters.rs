//! Counters, and the objects that belong to one counter: the caller's own grant, public access, labels, measurement tokens.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::access::{Call, Keyring};
use super::answer::Answer;
use super::collections::{Collections, inner, success};
use super::refusal::{ErrorType, Refusal};
use super::{Permission, day};

/// The API's limits for the size of a page; the default is below.
const PAGE: std::ops::RangeInclusive<usize> = 1..=10_000;
const DEFAULT_PAGE: usize = 1_000;

/// The API's limit of measurement tokens per counter; another one is an error.
const MEASUREMENT_TOKENS: usize = 5;

/// Lists of a counter that are included if `field` names them.
const EXTRA_LISTS: [&str; 5] = ["goals", "filters", "operations", "grants", "labels"];

/// Values of `field`, and the field of a counter that each adds.
const EXTRA_FIELDS: [(&str, &str); 2] = [("mirrors", "mirrors2"), ("counter_flags", "counter_flags")];

/// Fields that counters in a list do not have.
const NOT_LISTED: [&str; 4] = ["update_time", "filter_robots", "visit_threshold", "autogoals_enabled"];

/// The counters by number.
pub struct Counters(BTreeMap<u64, Counter>);

struct Counter {
    owner: String,
    fields: Map<String, Value>,
    labels: BTreeSet<u64>,
    measurement_tokens: Vec<String>,
}

impl Counters {
    /// Creates counters with the given owners.
    pub fn new(owners: BTreeMap<u64, String>) -> Self {
        let counters = owners.into_iter().map(|(id, owner)| {
            let given = json!({ "name": format!("Shop {id}"), "site2": { "site": format!("shop-{id}.example") } });
            (id, Counter::new(id, owner, object(given)))
        });
        Self(counters.collect())
    }

    /// Ensures that a counter exists; a new one belongs to another account.
    pub fn exists(&mut self, id: u64) {
        let new = || Counter::new(id, "another-owner".to_owned(), Map::new());
        self.0.entry(id).or_insert_with(new);
    }

    pub fn ids(&self) -> Vec<u64> {
        self.0.keys().copied().collect()
    }

    pub fn answer(
        &mut self,
        call: &Call<'_>,
        body: &Map<String, Value>,
        keyring: &mut Keyring,
        collections: &mut Collections,
    ) -> Result<Answer, Refusal> {
        match call.noun_and_act() {
            ("counters", "list") => return self.list(call, keyring, collections),
            ("counters", _) => return Ok(self.create(call, body, keyring, collections)),
            _ => {}
        }
        let (id, permission) = call.counter.ok_or(ErrorType::NotFound)?;
        let counter = self.0.get_mut(&id).ok_or(ErrorType::NotFound)?;
        match call.noun_and_act() {
            ("counter", "get") => {}
            ("counter", "update") => counter.change(inner(body, "counter").unwrap_or(body)),
            ("counter", "delete") => return Ok(counter.set_status(call, "Deleted")),
            ("counter", _) => return Ok(counter.set_status(call, "Active")),
            ("counter_label", act) => return counter.set_label(call, act == "set"),
            ("measurement_token", "generate") => return counter.generate_token(call),
            ("measurement_token", _) => return counter.delete_token(call),
            ("public_grant", "delete") => return Ok(success(call)),
            ("public_grant", _) => return Ok(grant(call, "", "public_stat")),
            _ => return Ok(grant(call, &call.owner, permission.as_str())),
        }
        Ok(call.json(&json!({ "counter": counter.shown(call, permission, collections) })))
    }

    fn list(&self, call: &Call<'_>, keyring: &Keyring, collections: &mut Collections) -> Result<Answer, Refusal> {
        let page = call.query.number_or("per_page", DEFAULT_PAGE)?;
        let offset = call.query.number_or("offset", 1_usize)?;
        if !PAGE.contains(&page) {
            return Err(Refusal::invalid("per_page"));
        }
        // Counters are numbered from 1, and 0 means 1.
        let skipped = offset.saturating_sub(1);
        let granted = keyring.counters_of(call.holder);
        let found: Vec<_> = granted
            .into_iter()
            .filter_map(|(id, permission)| Some((permission, self.0.get(&id)?)))
            .filter(|(permission, counter)| counter.fits(call, *permission))
            .collect();
        let shown = found.iter().skip(skipped).take(page);
        let shown: Vec<_> = shown.map(|(permission, counter)| counter.shown(call, *permission, collections)).collect();
        Ok(call.json(&json!({ "rows": found.len(), "counters": shown })))
    }

    fn create(
        &mut self,
        call: &Call<'_>,
        body: &Map<String, Value>,
        keyring: &mut Keyring,
        collections: &mut Collections,
    ) -> Answer {
        let id = self.0.keys().max().map_or(1, |last| last + 1);
        let counter = Counter::new(id, call.owner.clone(), inner(body, "counter").unwrap_or(body).clone());
        let shown = counter.shown(call, Permission::Own, collections);
        self.0.insert(id, counter);
        keyring.give(&call.owner, id);
        call.json(&json!({ "counter": shown }))
    }
}

impl Counter {
    fn new(id: u64, owner: String, given: Map<String, Value>) -> Self {
        let fields = object(fields(id, &owner));
        let mut counter = Self { owner, fields, labels: BTreeSet::new(), measurement_tokens: Vec::new() };
        counter.change(&given);
        counter
    }

    /// Changes the fields that were sent, except those that only the API sets.
    fn change(&mut self, given: &Map<String, Value>) {
        let own = ["id", "status", "owner_login", "permission", "create_time", "code_status", "measurement_tokens"];
        for (field, value) in given.iter().filter(|(field, _)| !own.contains(&field.as_str())) {
            take(self.fields.entry(field.clone()).or_insert(Value::Null), value);
        }
        let site = given.get("site2").and_then(|site| site.get("site")).or_else(|| given.get("site"));
        if let Some(site) = site.and_then(Value::as_str) {
            let domain = site.split('/').next().unwrap_or(site);
            self.fields.insert("site2".to_owned(), json!({ "site": site, "domain": domain }));
            self.fields.insert("site".to_owned(), json!(site));
        }
        self.fields.insert("update_time".to_owned(), json!(day::now()));
    }

    fn set_status(&mut self, call: &Call<'_>, status: &str) -> Answer {
        self.fields.insert("status".to_owned(), json!(status));
        success(call)
    }

    fn text(&self, field: &str) -> &str {
        self.fields.get(field).and_then(Value::as_str).map_or("", |text| text)
    }

    fn id(&self) -> String {
        self.fields.get("id").map_or_else(String::new, Value::to_string)
    }

    /// Whether the counter passes the filters of a list query.
    fn fits(&self, call: &Call<'_>, permission: Permission) -> bool {
        let query = &call.query;
        let allows = |name: &str, value: &str| {
            let allowed = query.list(name);
            allowed.is_empty() || allowed.contains(&value)
        };
        let id = self.id();
        let sought = query.get_or("search_string", "");
        // The effect of a label that is not a number is undocumented. yametrikapy sends `label_id=None` with each list.
        let labels: Vec<u64> = query.list("label_id").iter().filter_map(|label| label.parse().ok()).collect();
        allows("permission", permission.as_str())
            && allows("counter_ids", &id)
            && query.get_or("status", "Active").eq_ignore_ascii_case(self.text("status"))
            && [self.text("name"), self.text("site"), &id].iter().any(|text| text.contains(sought))
            && (labels.is_empty() || self.labels.iter().any(|label| labels.contains(label)))
    }

    /// The counter as the client sees it, with the parts that `field` names.
    fn shown(&self, call: &Call<'_>, permission: Permission, collections: &mut Collections) -> Value {
        let mut shown = self.fields.clone();
        shown.insert("permission".to_owned(), json!(permission.as_str()));
        if permission == Permission::Own {
            shown.insert("owner_login".to_owned(), json!(call.owner));
        }
        let extra = call.query.list("field");
        let hidden = EXTRA_FIELDS.iter().filter(|(word, _)| !extra.contains(word)).map(|(_, field)| *field);
        let is_listed = call.noun_and_act() == ("counters", "list");
        for field in hidden.chain(NOT_LISTED.into_iter().filter(|_| is_listed)) {
            shown.remove(field);
        }
        for list in EXTRA_LISTS.iter().filter(|list| extra.contains(list)) {
            let is_labels = *list == "labels";
            let whose = if is_labels { self.owner.clone() } else { self.id() };
            let items = collections.of(list, whose).into_iter().flatten();
            let is_mine = |item: &&Map<String, Value>| {
                let id = item.get("id").and_then(Value::as_u64);
                !is_labels || id.is_some_and(|id| self.labels.contains(&id))
            };
            shown.insert((*list).to_owned(), items.filter(is_mine).cloned().map(Value::Object).collect());
        }
        if extra.contains(&"measurement_tokens") {
            shown.insert("measurement_tokens".to_owned(), json!(self.measurement_tokens));
        }
        Value::Object(shown)
    }

    fn set_label(&mut self, call: &Call<'_>, is_set: bool) -> Result<Answer, Refusal> {
        let label = call.number()?;
        if is_set {
            self.labels.insert(label);
        } else if !self.labels.remove(&label) {
            return Err(ErrorType::NotFound.into());
        }
        Ok(success(call))
    }

    fn generate_token(&mut self, call: &Call<'_>) -> Result<Answer, Refusal> {
        if self.measurement_tokens.len() >= MEASUREMENT_TOKENS {
            return Err(Refusal::because(ErrorType::InvalidParameter, "The counter has 5 tokens already"));
        }
        let token = format!("demo-measurement-{:016x}", fastrand::u64(..));
        self.measurement_tokens.push(token.clone());
        Ok(call.json(&token))
    }

    fn delete_token(&mut self, call: &Call<'_>) -> Result<Answer, Refusal> {
        let token = call.query.required("token")?;
        let index = self.measurement_tokens.iter().position(|other| other == token);
        self.measurement_tokens.remove(index.ok_or_else(|| Refusal::invalid("token"))?);
        Ok(success(call))
    }
}

/// The fields of a new counter: the 49 entries of the quick start, counting an object and each of its fields, except the
/// permission, plus those of [`EXTRA_FIELDS`] and [`NOT_LISTED`].
///
/// Source: <https://yandex.com/dev/metrika/en/intro/quick-start>.
/// The fields of a value that is written as an object.
fn object(value: Value) -> Map<String, Value> {
    debug_assert!(value.is_object(), "{value} is written as an object");
    if let Value::Object(fields) = value { fields } else { Map::new() }
}

fn fields(id: u64, owner: &str) -> Value {
    json!({
        "id": id,
        "status": "Active",
        "owner_login": owner,
        "code_status": "CS_OK",
        "activity_status": "high",
        "name": "New counter",
        "type": "simple",
        "favorite": 0,
        "hide_address": 0,
        "pro": 0,
        "webvisor": {
            "arch_enabled": 0,
            "arch_type": "none",
            "load_player_type": "proxy",
            "wv_version": 2,
            "allow_wv2": true,
            "notify_wv2": false,
            "wv_forms": 1,
        },
        "code_options": {
            "async": 1,
            "informer": {
                "enabled": 0,
                "type": "ext",
                "size": 3,
                "indicator": "pageviews",
                "color_start": "FFFFFFFF",
                "color_end": "EFEFEFFF",
                "color_text": 0,
                "color_arrow": 1,
            },
            "visor": 0,
            "track_hash": 0,
            "xml_site": 0,
            "clickmap": 1,
            "in_one_line": 0,
            "ecommerce": 0,
            "alternative_cdn": 0,
            "ecommerce_object": "dataLayer",
            "ytm": false,
        },
        "create_time": day::now(),
        "time_zone_name": "Europe/Moscow",
        "time_zone_offset": 180,
        "partner_id": 0,
        "site": "new.example",
        "site2": { "site": "new.example", "domain": "new.example" },
        "gdpr_agreement_accepted": 0,
        "delete_guest_allowed": 1,
        "mirrors2": [],
        "filter_robots": 1,
        "visit_threshold": 1800,
        "autogoals_enabled": true,
        "counter_flags": {
            "use_in_benchmarks": true,
            "direct_allow_use_goals_without_access": true,
            "collect_first_party_data": false,
            "measurement_enabled": false,
        },
    })
}

/// Merges an object field by field; any other value is replaced.
fn take(kept: &mut Value, given: &Value) {
    if let (Value::Object(kept), Value::Object(given)) = (&mut *kept, given) {
        for (field, value) in given {
            take(kept.entry(field.clone()).or_insert(Value::Null), value);
        }
    } else {
        *kept = given.clone();
    }
}

fn grant(call: &Call<'_>, login: &str, permission: &str) -> Answer {
    call.json(&json!({ "grant": {
        "user_login": login,
        "perm": permission,
        "created_at": "2026-01-15T12:00:00+03:00",
        "comment": "",
        "partner_data_access": false,
    } }))
}
