//! The canonical form of a target, for unambiguous forms that published clients write differently.
//!
//! 1. A slash at the end of a path is removed if the catalogue has the path without it; so is the second of two slashes at
//!    the beginning if the rest is a path of the catalogue.
//! 2. Raw `<`, `>`, `"` and raw UTF-8 in a query are percent-encoded.
//! 3. `callback` without a value is removed: it does not request a script.
//! 4. Values of `ids`, `metrics`, `dimensions` and `fields` that occur in several parameters are joined with commas, at the
//!    position of the first. Parameters without a value are removed.
//! 5. Spaces next to the numbers of `ids` are removed.
//!
//! Policy reads the canonical form, and the gate sends exactly that form upstream. The rule that the original target breaks
//! is recorded: with `strict: true`, the request is rejected for it.

use super::{Broken, Names, Rule, name_and_value, name_of, path_is_canonical};

/// A target in its canonical form, and the first rule that the original breaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// The canonical path and query.
    pub target: String,
    /// The first rule that the original target breaks.
    pub first: Broken,
}

/// Returns the canonical form, or `None` if the target already has it or has none; `is_path` looks up the catalogue.
#[cold]
pub fn changed(path: &str, query: Option<&str>, is_path: impl Fn(&str) -> bool) -> Option<Changed> {
    let (bare, mut first) = bare(path, is_path);
    let mut note = |rule: Rule, at: usize| _ = first.get_or_insert(rule.at(at));
    let mut target = bare.to_owned();
    if let Some(query) = query {
        let behind = path.len() + 1;
        let encoded = encoded(query);
        if let Some((_, at)) = &encoded {
            note(Rule::QueryCharacter, behind + at);
        }
        let query = encoded.as_ref().map_or(query, |(encoded, _)| encoded);
        let pairs = pairs(query, |rule, at| note(rule, behind + at));
        if !pairs.is_empty() || query.is_empty() {
            target.push('?');
            target.push_str(&pairs);
        }
    }
    first.map(|first| Changed { target, first })
}

/// Removes surplus slashes (rule 1).
fn bare(path: &str, is_path: impl Fn(&str) -> bool) -> (&str, Option<Broken>) {
    let begun = path.strip_prefix('/').filter(|rest| rest.starts_with('/')).unwrap_or(path);
    let bare = begun.strip_suffix('/').unwrap_or(begun);
    if bare.len() == path.len() || !path_is_canonical(bare.as_bytes()) || !is_path(bare) {
        return (path, None);
    }
    let first =
        if begun.len() < path.len() { Rule::EmptySegment.at(1) } else { Rule::TrailingSlash.at(path.len() - 1) };
    (bare, Some(first))
}

/// Whether a byte in a query is percent-encoded by rule 2.
#[must_use]
pub const fn is_raw(byte: u8) -> bool {
    matches!(byte, b'<' | b'>' | b'"') || !byte.is_ascii()
}

/// Percent-encodes the raw bytes of a query and returns the position of the first; `None` if there are none (rule 2).
fn encoded(query: &str) -> Option<(String, usize)> {
    let first = query.bytes().position(is_raw)?;
    let mut encoded = Vec::with_capacity(query.len() * 2);
    query.bytes().for_each(|byte| push_encoded(&mut encoded, byte));
    Some((String::from_utf8(encoded).ok()?, first))
}

/// Appends a byte, percent-encoded if it is raw.
pub fn push_encoded(encoded: &mut Vec<u8>, byte: u8) {
    let digit = |value: u8| if value < 10 { b'0' + value } else { b'A' - 10 + value };
    if is_raw(byte) {
        encoded.extend([b'%', digit(byte >> 4), digit(byte & 15)]);
    } else {
        encoded.push(byte);
    }
}

/// Applies rules 3 to 5 to a query without raw bytes.
fn pairs(query: &str, mut note: impl FnMut(Rule, usize)) -> String {
    let mut kept: Vec<String> = Vec::new();
    // The position of the first parameter of each joined name; there are four names.
    let mut joined: Vec<(Names, usize)> = Vec::new();
    let mut at = 0;
    for pair in query.split('&') {
        let begins = at;
        at += pair.len() + 1;
        let names = Names::of(name_of(pair.as_bytes()));
        if names == Names::CALLBACK && value_of(pair).is_empty() {
            note(Rule::EmptyCallback, begins);
            continue;
        }
        let pair = match names {
            Names::IDS => without_spaces(pair).inspect(|_| note(Rule::SpaceInIds, begins)),
            _ => None,
        }
        .unwrap_or_else(|| pair.to_owned());
        let place = joined.iter().find(|(known, _)| *known == names).map(|(_, place)| *place);
        match place.and_then(|place| kept.get_mut(place)) {
            Some(first) => {
                note(Rule::Twice, begins);
                join(first, &pair);
            }
            None => {
                if names.are_joined() {
                    joined.push((names, kept.len()));
                }
                kept.push(pair);
            }
        }
    }
    kept.join("&")
}

fn join(joined: &mut String, pair: &str) {
    let value = value_of(pair);
    if value_of(joined).is_empty() {
        pair.clone_into(joined);
    } else if !value.is_empty() {
        joined.push(',');
        joined.push_str(value);
    }
}

fn value_of(pair: &str) -> &str {
    name_and_value(pair).1
}

/// Whether a pair of `ids` or `callback` is subject to rule 3 or 5.
pub fn is_loose(pair: &[u8]) -> bool {
    match pair {
        b"callback" | b"callback=" => true,
        [b'i', b'd', b's', b'=', value @ ..] => value.contains(&b'+') || value.windows(3).any(|three| three == b"%20"),
        _ => false,
    }
}

/// Removes the spaces of rule 5; `None` if there are none, or if a value is not a number. A space between two digits is
/// left in place, because it could mean a comma or nothing.
fn without_spaces(pair: &str) -> Option<String> {
    let (name, value) = pair.split_once('=').filter(|_| is_loose(pair.as_bytes()))?;
    let plain = value.replace("%20", "+").replace("%2C", ",").replace("%2c", ",");
    let numbers: Vec<_> = plain.split(',').map(|number| number.trim_matches('+')).collect();
    let are_numbers = numbers.iter().all(|one| !one.is_empty() && one.bytes().all(|byte| byte.is_ascii_digit()));
    are_numbers.then(|| format!("{name}={}", numbers.join(",")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 2] = ["/a/b", "/"];

    /// Returns the canonical form and the first broken rule; `None` if the target has that form already, or has none.
    fn changed(target: &str) -> Option<(String, Rule, usize)> {
        let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        let changed = super::changed(path, query, |path| KNOWN.contains(&path))?;
        Some((changed.target, changed.first.rule, changed.first.at))
    }

    #[track_caller]
    fn holds(cases: &[(&str, &str, Rule, usize)]) {
        for (target, canonical, rule, at) in cases {
            assert_eq!(changed(target), Some(((*canonical).to_owned(), *rule, *at)), "{target}");
            assert_eq!(changed(canonical), None, "{canonical}");
        }
    }

    #[test]
    fn rule_1_one_superfluous_slash_is_removed() {
        holds(&[
            ("/a/b/", "/a/b", Rule::TrailingSlash, 4),
            ("//a/b", "/a/b", Rule::EmptySegment, 1),
            ("//a/b/?c=d", "/a/b?c=d", Rule::EmptySegment, 1),
        ]);
        for other in ["/a//b", "/a/b//", "///a/b", "/a/c/", "//a/c", "//localhost/a/b", "/a/b/.", "/", "//", "*"] {
            assert_eq!(changed(other), None, "{other}");
        }
    }

    #[test]
    fn rule_2_raw_characters_of_a_query_are_encoded() {
        holds(&[
            ("/a/b?c=<attribution>d", "/a/b?c=%3Cattribution%3Ed", Rule::QueryCharacter, 7),
            ("/a/b?c='\u{41c}'&\"", "/a/b?c='%D0%9C'&%22", Rule::QueryCharacter, 8),
        ]);
        assert_eq!(changed("/a/\u{41c}?c"), None);
    }

    #[test]
    fn rule_3_callback_without_a_value() {
        holds(&[
            ("/a/b?callback=", "/a/b", Rule::EmptyCallback, 5),
            ("/a/b?c=d&callback&e=", "/a/b?c=d&e=", Rule::EmptyCallback, 9),
        ]);
        for other in ["/a/b?callback=x", "/a/b?Callback=", "/a/b?callback==", "/a/b?callback[]="] {
            assert_eq!(changed(other), None, "{other}");
        }
    }

    #[test]
    fn rule_4_values_are_joined() {
        holds(&[
            ("/a/b?ids=1&c=d&ids=2", "/a/b?ids=1,2&c=d", Rule::Twice, 15),
            ("/a/b?metrics=x&metrics=y&dimensions=z&metrics=w", "/a/b?metrics=x,y,w&dimensions=z", Rule::Twice, 15),
            ("/a/b?fields&fields=x&fields=", "/a/b?fields=x", Rule::Twice, 12),
            ("/a/b?ids=1&ids=+2", "/a/b?ids=1,2", Rule::SpaceInIds, 11),
        ]);
        for other in ["/a/b?id=1&id=2", "/a/b?ids=1&Ids=2", "/a/b?ids[]=1&ids[]=2", "/a/b?field=a&field=b", "/a/b?c&c"]
        {
            assert_eq!(changed(other), None, "{other}");
        }
    }

    #[test]
    fn rule_5_spaces_beside_numbers() {
        holds(&[
            ("/a/b?ids=101,%20102", "/a/b?ids=101,102", Rule::SpaceInIds, 5),
            ("/a/b?ids=+101", "/a/b?ids=101", Rule::SpaceInIds, 5),
            ("/a/b?c&ids=1%2C+2%20", "/a/b?c&ids=1,2", Rule::SpaceInIds, 7),
        ]);
        for other in
            ["ids=1%202", "ids=1+2", "ids=1%2C2", "ids=+", "ids=1,+", "ids=+x", "ids=%2B1", "id=+1", "ids=%200x1"]
        {
            assert_eq!(changed(&format!("/a/b?{other}")), None, "{other}");
        }
    }
}
