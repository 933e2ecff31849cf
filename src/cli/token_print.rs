//! `token login --print`: a proven token on stdout, for a store that another program reads.
//!
//! 1. The refresh token goes into a Secret of its own: the first is mounted into the pod of the gate, which never needs it.
//! 2. The bare token comes alone and without a newline, except on a terminal, which shows it: a warning precedes it there.

use std::io::{IsTerminal, Write};
use std::path::Path;

use super::token::{Subject, UNCHANGED, ended};
use super::token_proof::{self, Source, Verdict};
use crate::cli::oauth_keep::{Issued, text_of};

/// The name of a Secret, if none is given.
pub(super) const NAME: &str = "metrika-tokens";

/// The word for the bare token.
const RAW: &str = "raw";

/// The maximum length of the name of a Secret, with the end of the second one.
const LONGEST: usize = 253 - "-refresh".len();

/// The form in which a token is printed.
pub(super) enum Form {
    /// Secrets of Kubernetes with this name.
    Secret(String),
    /// The bare token.
    Raw,
}

impl Form {
    /// Returns the form that a value of `--print` names.
    pub(super) fn of(name: &str) -> anyhow::Result<Self> {
        if name == RAW {
            return Ok(Self::Raw);
        }
        let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
        let edges = [name.bytes().next(), name.bytes().last()];
        let is_name = edges.iter().all(|edge| edge.is_some_and(|byte| byte.is_ascii_alphanumeric()));
        if is_name && name.bytes().all(fits) && name.len() <= LONGEST {
            return Ok(Self::Secret(name.to_owned()));
        }
        let words = "--print: expected the name of a Secret of Kubernetes (small letters, digits, '-', '.') or raw, as in --print=metrika-tokens";
        Err(ended(2, words))
    }
}

/// Proves a token and prints it.
pub(super) fn printed(form: &Form, subject: &Subject, mut issued: Issued, out: &mut dyn Write) -> anyhow::Result<u8> {
    token_proof::check(subject, &issued.access)?;
    let verdict = token_proof::prove(subject, &mut issued, Source::Page, UNCHANGED)?;
    if verdict == Verdict::Wrong {
        return Err(ended(1, format_args!("token '{}': the new token is wrong", subject.source.alias)));
    }
    match form {
        Form::Secret(name) => secrets(subject, &issued, name, out)?,
        Form::Raw => raw(&issued, out)?,
    }
    Ok(if verdict == Verdict::Right { 0 } else { 75 })
}

/// Writes a token as a Secret of Kubernetes, and its refresh token as another (rule 1).
fn secrets(subject: &Subject, issued: &Issued, name: &str, out: &mut dyn Write) -> anyhow::Result<()> {
    let file = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    let key = file(&subject.source.file).unwrap_or_else(|| subject.source.alias.to_string());
    let record = serde_json::to_string(&issued.record)?;
    let begin =
        |name: &str| format!("apiVersion: v1\nkind: Secret\nmetadata:\n  name: {name}\ntype: Opaque\nstringData:");
    writeln!(out, "{}\n  {key}: \"{}\"\n  {key}.json: '{record}'", begin(name), *text_of(&issued.access))?;
    let refresh = subject.source.origin.refresh_file.as_deref().and_then(file);
    if let (Some(key), Some(refresh)) = (refresh, &issued.refresh) {
        writeln!(out, "---\n# For `token refresh` only: do not mount it into the pod of the gate.")?;
        writeln!(out, "{}\n  {key}: \"{}\"", begin(&format!("{name}-refresh")), refresh.text())?;
    }
    Ok(())
}

/// Writes the bare token (rule 2).
fn raw(issued: &Issued, out: &mut dyn Write) -> anyhow::Result<()> {
    let is_shown = std::io::stdout().is_terminal();
    if is_shown {
        let words =
            "warning: the token follows, and stays in the memory of the terminal; pipe the output to the store instead";
        writeln!(std::io::stderr(), "{words}")?;
    }
    write!(out, "{}", *text_of(&issued.access))?;
    if is_shown {
        writeln!(out)?;
    }
    Ok(())
}
