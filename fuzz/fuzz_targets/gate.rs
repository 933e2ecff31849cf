//! The whole gate, between a caller and an upstream that send anything: see `driver.rs` for the sentence that it is held to.
//!
//! An input is a byte that says in what pieces it is sent, and the caller's bytes; behind a byte 0xFF, the upstream's answer.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use metrika_gate_fuzz::driver::Gate;

static GATE: LazyLock<Gate> = LazyLock::new(Gate::start);

fuzz_target!(|input: &[u8]| {
    let Some((seed, bytes)) = input.split_first() else { return };
    match bytes.iter().position(|byte| *byte == 0xff) {
        Some(at) => GATE.hold(*seed, &bytes[..at], Some(&bytes[at + 1..])),
        None => GATE.hold(*seed, bytes, None),
    }
});
