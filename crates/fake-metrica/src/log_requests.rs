//! The Logs API: evaluate, create, wait, download parts, clean or cancel.

use serde_json::{Value, json};

use super::access::Call;
use super::answer::Answer;
use super::day::Day;
use super::knobs::Knobs;
use super::part::Part;
use super::refusal::{ErrorType, Refusal};

/// The API's limit for the list of fields, in characters.
const FIELDS_CHARACTERS: usize = 3_000;

/// The API's limit for the period, in days.
const DAYS: u64 = 366;

/// All log requests so far.
#[derive(Default)]
pub struct LogRequests(Vec<LogRequest>);

struct LogRequest {
    id: u64,
    counter: u64,
    asked: Asked,
    state: State,
}

struct Asked {
    from: Day,
    until: Day,
    source: String,
    fields: Vec<String>,
    attribution: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// In the queue, with the number of times that its status was read.
    Waiting(u64),
    Canceled,
    Cleaned,
}

impl LogRequests {
    pub fn answer(&mut self, call: &Call<'_>, knobs: &Knobs) -> Result<Answer, Refusal> {
        let counter = call.counter();
        match call.noun_and_act() {
            ("log_requests", "list") => {
                let requests = self.0.iter_mut().filter(|request| request.counter == counter);
                Ok(call.json(&json!({ "requests": requests.map(|request| request.read(knobs)).collect::<Vec<_>>() })))
            }
            ("log_requests", "evaluate") => {
                let asked = Asked::parse(call)?;
                let size = knobs.parts.saturating_mul(knobs.part_bytes);
                Ok(call.json(&json!({ "log_request_evaluation": {
                    "possible": true,
                    "max_possible_day_quantity": asked.until.since(asked.from).max(DAYS - 1),
                    "expected_size": size,
                    "log_request_sum_max_size": 10_u64 << 30,
                    "log_request_sum_size": 0,
                } })))
            }
            ("log_requests", _) => {
                let id = self.0.last().map_or(1001, |last| last.id + 1);
                let request = LogRequest { id, counter, asked: Asked::parse(call)?, state: State::Waiting(0) };
                let shown = request.shown(knobs);
                self.0.push(request);
                Ok(call.json(&json!({ "log_request": shown })))
            }
            (_, act) => self.answer_one(call, act, knobs),
        }
    }

    fn answer_one(&mut self, call: &Call<'_>, act: &str, knobs: &Knobs) -> Result<Answer, Refusal> {
        let id = call.numbers.get("request_id");
        let mut requests = self.0.iter_mut().filter(|request| request.counter == call.counter());
        let request = requests.find(|request| Some(&request.id) == id).ok_or(ErrorType::NotFound)?;
        let is_processed = request.is_processed(knobs);
        match act {
            "get" => return Ok(call.json(&json!({ "log_request": request.read(knobs) }))),
            "download" if is_processed => return request.part(call, knobs),
            "clean" if is_processed => request.state = State::Cleaned,
            "cancel" if !is_processed && matches!(request.state, State::Waiting(_)) => request.state = State::Canceled,
            "download" => return Err(only("downloaded")),
            "clean" => return Err(only("cleaned")),
            _ => return Err(only_created()),
        }
        Ok(call.json(&json!({ "log_request": request.shown(knobs) })))
    }

    /// The state for the control panel.
    pub fn state(&self, knobs: &Knobs) -> Value {
        self.0.iter().map(|request| request.shown(knobs)).collect()
    }
}

fn only(done: &str) -> Refusal {
    let message = format!("Only log of requests in status 'processed' can be {done}");
    Refusal::because(ErrorType::InvalidParameter, message)
}

fn only_created() -> Refusal {
    Refusal::because(ErrorType::InvalidParameter, "Only log requests in status 'created' can be canceled")
}

impl Asked {
    fn parse(call: &Call<'_>) -> Result<Self, Refusal> {
        let date = |name| Day::parse(call.query.required(name)?).ok_or_else(|| Refusal::invalid(name));
        let (from, until) = (date("date1")?, date("date2")?);
        let source = call.query.required("source")?;
        let prefix = match source {
            "visits" => "ym:s:",
            "hits" => "ym:pv:",
            _ => return Err(Refusal::invalid("source")),
        };
        let fields = call.query.required_list("fields")?;
        if fields.join(",").chars().count() > FIELDS_CHARACTERS || !fields.iter().all(|field| field.starts_with(prefix))
        {
            return Err(Refusal::invalid("fields"));
        }
        // Today is not complete, so there are no logs for it.
        if until < from || until >= Day::today() || until.since(from) > DAYS {
            return Err(Refusal::invalid("date2"));
        }
        Ok(Self {
            from,
            until,
            source: source.to_owned(),
            fields: fields.into_iter().map(str::to_owned).collect(),
            attribution: call.query.get_or("attribution", "LASTSIGN").to_owned(),
        })
    }
}

impl LogRequest {
    fn is_processed(&self, knobs: &Knobs) -> bool {
        matches!(self.state, State::Waiting(reads) if reads >= knobs.status_reads)
    }

    /// Returns the current state, and advances the queue: each read counts.
    fn read(&mut self, knobs: &Knobs) -> Value {
        let shown = self.shown(knobs);
        if let State::Waiting(reads) = &mut self.state {
            *reads += 1;
        }
        shown
    }

    fn shown(&self, knobs: &Knobs) -> Value {
        let Asked { from, until, source, fields, attribution } = &self.asked;
        let mut shown = json!({
            "request_id": self.id,
            "counter_id": self.counter,
            "source": source,
            "date1": from.to_string(),
            "date2": until.to_string(),
            "fields": fields,
            "attribution": attribution,
            "status": match self.state {
                State::Waiting(_) if self.is_processed(knobs) => "processed",
                State::Waiting(_) => "created",
                State::Canceled => "canceled",
                State::Cleaned => "cleaned_by_user",
            },
        });
        if let Some(shown) = shown.as_object_mut().filter(|_| self.is_processed(knobs)) {
            let parts = (0..knobs.parts).map(|number| json!({ "part_number": number, "size": knobs.part_bytes }));
            shown.insert("size".to_owned(), json!(knobs.parts.saturating_mul(knobs.part_bytes)));
            shown.insert("parts".to_owned(), parts.collect());
        }
        shown
    }

    fn part(&self, call: &Call<'_>, knobs: &Knobs) -> Result<Answer, Refusal> {
        let number = call.numbers.get("part_number").ok_or(ErrorType::NotFound)?;
        if *number >= knobs.parts {
            return Err(Refusal::because(ErrorType::InvalidParameter, "Incorrect part number"));
        }
        Ok(Answer::part(Part::new(&self.asked.fields, self.asked.from, knobs.part_bytes)))
    }
}
