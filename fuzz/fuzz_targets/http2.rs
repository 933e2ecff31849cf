//! The whole gate, between a caller of HTTP/2 and an upstream that send anything: see `driver_http2.rs` for what it is held
//! to.
//!
//! An input is a byte that says in what pieces it is sent, a byte that says how it begins and ends, and a script: see
//! `script.rs`.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use metrika_gate_fuzz::driver_http2::GateHttp2;

static GATE: LazyLock<GateHttp2> = LazyLock::new(GateHttp2::start);

fuzz_target!(|input: &[u8]| GATE.hold(input));
