//! The tools of the tests: a gate that is the real program, an upstream that records and can misbehave, raw callers.

pub mod caller;
pub mod client_certificates;
pub mod dns;
pub mod files;
pub mod gate;
pub mod h2;
pub mod manager;
pub mod metrica;
pub mod over;
pub mod proxy;
pub mod relay;
pub mod service_accounts;
pub mod signal;
pub mod store;
pub mod terminal;
pub mod traffic;
pub mod upstream;

pub use caller::{Answer, Caller, breaks_off};
pub use gate::Gate;
pub use proxy::Proxy;
pub use signal::Signal;
pub use upstream::{Conversation, Upstream};

/// Tokens that a test can look for wherever they must not be.
pub const READ_TOKEN: &str = "y0_canaryREADcanary0123456789abcdef";
/// See [`READ_TOKEN`].
pub const WRITE_TOKEN: &str = "y0_canaryWRITEcanary0123456789abcde";

/// A configuration with a reader on listener `app` and a writer on listener `crm`.
pub const TWO_CALLERS: &str = "
listeners:
  - {name: app, address: '127.0.0.1:0'}
  - {name: crm, address: '127.0.0.1:0'}
callers:
  - {id: reports, match: {listener: app}, scopes: [metrika:read], tokens: [analytics]}
  - {id: crm, match: {listener: crm}, scopes: [metrika:read, metrika:write], tokens: [analytics, crm]}
";

/// The same, and each caller has one token for all that it asks: its requests share connections to the upstream.
pub const ONE_TOKEN_EACH: &str = "
listeners:
  - {name: app, address: '127.0.0.1:0'}
  - {name: crm, address: '127.0.0.1:0'}
tokens:
  analytics: {file: '{folder}/analytics', scopes: [metrika:read]}
  crm: {file: '{folder}/crm', scopes: [metrika:read, metrika:write]}
callers:
  - {id: reports, match: {listener: app}, scopes: [metrika:read], tokens: [analytics]}
  - {id: crm, match: {listener: crm}, scopes: [metrika:read, metrika:write], tokens: [crm], measurement_tokens: allow}
";

/// The same as [`TWO_CALLERS`], and HTTP/2 is spoken there too.
pub const TWO_CALLERS_HTTP2: &str = "
listeners:
  - {name: app, address: '127.0.0.1:0', http2: true}
  - {name: crm, address: '127.0.0.1:0', http2: true}
callers:
  - {id: reports, match: {listener: app}, scopes: [metrika:read], tokens: [analytics]}
  - {id: crm, match: {listener: crm}, scopes: [metrika:read, metrika:write], tokens: [analytics, crm]}
";
