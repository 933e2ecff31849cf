//! The decisions that every request meets, each by itself.

use std::hint::black_box;
use std::net::Ipv4Addr;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use ipnet::{IpNet, Ipv4Net};
use metrika_gate::policy::caller::{
    Caller, CallerId, Callers, Condition, Conditions, Evidence, KeyHash, ListenerName, Peer, Proofs, TokenAlias,
};
use metrika_gate::gateway::headers::clean_request;
use metrica::operation::{Catalogue, Verb};
use metrika_gate::policy::choice::NoAccounts;
use metrika_gate::policy::key::{RANDOM, of_random};
use metrika_gate::policy::offered::Offered;
use metrika_gate::policy::{Policy, TokenRights, Wish};
use metrika_gate::response::coding::Coding;
use metrika_gate::response::error_body::ErrorBody;
use metrika_gate::response::fields::clean_response;
use metrika_gate::policy::rules::{Call, Rules};
use metrica::scope::{Scope, ScopeSet};
use metrica::subject::Subject;
use strict_http::target::{self, Names};

use crate::Benchmark;

fn scopes(scopes: &[Scope]) -> ScopeSet {
    scopes.iter().copied().collect()
}

fn address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x0a00_0000 + number)
}

/// A caller for each number, known by its address; every tenth by its network.
fn callers(count: u32) -> Callers {
    let caller = |number: u32| {
        let bits = if number.is_multiple_of(10) { 28 } else { 32 };
        let network = Ipv4Net::new(address(number * 16), bits).expect("a prefix length");
        Caller {
            id: CallerId::new(&format!("caller-{number}")),
            conditions: Conditions::new([Condition::Source([IpNet::V4(network)].into())]).expect("one condition"),
            scopes: scopes(&[Scope::Read]),
            tokens: vec![TokenAlias::new("read")],
            rules: Rules::default(),
            strict: false,
        }
    };
    Callers::new((0..count).map(caller).collect::<Vec<_>>(), &[ListenerName::new("app")])
}

/// Who is calling, among so many.
pub fn identify(count: u32) -> Benchmark {
    let callers = callers(count);
    let listener = ListenerName::new("app");
    let mut turn = 0;
    Box::new(move |run| {
        turn = (turn + 7_919) % count;
        let evidence = Evidence::new(listener, Peer::Address(address(turn * 16).into()));
        let mut found = None;
        run(&mut || {
            let position = callers.identify(black_box(&evidence), &Proofs::NONE).ok();
            found = position.and_then(|position| callers.get(position));
        });
        assert_eq!(found.expect("a caller").id.as_str(), format!("caller-{turn}"));
    })
}

/// A key, which is read, hashed and found among so many: of one caller, or each of a caller of its own.
pub fn identify_by_key(count: u32, of_one: bool) -> Benchmark {
    let key = |number: u32| {
        // The digits of the number, over and over: every number has another key.
        let digits = [number % 62, number / 62 % 62, number / 3844 % 62];
        let bytes: Vec<u8> = digits.into_iter().cycle().filter_map(|digit| digit.try_into().ok()).take(RANDOM).collect();
        of_random(&bytes).expect("a key")
    };
    let listener = ListenerName::new("app");
    let caller = |number: u32, hashes: Vec<KeyHash>| {
        let conditions = [Condition::Listener(listener), Condition::Key(hashes.into())];
        Caller {
            id: CallerId::new(&format!("caller-{number}")),
            conditions: Conditions::new(conditions).expect("two conditions"),
            scopes: scopes(&[Scope::Read]),
            tokens: vec![TokenAlias::new("read")],
            rules: Rules::default(),
            strict: false,
        }
    };
    let hashes: Vec<_> = (0..count).map(|number| KeyHash::of(key(number).as_bytes())).collect();
    let callers: Vec<_> = if of_one {
        vec![caller(0, hashes)]
    } else {
        (0..).zip(hashes).map(|(number, hash)| caller(number, vec![hash])).collect()
    };
    let callers = Callers::new(callers, &[listener]);
    let evidence = Evidence::new(listener, Peer::Address(address(1).into()));
    let mut turn = 0;
    Box::new(move |run| {
        turn = (turn + 7_919) % count;
        let mut sent = HeaderMap::new();
        let value = format!("OAuth {}", key(turn).as_str());
        sent.insert(AUTHORIZATION, HeaderValue::from_str(&value).expect("a value"));
        let target = Uri::from_static("/");
        let mut found = None;
        run(&mut || {
            let key = Offered::default().by_request(black_box(&sent), black_box(&target)).expect("a key");
            let proofs = Proofs { key, ..Proofs::NONE };
            let position = callers.identify(black_box(&evidence), &proofs).ok();
            found = position.and_then(|position| callers.get(position));
        });
        let expected = if of_one { 0 } else { turn };
        assert_eq!(found.expect("a caller").id.as_str(), format!("caller-{expected}"));
    })
}

/// What is asked, and whether this caller may.
pub fn authorize() -> Benchmark {
    let rights =
        |alias, scope| TokenRights { alias: TokenAlias::new(alias), scopes: scopes(&[scope]), is_standby: false };
    let tokens = vec![rights("write", Scope::Write), rights("read", Scope::Read)];
    let policy = Policy::new(callers(100), Catalogue::built_in(), tokens);
    // On the heap, which aligns it: where a constant lies differs between builds, and what searches it begins by aligning.
    let path = "/management/v1/counter/44147844/goal/123456".to_owned();
    Box::new(move |run| {
        let mut granted = None;
        run(&mut || {
            let operation = policy.operation(Verb::Get, black_box(&path)).expect("an operation");
            let subject = Subject::of(operation, &path, None, Names::default());
            let call = Call { operation, path: &path, query: None, names: Names::default(), subject: &subject };
            granted = policy.permit(black_box(50), &call, &NoAccounts, Wish::default()).ok();
        });
        assert_eq!(granted.expect("a permission").grant.token().as_str(), "read");
    })
}

/// A query as reports have it.
pub const SHORT_QUERY: &str = "ids=44147844&metrics=ym:s:visits,ym:s:users&dimensions=ym%3As%3Adate&limit=100";

/// A query with a filter of 30 kB, in Cyrillic.
pub fn long_query() -> String {
    format!("ids=44147844&metrics=ym:s:visits&filters=ym:s:regionCity=='{}'", "%D0%9C".repeat(5_000))
}

/// Whether a target means one thing, and what of it stays here.
pub fn target(query: String) -> Benchmark {
    let path = "/stat/v1/data".to_owned();
    Box::new(move |run| {
        let mut cleaned = None;
        run(&mut || {
            target::check(black_box(&path), Some(black_box(&query)), 48 * 1024).expect("a plain target");
            cleaned = target::without_credentials(&path, &query);
        });
        assert_eq!(cleaned, None);
    })
}

fn fields(list: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut fields = HeaderMap::new();
    for (name, value) in list {
        fields.append(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    fields
}

/// The fields of a caller's request become those of ours.
pub fn fields_up() -> Benchmark {
    let sent = fields(&[
        ("host", "gate:8080"),
        ("user-agent", "python-requests/2.32.3"),
        ("accept", "*/*"),
        ("accept-encoding", "gzip, deflate, br"),
        ("connection", "keep-alive"),
        ("authorization", "OAuth of-the-caller"),
        ("cookie", "yandexuid=1; i=2"),
        ("x-forwarded-for", "10.1.2.3"),
        ("x-request-id", "0123456789abcdef0123456789abcdef"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ]);
    Box::new(move |run| {
        let mut fields = sent.clone();
        let mut dropped = 0;
        run(&mut || drop(black_box(clean_request(black_box(&mut fields), false, |_| dropped += 1))));
        assert_eq!((fields.len(), dropped), (4, 2));
    })
}

/// The fields of an answer become those that the caller gets.
pub fn fields_down() -> Benchmark {
    let received = fields(&[
        ("server", "nginx"),
        ("date", "Mon, 02 Nov 2026 10:00:00 GMT"),
        ("content-type", "application/json; charset=utf-8"),
        ("content-length", "2000"),
        ("connection", "keep-alive"),
        ("cache-control", "no-cache"),
        ("expires", "Thu, 01 Jan 1970 00:00:00 GMT"),
        ("vary", "accept-encoding"),
        ("set-cookie", "yandexuid=1; Path=/; Domain=.yandex.net"),
        ("set-cookie", "i=2; Path=/; Domain=.yandex.net"),
        ("strict-transport-security", "max-age=31536000"),
        ("x-content-type-options", "nosniff"),
        ("x-yandex-req-id", "1793613600000000-1234567890123456789"),
    ]);
    Box::new(move |run| {
        let mut fields = received.clone();
        run(&mut || clean_response(black_box(&mut fields)));
        assert_eq!(fields.len(), 7);
    })
}

const DENIAL: &[u8] = br#"{"errors":[{"error_type":"access_denied","message":"Access is denied for the counter 44147844"}],"code":403,"message":"Access is denied for the counter 44147844"}"#;

/// [`DENIAL`], packed with gzip.
const PACKED_DENIAL: &[u8] = include_bytes!("denial.json.gz");

/// What Metrica's refusal says, as it is or packed.
pub fn classify(packed: bool) -> Benchmark {
    let (coding, body) = if packed { (Coding::Gzip, PACKED_DENIAL) } else { (Coding::Plain, DENIAL) };
    Box::new(move |run| {
        let mut said = None;
        run(&mut || {
            let mut refusal = ErrorBody::new(coding);
            refusal.look_at(black_box(body));
            said = Some(refusal.error_type());
        });
        assert_eq!(said.expect("a type").as_str(), "access_denied");
    })
}
