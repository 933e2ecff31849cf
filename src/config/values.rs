//! Values that several modules of the configuration read.

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};

use super::reader::{self, At, Findings};

/// Returns the names below a key, valid or not: the keys of a mapping, or every `name` in a list.
pub fn names<'a>(table: &reader::Table<'a>, key: &str) -> Vec<&'a str> {
    let ignored = &mut Findings::default();
    let Some(at) = table.optional(key) else { return Vec::new() };
    if let Some(list) = at.list(ignored) {
        let name = |at: At<'a>| at.any_table(ignored)?.optional("name")?.text(ignored, Ok);
        return list.into_iter().filter_map(name).collect();
    }
    at.any_table(ignored).map_or_else(Vec::new, |table| table.entries_at().map(|(name, _)| name).collect())
}

/// The first 48 bits of the SHA-256 of `text`, as a number.
pub fn hash(text: &str) -> u64 {
    let bytes = digest(&SHA256, text.as_bytes());
    bytes.as_ref().iter().take(6).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Reads a duration as `10s`, `1m 30s` or `250ms`.
pub fn duration(at: &At<'_>, findings: &mut Findings) -> Option<Duration> {
    at.text(findings, |text| {
        humantime::parse_duration(text).map_err(|_| "a duration as in 10s, 250ms or 1m 30s".to_owned())
    })
}

/// Reads the duration under `key`, which must not be zero; `default` applies when it is absent.
pub fn timeout(
    table: Option<&reader::Table<'_>>,
    key: &str,
    default: Duration,
    findings: &mut Findings,
) -> Option<Duration> {
    let Some(at) = table.and_then(|table| table.optional(key)) else { return Some(default) };
    let duration = duration(&at, findings)?;
    if duration.is_zero() {
        at.wrong(findings, "is zero; expected a longer duration");
        return None;
    }
    Some(duration)
}

/// Reads a name for use in logs, metrics and other keys.
pub fn name<'a>(at: &At<'a>, findings: &mut Findings) -> Option<&'a str> {
    at.text(findings, name_text)
}

/// Reads a name of the configuration: of a caller, a token, a listener or a group.
///
/// # Errors
/// The expected value.
pub fn name_text(text: &str) -> Result<&str, String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    if text.is_empty() || text.len() > 64 || !text.bytes().all(fits) {
        return Err("a name of 1 to 64 letters, digits, '_', '-' or '.'".to_owned());
    }
    if ["none", "unknown"].contains(&text) {
        return Err("another name; 'none' and 'unknown' are reserved in metrics".to_owned());
    }
    Ok(text)
}

/// Reads `allow_mode` of a secret. It cannot allow others to write, because the file could then hold a secret that anyone
/// put there.
pub fn allow_mode(table: &reader::Table<'_>, findings: &mut Findings) -> Option<Option<u32>> {
    let Some(at) = table.optional("allow_mode") else { return Some(None) };
    let read = at.text(findings, |text| {
        let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777 && mode & 0o002 == 0);
        mode.ok_or_else(|| "octal permissions that others cannot write with, as in \"0444\"".to_owned())
    });
    read.map(Some)
}
