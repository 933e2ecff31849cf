//! The token that went out does not come back, wherever an upstream puts it (R-15); and the permissions of a browser
//! for responses that do come back (R-18, R-19).

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::harness::{Answer, Conversation, Gate, READ_TOKEN, TWO_CALLERS, Upstream, breaks_off};

/// Packs bytes.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packer = GzEncoder::new(Vec::new(), Compression::default());
    packer.write_all(bytes).unwrap();
    packer.finish().unwrap()
}

fn body() -> String {
    format!("{{\"a\":\"y0_canary\",\"token\":\"{READ_TOKEN}\",\"b\":\"{READ_TOKEN}{READ_TOKEN}\",\"c\":\"y0_can")
}

fn overwritten() -> String {
    body().replace(READ_TOKEN, &"*".repeat(READ_TOKEN.len()))
}

/// Everything of an answer that a caller sees.
fn whole(answer: &Answer) -> String {
    format!("{:?} {:?} {}", answer.fields, answer.trailers, answer.text())
}

/// A gate in front of an upstream that answers every request alike, and the caller's view of it.
struct Site {
    gate: Gate,
    _upstream: Upstream,
}

impl Site {
    fn new(answer: impl Fn(&mut Conversation) + Send + Sync + 'static) -> Self {
        let upstream = Upstream::run(move |conversation| {
            while conversation.request_head().is_some() {
                answer(conversation);
            }
        });
        Self { gate: Gate::plan(&upstream, TWO_CALLERS).workers(1).start(), _upstream: upstream }
    }

    fn ask(&self) -> Result<Answer, String> {
        let mut caller = self.gate.connect("app");
        caller.send(
            "GET /management/v1/counters HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip\r\nTE: trailers\r\n\
             Connection: TE\r\n\r\n",
        );
        caller.try_answer(false)
    }

    fn reflected(&self) -> f64 {
        self.gate.metric(&["upstream_errors_total", "kind=\"reflected\""])
    }
}

/// Writes a body in chunks of this size, each a TLS record of its own.
fn chunks(conversation: &mut Conversation, head: &str, body: &[u8], size: usize) {
    conversation.write(format!("HTTP/1.1 {head}\r\nTransfer-Encoding: chunked\r\n\r\n"));
    for piece in body.chunks(size) {
        conversation.write([format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat());
    }
    conversation.write("0\r\n\r\n");
}

/// R-15: in a body, split in whatever way, of a good answer and of an error.
#[test]
fn a_token_in_a_body_is_overwritten() {
    for status in ["200 OK", "403 Forbidden", "500 Internal Server Error"] {
        for size in [1, 2, 7, READ_TOKEN.len(), 1000] {
            let site = Site::new(move |conversation| chunks(conversation, status, body().as_bytes(), size));
            let answer = site.ask().unwrap();
            assert_eq!((answer.status.to_string().as_str(), answer.text()), (&status[..3], overwritten()), "{size}");
            assert_eq!(answer.field("transfer-encoding"), Some("chunked"));
            assert_eq!(site.reflected(), 1.0, "counted once for an answer");
        }
        // With a length, byte by byte in TLS records; and until the end of the connection.
        let length = body().len();
        for framing in [format!("Content-Length: {length}\r\n"), String::new()] {
            let ends = framing.is_empty();
            let site = Site::new(move |conversation| {
                conversation.write(format!("HTTP/1.1 {status}\r\n{framing}\r\n"));
                body().bytes().for_each(|byte| assert!(conversation.write([byte])));
                if ends {
                    conversation.close();
                }
            });
            let answer = site.ask().unwrap();
            assert_eq!((answer.status.to_string().as_str(), answer.text()), (&status[..3], overwritten()));
            assert_eq!(answer.field("content-length").is_some(), !ends, "the length stays");
        }
    }
}

/// R-15: a long error goes on behind the part that is read ahead.
#[test]
fn a_token_in_a_long_error_is_overwritten_on_both_sides_of_the_bound() {
    let long = format!("{READ_TOKEN}{}{READ_TOKEN}{}", "x".repeat(8 * 1024 - 40), READ_TOKEN.repeat(1000));
    let clean = long.replace(READ_TOKEN, &"*".repeat(READ_TOKEN.len()));
    for size in [1000, 1_000_000] {
        let long = long.clone();
        let site = Site::new(move |conversation| chunks(conversation, "400 Bad Request", long.as_bytes(), size));
        assert_eq!(site.ask().unwrap().text(), clean);
    }
}

/// R-15: in fields of every kind, and in the reason phrase.
#[test]
fn a_field_with_a_token_is_removed() {
    for field in ["ETag: ", "WWW-Authenticate: OAuth realm=", "Content-Disposition: x", "X-Unknown: ", "Set-Cookie: t="]
    {
        let site = Site::new(move |conversation| {
            conversation.write(format!(
                "HTTP/1.1 200 {READ_TOKEN}\r\n{field}{READ_TOKEN}.\r\nX-{READ_TOKEN}: 1\r\nVary: kept\r\nContent-Length: 2\r\n\r\nok"
            ));
        });
        let mut caller = site.gate.connect("app");
        caller.send("GET /management/v1/counters HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let bytes = String::from_utf8(caller.rest()).unwrap();
        assert!(bytes.ends_with("ok") && bytes.contains("vary: kept"), "{bytes}");
        assert!(!bytes.to_ascii_lowercase().contains(&READ_TOKEN.to_ascii_lowercase()), "{bytes}");
    }
}

/// R-15: in trailers and interim responses.
#[test]
fn a_trailer_or_interim_field_with_a_token_is_removed() {
    let site = Site::new(|conversation| {
        conversation.write(format!(
            "HTTP/1.1 103 Early {READ_TOKEN}\r\nVary: {READ_TOKEN}\r\nAge: 1\r\n\r\nHTTP/1.1 200 OK\r\n\
             Transfer-Encoding: chunked\r\nTrailer: Digest, X-Checksum\r\n\r\n9\r\ny0_canary\r\n0\r\n\
             Digest: {READ_TOKEN}\r\nX-Checksum: 7\r\n\r\n"
        ));
    });
    let mut caller = site.gate.connect("app");
    caller.send("GET /management/v1/counters HTTP/1.1\r\nHost: localhost\r\nTE: trailers\r\nConnection: TE\r\n\r\n");
    assert_eq!(caller.head().unwrap(), (103, vec![("age".to_owned(), "1".to_owned())]));
    let answer = caller.answer();
    assert_eq!(answer.text(), "y0_canary", "what was its beginning is not held back at the end");
    assert_eq!(answer.trailers, [("x-checksum".to_owned(), "7".to_owned())]);
    assert_eq!(site.reflected(), 2.0, "one for the interim response, one for the answer");
}

/// R-15: in a compressed body, it ends an error or cuts the response.
#[test]
fn a_token_in_a_compressed_body_ends_the_response() {
    let mut long = vec![b'['];
    (0..60_000_u32).for_each(|number| write!(long, "{},", number.wrapping_mul(2_654_435_761)).unwrap());
    long.extend_from_slice(READ_TOKEN.as_bytes());
    long.extend_from_slice(b"behind it");
    for (plain, known) in [(body().into_bytes(), 0), (long.clone(), 100_000)] {
        let whole = gzip(&plain);
        let members = [gzip(b"first"), whole.clone()].concat();
        for packed in [whole, members] {
            for size in [1, 1000, packed.len()] {
                if size == 1 && packed.len() > 10_000 {
                    continue;
                }
                let packed = packed.clone();
                let site = Site::new(move |conversation| {
                    chunks(conversation, "200 OK\r\nContent-Encoding: gzip", &packed, size);
                });
                let answer = site.ask();
                assert!(breaks_off(&answer) && !body_holds(&answer), "{known} {size} {answer:?}");
                // A response that shows it before its head has gone out is refused as a whole.
                let refused = answer.is_ok_and(|answer| answer.summary() == "502 upstream_reflection");
                let (outcome, status) = if refused { ("complete", 502) } else { ("upstream_cut", 200) };
                let (outcome, status) = (format!("\"outcome\":\"{outcome}\""), format!("\"status\":{status}"));
                site.gate.until_log(&["\"access\"", &outcome, &status]);
                assert_eq!(site.reflected(), 1.0);
            }
        }
    }
    for coding in ["gzip", "X-GZIP", "identity, gzip"] {
        for size in [1, 1000] {
            let packed = gzip(body().as_bytes());
            let head = format!("403 Forbidden\r\nContent-Encoding: {coding}");
            let site = Site::new(move |conversation| chunks(conversation, &head, &packed, size));
            let answer = site.ask().unwrap();
            assert_eq!(answer.summary(), "502 upstream_reflection");
            let log = site.gate.until_log(&["\"access\"", "\"status\":502", "\"outcome\":\"complete\""]);
            assert!(log.contains("\"upstream_status\":403") && log.contains("upstream_reflection"), "{log}");
            assert_eq!(site.reflected(), 1.0);
            assert!(!whole(&answer).contains(READ_TOKEN) && !site.gate.log().concat().contains(READ_TOKEN));
        }
    }
}

/// R-15: what cannot be looked through is not passed on.
#[test]
fn a_response_that_cannot_be_scanned_is_not_forwarded() {
    let packed = gzip(b"{}");
    let behind = [&packed[..], READ_TOKEN.as_bytes()].concat();
    for (coding, body, whole) in [
        ("br", &b"x"[..], true),
        ("deflate", b"x", true),
        ("zstd", b"x", true),
        ("gzip, gzip", &packed, true),
        ("gzip, br", &packed, true),
        ("gzip\r\nContent-Encoding: gzip", &packed, true),
        ("gzip", b"not gzip", false),
        ("gzip", &[&packed[..], b"\0\0\0\0"].concat(), false),
        ("gzip", &behind, false),
    ] {
        for status in ["200 OK", "400 Bad Request"] {
            let (body, head) = (body.to_vec(), format!("{status}\r\nContent-Encoding: {coding}"));
            let site = Site::new(move |conversation| chunks(conversation, &head, &body, 1000));
            let answer = site.ask();
            if whole || status.starts_with('4') {
                let reason = if body_holds(&answer) { "" } else { &answer.as_ref().unwrap().summary() };
                let expected = ["502 upstream_encoding", "502 upstream_reflection"];
                assert!(expected.contains(&reason), "{coding} {status} {answer:?}");
            } else {
                assert!(breaks_off(&answer) && !body_holds(&answer), "{coding} {answer:?}");
            }
        }
    }
}

fn body_holds(answer: &Result<Answer, String>) -> bool {
    answer.as_ref().is_ok_and(|answer| whole(answer).contains(READ_TOKEN))
}

/// R-15: nothing that could not be looked through is asked for, and no part of a body.
#[test]
fn only_gzip_is_asked_for_and_no_range() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TWO_CALLERS);
    for (field, expected) in [
        ("", "identity"),
        ("Accept-Encoding: gzip, deflate, br\r\n", "gzip"),
        ("Accept-Encoding: br, zstd\r\n", "identity"),
        ("Accept-Encoding: gzip;q=0\r\n", "identity"),
        ("Accept-Encoding: *\r\n", "gzip"),
        ("Accept-Encoding: br\r\nAccept-Encoding: gzip\r\n", "gzip"),
        ("Accept-Encoding: gzip\r\nConnection: accept-encoding\r\n", "identity"),
    ] {
        let ranged = format!("{field}Range: bytes=0-1\r\nIf-Range: \"x\"\r\n");
        gate.send("app", format!("GET /management/v1/counters HTTP/1.1\r\nHost: localhost\r\n{ranged}\r\n"));
        let head = upstream.requests().pop().unwrap();
        let sent: Vec<_> = head.lines().filter(|line| line.contains("encoding") || line.contains("range")).collect();
        assert_eq!(sent, [format!("accept-encoding: {expected}")], "{field}");
    }
}

/// R-15: good responses are unaffected; compressed ones of every kind pass byte for byte.
#[test]
fn good_compressed_answers_pass_unchanged() {
    let mut long = Vec::new();
    (0..300_000_u32).for_each(|number| writeln!(long, "{number}\ty0_canary").unwrap());
    let packed = gzip(&long);
    let members = [gzip(b""), packed.clone(), gzip(b"y0_canary")].concat();
    for body in [packed.clone(), members, packed[..packed.len() / 2].to_vec(), Vec::new()] {
        for status in ["200 OK", "404 Not Found"] {
            let (sent, head) = (body.clone(), format!("{status}\r\nContent-Encoding: gzip"));
            let site = Site::new(move |conversation| chunks(conversation, &head, &sent, 10_000));
            let answer = site.ask().unwrap();
            assert!(answer.body == body, "{status} {} {}", answer.body.len(), body.len());
            assert_eq!(answer.field("content-encoding"), Some("gzip"));
            assert_eq!(site.gate.metric(&["upstream_errors_total"]), 0.0);
        }
    }
}

/// R-19: a browser does not guess, and runs nothing.
#[test]
fn a_page_comes_in_a_sandbox() {
    for (content_type, sandboxed) in
        [("text/html", true), ("Text/HTML;charset=utf-8", true), ("application/xhtml+xml", true), ("text/csv", false)]
    {
        let site = Site::new(move |conversation| {
            conversation.write(format!(
                "HTTP/1.1 502 Bad Gateway\r\nContent-Type: {content_type}\r\nContent-Security-Policy: default-src *\r\n\
                 Access-Control-Allow-Origin: *\r\nClear-Site-Data: \"*\"\r\nContent-Length: 5\r\n\r\n<html"
            ));
        });
        let answer = site.ask().unwrap();
        assert_eq!(answer.field("x-content-type-options"), Some("nosniff"));
        let expected = sandboxed.then_some("sandbox; default-src 'none'");
        assert_eq!(answer.field("content-security-policy"), expected, "{content_type}");
        assert!(answer.fields.iter().all(|(name, _)| !name.starts_with("access-") && !name.starts_with("clear-")));
        for request in ["GET /none HTTP/1.1\r\nHost: localhost\r\n\r\n", "no HTTP\r\n\r\n"] {
            assert_eq!(site.gate.send("app", request).field("x-content-type-options"), Some("nosniff"));
        }
    }
}
