//! The texts of `client-env`, read from `client_texts.txt`: one for each client and kind of listener.

/// The kind of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Clear text at an address: the client needs a base URL.
    Base,
    /// A unix socket.
    Socket,
    /// TLS for the names of Metrica: the client needs a host entry and the certificate of the authority.
    Tls,
    /// A forward proxy: the client needs the address of the proxy and the certificate of the authority.
    Proxy,
}

impl Mode {
    const ALL: [Self; 4] = [Self::Base, Self::Socket, Self::Tls, Self::Proxy];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Socket => "socket",
            Self::Tls => "tls",
            Self::Proxy => "proxy",
        }
    }
}

/// The language of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Language {
    Shell,
    Python,
    /// A module of Node.js.
    JavaScript,
    Go,
    Java,
    Php,
    R,
    /// No program: a sentence.
    Note,
}

impl Language {
    fn of(word: &str) -> Option<Self> {
        Some(match word {
            "sh" => Self::Shell,
            "python" => Self::Python,
            "js" => Self::JavaScript,
            "go" => Self::Go,
            "java" => Self::Java,
            "php" => Self::Php,
            "r" => Self::R,
            "note" => Self::Note,
            _ => return None,
        })
    }

    /// Whether a text in this language can be run or pasted.
    pub(super) fn is_program(self) -> bool {
        self != Self::Note
    }

    /// The beginning of a comment.
    pub(super) const fn comment(self) -> &'static str {
        match self {
            Self::Shell | Self::Python | Self::R | Self::Note => "#",
            Self::JavaScript | Self::Go | Self::Java | Self::Php => "//",
        }
    }

    /// The line before everything else.
    pub(super) const fn opening(self) -> &'static str {
        match self {
            Self::Php => "<?php\n",
            Self::Shell | Self::Python | Self::JavaScript | Self::Go | Self::Java | Self::R | Self::Note => "",
        }
    }
}

/// A text, with placeholders for addresses and paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Text<'a> {
    client: &'a str,
    mode: Mode,
    pub(super) language: Language,
    /// Whether `tests/clients/run.py` runs it.
    pub(super) run: bool,
    pub(super) body: &'a str,
}

const TEXTS: &str = include_str!("client_texts.txt");

/// The line before a text begins with this.
const HEAD: &str = "=== ";

/// Returns the text for a client and a kind of listener.
pub(super) fn find(client: &str, mode: Mode) -> Option<Text<'static>> {
    TEXTS.split(HEAD).skip(1).filter_map(read).find(|text| text.client == client && text.mode == mode)
}

/// Reads a text with its head; `None` if the head is invalid, which a test rules out.
fn read(text: &str) -> Option<Text<'_>> {
    let (head, body) = text.split_once('\n')?;
    let mut words = head.split(' ');
    let (client, mode, language, run) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let mode = Mode::ALL.into_iter().find(|one| one.as_str() == mode)?;
    let run = ["not-run", "run"].iter().position(|word| *word == run)? == 1;
    Some(Text { client, mode, language: Language::of(language)?, run, body: body.trim_end() })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::ValueEnum;

    use super::*;
    use crate::cli::client_env::Client;

    #[test]
    fn every_client_has_one_text_for_every_kind_of_listener() {
        let all: Vec<_> =
            TEXTS.split(HEAD).skip(1).map(|text| read(text).unwrap_or_else(|| panic!("{text}"))).collect();
        let names: Vec<_> = Client::value_variants().iter().map(|client| client.to_possible_value().unwrap()).collect();
        let expected: BTreeSet<_> = names
            .iter()
            .flat_map(|client| Mode::ALL.map(|mode| (client.get_name().to_owned(), mode.as_str())))
            .collect();
        let found: BTreeSet<_> = all.iter().map(|text| (text.client.to_owned(), text.mode.as_str())).collect();
        assert_eq!((found.len(), found), (all.len(), expected));
    }

    #[test]
    fn a_text_has_only_placeholders_of_its_kind_of_listener() {
        for text in TEXTS.split(HEAD).skip(1).filter_map(read) {
            let known: &[&str] = match text.mode {
                Mode::Base => &["{base}", "{authority}"],
                Mode::Socket => &["{socket}"],
                Mode::Tls => &["{ca}"],
                Mode::Proxy => &["{proxy}", "{host}", "{port}", "{ca}"],
            };
            let all = ["{base}", "{authority}", "{socket}", "{ca}", "{proxy}", "{host}", "{port}"];
            let used: Vec<_> = all.into_iter().filter(|name| text.body.contains(name)).collect();
            assert!(used.iter().all(|name| known.contains(name)), "{} {:?}: {used:?}", text.client, text.mode);
            let is_note = text.language == Language::Note;
            assert!(!used.is_empty() || is_note || text.mode == Mode::Socket, "{} {:?}", text.client, text.mode);
            assert!(!text.run || text.language.is_program(), "{} {:?}", text.client, text.mode);
        }
    }
}
