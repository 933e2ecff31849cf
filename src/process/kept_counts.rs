//! The counts of the day, kept in `state_dir` for the next process.
//!
//! 1. The counts are written every minute if they changed, and at the end of the process. A process that is killed loses its
//!    last minute.
//! 2. The file holds names of the configuration, ids of counters and numbers, never a secret. Only its owner can read it.
//! 3. A file that is damaged, of another day or of another version, or that others could have changed, is logged and ignored:
//!    the process starts without counts.
//! 4. No worker waits for the file: a thread for blocking calls writes it.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::files::guard::Refusal;
use crate::files::{ExternalFile, reading};
use crate::quota::SavedCounts;
use crate::worker::Turns;

/// The time between two writes (rule 1).
const INTERVAL: Duration = Duration::from_secs(60);

/// The maximum size of the file. A day with every counter that is counted takes far less.
const MOST_BYTES: usize = 16 * 1024 * 1024;

/// The counts of the day and their file.
#[derive(Debug)]
pub struct KeptCounts {
    file: ExternalFile,
    turns: Arc<Turns>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The counts that need not be written.
    written: SavedCounts,
    /// Why the last write failed.
    trouble: Option<String>,
}

impl KeptCounts {
    /// Continues with the counts in `file`, if they can be used (rule 3).
    #[must_use]
    pub fn restored(file: ExternalFile, turns: Arc<Turns>) -> Self {
        let path = reading::shown(&file.path);
        match read(&file) {
            Ok(None) => {
                tracing::info!(file = path, "there are no counts of an earlier process; the day starts as unknown")
            }
            Ok(Some(saved)) => match turns.restore(&saved) {
                Ok(()) => tracing::info!(file = path, "continuing with the counts of the day of the earlier process"),
                Err(error) => tracing::warn!(file = path, %error, IGNORED),
            },
            Err(error) => tracing::warn!(file = path, %error, IGNORED),
        }
        let state = Mutex::new(State { written: turns.save(), trouble: None });
        Self { file, turns, state }
    }

    /// Writes the counts every minute, for the lifetime of the process.
    pub async fn run(self: Arc<Self>) {
        loop {
            tokio::time::sleep(INTERVAL).await;
            let kept = self.clone();
            if let Err(error) = tokio::task::spawn_blocking(move || kept.save()).await {
                tracing::error!(%error, "the counts of the day were not written");
            }
        }
    }

    /// Writes the counts if they changed; blocks.
    pub fn save(&self) {
        let mut state = self.lock();
        let counts = self.turns.save();
        if counts == state.written {
            return;
        }
        let bytes = serde_json::to_vec(&counts).map_err(io::Error::other);
        match bytes.and_then(|bytes| self.file.replace(&bytes)) {
            Ok(()) => *state = State { written: counts, trouble: None },
            Err(error) => {
                let trouble = Some(error.to_string());
                if state.trouble != trouble {
                    let file = reading::shown(&self.file.path);
                    tracing::error!(file, %error, "the counts of the day were not written; retrying every minute");
                }
                state.trouble = trouble;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The message for a file that is not used (rule 3).
const IGNORED: &str = "the counts of the day were not restored; the day starts as unknown";

/// Reads the file; `None` if there is none.
fn read(file: &ExternalFile) -> io::Result<Option<SavedCounts>> {
    let opened = match file.open() {
        Ok(opened) => opened,
        Err(Refusal::Missing(_)) => return Ok(None),
        Err(refusal) => return Err(refusal.into()),
    };
    let bytes = reading::read_from(opened, MOST_BYTES)?;
    if bytes.len() > MOST_BYTES {
        return Err(io::Error::other(format!("it is larger than {MOST_BYTES} bytes")));
    }
    // The place alone: the parser's message can have content of the file.
    let place = |error: serde_json::Error| {
        let (line, column) = (error.line(), error.column());
        io::Error::other(format!("it is damaged at line {line}, column {column}"))
    };
    serde_json::from_slice(&bytes).map(Some).map_err(place)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::files::Purpose;
    use crate::policy::names::CallerId;
    use crate::quota::{CallerSettings, Class, Counters, EgressName, Groups, OwnerName, Request, Settings};
    use crate::worker::Asked;

    fn settings() -> Settings {
        Settings {
            owners: vec![OwnerName::new("shop")],
            egresses: vec![EgressName::new("default")],
            callers: vec![CallerSettings::new(CallerId::new("one"))],
            ..Settings::default()
        }
    }

    /// The counts of a process that sends so many requests.
    fn turns(requests: usize) -> Arc<Turns> {
        let turns = Arc::new(Turns::new(&settings()));
        (0..requests).for_each(|_| spend(&turns));
        turns
    }

    fn spend(turns: &Arc<Turns>) {
        let request = turns.configure(&settings(), |broker| Request {
            owner: broker.owner(OwnerName::new("shop")).unwrap(),
            caller: broker.caller(CallerId::new("one")).unwrap(),
            egress: broker.egress(EgressName::new("default")).unwrap(),
            groups: Groups::CLIENT_READ,
            class: Class::Normal,
            counters: Counters::NONE,
            rest: 1_000_000,
        });
        match turns.ask(request, std::time::Instant::now()).unwrap() {
            Asked::Granted(turn) => turn.done(std::time::Instant::now()),
            Asked::Waits(_) => panic!("a slot is free"),
        }
    }

    fn kept(path: &Path, turns: &Arc<Turns>) -> Arc<KeptCounts> {
        Arc::new(KeptCounts::restored(ExternalFile::new(Purpose::State, path), turns.clone()))
    }

    fn spent(turns: &Turns) -> u32 {
        turns.snapshot().owners[0].limits.iter().find(|row| row.limit == "day").unwrap().used
    }

    #[test]
    fn rule_1_nothing_is_written_before_something_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("quota.json");
        let turns = turns(0);
        let kept = kept(&file, &turns);
        kept.save();
        assert!(!file.exists());
        spend(&turns);
        kept.save();
        let first = std::fs::metadata(&file).unwrap();
        kept.save();
        let same = std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(&file).unwrap());
        assert_eq!(std::os::unix::fs::MetadataExt::ino(&first), same, "nothing changed");
    }

    #[tokio::test(start_paused = true)]
    async fn rule_1_what_changed_is_written_every_minute() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("quota.json");
        let turns = turns(0);
        let running = tokio::spawn(kept(&file, &turns).run());
        for requests in 1..=3 {
            spend(&turns);
            tokio::time::sleep(INTERVAL + Duration::from_secs(1)).await;
            let next = self::turns(0);
            drop(kept(&file, &next));
            assert_eq!(spent(&next), requests);
        }
        running.abort();
    }

    #[test]
    fn rule_3_a_file_that_cannot_be_used_is_ignored() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("quota.json");
        let before = turns(0);
        let first = kept(&file, &before);
        (0..3).for_each(|_| spend(&before));
        first.save();
        let good = std::fs::read_to_string(&file).unwrap();
        let restored = |text: &str| {
            std::fs::write(&file, text).unwrap();
            let next = turns(0);
            drop(kept(&file, &next));
            spent(&next)
        };
        assert_eq!(restored(&good), 3);
        for bad in [
            String::new(),
            "y0_a-token-in-the-wrong-place".to_owned(),
            good[..good.len() / 2].to_owned(),
            good.replace("\"version\":1", "\"version\":9"),
            good.replace("\"day\":", "\"day\":1"),
            good.replace("\"version\"", "\"verse\""),
            good.replace("\"spent\":3", "\"spent\":1"),
            " ".repeat(MOST_BYTES) + &good,
        ] {
            assert_eq!(restored(&bad), 0, "{}", bad.chars().take(200).collect::<String>());
        }
        std::fs::write(&file, &good).unwrap();
        let mode = |mode| std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(&file, mode(0o666)).unwrap();
        let next = turns(0);
        drop(kept(&file, &next));
        assert_eq!(spent(&next), 0, "everyone could have written it");
    }

    #[test]
    fn a_write_that_fails_is_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("state/quota.json");
        let turns = turns(0);
        let kept = kept(&file, &turns);
        spend(&turns);
        kept.save();
        assert!(kept.lock().trouble.as_ref().unwrap().contains("does not exist"));
        std::fs::create_dir(folder.path().join("state")).unwrap();
        kept.save();
        assert!(kept.lock().trouble.is_none() && file.exists());
    }
}
