//! The configuration's file: when what it says is taken.
//!
//! 1. It is read once for each time that it is judged: the bytes that count as known are those that were parsed.
//! 2. A file that is rewritten in place can be read half, and half a configuration can allow more than the whole, as when
//!    the last line of a `match` is not there yet. So a change that was seen is taken when the file said the same for
//!    [`SETTLED`], and one that ends within a line, as what a program has written so far does, for [`SETTLED_UNENDED`].
//! 3. Whoever says that the file is whole (SIGHUP) is believed: then it is taken as it is.
//! 4. What was taken is judged again when the file says something else, or a file that is read with it has changed.
//! 5. What was refused is judged again every [`AGAIN`] too, for what mends it can be anywhere: another file, its mode, a
//!    folder. What is long to judge is judged less often.
//! 6. A file that cannot be read for [`GONE`] is said to be so, and so is its return. A want of descriptors says nothing of it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

use super::GONE;
use super::candidates::Candidate;
use crate::config::{self, Config, Error};
use crate::files::descriptors::Need;
use crate::files::{COARSE, External, Seen, age};

/// How long a changed file must say the same. A rename is in use within two seconds.
pub const SETTLED: Duration = Duration::from_secs(1);

/// The same for a file whose last line has no end.
pub const SETTLED_UNENDED: Duration = Duration::from_secs(5);

/// How long what was refused is left alone.
pub const AGAIN: Duration = Duration::from_secs(1);

/// So long it is waited for a file to stay the same, before what else has changed is looked at.
const UNKNOWN_AT_MOST: Duration = Duration::from_secs(2);

/// So many times as long as it took to judge, at least (rule 5).
const PAUSE: u32 = 20;

/// What to do about a file.
#[derive(Debug)]
pub enum Change {
    /// Nothing: it says what it said.
    None,
    /// To look again after this time: it may not be whole yet.
    Wait(Duration),
    /// To take what it says, or to say what is wrong with it.
    Take(Box<Result<Config, Error>>),
    /// The same, where only files that are read with it have changed, if anything.
    TakeOthers(Box<Result<Config, Error>>),
    /// To say that it cannot be read.
    Away(Error),
    /// It can be again, and says what is in use.
    Back,
}

/// The configuration's file, and what of it was judged last.
#[derive(Debug, Clone)]
pub struct Source {
    file: PathBuf,
    judged: Judged,
    /// The files that are read with what is in use.
    read_with_it: Vec<PathBuf>,
    candidate: Candidate<Judged>,
    /// What was judged is not in use, and is judged again then.
    again: Option<Instant>,
    away: Option<Away>,
    /// Since when one that is read with it may change once more without a trace.
    unknown_since: Option<Instant>,
    /// When the last judging began.
    began: Instant,
}

/// What the file said, and what stood in those that are read with it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Judged {
    bytes: Vec<u8>,
    others: Vec<Seen>,
}

/// It cannot be read.
#[derive(Debug, Clone)]
struct Away {
    since: Instant,
    /// Why, as it was said last.
    said: Option<Error>,
}

impl Source {
    /// The configuration in `file`, for the start.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load(file: PathBuf) -> Result<(Self, Config), Error> {
        let (judged, read_with_it, candidate) = (Judged::default(), Vec::new(), Candidate::default());
        let began = Instant::now();
        let mut source =
            Self { file, judged, read_with_it, candidate, again: None, away: None, unknown_since: None, began };
        let config = source.load_now()?;
        source.taken(&config);
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
        self.away = None;
        match config::bytes(&self.file) {
            Ok(bytes) => {
                let others = self.others();
                self.judge(Judged { bytes, others })
            }
            Err(error) => {
                self.away = Some(Away { since: Instant::now(), said: Some(error.clone()) });
                Err(error)
            }
        }
    }

    /// What to do about the file (rules 2 and 4 to 6).
    pub fn look(&mut self, now: Instant) -> Change {
        let bytes = match config::bytes(&self.file) {
            Ok(bytes) => bytes,
            // A want of descriptors is nothing of the file's.
            Err(error) if system_error(&error).is_some_and(|error| Need::File.found_none(&error)) => {
                return Change::Wait(AGAIN);
            }
            Err(error) => return self.be_away(error, now),
        };
        self.away = self.away.take().filter(|away| away.said.is_some());
        let seen = Judged { bytes, others: self.others() };
        if seen.others.contains(&Seen::Unknown) {
            // One that changes all the time keeps nothing else from being seen.
            let since = *self.unknown_since.get_or_insert(now);
            if now.duration_since(since) < UNKNOWN_AT_MOST {
                return Change::Wait(COARSE);
            }
        } else {
            self.unknown_since = None;
        }
        if seen == self.judged {
            self.candidate = Candidate::default();
            // What was said before has to be taken back.
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

    /// What was judged is in use: it is `config`.
    pub fn taken(&mut self, config: &Config) {
        self.again = None;
        let external = External::of(config, None);
        let stamps = self.read_with_it.iter().zip(&self.judged.others);
        let before: BTreeMap<_, _> = stamps.map(|(file, seen)| (file.clone(), *seen)).collect();
        self.read_with_it = external.read_with_it().map(|file| file.path.clone()).collect();
        // What stood there before it was read. One that was not known then is known now, if it is older than the reading.
        let since = self.began.elapsed() + COARSE;
        let seen = |file: &PathBuf| match (before.get(file), age(file)) {
            (Some(seen), _) => *seen,
            (None, Some(age)) if age > since => Seen::at(file),
            (None, Some(_) | None) => Seen::Unknown,
        };
        self.judged.others = self.read_with_it.iter().map(seen).collect();
    }

    /// What was judged is not in use, and took so long to be judged; when it is again (rule 5).
    pub fn refused(&mut self, now: Instant, took: Duration) -> Duration {
        let pause = AGAIN.max(took * PAUSE);
        self.again = Some(now + pause);
        pause
    }

    /// Rule 6.
    fn be_away(&mut self, error: Error, now: Instant) -> Change {
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

    fn judge(&mut self, seen: Judged) -> Result<Config, Error> {
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

    /// Looks `after` the start; the wait that is left, or how many callers were taken.
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
    fn rules_3_and_4_a_signal_is_believed_and_what_was_judged_is_done() {
        let (_folder, file) = written(WHOLE);
        let ((mut source, _), start) = (Source::load(file.clone()).unwrap(), Instant::now());
        std::fs::write(&file, "no: [").unwrap();
        assert!(source.load_now().is_err());
        assert_eq!(look(&mut source, start, 10_000), Ok(0));
        assert!(source.load_now().is_err());
    }

    #[test]
    fn rule_4_what_is_read_with_it_counts() {
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
    fn rule_5_what_was_refused_is_judged_again() {
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
    fn rule_6_that_it_is_away_is_said_once_and_so_is_its_return() {
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
        // A signal while it is away says so at once.
        std::fs::remove_file(&file).unwrap();
        assert!(source.load_now().is_err());
        std::fs::write(&file, WHOLE).unwrap();
        assert!(matches!(source.look(start + Duration::from_secs(7)), Change::Back));
    }
}
