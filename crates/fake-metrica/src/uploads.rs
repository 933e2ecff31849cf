//! Uploads: each is remembered by its size and shown in the lists of uploads.

use serde_json::{Map, Value, json};

use super::access::Call;
use super::answer::Answer;
use super::day;
use super::refusal::{ErrorType, Refusal};
use super::tally::Tally;

/// The number of uploads that are remembered, so that a benchmark with a million of them does not fill the memory.
const REMEMBERED: usize = 1_000;

/// The list that an upload belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Expenses,
    Offline,
    Calls,
    UserParameters,
    ClickIds,
    CustomerData,
}

/// The remembered uploads.
#[derive(Default)]
pub struct Uploads {
    last: u64,
    remembered: Vec<Upload>,
}

struct Upload {
    id: u64,
    counter: u64,
    family: Family,
    shown: Map<String, Value>,
}

impl Family {
    fn of(noun: &str) -> Option<Self> {
        Some(match noun {
            "expenses" | "expense_uploads" | "expense_upload" => Self::Expenses,
            "offline_conversions" | "offline_uploads" | "offline_upload" | "chat_uploads" => Self::Offline,
            "calls" | "call_uploads" | "call_upload" => Self::Calls,
            "user_params" | "user_params_uploads" | "user_params_upload" => Self::UserParameters,
            "yclid_conversions" | "yclid_uploads" | "yclid_upload" => Self::ClickIds,
            "cdp_simple_orders" | "cdp_contacts" | "cdp_orders" | "cdp_uploads" => Self::CustomerData,
            _ => return None,
        })
    }
}

impl Uploads {
    pub fn has(noun: &str) -> bool {
        Family::of(noun).is_some()
    }

    /// Records an upload and answers it.
    pub fn receive(&mut self, call: &Call<'_>, tally: &Tally) -> Result<Answer, Refusal> {
        let (noun, act) = call.noun_and_act();
        let family = Family::of(noun).ok_or(ErrorType::NotFound)?;
        let is_json = act.contains("json");
        if act.starts_with("upload") && (tally.bytes == 0 || !is_json && tally.lines() == 0) {
            return Err(ErrorType::InvalidUploading.into());
        }
        // The first line of a file names its columns.
        let rows = if is_json { tally.elements() } else { tally.lines().saturating_sub(1) };
        Ok(self.remember(call, family, rows, tally.bytes))
    }

    fn remember(&mut self, call: &Call<'_>, family: Family, rows: u64, bytes: u64) -> Answer {
        self.last += 1;
        let id = self.last;
        let mut shown = if family == Family::CustomerData {
            customer_data(call, id, rows)
        } else {
            json!({
                "id": id,
                "create_time": day::now(),
                "source_quantity": rows,
                "line_quantity": rows,
                "comment": call.query.get_or("comment", ""),
                "status": "UPLOADED",
            })
        };
        let shown = match shown.as_object_mut() {
            Some(shown) => std::mem::take(shown),
            None => Map::new(),
        };
        let mut upload = Upload { id, counter: call.counter(), family, shown };
        upload.describe(call);
        upload.set("size_bytes", json!(bytes));
        let answer = call.json(&json!({ "uploading": upload.shown }));
        if self.remembered.len() >= REMEMBERED {
            self.remembered.remove(0);
        }
        self.remembered.push(upload);
        answer
    }

    /// Answers requests for the lists of uploads, and operations on an earlier upload.
    pub fn answer(&mut self, call: &Call<'_>, body: &Map<String, Value>) -> Result<Answer, Refusal> {
        let (noun, act) = call.noun_and_act();
        let family = Family::of(noun).ok_or(ErrorType::NotFound)?;
        if act == "delete_one" {
            return Ok(self.remember(call, family, 1, 0));
        }
        let mine = |upload: &&mut Upload| upload.counter == call.counter() && upload.family == family;
        let mut mine = self.remembered.iter_mut().filter(mine);
        if call.numbers.is_empty() {
            let shown: Vec<_> = mine.rev().map(|upload| upload.processed()).collect();
            return Ok(call.json(&json!({ "uploadings": shown })));
        }
        let id = call.number()?;
        let upload = mine.find(|upload| upload.id == id).ok_or(ErrorType::NotFound)?;
        if matches!(act, "confirm" | "update") {
            let changes = super::collections::inner(body, "uploading").unwrap_or(body).clone();
            upload.shown.extend(changes.into_iter().filter(|(field, _)| field != "id"));
        }
        Ok(call.json(&json!({ "uploading": upload.processed() })))
    }

    /// The state for the control panel.
    pub fn state(&self) -> Value {
        self.remembered.iter().map(|upload| Value::Object(upload.shown.clone())).collect()
    }
}

impl Upload {
    fn set(&mut self, field: &str, value: Value) {
        self.shown.insert(field.to_owned(), value);
    }

    /// Adds the fields that are specific to the family.
    fn describe(&mut self, call: &Call<'_>) {
        let asked = |name, otherwise: &str| json!(call.query.get_or(name, otherwise));
        match self.family {
            Family::Expenses => {
                let removes = call.noun_and_act().1.starts_with("delete");
                self.set("provider", asked("provider", ""));
                self.set("type", json!(if removes { "REMOVES" } else { "EXPENSES" }));
            }
            Family::Offline | Family::Calls | Family::ClickIds => {
                self.set("client_id_type", asked("client_id_type", "CLIENT_ID"));
                self.set("linked_quantity", json!(0));
            }
            Family::UserParameters => {
                self.set("content_id_type", asked("content_id_type", "client_id"));
                self.set("action", asked("action", "update"));
            }
            Family::CustomerData => {}
        }
    }

    /// The upload in a later state: a read finds it processed.
    fn processed(&mut self) -> &Map<String, Value> {
        if self.shown.contains_key("status") {
            self.set("status", json!("PROCESSED"));
        }
        if self.shown.contains_key("linked_quantity") {
            let lines = self.shown.get("line_quantity").cloned().unwrap_or(Value::Null);
            self.set("linked_quantity", lines);
        }
        &self.shown
    }
}

fn customer_data(call: &Call<'_>, id: u64, rows: u64) -> Value {
    let (noun, act) = call.noun_and_act();
    json!({
        "uploading_id": format!("demo-{id}"),
        "datetime": day::now(),
        "api_validation_status": "PASSED",
        "elements_count": rows,
        "entity_type": "SYSTEM",
        "entity_namespace": noun.trim_start_matches("cdp_"),
        "uploading_format": if act.contains("json") { "JSON" } else { "CSV" },
        "uploading_source": "API",
    })
}
