//! The names of parts in a multipart body (`multipart/form-data`, RFC 7578), checked while the body is streamed.
//!
//! 1. A part whose name could be read as a parameter that rules cover is refused, in any spelling: a server that reads parts
//!    as parameters would receive a value that policy has not seen.
//! 2. A name consists of letters, digits, `_`, `-` and `.`. Other names are refused, and so is the extended form (`name*`,
//!    RFC 8187), because readers interpret them differently.
//! 3. From every `Content-Disposition`, regardless of the boundary, the bytes up to the next empty line are checked, so that
//!    no reader finds an unchecked part. Readers differ in what ends or continues a line, so these fields contain CRLF and
//!    tabs but no other control character. They are at most [`LONGEST`] bytes long, enough for a file with a long name.
//! 4. A breach is found before any byte of the part's value.

use metrica::operation::{Destructive, Operation, Setting};
use strict_http::target::{Names, letters, looks_like_credential, spelled};

use super::rules::{Breach, Rules};

/// The maximum length of the fields of one part, in bytes (rule 3).
pub const LONGEST: usize = 4096;

/// The field name that begins the checked fields.
const FIELD: &[u8] = b"content-disposition";

/// The empty line that ends them.
const END: &[u8] = b"\r\n\r\n";

/// Checks the names of parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parts {
    setting: Option<Setting>,
    at: At,
    /// The checked fields so far, after [`FIELD`].
    fields: Vec<u8>,
}

/// The position in a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// Outside checked fields, with this many bytes of [`FIELD`] matched.
    Outside(usize),
    /// In checked fields.
    Inside,
}

impl Rules {
    /// Returns a checker for a body of `operation`, or `None` if no rule covers anything that its parts could name.
    #[must_use]
    pub fn parts(&self, operation: &Operation) -> Option<Parts> {
        let setting = match operation.destructive {
            Destructive::With(setting) if !self.destructive => Some(setting),
            Destructive::With(_) | Destructive::Never | Destructive::Always => None,
        };
        let is_due = self.counters.is_some() || self.logins.is_some() || !self.ulogin_absent || setting.is_some();
        is_due.then_some(Parts { setting, at: At::Outside(0), fields: Vec::new() })
    }
}

impl Parts {
    /// Checks the next `piece` of the body.
    ///
    /// # Errors
    /// The first name that is refused (rules 1 to 3).
    pub fn feed(&mut self, mut piece: &[u8]) -> Result<(), Breach> {
        loop {
            if self.at == At::Outside(0) {
                let next = memchr::memchr2(b'c', b'C', piece);
                let Some(begun) = next.and_then(|next| piece.get(next..)) else { return Ok(()) };
                piece = begun;
            }
            let Some((byte, rest)) = piece.split_first() else { return Ok(()) };
            piece = rest;
            match self.at {
                At::Outside(so_far) => self.at = matched(so_far, *byte),
                At::Inside => self.look_at(*byte)?,
            }
        }
    }

    fn look_at(&mut self, byte: u8) -> Result<(), Breach> {
        let is_behind_cr = self.fields.last() == Some(&b'\r');
        let is_fit = match byte {
            b'\n' => is_behind_cr,
            b'\t' => !is_behind_cr,
            b'\r' => !is_behind_cr,
            other => !other.is_ascii_control() && !is_behind_cr,
        };
        if !is_fit || self.fields.len() == LONGEST {
            return Err(Breach::PartName);
        }
        self.fields.push(byte);
        if byte == b'\n' {
            // Check at the end of each line, before a continuation arrives.
            self.check()?;
            if self.fields.ends_with(END) {
                self.fields.clear();
                self.at = At::Outside(0);
            }
        }
        Ok(())
    }

    /// Applies rules 1 and 2 to each parameter `name` that some reader could find.
    fn check(&self) -> Result<(), Breach> {
        const NAME: &[u8] = b"name";
        let fields = self.fields.to_ascii_lowercase();
        for at in memchr::memmem::find_iter(&fields, NAME) {
            // A place that the original does not have would be refused: what cannot be read is not passed on.
            let (before, found) = self.fields.split_at_checked(at).ok_or(Breach::PartName)?;
            if before.last().is_some_and(u8::is_ascii_alphanumeric) {
                continue;
            }
            let (_, behind) = found.split_at_checked(NAME.len()).ok_or(Breach::PartName)?;
            // Only white space, or nothing, is allowed between the name and the equals sign.
            let between = behind.iter().position(|byte| byte.is_ascii_alphanumeric() || b"=\";".contains(byte));
            let (between, rest) = behind.split_at(between.unwrap_or(behind.len()));
            match rest {
                [b'=', value @ ..] if between.iter().all(|byte| b" \t\r\n".contains(byte)) => self.check_name(value)?,
                [b'=', ..] => return Err(Breach::PartName),
                [_, ..] if between.contains(&b'*') => return Err(Breach::PartName),
                [_, ..] | [] => {}
            }
        }
        Ok(())
    }

    fn check_name(&self, value: &[u8]) -> Result<(), Breach> {
        let value = value.trim_ascii_start();
        let value = value.strip_prefix(b"\"").unwrap_or(value);
        let mut parts = value.split(|byte| b"\";\r\n".contains(byte)).map(<[u8]>::trim_ascii);
        let Some(name) = parts.next() else { return Err(Breach::PartName) };
        if !name.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.')) {
            return Err(Breach::PartName);
        }
        let sets = self.setting.filter(|setting| spelled(name) == letters(setting.name.as_bytes()));
        let is_parameter = !Names::like(name).is_empty() || looks_like_credential(name) || sets.is_some();
        if is_parameter { Err(Breach::Part) } else { Ok(()) }
    }
}

/// Advances the match of [`FIELD`] by one byte. Its first byte does not recur in it, so a mismatch starts over.
fn matched(so_far: usize, byte: u8) -> At {
    let is_next = |at: usize| FIELD.get(at).is_some_and(|expected| byte.eq_ignore_ascii_case(expected));
    match (is_next(so_far), is_next(0)) {
        (true, _) if so_far + 1 == FIELD.len() => At::Inside,
        (true, _) => At::Outside(so_far + 1),
        (false, begins) => At::Outside(usize::from(begins)),
    }
}

#[cfg(test)]
mod tests {
    use metrica::operation::Place;

    use super::*;

    const ACTION: Setting = Setting { place: Place::Query, name: "action", value: "delete_keys" };

    /// The result for `body`, which must not depend on how it is split into pieces.
    fn found(body: &[u8]) -> Result<(), Breach> {
        let fresh = || Parts { setting: Some(ACTION), at: At::Outside(0), fields: Vec::new() };
        let whole = fresh().feed(body);
        for size in [1, 2, 3, 7] {
            let mut parts = fresh();
            assert_eq!(body.chunks(size).try_for_each(|piece| parts.feed(piece)), whole, "in pieces of {size}");
        }
        whole
    }

    fn part(fields: &str) -> Result<(), Breach> {
        found(format!("--x\r\n{fields}\r\n\r\n1\r\n--x--\r\n").as_bytes())
    }

    #[test]
    fn rule_1_a_part_with_the_name_of_a_parameter_is_refused() {
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
            "Content-Disposition: form-data;\r\nname=ids",
            "Content-Disposition: form-data; name=file\r\nContent-Type: text/csv\r\nname=ids",
            "\u{b}Content-Disposition: form-data; name=ids",
            "--xContent-Disposition: form-data; name=ids",
            "ccontent-disposition: form-data; name=ids",
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
            "Content-Disposition: form-data; name\u{a0}=ids",
        ] {
            assert_eq!(part(field), Err(Breach::PartName), "{field}");
        }
    }

    #[test]
    fn rule_3_lines_end_in_one_way() {
        for fields in [
            "Content-Disposition: form-data;\rname=ids",
            "Content-Disposition: form-data;\nname=ids",
            "Content-Disposition: form-data;\r\r\n name=ids",
            "Content-Disposition: form-data;\n\nname=ids",
            "Content-Disposition: form-data; name\u{b}=ids",
            "Content-Disposition: form-data; name=\0ids",
            "Content-Disposition: form-data; name=file\n\nvalue",
        ] {
            assert_eq!(part(fields), Err(Breach::PartName), "{fields:?}");
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
            "Content-Type: text/csv; name=ids\r\nContent-Dispo: name=ids\r\nname=ids\r\n\r\n1\n2\n",
            "--x\r\nContent-Disposition: form-data; name=file; filename=\"name.csv\"\r\nContent-Type: text/csv\r\n\r\na\rb\nname=ids\n",
            "",
        ] {
            assert_eq!(found(body.as_bytes()), Ok(()), "{body}");
        }
    }

    #[test]
    fn rule_4_a_part_is_refused_before_its_value_arrives() {
        let head = "--x\r\nContent-Disposition: form-data; name=\"ids\"\r\n";
        let mut parts = Parts { setting: None, at: At::Outside(0), fields: Vec::new() };
        assert_eq!(parts.feed(head.as_bytes()), Err(Breach::Part));
    }
}
