//! The log level, as in the key `log.level` and the flag `--log-level`.
//!
//! A single word is a level; `module=level` sets the level of one module. `tracing`'s own parser would read any
//! unknown word as the name of a module, and log nothing else.

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Reads levels and directives, separated by commas.
///
/// # Errors
/// The expected value.
pub fn level(text: &str) -> Result<String, String> {
    match text.split(',').find(|directive| !is_directive(directive)) {
        None => Ok(text.to_owned()),
        Some(wrong) => Err(format!(
            "a level (off, error, warn, info, debug or trace), or directives as in info,metrika_gate=debug{}",
            near(wrong)
        )),
    }
}

fn is_directive(text: &str) -> bool {
    match text.split_once('=') {
        Some((module, level)) => is_module(module) && is_level(level),
        None => is_level(text),
    }
}

fn is_level(text: &str) -> bool {
    LEVELS.iter().any(|level| level.eq_ignore_ascii_case(text))
}

fn is_module(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_:-.".contains(&byte))
}

/// Names of levels in other programs.
const OTHERS: [(&str, &str); 5] =
    [("warning", "warn"), ("verbose", "debug"), ("none", "off"), ("critical", "error"), ("fatal", "error")];

fn near(directive: &str) -> String {
    let (module, word) = match directive.split_once('=') {
        Some((module, word)) if is_module(module) => (Some(module), word.to_ascii_lowercase()),
        Some(_) => return String::new(),
        None => (None, directive.to_ascii_lowercase()),
    };
    let known = OTHERS.iter().find(|(other, _)| *other == word).map(|(_, level)| *level);
    let alike = || LEVELS.iter().map(|level| (strsim::damerau_levenshtein(&word, level), *level)).min();
    let level = known.or_else(|| alike().filter(|(distance, _)| *distance <= 2).map(|(_, level)| level));
    match (level, module) {
        _ if word.len() < 3 => String::new(),
        (Some(level), Some(module)) => format!("; did you mean '{module}={level}'?"),
        (Some(level), None) => format!("; did you mean '{level}'?"),
        (None, _) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_directives_are_accepted_and_the_log_accepts_them_too() {
        for text in
            ["off", "error", "warn", "info", "debug", "trace", "INFO", "info,metrika_gate::server=debug", "h2=off"]
        {
            assert_eq!(level(text).as_deref(), Ok(text));
            assert!(tracing_subscriber::EnvFilter::try_new(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn words_that_are_no_level_are_refused() {
        for (text, meant) in [
            ("warning", "warn"),
            ("Warning", "warn"),
            ("verbose", "debug"),
            ("inof", "info"),
            ("info,metrika_gate=debg", "metrika_gate=debug"),
        ] {
            let said = level(text).unwrap_err();
            assert!(said.ends_with(&format!("; did you mean '{meant}'?")), "{text}: {said}");
        }
        for text in ["", "metrika_gate", "x=y=z", "=debug", "info,", "3", "a b=info", "[span]=info", "info,x", "x="] {
            let said = level(text).unwrap_err();
            assert!(said.ends_with("info,metrika_gate=debug"), "{text}: {said}");
        }
    }
}
