//! HTTP/2 towards callers, frame by frame: an error by RFC 9113 ends the stream or the connection, and nothing is sent
//! to Metrica.

use crate::harness::h2::*;
use crate::harness::{Gate, TWO_CALLERS_HTTP2, Upstream};

/// The pseudo-header fields of a read, and some more.
fn with(more: &[(&str, &str)]) -> Vec<u8> {
    block(request("GET", "/management/v1/counters").iter().chain(more).copied())
}

/// A read without one of its pseudo-header fields.
fn without(name: &str) -> Vec<u8> {
    block(request("GET", "/management/v1/counters").into_iter().filter(|(known, _)| *known != name))
}

fn whole(fields: Vec<u8>) -> Vec<u8> {
    frame(HEADERS, WHOLE, 1, fields)
}

/// Sends each case on a connection of its own, and checks the outcome of stream 1.
#[track_caller]
fn hold(cases: &[(&str, Vec<u8>, Fate)]) {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TWO_CALLERS_HTTP2);
    let wrong = |(case, bytes, expected): &(&str, Vec<u8>, Fate)| {
        let mut caller = H2::connect(gate.place("crm"));
        caller.send(bytes);
        let fate = caller.fate(1);
        (fate != *expected).then(|| format!("{case}: {fate:?} instead of {expected:?}"))
    };
    let wrong: Vec<_> = cases.iter().filter_map(wrong).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(upstream.requests(), Vec::<String>::new(), "nothing was sent to Metrica");
    assert_eq!(gate.metric(&["floods_total"]), 0.0);
}

/// RFC 9113, sections 8.1 to 8.3: malformed requests are refused.
#[test]
fn malformed_requests_are_refused() {
    let reset = || Fate::Reset(PROTOCOL_ERROR);
    let ended = || Fate::Ended(PROTOCOL_ERROR);
    let refused = || Fate::Answered(400);
    let path = |path: &str| whole(block(request("GET", path)));
    hold(&[
        ("a name in upper case", whole(with(&[("Accept", "*/*")])), ended()),
        ("an empty name", whole(with(&[("", "x")])), ended()),
        ("a space in a name", whole(with(&[("a b", "x")])), ended()),
        ("a colon in a name", whole(with(&[("a:b", "x")])), ended()),
        ("CR in a value", whole(with(&[("accept", "a\rb")])), ended()),
        ("LF in a value", whole(with(&[("accept", "a\nauthorization: x")])), ended()),
        ("NUL in a value", whole(with(&[("accept", "a\0b")])), ended()),
        ("connection", whole(with(&[("connection", "authorization")])), reset()),
        ("connection: close", whole(with(&[("connection", "close")])), reset()),
        ("keep-alive", whole(with(&[("keep-alive", "1")])), reset()),
        ("proxy-connection", whole(with(&[("proxy-connection", "close")])), reset()),
        ("transfer-encoding", whole(with(&[("transfer-encoding", "chunked")])), reset()),
        ("upgrade", whole(with(&[("upgrade", "websocket")])), reset()),
        ("te: gzip", whole(with(&[("te", "gzip")])), reset()),
        ("te: trailers, gzip", whole(with(&[("te", "trailers, gzip")])), reset()),
        ("host and another :authority", whole(with(&[("host", "example.org")])), refused()),
        ("two hosts", whole(with(&[("host", "localhost"), ("host", "localhost")])), refused()),
        ("no host at all", whole(without(":authority")), refused()),
        ("no :method", whole(without(":method")), reset()),
        ("no :scheme", whole(without(":scheme")), reset()),
        ("no :path", whole(without(":path")), reset()),
        ("two :method", whole(with(&[(":method", "GET")])), reset()),
        ("two :path", whole(with(&[(":path", "/")])), reset()),
        ("two :authority", whole(with(&[(":authority", "localhost")])), reset()),
        ("an unknown pseudo-header field", whole(with(&[(":x", "y")])), ended()),
        ("a pseudo-header field of answers", whole(with(&[(":status", "200")])), reset()),
        ("a pseudo-header field after a field", whole([block([("accept", "*/*")]), get()].concat()), reset()),
        ("an empty :path", path(""), reset()),
        ("a :path without a slash", path("management/v1/counters"), reset()),
        ("a :path that is a query", path("?ids=1"), refused()),
        ("a :path that is a whole URL", path("http://localhost/management/v1/counters"), reset()),
        ("a :path with dots", path("/management/../management/v1/counters"), refused()),
        ("a :path with a space", path("/management/v1/counters x"), reset()),
        ("a :path with a control", path("/management/v1/counters\u{1}"), reset()),
        (
            "user information",
            whole(block([request("GET", "/").as_slice()[..3].as_ref(), &[(":authority", "a@localhost")]].concat())),
            refused(),
        ),
        (
            "an empty :authority",
            whole(block([request("GET", "/").as_slice()[..3].as_ref(), &[(":authority", "")]].concat())),
            reset(),
        ),
        ("a content-length that is no number", whole(with(&[("content-length", "1x")])), reset()),
        ("two content-lengths", whole(with(&[("content-length", "0"), ("content-length", "1")])), reset()),
        ("a content-length without a body", whole(with(&[("content-length", "1")])), reset()),
        ("CONNECT", whole(block([(":method", "CONNECT"), (":authority", "localhost:443")])), Fate::Answered(405)),
        (
            "extended CONNECT (RFC 8441)",
            whole(block(request("CONNECT", "/").into_iter().chain([(":protocol", "websocket")]))),
            reset(),
        ),
        (":protocol without CONNECT", whole(with(&[(":protocol", "websocket")])), reset()),
        ("TRACE", whole(block(request("TRACE", "/management/v1/counters"))), Fate::Answered(405)),
        ("a method in lower case", whole(block(request("get", "/management/v1/counters"))), Fate::Answered(405)),
        ("OPTIONS *", whole(block(request("OPTIONS", "*"))), Fate::Answered(405)),
    ]);
}

/// A header block in two frames.
fn in_two(block: &[u8], at: usize) -> Vec<u8> {
    let (first, rest) = block.split_at(at);
    [frame(HEADERS, END_STREAM, 1, first), frame(CONTINUATION, END_HEADERS, 1, rest)].concat()
}

/// it does not matter where the frames of a header block end (RFC 9113, section 4.3).
#[test]
fn a_malformed_request_in_pieces_is_refused() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TWO_CALLERS_HTTP2);
    let mut wrong = Vec::new();
    for more in [("connection", "close"), (":path", "/management/v1/clients"), ("te", "gzip"), ("upgrade", "h2c")] {
        let block = with(&[more, ("accept", "*/*")]);
        for at in 0..=block.len() {
            let mut caller = H2::connect(gate.place("crm"));
            caller.send(in_two(&block, at));
            let fate = caller.fate(1);
            if fate != Fate::Reset(PROTOCOL_ERROR) {
                wrong.push(format!("{more:?}, cut at {at} of {}: {fate:?}", block.len()));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert_eq!(upstream.requests(), Vec::<String>::new(), "nothing was sent to Metrica");
}

#[test]
fn a_header_block_has_as_many_frames_as_it_needs_and_a_bound() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TWO_CALLERS_HTTP2);
    // A block with one field, larger than the frames that every receiver accepts.
    let long = format!("/management/v1/counters?search_string={}", "x".repeat(30_000));
    let block = block(request("GET", &long));
    for size in [16_384, 1000, 20_000] {
        let mut caller = H2::connect(gate.place("app"));
        let mut pieces = block.chunks(size).peekable();
        caller.frame(HEADERS, END_STREAM, 1, pieces.next().unwrap());
        while let Some(piece) = pieces.next() {
            caller.frame(CONTINUATION, if pieces.peek().is_none() { END_HEADERS } else { 0 }, 1, piece);
        }
        assert_eq!(caller.fate(1), Fate::Answered(200), "{size}");
        caller.frame(HEADERS, WHOLE, 3, get());
        assert_eq!(caller.fate(3), Fate::Answered(200), "{size}");
    }
    let heads = upstream.requests();
    assert_eq!(heads.iter().filter(|head| head.starts_with(&format!("GET {long} HTTP/1.1\r\n"))).count(), 3);
    // Larger than any header that the gate reads (`limits.header_bytes`).
    let mut caller = H2::connect(gate.place("app"));
    caller.frame(HEADERS, END_STREAM, 1, get());
    let piece = self::block([("accept", &*"x".repeat(10_000))]);
    let sent = (0..1000).take_while(|_| caller.frame(CONTINUATION, 0, 1, &piece)).count();
    assert!(sent < 1000);
    assert_eq!(caller.fate(1), Fate::Ended(ENHANCE_YOUR_CALM));
    assert_eq!(gate.metric(&["floods_total"]), 0.0, "it is no flood");
    gate.until_log(&["header_block_too_large"]);
}

/// RFC 9113, sections 4 to 6: frames that are wrong by themselves.
#[test]
fn malformed_frames_end_the_connection() {
    let ended = |code| Fate::Ended(code);
    let setting = |name, value| frame(SETTINGS, 0, 0, settings(&[(name, value)]));
    hold(&[
        ("a frame that is too large", frame(DATA, 0, 1, vec![0; 131_073]), ended(FRAME_SIZE_ERROR)),
        ("DATA on stream 0", frame(DATA, 0, 0, "x"), ended(PROTOCOL_ERROR)),
        ("DATA on an idle stream", frame(DATA, 0, 1, "x"), ended(PROTOCOL_ERROR)),
        (
            "DATA padded beyond its end",
            [frame(HEADERS, END_HEADERS, 1, upload()), frame(DATA, PADDED, 1, [9, 1])].concat(),
            ended(PROTOCOL_ERROR),
        ),
        ("HEADERS on stream 0", frame(HEADERS, WHOLE, 0, get()), ended(PROTOCOL_ERROR)),
        ("HEADERS on an even stream", frame(HEADERS, WHOLE, 2, get()), ended(PROTOCOL_ERROR)),
        ("HEADERS padded beyond their end", frame(HEADERS, WHOLE | PADDED, 1, [200, 1]), ended(PROTOCOL_ERROR)),
        ("HPACK: an index that is not there", frame(HEADERS, WHOLE, 1, [0xff, 0xff, 0x03]), ended(PROTOCOL_ERROR)),
        ("HPACK: a table larger than allowed", frame(HEADERS, WHOLE, 1, [0x3f, 0xe2, 0x1f]), ended(PROTOCOL_ERROR)),
        ("HPACK: a string that is cut", frame(HEADERS, WHOLE, 1, [0x10, 0x05, b'a']), ended(PROTOCOL_ERROR)),
        ("PRIORITY on stream 0", frame(PRIORITY, 0, 0, [0; 5]), ended(PROTOCOL_ERROR)),
        ("PRIORITY that is too short", frame(PRIORITY, 0, 1, [0; 4]), ended(PROTOCOL_ERROR)),
        ("RST_STREAM on stream 0", frame(RST_STREAM, 0, 0, [0; 4]), ended(PROTOCOL_ERROR)),
        ("RST_STREAM on an idle stream", frame(RST_STREAM, 0, 1, [0; 4]), ended(PROTOCOL_ERROR)),
        ("RST_STREAM that is too short", frame(RST_STREAM, 0, 1, [0; 3]), ended(PROTOCOL_ERROR)),
        ("SETTINGS on a stream", frame(SETTINGS, 0, 1, []), ended(PROTOCOL_ERROR)),
        ("SETTINGS of an odd length", frame(SETTINGS, 0, 0, [0; 5]), ended(PROTOCOL_ERROR)),
        ("SETTINGS: an acknowledgement with a payload", frame(SETTINGS, ACK, 0, [0; 6]), ended(PROTOCOL_ERROR)),
        ("SETTINGS: ENABLE_PUSH 2", setting(2, 2), ended(PROTOCOL_ERROR)),
        ("SETTINGS: INITIAL_WINDOW_SIZE too large", setting(4, 0x8000_0000), ended(PROTOCOL_ERROR)),
        ("SETTINGS: MAX_FRAME_SIZE too small", setting(5, 16383), ended(PROTOCOL_ERROR)),
        ("SETTINGS: MAX_FRAME_SIZE too large", setting(5, 1 << 24), ended(PROTOCOL_ERROR)),
        (
            "PUSH_PROMISE",
            frame(PUSH_PROMISE, END_HEADERS, 1, [&[0, 0, 0, 2][..], &get()].concat()),
            ended(PROTOCOL_ERROR),
        ),
        ("PING on a stream", frame(PING, 0, 1, [0; 8]), ended(PROTOCOL_ERROR)),
        ("PING of another length", frame(PING, 0, 0, [0; 7]), ended(PROTOCOL_ERROR)),
        ("GOAWAY on a stream", frame(GOAWAY, 0, 1, [0; 8]), ended(PROTOCOL_ERROR)),
        ("GOAWAY that is too short", frame(GOAWAY, 0, 0, [0; 7]), ended(PROTOCOL_ERROR)),
        ("WINDOW_UPDATE by nothing", frame(WINDOW_UPDATE, 0, 0, [0; 4]), ended(PROTOCOL_ERROR)),
        ("WINDOW_UPDATE that is too long", frame(WINDOW_UPDATE, 0, 0, [0; 5]), ended(PROTOCOL_ERROR)),
        ("WINDOW_UPDATE on an idle stream", frame(WINDOW_UPDATE, 0, 1, 1u32.to_be_bytes()), ended(PROTOCOL_ERROR)),
        (
            "WINDOW_UPDATE over the top",
            frame(WINDOW_UPDATE, 0, 0, 0x7fff_ffffu32.to_be_bytes()),
            ended(FLOW_CONTROL_ERROR),
        ),
        ("CONTINUATION of nothing", frame(CONTINUATION, END_HEADERS, 1, get()), ended(PROTOCOL_ERROR)),
        (
            "CONTINUATION of another stream",
            [frame(HEADERS, END_STREAM, 1, get()), frame(CONTINUATION, END_HEADERS, 3, [])].concat(),
            ended(PROTOCOL_ERROR),
        ),
        (
            "a frame within a header block",
            [frame(HEADERS, END_STREAM, 1, get()), frame(PING, 0, 0, [0; 8])].concat(),
            ended(PROTOCOL_ERROR),
        ),
        (
            "an unknown frame within a header block",
            [frame(HEADERS, END_STREAM, 1, get()), frame(0xee, 0, 0, [])].concat(),
            ended(PROTOCOL_ERROR),
        ),
    ]);
}

/// RFC 9113, sections 5 and 6.9: frames that are wrong for the state of their stream.
#[test]
fn frames_in_the_wrong_state_end_the_stream_or_the_connection() {
    let held = Upstream::run(|conversation| while conversation.discard() > 0 {});
    let gate = Gate::start(&held, TWO_CALLERS_HTTP2);
    let open = || frame(HEADERS, END_HEADERS, 1, upload());
    let done = || frame(HEADERS, WHOLE, 1, get());
    let with_length = |length| {
        let fields = request("POST", "/management/v1/counter/1/offline_conversions/upload");
        frame(HEADERS, END_HEADERS, 1, block(fields.into_iter().chain([("content-length", length)])))
    };
    let too_much: Vec<u8> = (0..64).flat_map(|_| frame(DATA, 0, 1, vec![b'x'; 16384])).collect();
    let trailers = |flags, fields: &[(&str, &str)]| frame(HEADERS, flags, 1, block(fields.iter().copied()));
    let over_the_top = 0x7fff_ffffu32.to_be_bytes();
    let cases = [
        ("DATA after the end", [done(), frame(DATA, 0, 1, "x")], Fate::Ended(PROTOCOL_ERROR)),
        ("HEADERS after the end", [done(), done()], Fate::Ended(PROTOCOL_ERROR)),
        ("HEADERS on a lower stream", [frame(HEADERS, WHOLE, 3, get()), done()], Fate::Ended(PROTOCOL_ERROR)),
        ("trailers that are not the end", [open(), trailers(END_HEADERS, &[("a", "b")])], Fate::Reset(PROTOCOL_ERROR)),
        (
            "a field of the hop in trailers",
            [open(), trailers(WHOLE, &[("connection", "a")])],
            Fate::Reset(PROTOCOL_ERROR),
        ),
        ("more than content-length", [with_length("1"), frame(DATA, 0, 1, "xx")], Fate::Reset(PROTOCOL_ERROR)),
        ("less than content-length", [with_length("3"), frame(DATA, END_STREAM, 1, "xx")], Fate::Reset(PROTOCOL_ERROR)),
        ("less, and trailers", [with_length("3"), trailers(WHOLE, &[("a", "b")])], Fate::Reset(PROTOCOL_ERROR)),
        ("a window over the top", [open(), frame(WINDOW_UPDATE, 0, 1, over_the_top)], Fate::Reset(FLOW_CONTROL_ERROR)),
        (
            "a stream that depends on itself",
            [open(), frame(PRIORITY, 0, 1, [0, 0, 0, 1, 0])],
            Fate::Reset(PROTOCOL_ERROR),
        ),
    ];
    let wrong = cases.iter().filter_map(|(case, frames, expected)| {
        let mut caller = H2::connect(gate.place("crm"));
        caller.send(frames.concat());
        let fate = caller.fate(1);
        (fate != *expected).then(|| format!("{case}: {fate:?} instead of {expected:?}"))
    });
    let wrong: Vec<_> = wrong.collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // Over the window of the stream or over that of the connection, whichever is seen first.
    let mut caller = H2::connect(gate.place("crm"));
    caller.send([open(), too_much].concat());
    let fate = caller.fate(1);
    assert!([Fate::Reset(FLOW_CONTROL_ERROR), Fate::Ended(FLOW_CONTROL_ERROR)].contains(&fate), "{fate:?}");
    gate.until_metric(&["in_flight_requests"], 0.0);
}

/// RFC 9113, sections 4.1, 5.5 and 6.5.2: unknown and obsolete frames and settings are ignored.
#[test]
fn unknown_frames_flags_and_settings_are_ignored() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TWO_CALLERS_HTTP2);
    let mut padded = vec![4];
    padded.extend(get());
    padded.extend([0; 4]);
    let prioritised = [&[0, 0, 0, 0, 16][..], &get()].concat();
    let plain = || frame(HEADERS, WHOLE, 1, get());
    for (case, bytes) in [
        ("an unknown frame", [frame(0xee, 0xff, 0, "what?"), plain()].concat()),
        ("an unknown setting", [frame(SETTINGS, 0, 0, settings(&[(0xeeee, 1)])), plain()].concat()),
        ("unknown flags", frame(HEADERS, WHOLE | 0xd0, 1, get())),
        ("PRIORITY", [frame(PRIORITY, 0, 1, [0, 0, 0, 0, 16]), plain()].concat()),
        ("an answer to no PING", [frame(PING, ACK, 0, [1; 8]), plain()].concat()),
        ("the reserved bit", frame(HEADERS, WHOLE, 0x8000_0001, get())),
        ("padding", frame(HEADERS, WHOLE | PADDED, 1, padded)),
        ("a priority", frame(HEADERS, WHOLE | 0x20, 1, prioritised)),
        ("te: trailers", whole(with(&[("te", "trailers")]))),
        ("the same host twice", whole(with(&[("host", "LOCALHOST")]))),
    ] {
        let mut caller = H2::connect(gate.place("app"));
        caller.send(bytes);
        assert_eq!(caller.fate(1), Fate::Answered(200), "{case}");
        assert!(caller.is_alive(), "{case}");
    }
    // A header block in pieces of a byte each would be a flood; in a few it is not.
    let mut caller = H2::connect(gate.place("app"));
    let block = get();
    let (first, rest) = block.split_at(10);
    caller.frame(HEADERS, END_STREAM, 1, first);
    caller.frame(CONTINUATION, 0, 1, &rest[..10]);
    caller.frame(CONTINUATION, END_HEADERS, 1, &rest[10..]);
    assert_eq!(caller.fate(1), Fate::Answered(200));
    // The parser of hyper cuts the fragment before policy, logs and Metrica see the target.
    caller.frame(HEADERS, WHOLE, 3, self::block(request("GET", "/management/v1/counters#x")));
    assert_eq!(caller.fate(3), Fate::Answered(200));
    assert!(upstream.requests().iter().all(|head| head.starts_with("GET /management/v1/counters HTTP/1.1\r\n")));
}

/// RFC 9113, section 3.4: the preface decides, where it may; SETTINGS come first.
#[test]
fn the_preface_decides() {
    let upstream = Upstream::plain();
    let config = format!("{TWO_CALLERS_HTTP2}\nlimits: {{connections: 100}}\n")
        .replace(
            "{name: crm, address: '127.0.0.1:0', http2: true}",
            "{name: crm, unix: {path: '{folder}/crm.sock'}, http2: true}",
        )
        .replace("callers:", "  - {name: old, address: '127.0.0.1:0'}\ncallers:");
    let gate = Gate::start(&upstream, &config);
    for listener in ["app", "crm"] {
        // In any pieces.
        let mut caller = H2::silent(gate.place(listener));
        for byte in [PREFACE, &frame(SETTINGS, 0, 0, []), &frame(HEADERS, WHOLE, 1, get())].concat() {
            caller.send([byte]);
        }
        assert_eq!(caller.fate(1), Fate::Answered(200), "{listener}");
        // Methods that begin as the preface does are HTTP/1.1, as is everything else.
        for (method, status) in [("GET", 200), ("PUT", 403), ("PATCH", 403), ("PRI", 405), ("PRIX", 405)] {
            let length = "Content-Length: 0";
            let request = format!("{method} /management/v1/counters HTTP/1.1\r\nHost: localhost\r\n{length}\r\n\r\n");
            assert_eq!(gate.send(listener, request).status, status, "{listener} {method}");
        }
        // Something else than SETTINGS first.
        for first in [frame(PING, 0, 0, [0; 8]), frame(SETTINGS, ACK, 0, []), frame(HEADERS, WHOLE, 1, get())] {
            let mut caller = H2::silent(gate.place(listener));
            // And much more, which does not cost the caller the GOAWAY.
            let more = frame(DATA, 0, 1, vec![b'x'; 16_000]).repeat(10);
            caller.send([PREFACE, &first, &more].concat());
            assert_eq!(caller.ends(), Some(PROTOCOL_ERROR), "{listener}");
        }
    }
    let before = upstream.requests().len();
    let mut refused = gate.connect("old");
    refused.try_send([PREFACE, &frame(SETTINGS, 0, 0, []), &frame(HEADERS, WHOLE, 1, get())].concat());
    let answer = refused.try_answer(false).map(|answer| answer.status);
    assert!(matches!(answer, Ok(400) | Err(_)), "without HTTP/2, the preface is no request: {answer:?}");
    assert!(refused.is_closed());
    assert_eq!(upstream.requests().len(), before);
}
