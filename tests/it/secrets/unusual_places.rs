//! Secrets in places that only some traffic reaches (R-16): the log of the dependencies, the compression of HTTP/2, the
//! output of the commands, and the `Debug` output in a panic. The canary has the rest.

use std::sync::Arc;

use metrika_gate::metrics::process::ProcessMeters;
use metrika_gate::reload::{Reloader, Source};

use crate::harness::gate::program;
use crate::harness::upstream::certificate;
use crate::harness::{Conversation, Gate, READ_TOKEN, TWO_CALLERS, Upstream, WRITE_TOKEN};
use crate::secrets::canary::{assert_clean, whole};

const GET: &str = "GET /management/v1/counters HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// The form of a field in a header block (RFC 7541, section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Literal {
    Indexed,
    IntoTheTable,
    WithoutIndexing,
    NeverIndexed,
}

/// Reads a number with a prefix of this many bits (RFC 7541, section 5.1).
fn number(block: &mut &[u8], bits: u32) -> usize {
    let mask = (1_usize << bits) - 1;
    let mut value = usize::from(block[0]) & mask;
    *block = &block[1..];
    if value == mask {
        let mut shift = 0;
        loop {
            let byte = block[0];
            *block = &block[1..];
            value += usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
    }
    value
}

/// Every field of a header block, as the index of its name (0 for a literal one) and how it is written.
fn fields(mut block: &[u8]) -> Vec<(usize, Literal)> {
    let mut found = Vec::new();
    let skip = |block: &mut &[u8]| {
        let length = number(block, 7);
        *block = &block[length..];
    };
    while let Some(first) = block.first() {
        let (bits, literal) = match first {
            0x80.. => (7, Literal::Indexed),
            0x40.. => (6, Literal::IntoTheTable),
            0x20.. => {
                number(&mut block, 5);
                continue;
            }
            0x10.. => (4, Literal::NeverIndexed),
            _ => (4, Literal::WithoutIndexing),
        };
        let name = number(&mut block, bits);
        if literal != Literal::Indexed {
            if name == 0 {
                skip(&mut block);
            }
            skip(&mut block);
        }
        found.push((name, literal));
    }
    found
}

/// Speaks just enough HTTP/2 to answer 403 to everything, and records each header block (as Latin-1, so byte for byte).
fn answers_in_http_2(conversation: &mut Conversation, blocks: &std::sync::Mutex<Vec<Vec<u8>>>) {
    conversation.exactly(24);
    conversation.write([0, 0, 0, 4, 0, 0, 0, 0, 0]);
    while let Some(frame) = conversation.frame() {
        let (kind, flags, stream, payload) = frame;
        match kind {
            1 => {
                assert_eq!(flags & 0x2c, 0x04, "END_HEADERS, no padding, no priority");
                blocks.lock().unwrap().push(payload);
                // ":status: 200" of the static table, and a body like Metrica's.
                let body = br#"{"errors":[{"error_type":"invalid_token","message":"Invalid oauth_token"}]}"#;
                conversation.write([&[0, 0, 1, 1, 4], &stream[..], &[0x88]].concat());
                let length = u8::try_from(body.len()).unwrap();
                conversation.write([&[0, 0, length, 0, 1], &stream[..], &body[..]].concat());
            }
            4 if flags & 1 == 0 => {
                conversation.write([0, 0, 0, 4, 1, 0, 0, 0, 0]);
            }
            _ => {}
        }
    }
}

/// The index of `authorization` in the static table (RFC 7541, appendix A).
const AUTHORIZATION: usize = 23;

/// R-16: the token's field is never indexed, so that no intermediary keeps it and no length tells it (RFC 7541, section
/// 7.1.3); and the HTTP/2 library, which logs in this program, does not log it at its most verbose level.
#[test]
fn over_http_2_the_token_is_in_no_table_and_in_no_line() {
    let (mut config, ca_pem) = certificate("api-metrika.yandex.net");
    config.alpn_protocols = vec![b"h2".to_vec()];
    let blocks = Arc::new(std::sync::Mutex::new(Vec::new()));
    let recorded = blocks.clone();
    let upstream = Upstream::run_with(config, ca_pem, move |conversation| answers_in_http_2(conversation, &recorded));
    let config = format!("{TWO_CALLERS}\nupstream: {{ca_file: '{{ca}}', connect_to: '{{upstream}}', http2: true}}\n");
    let plan = Gate::plan(&upstream, &config).workers(1).argument("--log-level").argument("trace");
    let mut gate = plan.start();
    for listener in ["app", "app", "crm", "app"] {
        let answer = gate.send(listener, GET);
        assert_eq!(answer.summary(), "200");
        assert_clean("the answer", &whole(&answer));
    }
    let post = "POST /management/v1/counters HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}";
    assert_eq!(gate.send("crm", post).summary(), "200");
    let blocks = blocks.lock().unwrap().clone();
    assert_eq!(blocks.len(), 5);
    for block in blocks {
        let all = fields(&block);
        let own: Vec<_> = all.iter().filter(|(name, _)| *name == AUTHORIZATION).collect();
        assert_eq!(own, [&(AUTHORIZATION, Literal::NeverIndexed)], "{all:?}");
        assert!(all.iter().any(|(_, literal)| *literal == Literal::Indexed), "the block was read: {all:?}");
    }
    gate.signal("TERM");
    gate.wait();
    let log = gate.log();
    assert!(log.iter().any(|line| line.contains("\"target\":\"h2::")), "the HTTP/2 library logs");
    assert_clean("the log", &log.join("\n"));
}

/// R-16: the commands' output for a configuration, with and without mistakes.
#[test]
fn the_commands_print_no_secret() {
    let upstream = Upstream::plain();
    let plan = Gate::plan(&upstream, TWO_CALLERS);
    let file = plan.file();
    for arguments in [
        vec!["check"],
        vec!["check", "--format", "json"],
        vec!["explain", "GET", "/management/v1/counters"],
        vec!["explain", "POST", "/management/v1/counters", "--as", "crm", "--format", "json"],
        vec!["explain", "GET", "/stat/v1/data?oauth_token=y0_canaryASKEDcanary0123456789abcde"],
        vec!["healthcheck"],
    ] {
        let mut command = program();
        command.args(&arguments);
        if arguments[0] != "healthcheck" {
            command.arg("--config").arg(&file);
        }
        let output = command.output().unwrap();
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert_clean(&arguments.join(" "), &said);
    }
}

/// R-16: everything that holds a token, or the way to one, as a panic or an error would print it.
#[test]
fn types_that_hold_tokens_print_none() {
    let upstream = Upstream::plain();
    let plan = Gate::plan(&upstream, TWO_CALLERS);
    let (source, config) = Source::load(plan.file()).unwrap();
    let reloader = Reloader::new(Some(source), config.clone(), Arc::new(ProcessMeters::default()), false).unwrap();
    let generation = reloader.generation();
    assert!(generation.tokens.iter().all(|slot| slot.token.is_some()), "there is something to show");
    assert_clean("Generation", &format!("{generation:?} {generation:#?}"));
    assert_clean("Config", &format!("{config:?} {config:#?}"));
    for token in generation.tokens.iter().filter_map(|slot| slot.token.as_ref()) {
        let mut request = http::Request::new(());
        request.headers_mut().insert(http::header::AUTHORIZATION, token.authorization());
        assert_clean("a request", &format!("{request:?} {:?}", request.headers().clone()));
        let said = token.authorization().as_bytes().to_vec();
        assert!(said.ends_with(READ_TOKEN.as_bytes()) || said.ends_with(WRITE_TOKEN.as_bytes()));
    }
}
