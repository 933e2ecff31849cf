//! Reports in the format of Google Analytics' Core Reporting API, version 3, which old clients still use.

use serde_json::{Value, json};

use super::access::Call;
use super::answer::Answer;
use super::day::Day;
use super::measures::{self, Measure};
use super::refusal::Refusal;

const ROWS: u32 = 1_000;

/// Answers a report request.
pub fn answer(call: &Call<'_>) -> Result<Answer, Refusal> {
    let query = &call.query;
    let ids = query.required_list("ids")?.join(",");
    let metrics = query.required_list("metrics")?;
    let date = |name| Day::resolve(query.required(name)?).ok_or_else(|| Refusal::invalid(name));
    let (from, until) = (date("start-date")?, date("end-date")?);
    let dimensions = query.list("dimensions");
    let first = query.number_or("start-index", 1_u32)?.saturating_sub(1);
    let count = query.number_or("max-results", ROWS)?;
    let rows = if dimensions.is_empty() { 1 } else { ROWS };
    let column = |name: &str, kind: &str| json!({ "name": name, "columnType": kind, "dataType": "STRING" });
    let headers = dimensions.iter().map(|name| column(name, "DIMENSION"));
    let headers = headers.chain(metrics.iter().map(|name| column(name, "METRIC")));
    let row = |row| -> Value {
        let names = dimensions.iter().map(|name| measures::name(name, row, from));
        let values = metrics.iter().map(|metric| Measure::of(metric).value(row).to_string());
        names.chain(values).map(Value::String).collect()
    };
    let totals = metrics.iter().map(|metric| ((*metric).to_owned(), json!(Measure::of(metric).total().to_string())));
    Ok(call.json(&json!({
        "kind": "analytics#gaData",
        "query": { "ids": ids, "start-date": from.to_string(), "end-date": until.to_string(), "metrics": metrics },
        "itemsPerPage": count,
        "totalResults": rows,
        "containsSampledData": false,
        "columnHeaders": headers.collect::<Vec<_>>(),
        "totalsForAllResults": totals.collect::<serde_json::Map<_, _>>(),
        "rows": (first..first.saturating_add(count).min(rows)).map(row).collect::<Vec<_>>(),
    })))
}
