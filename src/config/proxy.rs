//! The keys `upstream.proxy` and `upstream.proxy_auth_file`.
//!
//! 1. A proxy has the form `http://host:port`. A user name or a password in it is a mistake, and no message repeats it.
//! 2. The file contains `user:password` in UTF-8, without control characters; a trailing newline is trimmed. Its guard is the
//!    one for secrets ([`crate::files::guard`]). No message contains a part of the file.
//! 3. The credentials are kept in the form in which they are sent. Their `Debug` form shows `redacted`, and their memory is
//!    overwritten when their last holder is dropped.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use strict_http::number;
use zeroize::Zeroizing;

use super::reader::{At, Findings, Table};
use super::upstream::host_and_optional_port;
use super::values::allow_mode;
use crate::files::guard::Refusal;
use crate::files::{ExternalFile, Purpose};

/// The proxy through which connections are opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    /// The host, resolved as written.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The credentials, if the proxy requires some.
    pub auth: Option<ProxyAuth>,
}

/// Credentials for the proxy, and their file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyAuth {
    /// The file.
    pub file: PathBuf,
    /// The permissions of group and others that are tolerated for the file on a read-only mount, whoever owns it.
    pub allow_mode: Option<u32>,
    /// The content of the file.
    pub credentials: BasicCredentials,
}

impl ProxyAuth {
    /// Returns the row of the file.
    #[must_use]
    pub fn external(&self) -> ExternalFile {
        ExternalFile::secret(Purpose::Proxy, &self.file, self.allow_mode)
    }
}

/// A user name and a password in the form of `Proxy-Authorization: Basic` (rule 3).
#[derive(Clone, PartialEq, Eq)]
pub struct BasicCredentials(Arc<Zeroizing<Vec<u8>>>);

impl fmt::Debug for BasicCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BasicCredentials(redacted)")
    }
}

/// The maximum length of a user name and a password together, in bytes.
const LONGEST: usize = 1024;

/// The expected content of the file.
const CONTENT: &str = "a file that contains user:password on one line, of at most 1024 bytes, in UTF-8";

impl BasicCredentials {
    /// Reads the content of a file (rule 2).
    ///
    /// # Errors
    /// The expected content.
    pub fn parse(content: &[u8]) -> Result<Self, &'static str> {
        let text = content.strip_suffix(b"\n").unwrap_or(content);
        let text = if text.len() < content.len() { text.strip_suffix(b"\r").unwrap_or(text) } else { text };
        let is_text = std::str::from_utf8(text).is_ok_and(|text| !text.contains(char::is_control));
        let has_user = text.iter().position(|byte| *byte == b':').is_some_and(|at| at > 0);
        if text.len() > LONGEST || !is_text || !has_user {
            return Err(CONTENT);
        }
        let mut encoded = Zeroizing::new(vec![0; LONGEST.div_ceil(3) * 4]);
        let length = STANDARD.encode_slice(text, &mut encoded).map_err(|_| CONTENT)?;
        encoded.truncate(length);
        Ok(Self(Arc::new(encoded)))
    }

    /// Returns the value behind `Basic `.
    #[must_use]
    pub fn encoded(&self) -> &[u8] {
        &self.0
    }
}

/// Reads both keys from the table of `upstream`.
pub fn proxy(table: &Table<'_>, findings: &mut Findings) -> Option<Proxy> {
    let read = table.optional("proxy").map(|at| address(&at, findings));
    let auth = table.optional("proxy_auth_file").map(|at| {
        if read.is_none() {
            at.wrong(findings, "has no effect without upstream.proxy; add proxy: \"http://host:port\", or remove it");
        }
        auth(&at, findings)
    });
    let (host, port) = read??;
    Some(Proxy { host, port, auth: auth.flatten() })
}

fn address(at: &At<'_>, findings: &mut Findings) -> Option<(String, u16)> {
    if at.has_text(|text| text.contains('@')) {
        at.wrong(
            findings,
            "contains a user name or a password (not shown); write user:password to a file with mode 0600, and set proxy_auth_file to its path",
        );
        return None;
    }
    at.text(findings, url)
}

/// Reads the URL of a proxy (rule 1).
fn url(text: &str) -> Result<(String, u16), String> {
    let wrong = |why: &str| Err(format!("http://, a host and a port, as in http://proxy:3128{why}"));
    if text.starts_with("https://") {
        return wrong(
            "; TLS to the proxy itself is not supported, and TLS to Metrica runs inside the tunnel in any case",
        );
    }
    if text.starts_with("socks") {
        return wrong("; only proxies with CONNECT are supported, not SOCKS");
    }
    let Some(rest) = text.strip_prefix("http://") else { return wrong("") };
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if authority.contains(['/', '?', '#']) {
        return wrong(", without a path");
    }
    match host_and_optional_port(authority) {
        Some((host, Some(port))) => Ok((host.to_owned(), port)),
        Some((_, None)) => wrong("; the port is missing"),
        None => wrong(""),
    }
}

/// Reads `proxy_auth_file`: a path, or a mapping with `file` and `allow_mode`.
fn auth(at: &At<'_>, findings: &mut Findings) -> Option<ProxyAuth> {
    if !at.is_table() {
        return auth_in(at, None, findings);
    }
    let table = at.table(findings, &["file", "allow_mode"])?;
    let file = table.required(findings, "file")?;
    let allow_mode = allow_mode(&table, findings)?;
    auth_in(&file, allow_mode, findings)
}

fn auth_in(at: &At<'_>, allow_mode: Option<u32>, findings: &mut Findings) -> Option<ProxyAuth> {
    at.text(findings, |text| {
        let file = PathBuf::from(text);
        let read = read(&ExternalFile::secret(Purpose::Proxy, &file, allow_mode));
        let expected = |why| format!("{why}{}", crate::files::reading::relative_to(Path::new(text)));
        read.map(|credentials| ProxyAuth { file, allow_mode, credentials }).map_err(expected)
    })
}

fn read(row: &ExternalFile) -> Result<BasicCredentials, String> {
    let unusable = |why: &dyn fmt::Display| format!("a usable file that contains user:password ({why})");
    let opened = row.open().map_err(|refusal: Refusal| unusable(&refusal))?;
    // Room for everything that is read, so that no copy is left behind by growing.
    let mut content = Zeroizing::new(Vec::with_capacity(2 * LONGEST));
    let most = number::count(LONGEST) + 3;
    opened.take(most).read_to_end(&mut content).map_err(|error| unusable(&error))?;
    BasicCredentials::parse(&content).map_err(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_1_a_proxy_is_a_host_and_a_port() {
        for (text, host) in
            [("http://proxy:3128", "proxy"), ("http://10.0.0.1:80/", "10.0.0.1"), ("http://[::1]:1", "::1")]
        {
            assert_eq!(url(text).unwrap().0, host);
        }
        for (text, expected) in [
            ("https://proxy:3128", "TLS to the proxy itself is not supported"),
            ("socks5h://proxy:1080", "not SOCKS"),
            ("http://proxy", "the port is missing"),
            ("http://proxy:3128/path", "without a path"),
            ("http://proxy:3128?a", "without a path"),
            ("http://proxy:0", "as in http://proxy:3128"),
            ("http://:3128", "as in http://proxy:3128"),
            ("http://a b:3128", "as in http://proxy:3128"),
            ("proxy:3128", "as in http://proxy:3128"),
        ] {
            let said = url(text).unwrap_err();
            assert!(said.contains(expected), "{text}: {said}");
        }
    }

    #[test]
    fn rule_2_the_file_contains_a_user_and_a_password() {
        let encoded = |content: &[u8]| BasicCredentials::parse(content).map(|read| read.encoded().to_vec());
        // The example of RFC 7617, section 2.
        for content in ["Aladdin:open sesame", "Aladdin:open sesame\n", "Aladdin:open sesame\r\n"] {
            assert_eq!(encoded(content.as_bytes()).unwrap(), b"QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        }
        assert!(encoded(b"user:").is_ok() && encoded("имя:a:b".as_bytes()).is_ok());
        assert!(encoded(format!("u:{}", "p".repeat(1022)).as_bytes()).is_ok());
        let long = format!("u:{}", "p".repeat(1023));
        for content in ["", "\n", "user", ":password", "a:b\n\n", "a:b\nc:d", "a:\u{0}", "a:b\t", &long] {
            assert_eq!(encoded(content.as_bytes()), Err(CONTENT), "{content:?}");
        }
        assert_eq!(encoded(b"a:\xff"), Err(CONTENT));
    }

    #[test]
    fn rule_3_nothing_shows_the_credentials() {
        let credentials = BasicCredentials::parse(b"user:secret").unwrap();
        assert_eq!(format!("{credentials:?}"), "BasicCredentials(redacted)");
    }

    #[test]
    fn rule_3_the_memory_is_overwritten() {
        let secret: String =
            std::iter::once("u:".to_owned()).chain((0..100).map(|number| format!("{number:09}"))).collect();
        let memory = std::fs::File::open("/proc/self/mem").unwrap();
        let credentials = BasicCredentials::parse(secret.as_bytes()).unwrap();
        let (at, copy) = (credentials.encoded().as_ptr().addr(), credentials.clone());
        let expected = credentials.encoded().to_vec();
        let mut now = vec![0; expected.len()];
        let mut left = || {
            std::os::unix::fs::FileExt::read_exact_at(&memory, &mut now, u64::try_from(at).unwrap()).unwrap();
            now.windows(8).filter(|part| expected.windows(8).any(|own| own == *part)).count()
        };
        drop(credentials);
        assert!(left() > 500, "another holder keeps it");
        drop(copy);
        assert_eq!(left(), 0);
    }
}
