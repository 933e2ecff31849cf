//! Refusals of Metrica's that are compressed: their reason is counted, and the caller gets them as they were sent.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::harness::{Answer, Gate, TWO_CALLERS, Upstream};

const REFUSAL: &str = r#"{"errors":[{"error_type":"access_denied","message":"m"}],"code":403,"message":"m"}"#;

fn gzip(text: &str) -> Vec<u8> {
    let mut packer = GzEncoder::new(Vec::new(), Compression::default());
    packer.write_all(text.as_bytes()).unwrap();
    packer.finish().unwrap()
}

/// The caller's response when an upstream answers 403 with `body` in `coding`, chunk for chunk; the reason must be
/// `reason`.
#[track_caller]
fn refused(coding: &'static str, body: &[u8], chunk: usize, reason: &str) -> Answer {
    let pieces: Vec<Vec<u8>> = body.chunks(chunk).map(<[u8]>::to_vec).collect();
    let upstream = Upstream::run(move |conversation| {
        while conversation.request_head().is_some() {
            conversation.write(format!(
                "HTTP/1.1 403 Forbidden\r\nContent-Encoding: {coding}\r\nTransfer-Encoding: chunked\r\n\r\n"
            ));
            for piece in &pieces {
                conversation.write([format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat());
            }
            conversation.write("0\r\n\r\n");
        }
    });
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let request = "GET /management/v1/counters HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip, br\r\n\r\n";
    let answer = gate.send("app", request);
    let reason_label = format!("reason=\"{reason}\"");
    let labels = ["auth_failures_total", "origin=\"upstream\"", "caller=\"reports\"", "code=\"403\"", &reason_label];
    gate.until_metric(&labels, 1.0);
    assert_eq!(gate.metric(&["auth_failures_total"]), 1.0, "it has one reason");
    gate.until_log(&["\"access\"", &format!("\"reason\":\"{reason}\"")]);
    answer
}

#[test]
fn a_compressed_refusal_has_its_reason_and_reaches_the_caller_unchanged() {
    let packed = gzip(REFUSAL);
    for coding in ["gzip", "x-gzip", "GZIP"] {
        for chunk in [packed.len(), 7] {
            let answer = refused(coding, &packed, chunk, "scope_missing");
            assert_eq!(answer.summary(), "403");
            assert_eq!(answer.field("content-encoding"), Some(coding));
            assert_eq!(answer.body, packed, "the body passes on unchanged");
        }
    }
}

#[test]
fn a_refusal_without_a_reason_is_other_and_passes_unchanged() {
    let packed = gzip(REFUSAL);
    let bomb = gzip(&" ".repeat(50_000_000));
    for (coding, body) in [("gzip", &packed[..packed.len() / 2]), ("gzip", &bomb), ("identity", b"no JSON")] {
        let answer = refused(coding, body, 8 * 1024, "other");
        assert_eq!((answer.summary().as_str(), answer.field("content-encoding")), ("403", Some(coding)));
        assert_eq!(answer.body, body, "the body passes on unchanged");
    }
}
