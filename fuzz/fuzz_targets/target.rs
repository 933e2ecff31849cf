//! No accepted target means something else to a reader that decodes, merges or removes, nor hides a credential.
#![no_main]

use std::sync::LazyLock;

use http::Uri;
use libfuzzer_sys::fuzz_target;
use metrica::operation::{Catalogue, Lookup, Verb};
use strict_http::target::{self, Target};
use metrika_gate_fuzz::readings;

static CATALOGUE: LazyLock<Catalogue> = LazyLock::new(Catalogue::built_in);

fn meaning(path: &[u8]) -> String {
    match CATALOGUE.find(Verb::Get, &String::from_utf8_lossy(path)) {
        Lookup::Known(operation) => operation.id.to_string(),
        Lookup::OtherMethod => "other method".to_owned(),
        Lookup::Unknown => "unknown".to_owned(),
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (path, query) = text.split_once('?').map_or((text, None), |(path, query)| (path, Some(query)));
    if let Ok(uri) = text.parse::<Uri>()
        && let Ok(target) = Target::canonical(&uri, 48 * 1024, |path| CATALOGUE.knows(path))
    {
        let sent = target.origin_form();
        let again = Target::canonical(&sent.parse().expect("a target"), 48 * 1024, |path| CATALOGUE.knows(path));
        assert_eq!(again.expect("it is right").was_changed(), None, "{text} as {sent}");
    }
    if target::check(path, query, 48 * 1024).is_err() {
        return;
    }
    assert!(text.is_ascii() && !text.contains('#'));
    let expected = meaning(path.as_bytes());
    for other in readings::of_path(path.as_bytes()) {
        assert_eq!(meaning(&other), expected, "{path} as {}", String::from_utf8_lossy(&other));
    }
    let left = query.and_then(|query| target::without_credentials(path, query));
    let left = left.as_deref().unwrap_or(text.as_bytes());
    for name in readings::names(left) {
        assert!(name != "oauth_token" && name != "access_token", "{name} in {}", String::from_utf8_lossy(left));
    }
});
