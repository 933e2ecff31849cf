//! metrika-gate: an authenticating reverse proxy for the Yandex Metrica API.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(metrika_gate::cli::main())
}
