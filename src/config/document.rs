//! A YAML document as a tree, and the position of each value in the file. No other module uses `serde_yaml`.
//!
//! The tree keeps what typed deserialization would drop or fail at: repeated keys, unknown keys and values of the
//! wrong kind. A reader can therefore report every mistake at once.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, EnumAccess, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// The maximum size of a configuration in bytes; one with 100,000 callers has about 15 MB.
pub const MAXIMUM_BYTES: usize = 64 * 1024 * 1024;

/// The maximum number of open brackets. The parser rejects more than 128 levels only after it has read the whole
/// text, in time quadratic in the number of open brackets.
const MAXIMUM_OPEN: usize = 512;

/// A value of the document.
#[derive(Debug, Clone, PartialEq)]
pub enum Node {
    /// `null`, `~` or nothing.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// Any other plain or quoted scalar.
    Text(String),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping, in the order of the file, repeated keys and all.
    Table(Vec<(String, Node)>),
    /// A fraction, a number out of range, or a tagged value; the configuration uses none of these.
    Other,
}

impl Node {
    /// Returns the kind of value, for messages.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "true or false",
            Self::Integer(_) => "a number",
            Self::Text(_) => "a string",
            Self::List(_) => "a list",
            Self::Table(_) => "a mapping",
            Self::Other => "a value of another kind",
        }
    }
}

/// A step from a value to a value inside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The value of the n-th occurrence of a key, counted from 0.
    Key(String, usize),
    /// The key itself, likewise; always the last step.
    Name(String, usize),
    /// An element of a list, counted from 0.
    Index(usize),
}

/// A line and a column, both counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

/// Removes a byte order mark, which editors on Windows write and the parser would read as a document.
#[must_use]
pub fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// Parses `text` as one document.
///
/// # Errors
/// The problem with the YAML itself, and its position where the parser reports one.
pub fn parse(text: &str) -> Result<Node, (Option<Position>, String)> {
    if text.len() > MAXIMUM_BYTES {
        return Err((None, format!("is larger than {MAXIMUM_BYTES} bytes")));
    }
    if let Some(line) = too_deep(text) {
        let message = format!("has more than {MAXIMUM_OPEN} nested brackets");
        return Err((Some(Position { line, column: 1 }), message));
    }
    serde_yaml::from_str(text).map_err(|error| {
        let position = position_of(&error);
        let message = error.to_string();
        // The position is removed here, because the message begins with it.
        let (problem, context) = message.split_once(" at line ").unwrap_or((&message, ""));
        let opened = position.and_then(|position| opened(text, position, context));
        let still_open = opened.map_or_else(String::new, |(at, what)| {
            format!("; {what} at line {}, column {} is not closed", at.line, at.column)
        });
        let lines = [position, opened.map(|(at, _)| at)].map(|at| at.and_then(|at| text.lines().nth(at.line - 1)));
        let unreplaced = lines.into_iter().flatten().find_map(unreplaced);
        let unreplaced = unreplaced.map_or_else(String::new, |said| format!("; {said}"));
        (position, format!("is not valid YAML: {problem}{still_open}{unreplaced}"))
    })
}

/// Returns a hint if `text` contains a placeholder that this program does not expand.
#[must_use]
pub fn unreplaced(text: &str) -> Option<&'static str> {
    if text.contains("${") || text.contains("$(") || text.starts_with('$') {
        Some("the gate does not expand variables")
    } else if text.contains("{{") {
        Some("the gate does not expand templates")
    } else if text.starts_with("~/") {
        Some("the gate does not expand '~'")
    } else {
        None
    }
}

/// Returns the bracket or quote that is open where the parser stopped. Most messages of the parser name it in
/// `context`, the part after the position of the problem.
fn opened(text: &str, problem: Position, context: &str) -> Option<(Position, &'static str)> {
    let number = |text: &str| text.split(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok();
    let (what, place) = context.split_once(" at line ").unwrap_or((context, ""));
    let what = match what {
        _ if what.ends_with("a flow sequence") => "the '['",
        _ if what.ends_with("a flow mapping") => "the '{'",
        _ if what.ends_with("a quoted scalar") => "the quote",
        _ => return open_bracket(text, problem),
    };
    let (line, column) = place.split_once(" column ")?;
    Some((Position { line: number(line)?, column: number(column)? }, what))
}

/// Returns the innermost bracket that is open before `end`. In a plain scalar, a bracket counts only at the beginning
/// or inside other brackets.
fn open_bracket(text: &str, end: Position) -> Option<(Position, &'static str)> {
    let (mut open, mut quote, mut before) = (Vec::new(), None, '\n');
    'lines: for (line, content) in (1..=end.line).zip(text.lines()) {
        let (mut last, mut begins) = (' ', true);
        for (column, letter) in (1..).zip(content.chars()) {
            if line == end.line && column >= end.column {
                break 'lines;
            }
            let starts = begins || "[{,:-?".contains(before);
            match (quote, letter) {
                (Some(mark), _) => quote = quote.filter(|_| letter != mark || (mark == '"' && last == '\\')),
                (None, '#') if last == ' ' => break,
                (None, '"' | '\'') if starts => quote = Some(letter),
                (None, '[' | '{') if starts || !open.is_empty() => {
                    open.push((Position { line, column }, if letter == '[' { "the '['" } else { "the '{'" }));
                }
                (None, ']' | '}') => _ = open.pop(),
                (None, _) => {}
            }
            last = letter;
            if letter != ' ' {
                (before, begins) = (letter, false);
            }
        }
    }
    open.pop()
}

/// Returns the line on which [`MAXIMUM_OPEN`] is exceeded. Brackets inside strings count as well, because no
/// configuration needs hundreds of unclosed ones.
fn too_deep(text: &str) -> Option<usize> {
    let mut open = 0_usize;
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with('#')) {
        for byte in line.bytes() {
            match byte {
                b'[' | b'{' => open += 1,
                b']' | b'}' => open = open.saturating_sub(1),
                _ => {}
            }
            if open > MAXIMUM_OPEN {
                return Some(index + 1);
            }
        }
    }
    None
}

/// Returns the beginning of the value or key at `steps`, or of the nearest enclosing value that exists.
#[must_use]
pub fn locate(text: &str, steps: &[Step]) -> Option<Position> {
    (0..=steps.len()).rev().find_map(|length| {
        let found = Find(steps.get(..length)?).deserialize(serde_yaml::Deserializer::from_str(text));
        found.err().filter(|error| error.to_string().contains(HERE)).as_ref().and_then(position_of)
    })
}

fn position_of(error: &serde_yaml::Error) -> Option<Position> {
    error.location().map(|location| Position { line: location.line(), column: location.column() })
}

/// The error that ends a search at its goal; the parser adds the position to it.
const HERE: &str = "what was looked for is here";

struct Find<'a>(&'a [Step]);

impl<'de> DeserializeSeed<'de> for Find<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Find<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HERE)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let (wanted, occurrence, rest) = match self.0 {
            [Step::Key(wanted, occurrence), rest @ ..] => (wanted, *occurrence, Some(rest)),
            [Step::Name(wanted, occurrence), ..] => (wanted, *occurrence, None),
            [Step::Index(_), ..] | [] => return Err(A::Error::custom(HERE)),
        };
        let mut seen = 0;
        // The parser adds the position of a key only to errors raised while the key is read.
        while let Some(is_wanted) =
            map.next_key_seed(Key { wanted, is_sought: rest.is_none() && seen == occurrence })?
        {
            if is_wanted {
                if let Some(rest) = rest.filter(|_| seen == occurrence) {
                    return map.next_value_seed(Find(rest));
                }
                seen += 1;
            }
            map.next_value::<IgnoredAny>()?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Some((Step::Index(wanted), rest)) = self.0.split_first() else { return Err(A::Error::custom(HERE)) };
        for _ in 0..*wanted {
            if list.next_element::<IgnoredAny>()?.is_none() {
                return Ok(());
            }
        }
        list.next_element_seed(Find(rest)).map(|_| ())
    }

    fn visit_enum<A: EnumAccess<'de>>(self, _: A) -> Result<(), A::Error> {
        Err(A::Error::custom(HERE))
    }
}

/// Reads a key and tells whether it is the wanted one; ends the search if the key itself is sought.
struct Key<'a> {
    wanted: &'a str,
    is_sought: bool,
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<bool, E> {
        match key == self.wanted {
            true if self.is_sought => Err(E::custom(HERE)),
            is_wanted => Ok(is_wanted),
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Build)
    }
}

struct Build;

impl<'de> Visitor<'de> for Build {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Integer(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(i64::try_from(value).map_or(Node::Other, Node::Integer))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Node, E> {
        Ok(Node::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element()? {
            values.push(value);
        }
        Ok(Node::List(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Node::Table(entries))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, tagged: A) -> Result<Node, A::Error> {
        let (_, value) = tagged.variant::<String>()?;
        serde::de::VariantAccess::newtype_variant::<IgnoredAny>(value)?;
        Ok(Node::Other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Step {
        Step::Key(name.to_owned(), 0)
    }

    #[test]
    fn values_are_found_in_block_and_flow_style() {
        let text = "a:\n  b: 1\nlist:\n  - {x: 1, y: [2,\n      three]}\n  - x: 'q'\nb: 2\nb: 3\n";
        for (steps, line, column) in [
            (vec![key("a"), key("b")], 2, 6),
            (vec![key("list"), Step::Index(0), key("y"), Step::Index(1)], 5, 7),
            (vec![key("list"), Step::Index(1), key("x")], 6, 8),
            (vec![Step::Key("b".into(), 1)], 8, 4),
            (vec![key("a"), key("absent")], 2, 3),
            (vec![Step::Name("b".into(), 0)], 7, 1),
            (vec![Step::Name("b".into(), 1)], 8, 1),
            (vec![Step::Name("list".into(), 0)], 3, 1),
            (vec![key("a"), Step::Name("b".into(), 0)], 2, 3),
            (vec![key("list"), Step::Index(0), Step::Name("y".into(), 0)], 4, 12),
        ] {
            assert_eq!(locate(text, &steps), Some(Position { line, column }), "{steps:?}");
        }
    }

    #[test]
    fn syntax_mistakes_have_a_position() {
        let (position, message) = parse("a: [1,\nb: 2").unwrap_err();
        assert!(position.is_some(), "{message}");
    }

    #[test]
    fn an_unclosed_bracket_or_quote_is_reported_with_its_position() {
        let said = |text: &str| {
            let (position, message) = parse(text).unwrap_err();
            let Position { line, column } = position.unwrap();
            format!("{line}:{column} {message}")
        };
        for (text, expected) in [
            ("a: [1,\nb: 2", "the '[' at line 1, column 4 is not closed"),
            ("a: 1\nb:\n  - {c: [1, 2}\n", "the '[' at line 3, column 9 is not closed"),
            ("a:\n  - {b: 1\nc: 2\nd: 3\n", "the '{' at line 2, column 5 is not closed"),
            ("a: 1\nlist: [\n  - {b: 1}\n", "the '[' at line 2, column 7 is not closed"),
            ("a: [ # ]\n", "the '[' at line 1, column 4 is not closed"),
            ("a: x[y\nb: [\"]\",", "the '[' at line 2, column 4 is not closed"),
            ("a: 1\nb: 'x\nc: 1\n", "the quote at line 2, column 4 is not closed"),
        ] {
            assert!(said(text).contains(expected), "{text:?}: {}", said(text));
        }
        for text in ["a: b: c", "\t", "a: x[y\n  b: 1\n c"] {
            assert!(!said(text).contains("closed"), "{text:?}: {}", said(text));
        }
        for (text, expected) in [
            ("t: {file: ${TOKEN}, scopes: []}", "; the gate does not expand variables"),
            ("t: {file: {{ file }}, scopes: []}", "; the gate does not expand templates"),
        ] {
            assert!(said(text).ends_with(expected), "{text:?}: {}", said(text));
        }
    }

    #[test]
    fn odd_documents_are_survived() {
        for text in ["", "~", "!tag a", "a: !x {b: 1}", "- 1.5", "? [a]\n: b", "a: &x [1]\nb: *x", "\u{1}"] {
            let _ = parse(text);
        }
    }

    #[test]
    fn alias_bombs_and_deep_nesting_end() {
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
        for n in 1..12 {
            let below = format!("*a{}", n - 1);
            bomb += &format!("a{n}: &a{n} [{}]\n", vec![below; 9].join(", "));
        }
        assert!(parse(&bomb).is_err());
        for open in ["[", "{a: ", "- [", "\n["] {
            assert!(parse(&open.repeat(1_000_000)).is_err(), "{open}");
        }
        assert!(parse(&format!("a: {}{}", "[".repeat(100), "]".repeat(100))).is_ok());
        assert!(parse(&("# [\n".repeat(1000) + "a: 1")).is_ok(), "remarks are not counted");
    }
}
