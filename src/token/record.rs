//! The record beside a token file: facts about the token, without a secret.
//!
//! 1. It is a JSON object in the file of the token's path with `.json` at its end. Only the commands write it.
//! 2. It names the token by a short digest, so a record never describes a token that another program has put in the
//!    place of the one that it was written for.
//! 3. A record that is missing or cannot be read is no error: its facts are unknown. One that everybody can write is not read,
//!    and readiness and `check` name it.

use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{SHA256, digest};
use metrica::scope::ScopeSet;
use serde::{Deserialize, Serialize};

use crate::config::TokenSource;
use crate::files::reading;
pub use crate::files::reading::{beside, record_of as path_of};
use crate::token::Token;

/// The maximum size of a record, in bytes.
const MOST: usize = 16 * 1024;

/// A day, in seconds: the ends that two responses name for one token differ by the time between them.
const DAY: u64 = 24 * 60 * 60;

/// The number of bytes of the digest that name a token.
const DIGEST: usize = 8;

/// Facts about a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The token (rule 2).
    pub token: String,
    /// The time of its issue or of its last renewal, in seconds since 1970.
    pub issued: u64,
    /// The end of its validity in seconds since 1970, if the OAuth server named it.
    pub expires: Option<u64>,
    /// The login of its owner, as Yandex ID has shown it.
    pub owner: Option<String>,
    /// The application.
    pub client_id: Option<String>,
    /// The device that it was issued to.
    pub device_id: Option<String>,
    /// Its rights, if the OAuth server named them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scopes: Option<Vec<String>>,
}

/// Returns the name of a token in a record (rule 2).
#[must_use]
pub fn name_of(token: &Token) -> String {
    let digest = digest(&SHA256, token.authorization().as_bytes());
    digest.as_ref().iter().take(DIGEST).map(|byte| format!("{byte:02x}")).collect()
}

/// Returns a time as seconds since 1970.
#[must_use]
pub fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl Record {
    /// Returns the record beside the file of `source`, whichever token it describes (rule 3).
    #[must_use]
    pub fn read(source: &TokenSource) -> Option<Self> {
        let file = source.external_record().open().ok()?;
        let bytes = reading::read_from(file, MOST).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// Returns the record of `token`, which is in the file of `source` (rule 2).
    #[must_use]
    pub fn of(source: &TokenSource, token: &Token) -> Option<Self> {
        Self::read(source).filter(|record| record.token == name_of(token))
    }

    /// Takes over what an earlier record of the same token knows and this one does not. A token whose validity is not longer than
    /// before was issued before.
    pub fn complete(&mut self, before: &Self) {
        let is_renewed = self.expires.is_some_and(|end| before.expires.is_none_or(|was| end > was.saturating_add(DAY)));
        if !is_renewed {
            self.issued = before.issued;
        }
        self.expires = self.expires.or(before.expires);
        self.owner = self.owner.take().or_else(|| before.owner.clone());
        self.client_id = self.client_id.take().or_else(|| before.client_id.clone());
        self.device_id = self.device_id.take().or_else(|| before.device_id.clone());
        self.scopes = self.scopes.take().or_else(|| before.scopes.clone());
    }

    /// Returns the end of the validity.
    #[must_use]
    pub fn expires(&self) -> Option<SystemTime> {
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(self.expires?))
    }

    /// Returns the rights of the token, if the OAuth server named them.
    #[must_use]
    pub fn rights(&self) -> Option<ScopeSet> {
        Some(self.scopes.as_ref()?.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// Returns the record as the content of its file.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn content(&self) -> serde_json::Result<Vec<u8>> {
        let mut bytes = serde_json::to_vec(self)?;
        bytes.push(b'\n');
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn token(text: &str) -> Token {
        Token::parse(text.as_bytes()).unwrap()
    }

    fn source(folder: &tempfile::TempDir) -> TokenSource {
        let (alias, file) = (crate::policy::names::TokenAlias::new("crm"), folder.path().join("crm"));
        let (scopes, origin) = (metrica::scope::ScopeSet::EMPTY, crate::config::Origin::default());
        TokenSource { alias, file, allow_mode: None, scopes, origin }
    }

    fn write(path: &Path, content: &[u8]) {
        let folder = path.parent().unwrap();
        let mut file = tempfile::NamedTempFile::new_in(folder).unwrap();
        std::io::Write::write_all(&mut file, content).unwrap();
        file.persist(path).unwrap();
    }

    #[test]
    fn rule_2_a_record_describes_one_token() {
        let folder = tempfile::tempdir().unwrap();
        let source = source(&folder);
        let own = token("test-0123456789");
        let record = Record {
            token: name_of(&own),
            issued: 1,
            expires: Some(2),
            owner: None,
            client_id: None,
            device_id: Some("mgate-crm".to_owned()),
            scopes: None,
        };
        assert_eq!(Record::of(&source, &own), None);
        write(&path_of(&source.file), &record.content().unwrap());
        assert_eq!(Record::of(&source, &own), Some(record.clone()));
        assert_eq!(Record::of(&source, &token("test-other")), None);
        assert_eq!(Record::read(&source), Some(record.clone()));
        assert_eq!(record.expires(), Some(SystemTime::UNIX_EPOCH + Duration::from_secs(2)));
        assert!(!String::from_utf8(record.content().unwrap()).unwrap().contains("0123456789"));
    }

    #[test]
    fn rule_3_an_unreadable_record_is_unknown() {
        let folder = tempfile::tempdir().unwrap();
        let source = source(&folder);
        for content in ["", "{}", "[1]", "{\"token\":1}"] {
            write(&path_of(&source.file), content.as_bytes());
            assert_eq!(Record::read(&source), None, "{content}");
        }
    }
}
