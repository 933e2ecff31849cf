//! Reports: tables, series over time, trees, and comparisons of each, in JSON and CSV.

use std::fmt::Write as _;

use serde::Serialize;
use serde::ser::Serializer;
use serde_json::{Value, json};

use super::access::Call;
use super::answer::Answer;
use super::day::Day;
use super::measures::{self, Measure, ROWS};
use super::refusal::{ErrorType, Refusal};

/// The API's limits for a report.
const IDS: usize = 500;
const METRICS: usize = 20;
const DIMENSIONS: usize = 10;
const FILTER_CHARACTERS: usize = 10_000;

/// The metrics and dimensions of a preset that is sent without parameters.
const PRESET_METRICS: [&str; 3] = ["ym:s:visits", "ym:s:users", "ym:s:bounceRate"];
const PRESET_DIMENSIONS: [&str; 1] = ["ym:s:lastTrafficSource"];

/// The default and the maximum number of rows of a report over time (`top_keys`).
const TOP_KEYS: (u32, u32) = (7, 30);

/// The maximum number of intervals of a report over time.
const INTERVALS: u64 = 1_000;

/// The parsed parameters of a report.
struct Asked<'a> {
    metrics: Vec<&'a str>,
    dimensions: Vec<&'a str>,
    from: Day,
    until: Day,
    /// The first row, counted from 1; 0 means 1.
    offset: u32,
    limit: u32,
    rows: u32,
}

/// The form of rows and totals.
#[derive(Clone, Copy)]
struct Form {
    is_by_time: bool,
    is_comparison: bool,
    is_drilldown: bool,
}

/// Answers a report request; `form` is the second word of the operation's id.
pub fn answer(call: &Call<'_>, form: &str) -> Result<Answer, Refusal> {
    let form = Form {
        is_by_time: form == "by_time",
        is_comparison: form.starts_with("comparison"),
        is_drilldown: form.contains("drilldown"),
    };
    let asked = Asked::parse(call, form)?;
    let first = asked.offset.saturating_sub(1);
    let numbers = first..first.saturating_add(asked.limit).min(asked.rows);
    if call.wants_csv {
        return Ok(Answer::csv(csv(&asked, numbers)));
    }
    let measures: Vec<_> = asked.metrics.iter().map(|metric| Measure::of(metric)).collect();
    let figures = Figures { asked: &asked, form, measures };
    let row = |row| figures.row(row);
    let is_single = form.is_by_time || form.is_comparison;
    let range = |pick: fn((f64, f64)) -> f64| figures.measures.iter().map(|measure| pick(measure.range())).collect();
    let report = Report {
        query: query(call, &asked, form),
        data: Rows(numbers, &row),
        total_rows: asked.rows,
        total_rows_rounded: false,
        sampled: false,
        contains_sensitive_data: false,
        sample_share: 1.0,
        sample_size: asked.rows,
        sample_space: asked.rows,
        data_lag: 120,
        time_intervals: form.is_by_time.then(|| asked.intervals(call)),
        totals: figures.cells(None),
        min: (!is_single).then(|| range(|(min, _)| min)),
        max: (!is_single).then(|| range(|(_, max)| max)),
    };
    Ok(call.json(&report))
}

impl<'a> Asked<'a> {
    fn parse(call: &'a Call<'_>, form: Form) -> Result<Self, Refusal> {
        let query = &call.query;
        let ids = if query.get("ids").is_some() { query.list("ids") } else { query.list("id") };
        if ids.is_empty() {
            return Err(Refusal::missing("ids"));
        }
        let has_preset = query.get("preset").is_some_and(|preset| !preset.is_empty());
        let list = |name, preset: &[&'static str]| match query.list(name) {
            given if given.is_empty() && has_preset => preset.to_vec(),
            given => given,
        };
        let (metrics, dimensions) = (list("metrics", &PRESET_METRICS), list("dimensions", &PRESET_DIMENSIONS));
        if metrics.is_empty() {
            return Err(Refusal::missing("metrics"));
        }
        let is_name = |name: &&str| name.starts_with("ym:") && name.len() > 5;
        for (name, list, limit) in [("metrics", &metrics, METRICS), ("dimensions", &dimensions, DIMENSIONS)] {
            if list.len() > limit || !list.iter().all(is_name) {
                return Err(Refusal::invalid(name));
            }
        }
        if ids.len() > IDS {
            return Err(Refusal::invalid("ids"));
        }
        if query.get("filters").is_some_and(|filters| filters.chars().count() > FILTER_CHARACTERS) {
            return Err(ErrorType::FilterLimits.into());
        }
        let (suffix, otherwise) = if form.is_comparison { ("_a", "13daysAgo") } else { ("", "6daysAgo") };
        let date =
            |name: &str, otherwise| Day::resolve(query.get_or(name, otherwise)).ok_or_else(|| Refusal::invalid(name));
        let from = date(&format!("date1{suffix}"), otherwise)?;
        let until = date(&format!("date2{suffix}"), "today")?;
        let (offset, limit) = (query.number_or("offset", 1)?, query.number_or("limit", 100)?);
        for (name, fits) in [("date2", from <= until), ("limit", (1..=ROWS).contains(&limit))] {
            if !fits {
                return Err(Refusal::invalid(name));
            }
        }
        let limit = if form.is_by_time { query.number_or("top_keys", TOP_KEYS.0)?.min(TOP_KEYS.1) } else { limit };
        let rows = if dimensions.is_empty() { 1 } else { ROWS };
        Ok(Self { metrics, dimensions, from, until, offset, limit, rows })
    }

    /// The intervals of a report over time.
    fn intervals(&self, call: &Call<'_>) -> Vec<[String; 2]> {
        let days = match call.query.get_or("group", "week") {
            "day" => 1,
            "week" => 7,
            "month" => 30,
            "quarter" => 91,
            "year" => 365,
            _ => self.until.since(self.from) + 1,
        };
        let count = self.until.since(self.from) / days + 1;
        let step = |index| {
            let first = self.from.after(index * days);
            [first.to_string(), first.after(days - 1).min(self.until).to_string()]
        };
        (0..count.min(INTERVALS)).map(step).collect()
    }

    fn names(&self, row: u32) -> impl Iterator<Item = String> {
        self.dimensions.iter().map(move |dimension| measures::name(dimension, row, self.from))
    }
}

fn query(call: &Call<'_>, asked: &Asked<'_>, form: Form) -> Value {
    let ids: Vec<u64> = call.query.list("ids").iter().chain(&call.query.list("id")).flat_map(|id| id.parse()).collect();
    let mut query = json!({
        "ids": ids,
        "timezone": "Europe/Moscow",
        "preset": call.query.get_or("preset", ""),
        "dimensions": asked.dimensions,
        "metrics": asked.metrics,
        "sort": call.query.list("sort"),
        "filters": call.query.get_or("filters", ""),
        "limit": asked.limit,
        "offset": asked.offset,
        "attribution": call.query.get_or("attribution", "Lastsign"),
    });
    let suffix = if form.is_comparison { "_a" } else { "" };
    if let Some(query) = query.as_object_mut() {
        query.insert(format!("date1{suffix}"), json!(asked.from.to_string()));
        query.insert(format!("date2{suffix}"), json!(asked.until.to_string()));
    }
    query
}

fn csv(asked: &Asked<'_>, numbers: std::ops::Range<u32>) -> String {
    let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
    let header: Vec<_> = asked.dimensions.iter().chain(&asked.metrics).map(|name| quoted(name)).collect();
    let measures: Vec<_> = asked.metrics.iter().map(|metric| Measure::of(metric)).collect();
    let mut text = header.join(",") + "\n";
    for row in numbers {
        let mut separator = "";
        let names = asked.names(row).map(|name| quoted(&name));
        for cell in names.chain(measures.iter().map(|measure| measure.value(row).to_string())) {
            // Writing to a string cannot fail.
            let _ = write!(text, "{separator}{cell}");
            separator = ",";
        }
        text.push('\n');
    }
    text
}

/// The source of rows and totals.
struct Figures<'a> {
    asked: &'a Asked<'a>,
    form: Form,
    measures: Vec<Measure>,
}

impl Figures<'_> {
    fn row(&self, row: u32) -> Row {
        let mut names = self.asked.names(row).map(|name| Name { id: row.to_string(), name });
        let metrics = self.cells(Some(row).filter(|_| self.asked.rows > 1));
        if self.form.is_drilldown {
            Row::Tree { dimension: names.next(), metrics, expand: self.asked.dimensions.len() > 1 }
        } else {
            Row::Flat { dimensions: names.collect(), metrics }
        }
    }

    /// The values of a row, or the totals.
    fn cells(&self, row: Option<u32>) -> Cells {
        let values = self.measures.iter().map(|measure| row.map_or_else(|| measure.total(), |row| measure.value(row)));
        if self.form.is_by_time {
            let days = self.asked.until.since(self.asked.from).min(INTERVALS) + 1;
            Cells::Series(values.map(|value| (0..days).map(|_| value).collect()).collect())
        } else if self.form.is_comparison {
            let (a, b) = values.map(|value| (value, (value * 0.9).round())).unzip();
            Cells::Pair { a, b }
        } else {
            Cells::One(values.collect())
        }
    }
}

/// The response, with its fields in the order of the documentation.
#[derive(Serialize)]
struct Report<'a> {
    query: Value,
    data: Rows<'a>,
    total_rows: u32,
    total_rows_rounded: bool,
    sampled: bool,
    contains_sensitive_data: bool,
    sample_share: f64,
    sample_size: u32,
    sample_space: u32,
    data_lag: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    time_intervals: Option<Vec<[String; 2]>>,
    totals: Cells,
    #[serde(skip_serializing_if = "Option::is_none")]
    min: Option<Vec<f64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max: Option<Vec<f64>>,
}

/// Rows are generated while the response is written: 100000 of them at once would take 200 MB.
struct Rows<'a>(std::ops::Range<u32>, &'a dyn Fn(u32) -> Row);

impl Serialize for Rows<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.clone().map(self.1))
    }
}

#[derive(Serialize)]
#[serde(untagged)]
enum Row {
    Flat { dimensions: Vec<Name>, metrics: Cells },
    Tree { dimension: Option<Name>, metrics: Cells, expand: bool },
}

#[derive(Serialize)]
struct Name {
    name: String,
    id: String,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Cells {
    One(Vec<f64>),
    Pair { a: Vec<f64>, b: Vec<f64> },
    Series(Vec<Vec<f64>>),
}
