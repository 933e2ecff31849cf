//! Mistakes in a configuration, each with its position and the expected value.

use std::fmt;
use std::path::{Path, PathBuf};

use super::document::{Position, Step, locate, without_mark};

/// A mistake in a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The file.
    pub file: PathBuf,
    /// The position in the file, if known.
    pub position: Option<Position>,
    /// The key, as in `callers[1].match.uid`.
    pub key: String,
    /// The problem and the expected value.
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

/// The reason why a configuration cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// The file is missing or cannot be read.
    Unreadable {
        /// The file.
        file: PathBuf,
        /// The reason.
        message: String,
        /// The error number of the system (errno(3)).
        code: Option<i32>,
    },
    /// The file can be changed by others.
    Permissions {
        /// The file.
        file: PathBuf,
        /// The reason, and the expected permissions.
        message: String,
    },
    /// The file has these mistakes.
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

/// The maximum number of mistakes that are shown and located; further ones are only counted.
const MAXIMUM_SHOWN: usize = 100;

/// The maximum number of bytes read to locate mistakes, as each search parses the text again. Mistakes beyond it are
/// reported with their key only.
const LOCATED_BYTES: usize = 16 * 1024 * 1024;

/// Locates every finding in `text`.
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
            message: format!("{} more mistakes are not shown", found - MAXIMUM_SHOWN),
        });
    }
    mistakes
}

/// Locates `found`, findings about a valid configuration, in `bytes`.
#[must_use]
pub fn places(file: &Path, bytes: &[u8], found: Vec<(Vec<Step>, String)>) -> Vec<Mistake> {
    mistakes(file, without_mark(&String::from_utf8_lossy(bytes)), found)
}

/// The maximum length of a key that is shown whole, longer than every known key: a longer one could be a misplaced
/// token.
const LONGEST_KEY: usize = 20;

/// Returns a key for messages: without control characters, and truncated when it is long.
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
