//! How readers who are not strict understand a target.

/// Percent-encoding taken off, once; what is not one stays.
pub fn decoded(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        let digits = text.get(at + 1..at + 3).and_then(|two| std::str::from_utf8(two).ok());
        let said = digits.filter(|two| !two.starts_with('+')).and_then(|two| u8::from_str_radix(two, 16).ok());
        match (text[at], said) {
            (b'%', Some(said)) => {
                out.push(said);
                at += 3;
            }
            (other, _) => {
                out.push(other);
                at += 1;
            }
        }
    }
    out
}

fn without_dots(path: &[u8]) -> Vec<u8> {
    let mut kept: Vec<&[u8]> = Vec::new();
    for segment in path.split(|byte| *byte == b'/').skip(1) {
        match segment {
            b"." => {}
            b".." => drop(kept.pop()),
            _ => kept.push(segment),
        }
    }
    [b"/", kept.join(&b'/').as_slice()].concat()
}

fn merged(path: &[u8]) -> Vec<u8> {
    let mut out: Vec<u8> = Vec::with_capacity(path.len());
    for byte in path {
        if *byte != b'/' || out.last() != Some(&b'/') {
            out.push(*byte);
        }
    }
    out
}

fn backslashes(path: &[u8]) -> Vec<u8> {
    path.iter().map(|byte| if *byte == b'\\' { b'/' } else { *byte }).collect()
}

fn cut(path: &[u8]) -> Vec<u8> {
    let ends = |byte: &u8| matches!(byte, b';' | b'#' | b'?' | 0);
    path.iter().take_while(|byte| !ends(byte)).copied().collect()
}

/// All the ways in which a path is understood somewhere.
pub fn of_path(path: &[u8]) -> Vec<Vec<u8>> {
    let once = decoded(path);
    let twice = decoded(&once);
    let mut readings = Vec::new();
    for text in [path.to_vec(), once, twice] {
        readings.extend([merged(&text), without_dots(&text), backslashes(&text), cut(&text)]);
        readings.push(without_dots(&merged(&backslashes(&cut(&text)))));
        readings.push(text);
    }
    readings
}

/// The names of a query's parameters, as the most lenient reader has them.
pub fn names(target: &[u8]) -> Vec<String> {
    let query = target.iter().position(|byte| *byte == b'?').map_or(&b""[..], |at| &target[at + 1..]);
    let pairs = query.split(|byte| matches!(byte, b'&' | b';'));
    let name = |pair: &[u8]| {
        let name = pair.split(|byte| *byte == b'=').next().unwrap_or_default();
        let name = String::from_utf8_lossy(&decoded(&decoded(name))).to_ascii_lowercase();
        let name = name.split(['[', '\0']).next().unwrap_or_default().replace(['.', '+', ' ', '-'], "_");
        name.trim_matches('_').to_owned()
    };
    pairs.map(name).collect()
}
