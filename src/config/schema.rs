//! The table of all keys of a configuration: their names and the kinds of their values, from which `metrika-gate schema`
//! makes a JSON schema.
//!
//! 1. The table accepts every configuration that the reader accepts. It rejects unknown keys, missing required keys, values
//!    of another kind, words outside of a list and numbers out of range. Relations between keys, and the content of texts,
//!    are left to `metrika-gate check`.
//! 2. `tests/it/cli/schema.rs` compares the table with the reader: a key, a word or a bound that only one of them knows
//!    fails it.

use crate::quota::LimitName;

/// The kind of a value.
#[derive(Debug, Clone, Copy)]
pub enum Shape {
    /// `true` or `false`.
    Flag,
    /// A whole number from one bound to the other.
    Number(i64, i64),
    /// A text, of which only the kind is checked.
    Text,
    /// A name of 1 to 64 letters, digits, `_`, `-` or `.`.
    Name,
    /// One of these words.
    Word(&'static [&'static str]),
    /// A list, which may be empty.
    List(&'static Shape),
    /// A list with at least one element.
    Filled(&'static Shape),
    /// A mapping with these keys.
    Table(&'static [Key]),
    /// A mapping whose keys are names that the operator chooses.
    Named(&'static Shape),
    /// A mapping with a key for each limit of Metrica.
    Limits(&'static Shape),
    /// Any one of these kinds.
    Either(&'static [Shape]),
}

/// A key of a mapping.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// The name.
    pub name: &'static str,
    /// Whether the mapping must have it.
    pub is_required: bool,
    /// The kind of its value.
    pub shape: Shape,
}

const fn key(name: &'static str, shape: Shape) -> Key {
    Key { name, is_required: false, shape }
}

const fn required(name: &'static str, shape: Shape) -> Key {
    Key { name, is_required: true, shape }
}

/// Returns the names of the limits of Metrica, the keys of a [`Shape::Limits`].
pub fn limits() -> impl Iterator<Item = &'static str> {
    LimitName::ALL.iter().map(|limit| limit.as_str())
}

use Shape::{Either, Filled, Flag, Limits, List, Name, Named, Number, Table, Text, Word};

/// A counter of Metrica.
const COUNTER: Shape = Number(1, i64::MAX);

const COUNTERS: Shape = Filled(&COUNTER);

const SCOPES: Shape = Filled(&Word(&[
    "metrika:read",
    "metrika:write",
    "metrika:expenses",
    "metrika:user_params",
    "metrika:offline_data",
]));

const ALLOWED: Shape = Word(&["allow", "deny"]);

const MODE: Shape = Word(&["enforce", "observe", "off"]);

/// The root of a configuration.
pub const ROOT: Shape = Table(&[
    required("listeners", Filled(&LISTENER)),
    key("admin", ADMIN),
    key("upstream", UPSTREAM),
    required("tokens", Named(&TOKEN)),
    required("callers", Filled(&CALLER)),
    key("keys_file", Text),
    key("service_accounts", SERVICE_ACCOUNTS),
    key("operations", List(&OPERATION)),
    key("unknown_operations", Word(&["deny", "by_method"])),
    key("counter_groups", Named(&COUNTERS)),
    key("quota", QUOTA),
    key("state_dir", Text),
    key("identity", IDENTITY),
    key("oauth", OAUTH),
    key("token_health", TOKEN_HEALTH),
    key("timeouts", TIMEOUTS),
    key("limits", LIMITS),
    key("shutdown", Table(&[key("delay", Text), key("timeout", Text)])),
    key("log", LOG),
    key("sandbox", Flag),
    key("workers", Number(1, 1024)),
]);

const LISTENER: Shape = Table(&[
    required("name", Name),
    key("address", Text),
    key("unix", Table(&[required("path", Text), key("mode", Text)])),
    key("http2", Flag),
    key("tls", TLS),
    key("proxy", Flag),
    key("allow_remote", Flag),
    key("hosts", List(&Text)),
    key("require_header", Text),
]);

const TLS: Shape = Table(&[
    key("certificate", Text),
    key("key", Text),
    key("authority", Text),
    key("allow_mode", Text),
    key("renew", Flag),
    key("client_ca", Text),
    key("client_auth", Word(&["required", "optional"])),
]);

const ADMIN: Shape = Table(&[key("address", Text), key("allow_remote", Flag), key("recheck", Flag), key("page", Flag)]);

const UPSTREAM: Shape = Table(&[
    key("url", Text),
    key("ca_file", Text),
    key("connect_to", Text),
    key("proxy", Text),
    key("proxy_auth_file", Either(&[Text, Table(&[required("file", Text), key("allow_mode", Text)])])),
    key("address_family", Word(&["any", "ipv4", "ipv6"])),
    key("http2", Flag),
    key("connections", Number(1, 1_000_000)),
    key("max_age", Text),
    key("timeouts", UPSTREAM_TIMEOUTS),
]);

const UPSTREAM_TIMEOUTS: Shape =
    Table(&[key("connect", Text), key("response_headers", Text), key("body_idle", Text), key("keep_alive", Text)]);

const TOKEN: Shape = Table(&[
    required("file", Text),
    key("allow_mode", Text),
    required("scopes", SCOPES),
    key("owner", Text),
    key("client_id", Text),
    key("client_secret_file", Text),
    key("refresh_file", Text),
    key("expires", Text),
    key("standby", Name),
    key("counters", Either(&[Word(&["auto"]), COUNTERS])),
]);

const CALLER: Shape = Table(&[
    required("id", Name),
    required("match", CONDITIONS),
    required("scopes", SCOPES),
    required("tokens", Filled(&Name)),
    key("strict", Flag),
    key("quota", CALLER_QUOTA),
    key("counters", COUNTERS),
    key("ulogin", Filled(&Text)),
    key("ulogin_absent", ALLOWED),
    key("grantees", Filled(&Text)),
    key("list", Word(&["refuse", "filter"])),
    key("destructive", ALLOWED),
    key("sharing", ALLOWED),
    key("callback", ALLOWED),
    key("measurement_tokens", ALLOWED),
    key("enforce", Flag),
]);

const CONDITIONS: Shape = Table(&[
    key("listener", Name),
    key("source", Filled(&Text)),
    key("uid", Filled(&Number(0, 4_294_967_295))),
    key("gid", Filled(&Number(0, 4_294_967_295))),
    key("key_sha256", List(&Text)),
    key("san", Filled(&Text)),
    key("service_account", Filled(&Text)),
]);

const CALLER_QUOTA: Shape = Table(&[
    key("class", Word(&["interactive", "normal", "batch"])),
    key("weight", Number(1, 1000)),
    key("wait", Text),
    key("per_day", Number(1, 1_000_000)),
    key("per_5m", Number(1, 1_000_000)),
    key("share", Text),
]);

const OPERATION: Shape = Table(&[
    required("method", Word(&["GET", "POST", "PUT", "PATCH", "DELETE"])),
    required("path", Text),
    required("scope", SCOPES),
    key("id", Name),
    key("long", Flag),
    key("upload", Flag),
    key("acts", Flag),
    key("destructive", Flag),
    key("shares", Flag),
]);

const QUOTA: Shape = Table(&[
    key("mode", MODE),
    key("egress", Name),
    key("limits", Limits(&Either(&[Number(1, 1_000_000), LIMIT]))),
    key("queue", QUEUE),
    key("replicas", Number(1, 1000)),
    key("store", STORE),
]);

const LIMIT: Shape = Table(&[key("limit", Number(1, 1_000_000)), key("mode", MODE), key("raised", Flag)]);

const QUEUE: Shape = Table(&[
    key("per_caller", Number(1, 100_000)),
    key("per_owner", Number(1, 100_000)),
    key("total", Number(1, 100_000)),
]);

const STORE: Shape = Table(&[
    required("redis", Text),
    key("password_file", Text),
    key("ca_file", Text),
    key("prefix", Text),
    key("lease", Text),
    key("timeout", Text),
    key("on_loss", Word(&["share", "refuse"])),
]);

const IDENTITY: Shape = Table(&[required("url", Text), key("ca_file", Text), key("connect_to", Text)]);

const SERVICE_ACCOUNTS: Shape = Table(&[
    key("jwks_file", Text),
    key("jwks_url", Text),
    key("ca_file", Text),
    key("connect_to", Text),
    key("bearer_file", Text),
    key("allow_mode", Text),
    required("issuer", Text),
    required("audience", Text),
    key("algorithms", Filled(&Word(&["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384"]))),
]);

const OAUTH: Shape = Table(&[key("url", Text), key("ca_file", Text), key("connect_to", Text)]);

const TOKEN_HEALTH: Shape = Table(&[key("probe_after", Text), key("probe_at_most", Text), key("learn", Flag)]);

const TIMEOUTS: Shape =
    Table(&[key("request_headers", Text), key("body_idle", Text), key("keep_alive", Text), key("request", Text)]);

const LIMITS: Shape = Table(&[
    key("header_bytes", Text),
    key("target_bytes", Text),
    key("header_fields", Number(1, 1000)),
    key("connections", Number(1, 10_000_000)),
    key("connections_per_peer", Number(1, 10_000_000)),
]);

const LOG: Shape = Table(&[key("format", Word(&["auto", "json", "human"])), key("level", Text), key("access", Flag)]);
