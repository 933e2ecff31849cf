//! hyper parses what has arrived. So a beginning that no continuation makes valid must not reach it.

use super::*;

const BOUNDS: Bounds = Bounds { header_bytes: 1024, header_fields: 8 };

/// Whether the reader accepts all of `pieces`, one after the other.
fn accepts(pieces: &[&[u8]]) -> bool {
    let mut framing = Framing::new(BOUNDS);
    pieces.iter().all(|piece| framing.look_at(piece).is_ok())
}

/// All texts of up to `length` bytes of `alphabet`.
fn texts(alphabet: &[u8], length: u32) -> Vec<Vec<u8>> {
    let mut all = vec![Vec::new()];
    let mut last = all.clone();
    for _ in 0..length {
        last = last.iter().flat_map(|text| alphabet.iter().map(|byte| [text, &[*byte][..]].concat())).collect();
        all.extend_from_slice(&last);
    }
    all
}

/// Sends each text of `alphabet` after `before`, byte by byte. If it is accepted, one of the `continuations` completes a
/// valid line.
fn every_accepted_beginning_can_become_valid(before: &str, alphabet: &str, continuations: &[&str]) {
    for text in texts(alphabet.as_bytes(), 5) {
        let sent: Vec<&[u8]> = std::iter::once(before.as_bytes()).chain(text.chunks(1)).collect();
        let becomes_valid = |end: &&str| accepts(&[&sent[..], &[end.as_bytes()]].concat());
        if !text.is_empty() && accepts(&sent) {
            assert!(continuations.iter().any(becomes_valid), "{:?}", String::from_utf8_lossy(&text));
        }
    }
}

#[test]
fn a_request_line_can_become_valid() {
    let ends = ["\n", "\r\n", "HTTP/1.1\r\n", "TTP/1.1\r\n", " HTTP/1.1\r\n", " / HTTP/1.1\r\n", "G / HTTP/1.1\r\n"];
    for (before, alphabet) in [("", "G@\r\0"), ("G", "@\r\0"), ("G /", " /\r\0H"), ("G / HTTP/1", "01\r G")] {
        every_accepted_beginning_can_become_valid(before, alphabet, &[&ends[..], &["1\r\n", ".1\r\n"]].concat());
    }
}

const FIELD_ENDS: [&str; 3] = ["\n", "\r\n", ":\r\n"];

#[test]
fn a_field_can_become_valid() {
    every_accepted_beginning_can_become_valid("GET / HTTP/1.1\r\nHost: a\r\n", "a: \t\r\0", &FIELD_ENDS);
}

const CHUNKED: &str = "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";

#[test]
fn a_chunk_can_become_valid() {
    every_accepted_beginning_can_become_valid(CHUNKED, "0a;\r x", &["\n", "\r\n", "0\r\n"]);
}

#[test]
fn a_trailer_can_become_valid() {
    every_accepted_beginning_can_become_valid(&format!("{CHUNKED}0\r\n"), "a: \t\r\0", &FIELD_ENDS);
}
