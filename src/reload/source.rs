//! The configuration file: decides when its content is validated and used.
//!
//! 1. The file is read once per validation: the remembered bytes are the parsed ones.
//! 2. A reader can see one half of a file that is rewritten in place, and half a configuration can allow more than the
//!    whole one, for example without the last line of a `match`. A change is therefore used after the file has been
//!    unchanged for [`SETTLED`], or for [`SETTLED_UNENDED`] if its last line has no newline.
//! 3. SIGHUP states that the file is complete: the content is used at once.
//! 4. An accepted configuration is validated again when its file, or a file that is read with it, has changed.
//! 5. A refused configuration is also validated again every [`AGAIN`], because the fix can be anywhere: in another file,
//!    its mode, or a folder. A configuration that takes long to validate is validated less often.
//! 6. A file that has been unreadable for [`GONE`] is reported, and so is its return. A shortage of descriptors does not
//!    count as unreadable.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

use super::GONE;
use super::candidates::Candidate;
use crate::config::{self, Config, Error};
use crate::files::descriptors::DescriptorNeed;
use crate::files::{COARSE, External, Seen, age};

/// The time that a changed file must stay unchanged. A renamed file is therefore in use within two seconds.
pub const SETTLED: Duration = Duration::from_secs(1);

/// Like [`SETTLED`], for a file whose last line has no newline.
pub const SETTLED_UNENDED: Duration = Duration::from_secs(5);

/// The shortest time before a refused configuration is validated again.
pub const AGAIN: Duration = Duration::from_secs(1);

/// The maximum time that a permanently changing file can delay the other checks.
const UNKNOWN_AT_MOST: Duration = Duration::from_secs(2);

/// The pause before the next validation, as a multiple of the duration of the last one (rule 5).
const PAUSE: u32 = 20;

/// The action to take after a check of the file.
#[derive(Debug)]
pub enum Change {
    /// None: the content is unchanged.
    None,
    /// Check again after this time: the file may not be complete yet.
    Wait(Duration),
    /// Use the configuration, or report its mistakes.
    Take(Box<Result<Config, Error>>),
    /// Like `Take`, if at most files that are read with it have changed.
    TakeOthers(Box<Result<Config, Error>>),
    /// Report that the file cannot be read.
    Away(Error),
    /// Report that the file is readable again and has the content in use.
    Back,
}

/// The configuration file and the content that was validated last.
#[derive(Debug, Clone)]
pub struct Source {
    file: PathBuf,
    judged: ReadContent,
    /// The files that are read with the configuration in use.
    read_with_it: Vec<PathBuf>,
    candidate: Candidate<ReadContent>,
    /// The time of the next validation, if the last one was refused.
    again: Option<Instant>,
    away: Option<Away>,
    /// The time since when the metadata of a file that is read with it cannot show a change ([`Seen::Unknown`]).
    unknown_since: Option<Instant>,
    /// The start of the last validation.
    began: Instant,
}

/// The content of the file, and the metadata of the files that are read with it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct ReadContent {
    bytes: Vec<u8>,
    others: Vec<Seen>,
}

/// The state of a file that cannot be read.
#[derive(Debug, Clone)]
struct Away {
    since: Instant,
    /// The last reported reason.
    said: Option<Error>,
}

impl Source {
    /// Loads the configuration in `file`, for the start.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load(file: PathBuf) -> Result<(Self, Config), Error> {
        let (judged, read_with_it, candidate) = (ReadContent::default(), Vec::new(), Candidate::default());
        let began = Instant::now();
        let mut source =
            Self { file, judged, read_with_it, candidate, again: None, away: None, unknown_since: None, began };
        let config = source.load_now()?;
        source.taken(&config);
        Ok((source, config))
    }

    /// Returns the path of the file.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Reads and validates the current content (rule 3).
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load_now(&mut self) -> Result<Config, Error> {
        self.away = None;
        match config::bytes(&self.file) {
            Ok(bytes) => {
                let others = self.others();
                self.judge(ReadContent { bytes, others })
            }
            Err(error) => {
                self.away = Some(Away { since: Instant::now(), said: Some(error.clone()) });
                Err(error)
            }
        }
    }

    /// Checks the file and returns the action to take (rules 2 and 4 to 6).
    pub fn look(&mut self, now: Instant) -> Change {
        let bytes = match config::bytes(&self.file) {
            Ok(bytes) => bytes,
            // A shortage of descriptors is no property of the file.
            Err(error) if system_error(&error).is_some_and(|error| DescriptorNeed::File.found_none(&error)) => {
                return Change::Wait(AGAIN);
            }
            Err(error) => return self.become_unreadable(error, now),
        };
        self.away = self.away.take().filter(|away| away.said.is_some());
        let seen = ReadContent { bytes, others: self.others() };
        if seen.others.contains(&Seen::Unknown) {
            // A permanently changing file must not hide other changes.
            let since = *self.unknown_since.get_or_insert(now);
            if now.duration_since(since) < UNKNOWN_AT_MOST {
                return Change::Wait(COARSE);
            }
        } else {
            self.unknown_since = None;
        }
        if seen == self.judged {
            self.candidate = Candidate::default();
            // A reported absence has to be followed by a reported return.
            let is_back = self.away.take().is_some_and(|away| away.said.is_some());
            return match self.again.map(|again| again.saturating_duration_since(now)) {
                Some(left) if left.is_zero() || is_back => Change::Take(Box::new(self.judge(seen))),
                Some(left) => Change::Wait(left),
                None if is_back => Change::Back,
                None => Change::None,
            };
        }
        let settled = if seen.bytes.ends_with(b"\n") { SETTLED } else { SETTLED_UNENDED };
        let left = self.candidate.left(&seen, settled, now);
        if !left.is_zero() {
            return Change::Wait(left);
        }
        let is_of_others = seen.bytes == self.judged.bytes && self.again.is_none();
        let config = Box::new(self.judge(seen));
        self.away = None;
        if is_of_others { Change::TakeOthers(config) } else { Change::Take(config) }
    }

    /// Records that the validated content is in use as `config`.
    pub fn taken(&mut self, config: &Config) {
        self.again = None;
        let external = External::of(config, None);
        let stamps = self.read_with_it.iter().zip(&self.judged.others);
        let before: BTreeMap<_, _> = stamps.map(|(file, seen)| (file.clone(), *seen)).collect();
        self.read_with_it = external.read_with_it().map(|file| file.path.clone()).collect();
        // The metadata from before the files were read. A newly tracked file counts if it is older than the reading.
        let since = self.began.elapsed() + COARSE;
        let seen = |file: &PathBuf| match (before.get(file), age(file)) {
            (Some(seen), _) => *seen,
            (None, Some(age)) if age > since => Seen::at(file),
            (None, Some(_) | None) => Seen::Unknown,
        };
        self.judged.others = self.read_with_it.iter().map(seen).collect();
    }

    /// Records that the validated content was refused after `took`. Returns the time until the next validation (rule 5).
    pub fn refused(&mut self, now: Instant, took: Duration) -> Duration {
        let pause = AGAIN.max(took * PAUSE);
        self.again = Some(now + pause);
        pause
    }

    /// Handles a file that cannot be read (rule 6).
    fn become_unreadable(&mut self, error: Error, now: Instant) -> Change {
        self.candidate = Candidate::default();
        let away = self.away.get_or_insert(Away { since: now, said: None });
        if away.said.as_ref() == Some(&error) {
            return Change::None;
        }
        let left = GONE.saturating_sub(now.duration_since(away.since));
        if !left.is_zero() {
            return Change::Wait(left);
        }
        away.said = Some(error.clone());
        Change::Away(error)
    }

    fn others(&self) -> Vec<Seen> {
        self.read_with_it.iter().map(|file| Seen::at(file)).collect()
    }

    fn judge(&mut self, seen: ReadContent) -> Result<Config, Error> {
        self.began = Instant::now();
        let config = Config::from_bytes(&seen.bytes, &self.file);
        (self.judged, self.candidate) = (seen, Candidate::default());
        config
    }
}
fn system_error(error: &Error) -> Option<io::Error> {
    let Error::Unreadable { code, .. } = error else { return None };
    code.map(io::Error::from_raw_os_error)
}

/// Whether the process may not open the file.
pub fn is_denied(error: &Error) -> bool {
    system_error(error).is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
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

    /// Checks the file `after` milliseconds. Returns the remaining wait, or the number of callers of a new configuration.
    fn look(source: &mut Source, start: Instant, after: u64) -> Result<usize, Duration> {
        match source.look(start + Duration::from_millis(after)) {
            Change::None => Ok(0),
            Change::Wait(left) => Err(left),
            Change::Take(config) | Change::TakeOthers(config) => {
                let config = config.unwrap();
                source.taken(&config);
                Ok(config.callers.len())
            }
            change @ (Change::Away(_) | Change::Back) => panic!("{change:?}"),
        }
    }

    #[test]
    fn rule_1_a_write_after_the_read_is_a_change() {
        let (_folder, file) = written(WHOLE);
        let (mut source, _) = Source::load(file.clone()).unwrap();
        std::fs::write(&file, format!("{WHOLE}workers: 2\n")).unwrap();
        assert!(matches!(source.look(Instant::now()), Change::Wait(_)));
        assert_eq!(source.load_now().unwrap().workers, Some(2));
        std::fs::write(&file, WHOLE).unwrap();
        assert!(matches!(source.look(Instant::now()), Change::Wait(_)));
    }

    #[test]
    fn rule_2_a_growing_file_is_not_used_before_it_is_stable() {
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
        assert_eq!(look(&mut source, start, 600), Err(GONE));
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
    fn rules_3_and_4_a_signal_always_reloads_and_a_checked_file_is_no_change() {
        let (_folder, file) = written(WHOLE);
        let ((mut source, _), start) = (Source::load(file.clone()).unwrap(), Instant::now());
        std::fs::write(&file, "no: [").unwrap();
        assert!(source.load_now().is_err());
        assert_eq!(look(&mut source, start, 10_000), Ok(0));
        assert!(source.load_now().is_err());
    }

    #[test]
    fn rule_4_a_change_of_a_file_named_in_the_configuration_counts() {
        let (folder, file) = written(WHOLE);
        let ca = folder.path().join("ca.pem");
        let authority = rcgen::generate_simple_self_signed(vec!["a".to_owned()]).unwrap().cert.pem();
        std::fs::write(&ca, &authority).unwrap();
        let names_it = format!("{WHOLE}upstream: {{ca_file: '{}'}}\n", ca.display());
        std::fs::write(&file, names_it).unwrap();
        let is_known = || {
            std::thread::sleep(COARSE);
            Seen::at(&ca) != Seen::Unknown
        };
        while !is_known() {}
        let ((mut source, _), start) = (Source::load(file).unwrap(), Instant::now());
        assert_eq!(look(&mut source, start, 0), Ok(0));
        std::fs::write(&ca, authority.repeat(2)).unwrap();
        assert_eq!(look(&mut source, start, 50), Err(COARSE), "it may change once more without a trace");
        while !is_known() {}
        assert_eq!(look(&mut source, start, 200), Err(SETTLED));
        assert_eq!(look(&mut source, start, 1200), Ok(1));
    }

    #[test]
    fn rule_5_a_refused_configuration_is_checked_again() {
        let (folder, file) = written(WHOLE);
        let ((mut source, _), start) = (Source::load(file.clone()).unwrap(), Instant::now());
        let ca = folder.path().join("ca.pem");
        std::fs::write(&file, format!("{WHOLE}upstream: {{ca_file: '{}'}}\n", ca.display())).unwrap();
        assert!(source.load_now().is_err());
        assert_eq!(source.refused(start, Duration::ZERO), AGAIN);
        assert_eq!(look(&mut source, start, 900), Err(Duration::from_millis(100)));
        std::fs::write(&ca, rcgen::generate_simple_self_signed(vec!["a".to_owned()]).unwrap().cert.pem()).unwrap();
        assert_eq!(look(&mut source, start, 1000), Ok(1));
        assert_eq!(source.refused(start, Duration::from_secs(1)), Duration::from_secs(20), "what is long is seldom");
    }

    #[test]
    fn rule_6_a_missing_file_and_its_return_are_reported_once() {
        let (_folder, file) = written(WHOLE);
        let ((mut source, _), start) = (Source::load(file.clone()).unwrap(), Instant::now());
        std::fs::remove_file(&file).unwrap();
        assert_eq!(look(&mut source, start, 0), Err(GONE));
        std::fs::write(&file, WHOLE).unwrap();
        assert_eq!(look(&mut source, start, 900), Ok(0), "it was being replaced");
        std::fs::remove_file(&file).unwrap();
        assert_eq!(look(&mut source, start, 2000), Err(GONE));
        assert!(matches!(source.look(start + Duration::from_secs(3)), Change::Away(_)));
        assert_eq!(look(&mut source, start, 4000), Ok(0));
        std::fs::write(&file, WHOLE).unwrap();
        assert!(matches!(source.look(start + Duration::from_secs(5)), Change::Back));
        assert_eq!(look(&mut source, start, 6000), Ok(0));
        // A signal while the file is missing reports it at once.
        std::fs::remove_file(&file).unwrap();
        assert!(source.load_now().is_err());
        std::fs::write(&file, WHOLE).unwrap();
        assert!(matches!(source.look(start + Duration::from_secs(7)), Change::Back));
    }
}
