//! Mistakes in a configuration: all of them at once, each with its place and what would be right.

use std::fmt;
use std::path::{Path, PathBuf};

use super::document::{Position, Step, locate, without_mark};

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The file.
    pub file: PathBuf,
    /// Where in it, when known.
    pub position: Option<Position>,
    /// The key, as `callers[1].match.uid`.
    pub key: String,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(Position { line, column }) = self.position {
            write!(f, ":{line}:{column}")?;
        }
        let separator = if self.key.is_empty() { "" } else { " " };
        write!(f, "{separator}{}: {}", self.key, self.message)
    }
}

/// A configuration that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// The file is missing or cannot be read.
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Why.
        message: String,
        /// What the system says, by its number (errno(3)).
        code: Option<i32>,
    },
    /// Others can change the file.
    Permissions {
        /// The file.
        file: PathBuf,
        /// Why, and what would be right.
        message: String,
    },
    /// Every mistake in it.
    Invalid(Vec<Mistake>),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { file, message, .. } | Self::Permissions { file, message } => {
                write!(f, "{}: {message}", crate::files::reading::shown(file))
            }
            Self::Invalid(mistakes) => {
                for mistake in mistakes {
                    writeln!(f, "{mistake}")?;
                }
                let plural = if mistakes.len() == 1 { "mistake" } else { "mistakes" };
                write!(f, "{} {plural} in the configuration", mistakes.len())
            }
        }
    }
}

impl std::error::Error for Error {}

/// More are counted, not shown, and not searched for in the file.
const MAXIMUM_SHOWN: usize = 100;

/// Finding a place reads the text again; in all, no more than so much is read for it. The key is said in any case.
const LOCATED_BYTES: usize = 16 * 1024 * 1024;

/// Gives every finding its place in `text`.
#[must_use]
pub fn mistakes(file: &Path, text: &str, findings: Vec<(Vec<Step>, String)>) -> Vec<Mistake> {
    let found = findings.len();
    let located = LOCATED_BYTES / text.len().max(1);
    let mut mistakes: Vec<Mistake> = (findings.into_iter().take(MAXIMUM_SHOWN).enumerate())
        .map(|(index, (steps, message))| Mistake {
            file: file.to_owned(),
            position: if index <= located { locate(text, &steps) } else { None },
            key: key_path(&steps),
            message,
        })
        .collect();
    mistakes.sort_by_key(|mistake| mistake.position);
    if found > MAXIMUM_SHOWN {
        mistakes.push(Mistake {
            file: file.to_owned(),
            position: None,
            key: String::new(),
            message: format!("{} more are not shown", found - MAXIMUM_SHOWN),
        });
    }
    mistakes
}

/// Gives what was found in a configuration without mistakes its place in `bytes`, as mistakes have theirs.
#[must_use]
pub fn places(file: &Path, bytes: &[u8], found: Vec<(Vec<Step>, String)>) -> Vec<Mistake> {
    mistakes(file, without_mark(str::from_utf8(bytes).unwrap_or_default()), found)
}

/// Longer than every key of the reference: such a key could be a token in the wrong place.
const LONGEST_KEY: usize = 20;

/// A key as it is shown, without control characters, and cut when it is long.
#[must_use]
pub fn shown_key(key: &str) -> String {
    if key.chars().count() <= LONGEST_KEY {
        key.escape_debug().to_string()
    } else {
        format!("{}…", key.chars().take(4).collect::<String>().escape_debug())
    }
}

fn key_path(steps: &[Step]) -> String {
    let mut path = String::new();
    for step in steps {
        match step {
            Step::Key(name, _) | Step::Name(name, _) => {
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(&shown_key(name));
            }
            Step::Index(index) => path.push_str(&format!("[{index}]")),
        }
    }
    path
}
