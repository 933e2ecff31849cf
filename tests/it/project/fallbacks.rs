//! No silent fallbacks: an absent value is not replaced, a result not dropped and a wait not begun without a reason below.
//!
//! A broken invariant that becomes an empty value is a wrong answer that nobody sees. The remedies, in this order: a form in
//! which the case does not exist (`strict_http::cut`, `strict_http::number`, `split_first`, `strip_prefix`, patterns of
//! slices, `let else`), a typed error, and `Reason::Internal` with a `debug_assert!` for a request. A value that is honestly
//! absent is handled with `map_or`, `is_some_and` or a match, or is listed in [`ALLOWED`].

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

/// A form that can hide a broken invariant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Form {
    /// `unwrap_or_default()`, or `unwrap_or_else` with a constructor.
    Default,
    /// `unwrap_or(..)` with a literal, an empty value or a bound.
    Literal,
    /// A result that is dropped: `let _ =`, `_ =`, `.ok();`, or `drop(..)` around a send, a write or a removal.
    Dropped,
    /// `pending()`: a wait that nothing ends.
    Pending,
    /// `Poll::Pending` without a waker in the lines before it.
    NoWaker,
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Default => {
                "an absent value becomes an empty one: use a form without this case, `map_or`, or an error"
            }
            Self::Literal => {
                "an absent value becomes a literal: use `strict_http::number` or `cut`, `map_or`, or an error"
            }
            Self::Dropped => "a result is dropped: handle it, return it, or log it",
            Self::Pending => "a wait that nothing ends: use the condition of a branch of `select!`",
            Self::NoWaker => {
                "`Poll::Pending` without `context.waker()` in the eight lines before it: who wakes the task?"
            }
        })
    }
}

/// Files, and the number of uses of a form in each.
type Places = &'static [(&'static str, usize)];

/// The fallbacks that are honest: the form, why it is, and how often it occurs in which files.
const ALLOWED: &[(Form, &str, Places)] = &[
    (
        Form::Default,
        "a request without a host is judged as one with an empty host (rule 2 of admission)",
        &[("src/policy/admission.rs", 2)],
    ),
    (
        Form::Default,
        "a wrong value is a mistake, which refuses the file; the other keys are read for their mistakes",
        &[("src/config.rs", 1)],
    ),
    (Form::Default, "a reason phrase is optional (RFC 9112, section 4)", &[("src/gateway/record.rs", 1)]),
    (
        Form::Default,
        "the set of all scopes covers every need; none is the narrowest answer",
        &[("src/cli/rights.rs", 1)],
    ),
    (Form::Default, "texts and a number can always be written as JSON", &[("crates/fake-metrica/src/refusal.rs", 1)]),
    (
        Form::Literal,
        "without its separator, the whole text is one part and the other is absent",
        &[
            ("crates/fake-metrica/src/access.rs", 1),
            ("crates/fake-metrica/src/control.rs", 1),
            ("crates/metrica/src/operation.rs", 1),
            ("crates/metrica/src/operation/marks.rs", 1),
            ("crates/strict-http/src/cut.rs", 1),
            ("crates/strict-http/src/target.rs", 1),
            ("src/config/document.rs", 2),
        ],
    ),
    (
        Form::Literal,
        "a text for a person where there is nothing to name",
        &[
            ("src/cli/url.rs", 1),
            ("src/doctor/finding.rs", 1),
            ("src/policy/rules.rs", 1),
            ("src/response/fields.rs", 1),
        ],
    ),
    (Form::Literal, "no limit is the largest one", &[("src/files/descriptors.rs", 1)]),
    (
        Form::Literal,
        "an id is visible ASCII, which is asserted; it decides nothing",
        &[("src/worker/request_id.rs", 1)],
    ),
    (
        Form::Dropped,
        "writing to memory cannot fail",
        &[
            ("crates/fake-metrica/src/reports.rs", 1),
            ("src/policy/rejection.rs", 1),
            ("src/process/readiness.rs", 1),
            ("src/telemetry/access.rs", 1),
            ("src/telemetry/written_time.rs", 1),
            ("src/upstream/request.rs", 1),
        ],
    ),
    (
        Form::Dropped,
        "the receiver is gone, and with it whoever wanted to know",
        &[
            ("crates/fake-metrica/src/lib.rs", 1),
            ("src/health.rs", 1),
            ("src/health/ask.rs", 1),
            ("src/health/published_keys.rs", 1),
            ("src/process/sockets.rs", 1),
            ("src/process/workers.rs", 7),
            ("src/reload/folders.rs", 1),
            ("src/upstream/lookup.rs", 1),
            ("src/worker/learning.rs", 1),
        ],
    ),
    (
        Form::Dropped,
        "stderr is closed, so nothing can be reported there",
        &[
            ("src/cli.rs", 1),
            ("src/cli/doctor.rs", 1),
            ("src/cli/oauth_server.rs", 1),
            ("src/cli/suggest.rs", 1),
            ("src/cli/terminal.rs", 2),
            ("src/cli/token_login.rs", 1),
        ],
    ),
    (
        Form::Dropped,
        "the gate also runs where the system lacks the feature or has a lower limit",
        &[("src/cli/harden.rs", 3), ("src/files/descriptors.rs", 1)],
    ),
    (
        Form::Dropped,
        "the broker's answer has no sequel here: the turn ends, or the names are those of the configuration",
        &[
            ("src/quota/bench.rs", 1),
            ("src/quota/broker.rs", 1),
            ("src/quota/configure.rs", 2),
            ("src/quota/fleet_counts.rs", 5),
            ("src/quota/fleet_losses.rs", 5),
            ("src/quota/fleet_midnight.rs", 1),
            ("src/quota/fleet_oracle.rs", 6),
            ("src/quota/fleet_tests.rs", 5),
            ("src/worker/turns.rs", 3),
        ],
    ),
    (Form::Dropped, "a server of a test may have ended by itself", &[("src/quota/servers.rs", 2)]),
    (Form::Dropped, "the knobs were turned before, at the start", &[("crates/fake-metrica/src/world.rs", 1)]),
    (
        Form::Dropped,
        "a thing that is to go is gone already",
        &[("src/cli/terminal.rs", 1), ("src/reload/folders.rs", 2), ("src/server/listen.rs", 2)],
    ),
    (
        Form::Dropped,
        "an option of a socket whose connection has ended",
        &[("src/server/socket.rs", 1), ("src/server/listen.rs", 1)],
    ),
    (
        Form::Dropped,
        "the connection ends whether this succeeds or not, or its next use meets the same error",
        &[
            ("crates/fake-metrica/src/exchange.rs", 1),
            ("src/process/admin.rs", 1),
            ("src/server/http1.rs", 1),
            ("src/server/socket.rs", 2),
            ("src/server/streams.rs", 1),
            ("src/upstream/http1.rs", 1),
        ],
    ),
    (
        Form::Dropped,
        "polled to register the waker; the flag decides",
        &[("src/server.rs", 1), ("src/server/http2.rs", 1)],
    ),
    (
        Form::Dropped,
        "the part before an error is what is read",
        &[("crates/metrica/src/error_type.rs", 1), ("src/response/error_body.rs", 1)],
    ),
    (Form::Dropped, "the panic of a thread has been reported", &[("crates/fake-metrica/src/lib.rs", 1)]),
    (
        Form::Dropped,
        "no result: what a call returns beside its effect, in an arm or a closure that returns nothing",
        &[
            ("crates/strict-http/src/target/canonical.rs", 1),
            ("src/config/document.rs", 1),
            ("src/health/owners.rs", 2),
        ],
    ),
    (
        Form::NoWaker,
        "the future that was polled just before has registered the waker",
        &[
            ("src/body.rs", 1),
            ("src/gateway/record.rs", 1),
            ("src/server/caller_io.rs", 1),
            ("src/upstream/upload.rs", 1),
            ("src/upstream/watchdog.rs", 1),
        ],
    ),
];

/// The number of lines before `Poll::Pending` in which a waker is registered, as a reader sees at a glance.
const NEAR: usize = 8;

/// The program in a file: without comments, and without the tests at its end. Lines stay where they are.
fn program(text: &str) -> String {
    let mut lines: Vec<&str> = Vec::new();
    let mut all = text.lines().peekable();
    while let Some(line) = all.next() {
        let next = all.peek().map_or("", |next| next.trim_start_matches("pub ").trim_start_matches("pub(super) "));
        if line == "#[cfg(test)]" && next.starts_with("mod tests") {
            break;
        }
        lines.push(if line.trim_start().starts_with("//") { "" } else { line });
    }
    lines.join("\n")
}

/// The text up to the parenthesis that closes it.
fn argument(rest: &str) -> &str {
    let mut depth = 1;
    for (at, letter) in rest.char_indices() {
        match letter {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return &rest[..at];
        }
    }
    rest
}

/// Whether an argument is a placeholder: a literal, an empty value, or the bound of a type.
fn is_literal(argument: &str) -> bool {
    let argument = argument.trim().trim_start_matches(['&', '-', '(']);
    let is_value = |text: &str| {
        let text = text.trim().trim_start_matches(['&', '-']);
        let begins = ["\"", "'", "b\"", "b'", "[", "true", "false"].iter().any(|begin| text.starts_with(begin));
        let bounds = ["::MAX", "::MIN", "::ZERO", "::EMPTY", "::new()", "::default()"];
        begins || text.starts_with(|first: char| first.is_ascii_digit()) || bounds.iter().any(|end| text.ends_with(end))
    };
    argument.trim_end_matches(')').split(',').any(is_value) || is_value(argument)
}

/// The statement that ends before `at`.
fn statement(code: &str, at: usize) -> &str {
    let begin = code[..at].rfind([';', '{', '}']).map_or(0, |begin| begin + 1);
    &code[begin..at]
}

/// Every place of a form in a program, as positions.
fn places(code: &str, form: Form) -> Vec<usize> {
    let found = |word: &str| code.match_indices(word).map(|(at, word)| (at, at + word.len())).collect::<Vec<_>>();
    let starts = |places: Vec<(usize, usize)>| places.into_iter().map(|(at, _)| at).collect::<Vec<_>>();
    match form {
        Form::Default => {
            let constructs = |(_, end): &(usize, usize)| {
                ["String::new", "Vec::new", "Default::default"].contains(&argument(&code[*end..]).trim())
            };
            let mut all = found(".unwrap_or_default(");
            all.extend(found(".unwrap_or_else(").into_iter().filter(constructs));
            starts(all)
        }
        Form::Literal => {
            starts(found(".unwrap_or(").into_iter().filter(|(_, end)| is_literal(argument(&code[*end..]))).collect())
        }
        Form::Dropped => {
            // A branch of `select!` is no statement, and `drop(value)` ends a borrow.
            let is_branch =
                |(_, end): &(usize, usize)| code[*end..].lines().next().is_some_and(|line| line.contains("=>"));
            let is_fallible = |(_, end): &(usize, usize)| {
                let dropped = argument(&code[*end..]);
                [".send(", "remove_file(", ".write", ".flush(", ".shutdown("].iter().any(|call| dropped.contains(call))
            };
            let is_alone = |(at, _): &(usize, usize)| {
                !["let ", "=", "return"].iter().any(|word| statement(code, *at).contains(word))
            };
            let mut all = found(" _ = ").into_iter().filter(|place| !is_branch(place)).collect::<Vec<_>>();
            all.extend(found("drop(").into_iter().filter(is_fallible));
            all.extend(found(".ok();").into_iter().filter(is_alone));
            starts(all)
        }
        Form::Pending => {
            let is_std = |(at, _): &(usize, usize)| {
                !code[..*at].ends_with(|before: char| before.is_alphanumeric() || before == '_')
            };
            let mut all = found("pending()");
            all.extend(found("pending::<"));
            starts(all.into_iter().filter(is_std).collect())
        }
        Form::NoWaker => {
            let is_value = |(at, end): &(usize, usize)| {
                let before = code[..*at].trim_end_matches(' ');
                let behind = code[*end..].trim_start_matches(' ');
                let is_pattern = behind.starts_with("=>") || behind.starts_with('|') || behind.starts_with("if ");
                let begins = before.ends_with('\n')
                    || ["return", "break", "=>", "else {"].iter().any(|word| before.ends_with(word));
                begins && !is_pattern
            };
            let is_asleep = |(at, _): &(usize, usize)| {
                let lines: Vec<&str> = code[..*at].lines().rev().take(NEAR + 1).collect();
                !lines.iter().any(|line| line.contains(".waker()"))
            };
            starts(found("Poll::Pending").into_iter().filter(is_value).filter(is_asleep).collect())
        }
    }
}

/// Every form in every file of the product, with its lines.
fn found() -> BTreeMap<(Form, String), Vec<usize>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![root.join("src")];
    folders.extend(std::fs::read_dir(root.join("crates")).unwrap().map(|entry| entry.unwrap().path().join("src")));
    let mut found = BTreeMap::new();
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("tests.rs") {
                let code = program(&std::fs::read_to_string(&path).unwrap());
                let file = path.strip_prefix(root).unwrap().display().to_string();
                files += 1;
                for form in [Form::Default, Form::Literal, Form::Dropped, Form::Pending, Form::NoWaker] {
                    let line = |at: usize| code[..at].matches('\n').count() + 1;
                    let lines: Vec<usize> = places(&code, form).into_iter().map(line).collect();
                    if !lines.is_empty() {
                        found.insert((form, file.clone()), lines);
                    }
                }
            }
        }
    }
    assert!(files > 200, "the sources were found");
    found
}

#[test]
fn no_fallback_is_silent() {
    let mut allowed: BTreeMap<(Form, String), usize> = BTreeMap::new();
    for (form, why, places) in ALLOWED {
        assert!(!why.is_empty() && !places.is_empty(), "a row has a reason and places");
        for (file, count) in *places {
            *allowed.entry((*form, (*file).to_owned())).or_default() += count;
        }
    }
    let found = found();
    let mut wrong = Vec::new();
    for (place, lines) in &found {
        let (form, file) = place;
        let most = allowed.get(place).copied().unwrap_or(0);
        if lines.len() > most {
            let lines: Vec<_> = lines.iter().map(|line| format!("{file}:{line}")).collect();
            wrong.push(format!("{}: {form} ({form:?}; the list allows {most} here)", lines.join(", ")));
        }
    }
    for (place, most) in &allowed {
        let (form, file) = place;
        let there = found.get(place).map_or(0, Vec::len);
        if there < *most {
            wrong.push(format!("{file}: ALLOWED has {most} of {form:?}, and there are {there}; correct the row"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn each_form_is_recognised() {
    let count = |code: &str, form| places(&program(code), form).len();
    for (form, hidden, honest) in [
        (Form::Default, "bytes.get(a..b).unwrap_or_default()", "bytes.get(a..b).map_or(0, <[u8]>::len)"),
        (Form::Default, "text.unwrap_or_else(String::new)", "text.unwrap_or_else(|| name.to_owned())"),
        (Form::Literal, "u64::try_from(length).unwrap_or(0)", "port.unwrap_or(HTTPS)"),
        (Form::Literal, "u64::try_from(length).unwrap_or(u64::MAX)", "rest.strip_suffix(b\"\\r\").unwrap_or(rest)"),
        (Form::Literal, "pair.split_once('=').unwrap_or((pair, \"\"))", "found.unwrap_or((byte, after))"),
        (Form::Literal, "rest.get(1..).unwrap_or(\n    &[],\n)", "// rest.get(1..).unwrap_or(&[])"),
        (Form::Dropped, "let _ = sender.send(report);", "sender.send(report)?;"),
        (Form::Dropped, "sender.send(report).ok();", "let sent = sender.send(report).ok();"),
        (Form::Dropped, "drop(std::fs::remove_file(path));", "drop(guard);"),
        (Form::Dropped, "each(|(name, value)| _ = map.append(name, value))", "    _ = interrupt.recv() => {}"),
        (Form::Pending, "std::future::pending::<()>().await", "if polled.is_pending() {}"),
        (Form::NoWaker, "match said {\n    None => Poll::Pending,\n}", "match said {\n    Poll::Pending => break,\n}"),
        (Form::NoWaker, "{\n    Poll::Pending\n", "{\n    context.waker().wake_by_ref();\n    Poll::Pending\n"),
    ] {
        assert_eq!((count(hidden, form), count(honest, form)), (1, 0), "{form:?}: {hidden} and {honest}");
    }
    let tests = "fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() { let _ = c(); }\n}\n";
    assert_eq!(count(tests, Form::Dropped), 0);
}
