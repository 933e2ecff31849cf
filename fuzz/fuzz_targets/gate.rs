//! The whole gate, between a caller and an upstream that send anything: see `driver.rs` for the sentence that it is held to.
//!
//! An input is a byte that says in what pieces it is sent, and the caller's bytes; behind a byte 0xFF, the upstream's answer.
//! In the caller's bytes, a byte 0xFE makes an act of the next one. Its lowest three bits say what the caller does here, see
//! `connection.rs`. The next two bits of the first such byte say which listener the caller connects to: of HTTP/1.1 or of
//! both, unix or TCP. The highest three bits say a number, and so many bytes as its square are held back: they are sent after
//! the act, or never where nothing can be sent after it. At a listener of both, where the first such byte is the first of all,
//! the beginning of the preface of HTTP/2 is sent before it, unless the number is 0.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use metrika_gate_fuzz::connection::{Act, Acts};
use metrika_gate_fuzz::driver::{Gate, Listener};
use metrika_gate_fuzz::frames::PREFACE;

static GATE: LazyLock<Gate> = LazyLock::new(Gate::start);

fuzz_target!(|input: &[u8]| {
    let Some((seed, bytes)) = input.split_first() else { return };
    let (bytes, answer) = match bytes.iter().position(|byte| *byte == 0xff) {
        Some(at) => (&bytes[..at], Some(&bytes[at + 1..])),
        None => (bytes, None),
    };
    let mut acts = Acts::default();
    let mut listener = None;
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|byte| *byte == 0xfe) {
        acts.send(&rest[..at]);
        rest = &rest[at + 1..];
        let Some((act, behind)) = rest.split_first() else { break };
        let number = usize::from(act >> 5);
        let is_first = listener.is_none() && at == 0;
        if listener.get_or_insert(Listener::of(act >> 3)).http2 && is_first {
            acts.send(&PREFACE[..(number * 3).saturating_sub(2)]);
        }
        let held_back = if is_first { Vec::new() } else { acts.take_back(number.pow(2)) };
        acts.act(Act::of(*act));
        acts.send(&held_back);
        rest = behind;
    }
    acts.send(rest);
    GATE.hold(listener.unwrap_or(Listener::of(0)), *seed, acts, answer);
});
