//! Reads values from a document and collects the mistakes.

use super::document::{Node, Step, unreplaced};
use super::error::shown_key;

/// Mistakes, by position.
#[derive(Debug, Default)]
pub struct Findings {
    found: Vec<(Vec<Step>, String)>,
}

impl Findings {
    /// Records that the value at `steps` is wrong.
    pub fn add(&mut self, steps: &[Step], message: impl Into<String>) {
        self.found.push((steps.to_vec(), message.into()));
    }

    /// Returns all mistakes.
    #[must_use]
    pub fn into_vec(self) -> Vec<(Vec<Step>, String)> {
        self.found
    }
}

/// A value and the path to it.
#[derive(Debug, Clone)]
pub struct At<'a> {
    node: &'a Node,
    steps: Vec<Step>,
}

/// A mapping whose keys were checked.
#[derive(Debug)]
pub struct Table<'a> {
    entries: &'a [(String, Node)],
    steps: Vec<Step>,
}

/// Values with longer words are not repeated in messages: they could be misplaced tokens, which are single words of
/// at least twice this length.
const LONGEST_SHOWN: usize = 15;

/// The maximum length of a value that is repeated in a message.
const LONGEST: usize = 100;

fn can_be_shown(text: &str) -> bool {
    let words = text.split(|letter: char| !(letter.is_alphanumeric() || matches!(letter, '_' | '-' | '.')));
    // A URL with a password, which may be short.
    let has_password = text.rsplit_once('@').is_some_and(|(before, _)| before.splitn(3, ':').count() > 2);
    !has_password
        && text.len() <= LONGEST
        && words.map(|word| word.chars().count()).all(|length| length <= LONGEST_SHOWN)
}

impl<'a> At<'a> {
    /// Returns the root of the document.
    #[must_use]
    pub const fn root(node: &'a Node) -> Self {
        Self { node, steps: Vec::new() }
    }

    /// Records that this value is wrong.
    pub fn wrong(&self, findings: &mut Findings, message: impl Into<String>) {
        findings.add(&self.steps, message);
    }

    /// Records that the key of this value is wrong, whatever the value is.
    fn wrong_key(&self, findings: &mut Findings, message: impl Into<String>) {
        let mut steps = self.steps.clone();
        if let Some(Step::Key(name, occurrence)) = steps.pop() {
            steps.push(Step::Name(name, occurrence));
        }
        findings.add(&steps, message);
    }

    fn wrong_kind(&self, findings: &mut Findings, expected: &str) {
        let shown = match self.node {
            Node::Text(text) if can_be_shown(text) => format!("'{}'", text.escape_debug()),
            Node::Integer(value) => value.to_string(),
            Node::Text(_) | Node::Null | Node::Bool(_) | Node::List(_) | Node::Table(_) | Node::Other => {
                self.node.kind().to_owned()
            }
        };
        self.wrong(findings, format!("is {shown}; expected {expected}{}", self.unreplaced()));
    }

    fn unreplaced(&self) -> String {
        let Node::Text(text) = self.node else { return String::new() };
        unreplaced(text).map_or_else(String::new, |said| format!("; {said}"))
    }

    /// Returns the value as a mapping; a key that is not in `known` or is repeated is a mistake.
    pub fn table(&self, findings: &mut Findings, known: &[&str]) -> Option<Table<'a>> {
        let table = self.any_table(findings)?;
        for (key, at) in table.entries_at() {
            if !known.contains(&key) {
                at.wrong_key(findings, unknown_key(key, known));
            }
        }
        Some(table)
    }

    /// Returns the value as a mapping with arbitrary keys; a repeated key is a mistake.
    pub fn any_table(&self, findings: &mut Findings) -> Option<Table<'a>> {
        let Node::Table(entries) = self.node else {
            self.wrong_kind(findings, "a mapping");
            return None;
        };
        let table = Table { entries, steps: self.steps.clone() };
        for (key, at) in table.entries_at() {
            if matches!(at.steps.last(), Some(Step::Key(_, occurrence)) if *occurrence > 0) {
                at.wrong_key(findings, format!("duplicate key '{}'", shown_key(key)));
            }
        }
        Some(table)
    }

    /// Returns the elements of the value as a list.
    pub fn list(&self, findings: &mut Findings) -> Option<Vec<At<'a>>> {
        let Node::List(values) = self.node else {
            self.wrong_kind(findings, "a list");
            return None;
        };
        let element = |(index, node)| At { node, steps: [self.steps.as_slice(), &[Step::Index(index)]].concat() };
        Some(values.iter().enumerate().map(element).collect())
    }

    /// Returns the elements of the value as a list, which must not be empty.
    pub fn filled_list(&self, findings: &mut Findings) -> Option<Vec<At<'a>>> {
        let list = self.list(findings)?;
        if list.is_empty() {
            self.wrong(findings, "is empty; expected at least one element");
        }
        Some(list)
    }

    /// Whether the value is a whole number.
    pub const fn is_integer(&self) -> bool {
        matches!(self.node, Node::Integer(_))
    }

    /// Whether the value is a mapping.
    pub const fn is_table(&self) -> bool {
        matches!(self.node, Node::Table(_))
    }

    /// Whether the value is a text that `is_such`.
    pub fn has_text(&self, is_such: impl FnOnce(&str) -> bool) -> bool {
        matches!(self.node, Node::Text(text) if is_such(text))
    }

    /// Whether the value is this text.
    pub fn is_word(&self, word: &str) -> bool {
        self.has_text(|text| text == word)
    }

    /// Returns the value as `true` or `false`.
    pub fn bool(&self, findings: &mut Findings) -> Option<bool> {
        let Node::Bool(value) = self.node else {
            self.wrong_kind(findings, "true or false");
            return None;
        };
        Some(*value)
    }

    /// Returns the value as a whole number in `range`.
    pub fn integer(&self, findings: &mut Findings, range: std::ops::RangeInclusive<i64>) -> Option<i64> {
        match self.node {
            Node::Integer(value) if range.contains(value) => Some(*value),
            Node::Integer(_)
            | Node::Null
            | Node::Bool(_)
            | Node::Text(_)
            | Node::List(_)
            | Node::Table(_)
            | Node::Other => {
                self.wrong_kind(findings, &format!("a number from {} to {}", range.start(), range.end()));
                None
            }
        }
    }

    /// Returns the value as text that `read` accepts; the error of `read` is the expected value.
    pub fn text<T>(&self, findings: &mut Findings, read: impl FnOnce(&'a str) -> Result<T, String>) -> Option<T> {
        let Node::Text(text) = self.node else {
            // The expected value is the error that `read` returns for an empty text.
            let expected = read("").err().unwrap_or_else(|| "a string".to_owned());
            self.wrong_kind(findings, &expected);
            return None;
        };
        let wrong = |expected: String| {
            if can_be_shown(text) {
                self.wrong_kind(findings, &expected);
            } else {
                self.wrong(
                    findings,
                    format!(
                        "is invalid (not shown, because it could be a token); expected {expected}{}",
                        self.unreplaced()
                    ),
                );
            }
        };
        read(text).map_err(wrong).ok()
    }
}

impl<'a> Table<'a> {
    /// Returns the value of a key; a missing one is a mistake.
    pub fn required(&self, findings: &mut Findings, key: &str) -> Option<At<'a>> {
        let found = self.optional(key);
        if found.is_none() {
            match self.entries_at().find(|(name, _)| *name == key) {
                Some((_, at)) => at.wrong_key(findings, "has no value; check the indentation of the lines below it"),
                None => self.wrong(findings, format!("the key '{key}' is missing")),
            }
        }
        found
    }

    /// Returns the value of a key, if present. A key without a value counts as absent.
    #[must_use]
    pub fn optional(&self, key: &str) -> Option<At<'a>> {
        let (_, node) = self.entries.iter().find(|(name, _)| name == key)?;
        let steps = [self.steps.as_slice(), &[Step::Key(key.to_owned(), 0)]].concat();
        (*node != Node::Null).then_some(At { node, steps })
    }

    /// Whether a flag is set. An absent one is not; neither is a wrong one, which is a mistake that refuses the whole file.
    pub fn flag(&self, key: &str, findings: &mut Findings) -> bool {
        self.optional(key).and_then(|at| at.bool(findings)).is_some_and(|set| set)
    }

    /// Records that the mapping as a whole is wrong.
    pub fn wrong(&self, findings: &mut Findings, message: impl Into<String>) {
        findings.add(&self.steps, message);
    }

    /// Returns every key with its value, in the order of the file.
    pub fn entries_at(&self) -> impl Iterator<Item = (&'a str, At<'a>)> {
        self.entries.iter().enumerate().map(|(index, (key, node))| {
            let earlier = self.entries.iter().take(index).filter(|(other, _)| other == key).count();
            let step = Step::Key(key.clone(), earlier);
            (key.as_str(), At { node, steps: [self.steps.as_slice(), &[step]].concat() })
        })
    }
}

fn unknown_key(key: &str, known: &[&str]) -> String {
    let near = known.iter().map(|name| (strsim::damerau_levenshtein(key, name), *name)).min();
    match near {
        Some((distance, name)) if distance <= 2 => format!("unknown key; did you mean '{name}'?"),
        _ if known.contains(&"file") && ["token", "value", "secret"].contains(&key) => {
            "unknown key; set 'file' to the path of the token file".to_owned()
        }
        Some(_) | None => format!("unknown key; expected one of {}", known.join(", ")),
    }
}
