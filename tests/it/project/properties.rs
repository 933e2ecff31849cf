//! Properties: what holds for every input, tried on many.

use std::sync::LazyLock;

use ipnet::{IpNet, Ipv4Net};
use metrica::operation::{Catalogue, Lookup, Verb};
use metrica::scope::ScopeSet;
use metrika_gate::policy::caller::{
    Caller, CallerId, Callers, Condition, Conditions, Evidence, ListenerName, Peer, Proofs,
};
use metrika_gate::token::Token;
use proptest::prelude::*;
use strict_http::target;

const LIMIT: usize = 48 * 1024;

fn decoded(path: &str) -> String {
    let bytes = path.as_bytes();
    let mut out = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let digits = path.get(at + 1..at + 3).and_then(|two| u8::from_str_radix(two, 16).ok());
        match (bytes[at], digits) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 3;
            }
            (byte, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    for segment in path.split('/').skip(1) {
        match segment {
            "." => {}
            ".." => drop(kept.pop()),
            _ => kept.push(segment),
        }
    }
    format!("/{}", kept.join("/"))
}

fn merged_slashes(path: &str) -> String {
    let mut merged = path.to_owned();
    while merged.contains("//") {
        merged = merged.replace("//", "/");
    }
    merged
}

static CATALOGUE: LazyLock<Catalogue> = LazyLock::new(Catalogue::built_in);

fn meaning(path: &str) -> String {
    match CATALOGUE.find(Verb::Get, path) {
        Lookup::Known(operation) => operation.id.to_string(),
        Lookup::OtherMethod => "other method".to_owned(),
        Lookup::Unknown => "unknown".to_owned(),
    }
}

/// Paths near the API's, with everything that readers of paths disagree about.
fn paths() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => prop::sample::select(vec![
            "management", "v1", "counters", "counter", "1", "goals", "stat", "data", "logrequest", "clean", "delete",
        ]).prop_map(str::to_owned),
        2 => prop::sample::select(vec![
            "", ".", "..", "%2e", "%2E%2e", "%252e", "..;", ";a=b", "%2f", "%5c", "\\", "a%2Cb", "a%3Ab", "data.csv",
            "%61", "%", "%zz", "\u{440}", "%D1%80", "~", "a b", "%00", "#", "?",
        ]).prop_map(str::to_owned),
        1 => "[!-~]{0,6}",
    ];
    prop::collection::vec(piece, 0..7).prop_map(|pieces| format!("/{}", pieces.join("/")))
}

/// Pairs whose names are near credentials and ids, in the spellings that readers undo.
fn pairs() -> impl Strategy<Value = String> {
    let letter = |letter: char| {
        prop_oneof![
            8 => Just(letter.to_string()),
            1 => Just(letter.to_ascii_uppercase().to_string()),
            1 => Just(format!("%{:02x}", u32::from(letter))),
            1 => Just(format!("%25{:02X}", u32::from(letter))),
        ]
    };
    let name = prop::sample::select(vec!["oauth_token", "access_token", "ids", "id", "ulogin", "metrics"]);
    let spelled =
        name.prop_flat_map(move |name| name.chars().map(letter).collect::<Vec<_>>()).prop_map(|name| name.concat());
    let mark = prop::sample::select(vec!["", "", "", "", "+", "%20", "[]", "%5b0%5D", "%00", ".", "_"]);
    (mark.clone(), spelled, mark, "(=[a-z0-9;]{0,4})?")
        .prop_map(|(before, name, after, value)| format!("{before}{name}{after}{value}"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    /// no accepted path means something else to a reader that decodes, merges or removes.
    #[test]
    fn an_accepted_path_has_one_meaning(path in paths()) {
        if target::check(&path, None, LIMIT).is_ok() {
            let expected = meaning(&path);
            let once = decoded(&path);
            for other in [once.clone(), decoded(&once), merged_slashes(&path), without_dots(&path), without_dots(&decoded(&once))] {
                prop_assert_eq!(meaning(&other), expected.clone(), "{} as {}", &path, &other);
            }
        }
    }

    /// of an accepted query, no reader finds a credential but in the pairs that are taken away; nor an id in a
    /// name that is not written as one.
    #[test]
    fn an_accepted_query_hides_no_name(pairs in prop::collection::vec(pairs(), 0..4), separator in "[&;]") {
        let query = pairs.join(&separator);
        if target::check("/p", Some(&query), LIMIT).is_ok() {
            let target = target::without_credentials("/p", &query).map(|target| String::from_utf8(target.to_vec()).unwrap());
            let left = target.unwrap_or_else(|| format!("/p?{query}"));
            let left = left.split_once('?').map_or("", |(_, query)| query);
            for pair in left.split(['&', ';']) {
                let name = pair.split('=').next().unwrap_or_default();
                let twice = decoded(&decoded(name)).to_ascii_lowercase().replace(['.', '+', ' ', '-'], "_");
                let read = twice.trim_matches('_').split('[').next().unwrap_or_default().to_owned();
                prop_assert!(read != "oauth_token" && read != "access_token", "{} in {}", &name, &query);
                prop_assert!(!["ids", "id", "ulogin"].contains(&decoded(name).as_str()) || !name.contains('%') || !pair.contains('='), "{}", name);
            }
        }
    }

    /// Only whole credential pairs are removed from a query; the rest is in its order and unchanged.
    #[test]
    fn only_credential_pairs_leave_a_query(
        pairs in prop::collection::vec(
            prop_oneof!["[a-z_]{0,12}=[a-zA-Z0-9%,:]{0,6}", "(oauth|access)_token=[a-z]{0,4}", "OAuth_Token"],
            0..6,
        )
    ) {
        let query = pairs.join("&");
        let is_credential = |pair: &&String| {
            ["oauth_token", "access_token"].contains(&pair.split('=').next().unwrap_or_default())
        };
        let kept: Vec<&str> = pairs.iter().filter(|pair| !is_credential(pair)).map(String::as_str).collect();
        match target::without_credentials("/p", &query) {
            None => prop_assert_eq!(kept.len(), pairs.len()),
            Some(target) => {
                let expected = if kept.is_empty() { "/p".to_owned() } else { format!("/p?{}", kept.join("&")) };
                prop_assert_eq!(target, expected.as_bytes());
            }
        }
    }

    /// any content of a token file results in one field value that nothing can be added to.
    #[test]
    fn a_token_is_one_field_value(content in prop::collection::vec(any::<u8>(), 0..80)) {
        if let Ok(token) = Token::parse(&content) {
            let value = token.authorization();
            prop_assert!(value.as_bytes().starts_with(b"OAuth "));
            prop_assert!(value.as_bytes()[6..].iter().all(|byte| byte.is_ascii_graphic()));
            prop_assert!(value.is_sensitive());
        }
    }

    /// The tables find the caller that trying one after the other finds.
    #[test]
    fn the_caller_is_the_first_that_matches(
        rules in prop::collection::vec(
            (prop::option::of(0..2_usize), prop::collection::vec((0..4_u8, 0..4_u8, 0..=32_u8), 0..3), prop::collection::vec(0..3_u32, 0..2), prop::collection::vec(0..3_u32, 0..2)),
            0..8,
        ),
        (listener, peer) in (0..2_usize, prop_oneof![
            (0..4_u8, 0..4_u8).prop_map(|(a, b)| Peer::Address([10, 0, a, b].into())),
            (0..3_u32, 0..3_u32).prop_map(|(uid, gid)| Peer::Process { uid, gid }),
        ]),
    ) {
        let names = ["one", "two"].map(ListenerName::new);
        let rules: Vec<_> = rules.into_iter().map(|(listener, sources, uids, gids)| {
            let network = |(a, b, length)| IpNet::from(Ipv4Net::new([10, 0, a, b].into(), length).unwrap());
            (listener, sources.into_iter().map(network).collect::<Vec<_>>(), uids, gids)
        }).collect();
        let callers: Vec<_> = rules.iter().enumerate().map(|(position, (listener, sources, uids, gids))| {
            let stated = [
                listener.map(|index| Condition::Listener(names[index])),
                (!sources.is_empty()).then(|| Condition::Source(sources.as_slice().into())),
                (!uids.is_empty()).then(|| Condition::Uid(uids.as_slice().into())),
                (!gids.is_empty()).then(|| Condition::Gid(gids.as_slice().into())),
            ];
            Caller {
                rules: metrika_gate::policy::rules::Rules::default(),
                id: CallerId::new(&format!("p{position}")),
                conditions: Conditions::new(stated.into_iter().flatten()).unwrap(),
                scopes: ScopeSet::EMPTY,
                tokens: Vec::new(),
                strict: false,
            }
        }).collect();
        let matches = |(stated, sources, uids, gids): &(Option<usize>, Vec<IpNet>, Vec<u32>, Vec<u32>)| {
            let peer_matches = match peer {
                Peer::Address(address) => {
                    uids.is_empty() && gids.is_empty()
                        && (sources.is_empty() || sources.iter().any(|network| network.contains(&address)))
                }
                Peer::Process { uid, gid } => {
                    sources.is_empty() && (uids.is_empty() || uids.contains(&uid)) && (gids.is_empty() || gids.contains(&gid))
                }
            };
            stated.is_none_or(|stated| stated == listener) && peer_matches
        };
        let expected = rules.iter().position(matches);
        let evidence = Evidence::new(names[listener], peer);
        prop_assert_eq!(Callers::new(callers, &names).identify(&evidence, &Proofs::NONE).ok(), expected);
    }
}
