//! Tests of the numbered rules of the module.

use super::*;

const LIMIT: usize = 48 * 1024;

/// The rule that a rejected target breaks; it must have a name.
#[track_caller]
fn refused(path: &str, query: Option<&str>) -> Broken {
    match check(path, query, LIMIT) {
        Err(BadTarget::Ambiguous(broken)) if broken.rule != Rule::Other => broken,
        other => panic!("{path:?} {query:?}: {other:?}"),
    }
}

#[test]
fn targets_that_the_api_uses_pass() {
    let filter = "%D0%9C".repeat(5_000);
    let long = format!("ids=1&filters=ym:s:regionCity=='{filter}'");
    for (path, query) in [
        ("/", None),
        ("/management/v1/counters", None),
        ("/stat/v1/data.csv", Some("ids=44147844&metrics=ym:s:visits,ym:s:users&dimensions=ym%3As%3Adate")),
        ("/stat/v1/data", Some("filters=ym:s:a=='b+c%20d'&sort=-ym:s:visits")),
        ("/management/v1/counter/1%2C2/goals", None),
        ("/stat/v1/data", Some(long.as_str())),
        ("/stat/v1/data", Some("")),
    ] {
        assert!(check(path, query, LIMIT).is_ok(), "{path}");
    }
}

#[test]
fn rule_1_only_path_characters() {
    for path in ["", "management", "*", "/a;b", "/a\\b", "/a b", "/\u{430}", "/a\"b", "/a<b>", "/a|b", "/a^b", "/{a}"] {
        refused(path, None);
    }
}

#[test]
fn rule_2_percent_signs() {
    for path in [
        "/a%",
        "/a%2",
        "/a%zz",
        "/a%2fb",
        "/a%2Fb",
        "/a%5cb",
        "/%2e%2e/b",
        "/a%252e",
        "/a%3bb",
        "/a%00b",
        "/a%0ab",
        "/%61",
        "/a%7Eb",
        "/a%23b",
        "/a%3Fb",
        "/a%C0%AFb",
        "/a%C0%AE%C0%AE",
        "/a%E0%80%AF",
        "/a%FF",
        "/a%D0",
        "/a%C2%80b",
    ] {
        refused(path, None);
    }
}

#[test]
fn rule_3_no_empty_or_dot_segments() {
    for path in ["//", "//a", "/a//b", "/a/", "/.", "/..", "/a/./b", "/a/../b", "/a/.."] {
        refused(path, None);
    }
}

#[test]
fn rule_4_the_query() {
    for query in ["a=%", "a=%4", "a=%zz", "a b", "a=\u{430}", "a#b", "a=\u{7f}", "a=\n"] {
        refused("/a", Some(query));
    }
}

#[test]
fn rule_5_names_have_one_spelling() {
    for query in [
        "%69ds=1",
        "i%64s=1",
        "ids%00=1",
        "OAuth_Token=x",
        "oauth%5ftoken=x",
        "%6fauth_token",
        "oauth-token=x",
        "oauth.token=x",
        "oauth+token=x",
        "+oauth_token=x",
        "%20oauth_token=x",
        "oauth_token%20=x",
        "oauth_token[]=x",
        "oauth_token%5B%5D=x",
        "oauth%255ftoken=x",
        "a=1&access%5Ftoken=x",
        "ACCESS_TOKEN",
        "accessToken=x",
        "%EF%BD%8Fauth_token=x",
        "oauth_to%E2%84%AAen=x",
        "acce%C5%BF%C5%BF_token=x",
        "a;%EF%BD%81ccess_token=x",
        "oauth_%EF%BD%94oken[]=x",
        "%EF%BC%BFmethod=x",
        "_%EF%BD%8Dethod=x",
        "a=1;oauth_token=x",
        "a=1;b=2;ACCESS_TOKEN=x",
        ";oauth_token=x",
        "oauth_token;a=1&oauthtoken=x",
        "_method=DELETE",
        "a=1&_Method=put",
        "%5fmethod=x",
        "_me%74hod",
        "a;_method=x",
        "ulogin=a&ulogin=b",
        "id=1&ids=2&id=3",
        "a=1;ids=2",
        "a=1;ids",
        "ids=1&metrics=a;b;ids",
        "callback=;callback",
        "a;%69d",
        "ulogin;a=b&ulogin=me",
        "ids;a",
    ] {
        refused("/a", Some(query));
    }
    for query in [
        "oauth_token=x",
        "access_token",
        "a[]=1",
        "a%5B%5D=1",
        "%D1%84=1",
        "filters=ga:a==1;ga:b==2",
        "a=oauth%5ftoken",
        "my_access_token=x",
        "%D0%BEauth_token=x",
        "oauth_tokens=x",
        "direct_client_logins=a,b",
        "a=1;b=2",
        "a=%252e",
        "method=x",
        "a=_method",
        "_methods=1",
        "ids=1,2&id=3&ulogin=a&direct_client_logins=b",
        "a=ids;b",
        "filters=ga:a==1;b;idea",
    ] {
        assert!(check("/a", Some(query), LIMIT).is_ok(), "{query:?}");
    }
}

#[test]
fn rule_6_the_length() {
    let query = "q".repeat(97);
    assert!(check("/a", Some(&query), 100).is_ok());
    assert_eq!(check("/ab", Some(&query), 100), Err(BadTarget::TooLong));
}

#[test]
fn credential_pairs_go_and_nothing_else_changes() {
    let cases = [
        ("ids=1&oauth_token=x&metrics=a,b", Some("/p?ids=1&metrics=a,b")),
        ("oauth_token=x", Some("/p")),
        ("oauth_token=x&&a=%2c", Some("/p?&a=%2c")),
        ("access_token", Some("/p")),
        ("oauth_token=x&a=1&oauth_token=y", Some("/p?a=1")),
        ("oauth_tokens=x&my_access_token=y&q=oauth_token", None),
    ];
    for (query, expected) in cases {
        assert_eq!(without_credentials("/p", query).as_deref(), expected.map(str::as_bytes), "{query}");
    }
}

#[test]
fn an_error_has_the_rule_and_its_position() {
    for (target, rule, at) in [
        ("a", Rule::Beginning, 0),
        ("/a/b;c", Rule::PathCharacter, 4),
        ("/a/%20%4", Rule::Percent, 6),
        ("/a/%20%2fb", Rule::Encoded, 6),
        ("/a/b%FF", Rule::NotText, 3),
        ("/a//b", Rule::EmptySegment, 3),
        ("/a/b/", Rule::TrailingSlash, 4),
        ("/a/../b", Rule::DotSegment, 3),
        ("/a?b=%20 c", Rule::QueryCharacter, 8),
        ("/a?b=%zz", Rule::Percent, 5),
        ("/a?b=1&%69ds=1", Rule::NameEncoded, 7),
        ("/a?b=1&OAuth_Token=1", Rule::CredentialLike, 7),
        ("/a?b=1&_method=PUT", Rule::Method, 7),
        ("/a?id=1&b=2&id=3", Rule::Twice, 12),
        ("/a?b=1;ids=2", Rule::Semicolon, 3),
    ] {
        let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        assert_eq!(refused(path, query), rule.at(at), "{target}");
    }
    for (target, expected) in [
        ("/a?b=\"c\"<\u{434}>", None),
        ("/a\"b?c", Some(Rule::PathCharacter.at(2))),
        ("/a`b?c", Some(Rule::PathCharacter.at(2))),
        ("/a?b=`", None),
        ("/a#b", Some(Rule::PathCharacter.at(2))),
    ] {
        assert_eq!(unfit(target.as_bytes()), expected, "{target}");
    }
    assert_eq!(Rule::TrailingSlash.at(4).to_string(), "the path ends with a slash, at byte 5");
}
