//! The forms of a target that the gate takes for one, written apart from it (docs/decisions/0023).

/// The path of a target, and the pairs of its query that are no credential, in one form.
pub fn asked_for(target: &str) -> (String, String) {
    let origin_form = match target.split_once("://") {
        Some((scheme, behind)) if !scheme.contains('/') => behind.find(['/', '?']).map_or("/", |at| &behind[at..]),
        Some(_) | None => target,
    };
    let (path, query) = origin_form.split_once('?').unwrap_or((origin_form, ""));
    let path = if path.starts_with("//") { &path[1..] } else { path };
    let path = path.strip_suffix('/').filter(|path| !path.is_empty()).unwrap_or(path);
    (path.to_owned(), pairs(&encoded(query)))
}

fn encoded(query: &str) -> String {
    let one = |byte: u8| match byte {
        b'<' | b'>' | b'"' | 0x80.. => format!("%{byte:02X}"),
        plain => char::from(plain).to_string(),
    };
    query.bytes().map(one).collect()
}

fn pairs(query: &str) -> String {
    let mut kept: Vec<(&str, String)> = Vec::new();
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let is_credential = matches!(name, "oauth_token" | "access_token");
        if is_credential || (name == "callback" && value.is_empty()) {
            continue;
        }
        let is_joined = matches!(name, "ids" | "metrics" | "dimensions" | "fields");
        let mended = Some(ids(value)).filter(|mended| name == "ids" && mended != value);
        let pair = mended.map_or_else(|| pair.to_owned(), |mended| format!("ids={mended}"));
        match kept.iter_mut().find(|(known, _)| is_joined && *known == name) {
            Some((_, joined)) => {
                let value = pair.split_once('=').map_or("", |(_, value)| value);
                let is_empty = joined.split_once('=').is_none_or(|(_, value)| value.is_empty());
                if is_empty {
                    *joined = pair;
                } else if !value.is_empty() {
                    joined.push(',');
                    joined.push_str(value);
                }
            }
            None => kept.push((name, pair)),
        }
    }
    kept.into_iter().map(|(_, pair)| pair).collect::<Vec<_>>().join("&")
}

/// Without spaces beside numbers, where there is nothing but numbers and commas.
fn ids(value: &str) -> String {
    let plain = value.replace("%20", "+").replace("%2C", ",").replace("%2c", ",");
    let numbers: Vec<_> = plain.split(',').map(|number| number.trim_matches('+')).collect();
    let are_numbers =
        numbers.iter().all(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()));
    if plain.contains('+') && are_numbers { numbers.join(",") } else { value.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_is_the_canonical_one() {
        for (target, path, query) in [
            ("//a/b/?callback=&ids=1&c=<>&ids=+2", "/a/b", "ids=1,2&c=%3C%3E"),
            ("http://host//a/?oauth_token=x&callback", "/a", ""),
            ("/a/b?ids=1%2C2&id=1&id=2&callback=x", "/a/b", "ids=1%2C2&id=1&id=2&callback=x"),
            ("/a?ids&b", "/a", "ids&b"),
            ("/a?ids&ids=1", "/a", "ids=1"),
            ("/", "/", ""),
            ("*", "*", ""),
        ] {
            assert_eq!(asked_for(target), (path.to_owned(), query.to_owned()), "{target}");
        }
    }
}
