//! The configuration's file: when what it says is taken.
//!
//! 1. It is read once for each time that it is judged: the bytes that count as known are those that were parsed.
//! 2. A file that is rewritten in place can be read half, and half a configuration can allow more than the whole, as when
//!    the last line of a `match` is not there yet. So a change that was seen is taken when the file said the same for
//!    [`SETTLED`], and one that ends within a line, as what a program has written so far does, for [`SETTLED_UNENDED`].
//! 3. Whoever says that the file is whole (SIGHUP) is believed: then it is taken as it is.
//! 4. What was judged, taken or not, is not judged again until the file says something else or rule 3 asks for it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

use super::candidates::Candidate;
use crate::config::{self, Config, Error};

/// How long a changed file must say the same. A rename is in use within two seconds.
pub const SETTLED: Duration = Duration::from_secs(1);

/// The same for a file whose last line has no end.
pub const SETTLED_UNENDED: Duration = Duration::from_secs(5);

/// What to do about a file.
#[derive(Debug)]
pub enum Change {
    /// Nothing: it says what it said.
    None,
    /// To look again after this time: it may not be whole yet.
    Wait(Duration),
    /// To take what it says, or to say what is wrong with it.
    Take(Box<Result<Config, Error>>),
}

/// The configuration's file, and what of it was judged last.
#[derive(Debug, Clone)]
pub struct Source {
    file: PathBuf,
    judged: Vec<u8>,
    candidate: Candidate<Vec<u8>>,
}

impl Source {
    /// The configuration in `file`, for the start.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load(file: PathBuf) -> Result<(Self, Config), Error> {
        let mut source = Self { file, judged: Vec::new(), candidate: Candidate::default() };
        let config = source.load_now()?;
        Ok((source, config))
    }

    /// Where it is.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// What the file says now (rule 3).
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load_now(&mut self) -> Result<Config, Error> {
        let bytes = config::bytes(&self.file)?;
        self.judge(bytes)
    }

    /// What to do about the file (rule 2).
    pub fn look(&mut self, now: Instant) -> Change {
        let Some(bytes) = config::bytes(&self.file).ok().filter(|bytes| *bytes != self.judged) else {
            self.candidate = Candidate::default();
            return Change::None;
        };
        let settled = if bytes.ends_with(b"\n") { SETTLED } else { SETTLED_UNENDED };
        let left = self.candidate.left(&bytes, settled, now);
        if left.is_zero() { Change::Take(Box::new(self.judge(bytes))) } else { Change::Wait(left) }
    }

    fn judge(&mut self, bytes: Vec<u8>) -> Result<Config, Error> {
        let config = Config::from_bytes(&bytes, &self.file);
        (self.judged, self.candidate) = (bytes, Candidate::default());
        config
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = "listeners: [{name: app, address: '127.0.0.1:0'}]
tokens: {t: {file: /nowhere/t, scopes: [metrika:read]}}
callers:
  - id: a
    scopes: [metrika:read]
    tokens: [t]
    match:
      listener: app
      source: [10.0.0.0/8]
";

    fn written(text: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("gate.yaml");
        std::fs::write(&file, text).unwrap();
        (folder, file)
    }

    /// Looks `after` the start; the wait that is left, or how many callers were taken.
    fn look(source: &mut Source, start: Instant, after: u64) -> Result<usize, Duration> {
        match source.look(start + Duration::from_millis(after)) {
            Change::None => Ok(0),
            Change::Wait(left) => Err(left),
            Change::Take(config) => Ok(config.unwrap().callers.len()),
        }
    }

    #[test]
    fn rule_1_what_is_written_after_it_was_read_is_a_change() {
        let (_folder, file) = written(WHOLE);
        let (mut source, _) = Source::load(file.clone()).unwrap();
        std::fs::write(&file, format!("{WHOLE}workers: 2\n")).unwrap();
        assert!(matches!(source.look(Instant::now()), Change::Wait(_)));
        assert_eq!(source.load_now().unwrap().workers, Some(2));
        std::fs::write(&file, WHOLE).unwrap();
        assert!(matches!(source.look(Instant::now()), Change::Wait(_)));
    }

    #[test]
    fn rule_2_a_file_that_grows_is_not_taken_before_it_settled() {
        let (_folder, file) = written(WHOLE);
        let ((mut source, _), start) = (Source::load(file.clone()).unwrap(), Instant::now());
        let grown = format!("{WHOLE}workers: 2\n");
        let lines: Vec<_> = grown.match_indices('\n').map(|(at, _)| &grown[..=at]).collect();
        for (step, half) in (0_u64..).zip(&lines) {
            std::fs::write(&file, half).unwrap();
            let seen = look(&mut source, start, step * 900);
            assert!(seen == Err(SETTLED) || (*half == WHOLE && seen == Ok(0)), "{step}: {seen:?}");
        }
        let last = u64::try_from(lines.len() - 1).unwrap() * 900;
        assert_eq!(look(&mut source, start, last + 999), Err(Duration::from_millis(1)));
        assert_eq!(look(&mut source, start, last + 1000), Ok(1));
        assert_eq!(look(&mut source, start, last + 1001), Ok(0), "once");
    }

    #[test]
    fn rule_2_a_file_that_was_away_begins_again() {
        let (_folder, file) = written(WHOLE);
        let ((mut source, _), start) = (Source::load(file.clone()).unwrap(), Instant::now());
        let changed = format!("{WHOLE}workers: 2\n");
        std::fs::write(&file, &changed).unwrap();
        assert_eq!(look(&mut source, start, 0), Err(SETTLED));
        std::fs::remove_file(&file).unwrap();
        assert_eq!(look(&mut source, start, 600), Ok(0));
        std::fs::write(&file, &changed).unwrap();
        assert_eq!(look(&mut source, start, 1200), Err(SETTLED));
    }

    #[test]
    fn rule_2_without_the_end_of_its_last_line_a_file_waits_longer() {
        let (_folder, file) = written(WHOLE);
        let ((mut source, _), start) = (Source::load(file.clone()).unwrap(), Instant::now());
        std::fs::write(&file, format!("{WHOLE}workers: 2")).unwrap();
        assert_eq!(look(&mut source, start, 0), Err(SETTLED_UNENDED));
        assert_eq!(look(&mut source, start, 4000), Err(Duration::from_secs(1)));
        assert_eq!(look(&mut source, start, 5000), Ok(1));
    }

    #[test]
    fn rules_3_and_4_a_signal_is_believed_and_what_was_judged_is_done() {
        let (_folder, file) = written(WHOLE);
        let ((mut source, _), start) = (Source::load(file.clone()).unwrap(), Instant::now());
        std::fs::write(&file, "no: [").unwrap();
        assert!(source.load_now().is_err());
        assert_eq!(look(&mut source, start, 10_000), Ok(0));
        assert!(source.load_now().is_err());
    }
}
