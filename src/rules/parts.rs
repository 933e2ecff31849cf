//! Parts: the names in a body of parts (`multipart/form-data`, RFC 7578), read as it goes by.
//!
//! 1. A part that could be taken for a parameter which rules are about is refused, in whatever spelling: a server that reads
//!    parts as parameters would be told what policy has not seen.
//! 2. A name is letters, digits, `_`, `-` and `.`. Another one is refused, and so is one in another form (`name*`, RFC 8187):
//!    readers differ in what they make of it.
//! 3. Every line that begins like a `Content-Disposition` is looked at, with the lines that continue it, whatever the boundary:
//!    so no reader finds a part that was not looked at. In such a line of more than [`LONGEST`] bytes nothing is found, so it is
//!    refused.
//! 4. What is wrong is found before a byte of the part's value.

use super::{Breach, Rules};
use crate::operation::{Destructive, Operation, Setting};
use crate::target::{Names, letters, looks_like_credential, spelled};

/// The longest line that is looked at (rule 3), with those that continue it: the name of a file can be long.
pub const LONGEST: usize = 4096;

/// How each line begins that is looked at.
const FIELD: &[u8] = b"content-disposition";

/// Looks through the names of parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parts {
    setting: Option<Setting>,
    at: At,
    /// The line that is looked at, behind [`FIELD`].
    line: Vec<u8>,
}

/// Where in a body it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// In a line that begins so far as [`FIELD`] does, for so many bytes; in its beginning, space does not count.
    Beginning(usize),
    /// In a line that is looked at.
    Looked,
    /// Behind one, at this byte of its end: the next may continue it.
    Behind(u8),
    /// In any other.
    Passed,
}

impl Rules {
    /// What looks through the parts of a body of `operation`; `None` where no rule is about anything that they could name.
    #[must_use]
    pub fn parts(&self, operation: &Operation) -> Option<Parts> {
        let setting = match operation.destructive {
            Destructive::With(setting) if !self.destructive => Some(setting),
            Destructive::With(_) | Destructive::Never | Destructive::Always => None,
        };
        let is_due = self.counters.is_some() || self.logins.is_some() || !self.ulogin_absent || setting.is_some();
        is_due.then_some(Parts { setting, at: At::Beginning(0), line: Vec::new() })
    }
}

impl Parts {
    /// Looks through the next `piece` of the body.
    ///
    /// # Errors
    /// The first name that is refused (rules 1 to 3).
    pub fn feed(&mut self, mut piece: &[u8]) -> Result<(), Breach> {
        while let Some((byte, rest)) = piece.split_first() {
            if self.at == At::Passed {
                let Some(end) = memchr::memchr2(b'\r', b'\n', piece) else { return Ok(()) };
                piece = piece.get(end..).unwrap_or_default();
                self.at = At::Beginning(0);
                continue;
            }
            piece = rest;
            self.step(*byte)?;
        }
        Ok(())
    }

    fn step(&mut self, byte: u8) -> Result<(), Breach> {
        let (ends, is_space) = (matches!(byte, b'\r' | b'\n'), matches!(byte, b' ' | b'\t'));
        self.at = match self.at {
            At::Looked if ends => {
                self.check()?;
                At::Behind(byte)
            }
            At::Behind(b'\r') if byte == b'\n' => At::Behind(byte),
            At::Behind(_) if is_space => At::Looked,
            At::Behind(_) | At::Beginning(_) if ends => At::Beginning(0),
            At::Beginning(0) if is_space => At::Beginning(0),
            At::Behind(_) => beginning(0, byte),
            At::Beginning(so_far) => beginning(so_far, byte),
            At::Looked => At::Looked,
            At::Passed => At::Passed,
        };
        match self.at {
            At::Looked => self.line.push(byte),
            At::Behind(_) => {}
            At::Beginning(_) | At::Passed => self.line.clear(),
        }
        if self.line.len() > LONGEST { Err(Breach::PartName) } else { Ok(()) }
    }

    /// Rules 1 and 2, of each parameter `name` that some reader could find in the line.
    fn check(&self) -> Result<(), Breach> {
        let is_name = |at: &usize| {
            let before = at.checked_sub(1).and_then(|before| self.line.get(before));
            !before.is_some_and(u8::is_ascii_alphanumeric)
        };
        let line = self.line.to_ascii_lowercase();
        for at in memchr::memmem::find_iter(&line, b"name").filter(is_name) {
            let behind = self.line.get(at + 4..).unwrap_or_default().trim_ascii_start();
            match behind.first() {
                Some(b'=') => self.check_name(behind.get(1..).unwrap_or_default())?,
                Some(b'*') => return Err(Breach::PartName),
                Some(_) | None => {}
            }
        }
        Ok(())
    }

    fn check_name(&self, value: &[u8]) -> Result<(), Breach> {
        let value = value.trim_ascii_start();
        let value = value.strip_prefix(b"\"").unwrap_or(value);
        let end = memchr::memchr2(b'"', b';', value).unwrap_or(value.len());
        let name = value.get(..end).unwrap_or_default().trim_ascii();
        if !name.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.')) {
            return Err(Breach::PartName);
        }
        let sets = self.setting.filter(|setting| spelled(name) == letters(setting.name.as_bytes()));
        let is_parameter = !Names::like(name).is_empty() || looks_like_credential(name) || sets.is_some();
        if is_parameter { Err(Breach::Part) } else { Ok(()) }
    }
}

/// Behind one more byte of a line that begins as [`FIELD`] does `so_far`.
fn beginning(so_far: usize, byte: u8) -> At {
    match FIELD.get(so_far) {
        Some(expected) if !byte.eq_ignore_ascii_case(expected) => At::Passed,
        Some(_) if so_far + 1 == FIELD.len() => At::Looked,
        Some(_) | None => At::Beginning(so_far + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::Place;

    const ACTION: Setting = Setting { place: Place::Query, name: "action", value: "delete_keys" };

    /// What is found in `body`, which has to be the same in whatever pieces it comes.
    fn found(body: &[u8]) -> Result<(), Breach> {
        let fresh = || Parts { setting: Some(ACTION), at: At::Beginning(0), line: Vec::new() };
        let whole = fresh().feed(body);
        for size in [1, 2, 3, 7] {
            let mut parts = fresh();
            assert_eq!(body.chunks(size).try_for_each(|piece| parts.feed(piece)), whole, "in pieces of {size}");
        }
        whole
    }

    fn part(field: &str) -> Result<(), Breach> {
        let body = |line: &str| format!("--x{line}{field}{line}{line}1{line}--x--{line}");
        let found = ["\r\n", "\n", "\r"].map(|line| found(body(line).as_bytes()));
        assert!(found.iter().all(|one| *one == found[0]), "{field}: {found:?}");
        found[0]
    }

    #[test]
    fn rule_1_a_part_that_could_be_taken_for_a_parameter_is_refused() {
        for field in [
            "Content-Disposition: form-data; name=\"ids\"",
            "content-disposition:form-data;name=ids",
            "CONTENT-DISPOSITION : form-data; NAME = \"counter_id\"",
            "Content-Disposition: form-data; name=uLogin",
            "Content-Disposition: form-data; name=\"counter-ids\"; filename=\"a.csv\"",
            "Content-Disposition: form-data; filename=\"a.csv\"; name=direct_client_logins",
            "Content-Disposition: form-data; filename=\"a; name=ids\"; name=file",
            "Content-Disposition: form-data; name=file; name=ids",
            "Content-Disposition: attachment; name=\"id\"",
            "Content-Disposition: form-data;\r\n name=\"ids\"",
            "Content-Disposition: form-data; name=\r\n\tids",
            "Content-Type: text/csv\r\nContent-Disposition: form-data; name=\"ids\"",
            "  Content-Disposition: form-data; name=\"ids\"",
            "Content-Disposition: form-data; name=\"action\"",
            "Content-Disposition: form-data; name=\"Action\"",
            "Content-Disposition: form-data; name=\"oauth_token\"",
        ] {
            assert_eq!(part(field), Err(Breach::Part), "{field}");
        }
    }

    #[test]
    fn rule_2_a_name_that_readers_could_take_for_two_is_refused() {
        for field in [
            "Content-Disposition: form-data; name=\"counter_id[0]\"",
            "Content-Disposition: form-data; name=\"%69ds\"",
            "Content-Disposition: form-data; name=\"\u{ff49}ds\"",
            "Content-Disposition: form-data; name=\"=?utf-8?B?aWRz?=\"",
            "Content-Disposition: form-data; name=\"i\\ds\"",
            "Content-Disposition: form-data; name='ids'",
            "Content-Disposition: form-data; name*=utf-8''ids",
            "Content-Disposition: form-data; name*0=i; name*1=ds",
        ] {
            assert_eq!(part(field), Err(Breach::PartName), "{field}");
        }
    }

    #[test]
    fn rule_3_a_line_that_is_too_long_is_refused_and_nothing_else_is() {
        let named = |bytes: usize| format!("Content-Disposition: form-data; name=file; filename={}", "x".repeat(bytes));
        assert_eq!(part(&named(4000)), Ok(()));
        assert_eq!(part(&named(LONGEST)), Err(Breach::PartName));
        for body in [
            "--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"ids.csv\"\r\n\r\nids,name=ids\r\n1,2\r\n--x--",
            "--x\r\nContent-Disposition: form-data; name=file; filename*=UTF-8''name%20of\r\n\r\nname=\"ids\"\r\n--x--",
            "--x\r\nContent-Disposition: form-data; name=\"\"\r\n\r\n1",
            "--x\r\nContent-Disposition: form-data; name=data.csv-1_2; filename=\"Цена.csv\"\r\n\r\n1",
            "a Content-Disposition: form-data; name=ids\r\nContent-Type: text/csv; name=ids\r\nContent-Dispo: name=ids",
            "",
        ] {
            assert_eq!(found(body.as_bytes()), Ok(()), "{body}");
        }
    }

    #[test]
    fn rule_4_what_is_wrong_is_found_before_its_value() {
        let head = "--x\r\nContent-Disposition: form-data; name=\"ids\"\r\n";
        let mut parts = Parts { setting: None, at: At::Beginning(0), line: Vec::new() };
        assert_eq!(parts.feed(head.as_bytes()), Err(Breach::Part));
    }
}
