//! `config/reference.yaml` has every key, with its default, and works; so does every configuration that is shipped.

use std::path::{Path, PathBuf};

use metrika_gate::config::Config;
use serde_yaml::Value;

use crate::harness::files::write_private;
use crate::harness::over::authority_at;

pub fn in_repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

pub fn reference() -> String {
    std::fs::read_to_string(in_repository("config/reference.yaml")).unwrap()
}

/// The files that the reference names: a CA file, and the folder of an authority.
pub fn files() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("extra-ca.pem"), crate::harness::upstream::certificate("h").1).unwrap();
    authority_at(&folder.path().join("ca"), std::time::SystemTime::now());
    folder
}

/// The reference with its commented keys, those without a default, in use.
pub fn complete_reference(folder: &Path) -> String {
    let authority = folder.join("ca").display().to_string();
    let mut text = String::new();
    for line in reference().lines() {
        let line = match line.trim_start().strip_prefix("# ") {
            Some(key) if key.starts_with("ca_file:") => format!("  ca_file: {}/extra-ca.pem", folder.display()),
            Some(key) if ["require_header:", "allow_mode:"].iter().any(|name| key.starts_with(name)) => {
                format!("    {key}")
            }
            Some(key) if key.starts_with("tls:") => {
                let leaf = ["pem", "key"]
                    .map(|end| (format!("/etc/metrika-gate/tls.{end}"), format!("{authority}/leaf.{end}")));
                let key = leaf.iter().fold(key.to_owned(), |key, (named, there)| key.replace(named, there));
                let clients = folder.join("extra-ca.pem").display().to_string();
                let key = key.replace("/etc/metrika-gate/clients.pem", &clients);
                format!("    {}", key.replace("/etc/metrika-gate/ca", &authority))
            }
            Some(key) if key.starts_with("store:") => {
                format!(
                    "  {}",
                    key.replace("/etc/metrika-gate/redis-ca.pem", &folder.join("extra-ca.pem").display().to_string())
                )
            }
            Some(key) if key.starts_with("proxy_auth_file:") => {
                let auth = folder.join("proxy-auth");
                write_private(&auth, "user:password");
                format!("  proxy_auth_file: {}", auth.display())
            }
            Some(key) if ["connect_to:", "proxy:"].iter().any(|name| key.starts_with(name)) => format!("  {key}"),
            Some(key) if key.starts_with("keys_file:") => {
                std::fs::write(folder.join("keys"), format!("reports {}\n", "ab".repeat(32))).unwrap();
                format!("keys_file: {}/keys", folder.display())
            }
            Some(key) if ["key_sha256:", "san:", "service_account:"].iter().any(|name| key.starts_with(name)) => {
                format!("      {key}")
            }
            Some(key) if key.starts_with("service_accounts:") => {
                key.replace("/etc/metrika-gate/cluster-ca.pem", &folder.join("extra-ca.pem").display().to_string())
            }
            Some(key) if ["workers:", "state_dir:"].iter().any(|name| key.starts_with(name)) => key.to_owned(),
            _ => line.to_owned(),
        };
        text.push_str(&line);
        text.push('\n');
    }
    text
}

fn parse(text: &str) -> Config {
    Config::parse(text, Path::new("reference.yaml")).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn the_reference_is_right_as_it_is_and_with_every_key() {
    parse(&reference());
    let folder = files();
    let config = parse(&complete_reference(folder.path()));
    assert_eq!(config.upstream.extra_roots.len(), 1);
    assert_eq!(config.upstream.connect_to, Some(("127.0.0.1".to_owned(), 8443)));
    let proxy = config.upstream.proxy.unwrap();
    assert_eq!((&*proxy.host, proxy.port, proxy.auth.is_some()), ("proxy.internal", 3128, true));
    assert_eq!(
        config.callers[0].conditions.keys().map(<[_]>::len),
        Some(2),
        "one in the configuration, one in the file"
    );
    assert_eq!(config.workers, Some(2));
    assert!(config.listeners[0].admission.required.is_some());
    assert!(config.listeners.iter().all(|listener| listener.tls.is_some()));
}

/// The values beside the examples of the reference are the defaults.
#[test]
fn the_values_of_the_reference_are_the_defaults() {
    let smallest = Config::load(&in_repository("config/gate.yaml")).unwrap_or_else(|error| panic!("{error}"));
    let reference = parse(&reference());
    assert_eq!(reference.admin, smallest.admin);
    assert_eq!(reference.upstream, smallest.upstream);
    assert_eq!(reference.timeouts, smallest.timeouts);
    assert_eq!(reference.limits, smallest.limits);
    assert_eq!(reference.shutdown, smallest.shutdown);
    assert_eq!(reference.log, smallest.log);
    assert_eq!(reference.workers, smallest.workers);
    assert_eq!(reference.listeners[0], smallest.listeners[0]);
    assert_eq!(reference.catalogue.operations().len(), smallest.catalogue.operations().len() + 1);
}

/// Every mapping in a document, with the way to it: `upstream.timeouts`, `listeners[0]`.
pub fn mappings(value: &Value, at: &str, found: &mut Vec<String>) {
    match value {
        Value::Mapping(mapping) => {
            found.push(at.to_owned());
            for (key, value) in mapping {
                let key = key.as_str().unwrap();
                mappings(value, &if at.is_empty() { key.to_owned() } else { format!("{at}.{key}") }, found);
            }
        }
        Value::Sequence(values) => {
            values.iter().enumerate().for_each(|(index, value)| mappings(value, &format!("{at}[{index}]"), found));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Tagged(_) => {}
    }
}

pub fn at<'a>(document: &'a mut Value, path: &str) -> &'a mut Value {
    path.split(['.', '[']).filter(|step| !step.is_empty()).fold(document, |value, step| match step.strip_suffix(']') {
        Some(index) => &mut value[index.parse::<usize>().unwrap()],
        None => &mut value[step],
    })
}

/// The parser reports its keys: an unknown key causes an error that lists the known ones.
#[test]
fn every_key_that_is_read_is_in_the_reference() {
    let folder = files();
    let document: Value = serde_yaml::from_str(&complete_reference(folder.path())).unwrap();
    let mut places = Vec::new();
    mappings(&document, "", &mut places);
    // The names there are the operator's own.
    places.retain(|place| !["tokens", "counter_groups"].contains(&place.as_str()));
    let mut keys = 0;
    for place in places {
        let mut asked = document.clone();
        let mapping = at(&mut asked, &place).as_mapping_mut().unwrap();
        let stands: Vec<String> = mapping.keys().map(|key| key.as_str().unwrap().to_owned()).collect();
        mapping.insert("zzzzzzzzzzzzzzzz".into(), 1.into());
        let said = Config::parse(&serde_yaml::to_string(&asked).unwrap(), Path::new("r")).unwrap_err().to_string();
        let known = said
            .lines()
            .find_map(|line| line.split_once("expected one of "))
            .unwrap_or_else(|| panic!("{place}: {said}"))
            .1;
        for key in known.split(", ") {
            // In a list, each element has some of the keys, and all have them together.
            let beside = place.split('[').next().unwrap();
            let anywhere = || match &document.get(beside) {
                Some(Value::Sequence(elements)) if place.ends_with(']') => {
                    elements.iter().any(|element| element.get(key).is_some())
                }
                Some(Value::Sequence(elements)) if place.ends_with("].tls") => {
                    elements.iter().any(|element| element["tls"].get(key).is_some())
                }
                // It is there in the place of another key.
                _ if place == "service_accounts" && key == "jwks_file" => reference().contains("jwks_file: FILE"),
                _ if place.starts_with("tokens.") => document["tokens"]["crm"].get(key).is_some(),
                _ => false,
            };
            let in_any_caller = || {
                let callers = document["callers"].as_sequence().unwrap();
                place.ends_with(".match") && callers.iter().any(|caller| caller["match"].get(key).is_some())
            };
            assert!(stands.iter().any(|one| one == key) || anywhere() || in_any_caller(), "{place}.{key} is missing");
            keys += 1;
        }
    }
    assert!(keys > 60, "{keys} keys were asked for");
}

/// The example of the issue, which tools outside of this repository write.
#[test]
fn the_keys_of_the_contract_are_read() {
    let text = r#"
listeners:
  - {name: app, address: "127.0.0.1:8080", http2: false}
  - {name: crm, unix: {path: /run/metrika-gate/crm.sock, mode: "0660"}}
admin: {address: "127.0.0.1:9090"}
upstream:
  url: https://api-metrika.yandex.net
  connect_to: 127.0.0.1:8443
  timeouts: {connect: 5s, response_headers: 130s, body_idle: 60s, keep_alive: 60s}
tokens:
  analytics: {file: /var/run/secrets/metrika/analytics, scopes: [metrika:read]}
  crm:       {file: /var/run/secrets/metrika/crm,       scopes: [metrika:write]}
callers:
  - id: reports
    match: {listener: app, source: [127.0.0.0/8]}
    scopes: [metrika:read]
    tokens: [analytics]
  - id: crm
    match: {listener: crm, uid: [1001]}
    scopes: [metrika:read, metrika:write]
    tokens: [analytics, crm]
operations:
  - {method: GET, path: "/management/v1/new/{id}", scope: [metrika:read]}
unknown_operations: deny
timeouts: {request_headers: 10s, body_idle: 60s, keep_alive: 75s}
limits: {header_bytes: 64KiB, target_bytes: 48KiB, connections: 10000}
shutdown: {delay: 0s, timeout: 30s}
"#;
    let config = parse(text);
    assert_eq!((config.listeners.len(), config.tokens.len(), config.callers.len()), (2, 2, 2));
    assert_eq!(config.limits.header_bytes, 65536);
}
