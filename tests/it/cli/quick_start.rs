//! The quick start of Metrica's documentation, through a gate: its requests can be sent as printed, and the
//! responses have the shape that it prints (<https://yandex.com/dev/metrika/en/intro/quick-start>).

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::harness::metrica::{ALL, OWN, metrica};
use crate::harness::{Gate, TWO_CALLERS};

/// A caller needs no token; who pastes the printed line sends one.
const HEADERS: [&str; 2] = ["", "Authorization: OAuth 05dd3dd8...\r\n"];

/// A counter of the printed list: each line a field and its type; the fields of an object come behind it.
/// These are 49 entries: four objects, and 45 values in them and beside them.
const COUNTER: &str = "\
activity_status string
code_options object
code_options.alternative_cdn number
code_options.async number
code_options.clickmap number
code_options.ecommerce number
code_options.ecommerce_object string
code_options.in_one_line number
code_options.informer object
code_options.informer.color_arrow number
code_options.informer.color_end string
code_options.informer.color_start string
code_options.informer.color_text number
code_options.informer.enabled number
code_options.informer.indicator string
code_options.informer.size number
code_options.informer.type string
code_options.track_hash number
code_options.visor number
code_options.xml_site number
code_options.ytm boolean
code_status string
create_time string
delete_guest_allowed number
favorite number
gdpr_agreement_accepted number
hide_address number
id number
name string
owner_login string
partner_id number
permission string
pro number
site string
site2 object
site2.domain string
site2.site string
status string
time_zone_name string
time_zone_offset number
type string
webvisor object
webvisor.allow_wv2 boolean
webvisor.arch_enabled number
webvisor.arch_type string
webvisor.load_player_type string
webvisor.notify_wv2 boolean
webvisor.wv_forms number
webvisor.wv_version number
";

/// The goal that the quick start creates. The space behind the type is printed there.
const GOAL: &str = r#"{
    "goal": {
        "id": 0,
        "name": "MyMessengerGoal",
        "type": "messenger ",
        "conditions" : [{"type" : "messenger", "url" : "whatsapp"}]
    }
}"#;

/// The fields of an object and the types of their values, sorted.
fn shape(object: &Value, before: &str) -> String {
    object.as_object().unwrap().iter().fold(String::new(), |mut text, (name, value)| {
        let kind = match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        writeln!(text, "{before}{name} {kind}").unwrap();
        if value.is_object() {
            text += &shape(value, &format!("{before}{name}."));
        }
        text
    })
}

/// Sends a request to a gate in front of the stand-in; the JSON that comes back.
fn ask(line: &str, header: &str, body: &str) -> Value {
    let fake = metrica();
    let gate = Gate::plan_for(&fake.address().to_string(), fake.ca_pem(), TWO_CALLERS);
    let gate = gate.token("analytics", ALL).token("crm", ALL).start();
    let length = body.len();
    let framing = format!("Content-Type: application/json\r\nContent-Length: {length}\r\n");
    let framing = if body.is_empty() { "" } else { &framing };
    let answer = gate.send("crm", format!("{line} HTTP/1.1\r\nHost: localhost\r\n{header}{framing}\r\n{body}"));
    assert_eq!(answer.summary(), "200", "{header}{}", answer.text());
    serde_json::from_slice(&answer.body).unwrap()
}

#[test]
fn the_list_of_counters_has_the_printed_shape() {
    assert_eq!(COUNTER.lines().count(), 49);
    for header in HEADERS {
        let answer = ask("GET /management/v1/counters", header, "");
        assert_eq!(shape(&answer, ""), "counters array\nrows number\n", "{header}");
        let counters = answer["counters"].as_array().unwrap();
        assert_eq!(answer["rows"], counters.len());
        for counter in counters {
            assert_eq!(shape(counter, ""), COUNTER, "{header}");
            assert!(counter["create_time"].as_str().unwrap().ends_with("+03:00"), "{counter}");
        }
    }
}

#[test]
fn the_goal_that_is_created_comes_back_as_printed() {
    for header in HEADERS {
        let answer = ask(&format!("POST /management/v1/counter/{OWN}/goals"), header, GOAL);
        assert_eq!(shape(&answer, "").lines().next(), Some("goal object"), "{header}");
        let goal = &answer["goal"];
        let printed = json!({
            "id": goal["id"],
            "name": "MyMessengerGoal",
            "type": "messenger",
            "conditions": [{ "type": "messenger", "url": "whatsapp" }],
        });
        assert!(goal["id"].as_u64().unwrap() > 0, "{goal}");
        for (field, value) in printed.as_object().unwrap() {
            assert_eq!(&goal[field], value, "{header}{field}");
        }
    }
}
