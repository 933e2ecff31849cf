//! The buffer between the threads that log and the thread that writes.
//!
//! 1. Every line that is not written is counted: lines that do not fit the buffer, and lines that the output rejects,
//!    such as a full disk or a pipe without a reader. Their number is logged once writing succeeds again.
//! 2. If only a part of a line could be written, its end is written before the next line.
//! 3. A full pipe in non-blocking mode is waited for like a blocking one.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use strict_http::{cut, number};

use crate::metrics::process::ProcessMeters;

/// The capacity in bytes while the reader of the log is slow: about ten seconds of a busy gate.
const CAPACITY: usize = 8 * 1024 * 1024;

/// The interval between two attempts to write to a full pipe (rule 3).
const FULL: Duration = Duration::from_millis(5);

/// Accepts log lines without ever waiting for their reader.
#[derive(Clone, Debug)]
pub struct Sink {
    shared: Arc<SinkShared>,
}

#[derive(Debug)]
struct SinkShared {
    state: Mutex<SinkState>,
    changed: Condvar,
    meters: Arc<ProcessMeters>,
    writing: AtomicBool,
}

#[derive(Debug, Default)]
struct SinkState {
    buffer: Vec<u8>,
    writing: bool,
}

impl Sink {
    /// Creates a sink that buffers lines until a thread writes them.
    #[must_use]
    pub fn new(meters: Arc<ProcessMeters>) -> Self {
        let shared =
            SinkShared { state: Mutex::default(), changed: Condvar::new(), meters, writing: AtomicBool::new(false) };
        Self { shared: Arc::new(shared) }
    }

    /// Starts the thread that writes to stderr, unless one is running.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn write_to_stderr(&self) -> std::io::Result<()> {
        // `Stderr` reports success even if its descriptor cannot be written to.
        self.write_to(File::from(std::io::stderr().as_fd().try_clone_to_owned()?))
    }

    /// Starts the thread that writes to `out`, unless one is running.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn write_to(&self, out: impl Write + Send + 'static) -> std::io::Result<()> {
        if self.shared.writing.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        let (shared, mut log) = (self.shared.clone(), Log { out, is_torn: false });
        std::thread::Builder::new().name("log".to_owned()).spawn(move || {
            let (mut taken, mut said) = (Vec::new(), 0);
            loop {
                let mut state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
                state.writing = false;
                shared.changed.notify_all();
                while state.buffer.is_empty() {
                    state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                std::mem::swap(&mut state.buffer, &mut taken);
                state.writing = true;
                drop(state);
                let lost = log.write(&taken);
                taken.clear();
                shared.meters.log_lines_dropped(lost);
                let dropped = shared.meters.lines_dropped();
                if lost == 0 && dropped > said {
                    tracing::warn!(
                        lines = dropped - said,
                        "log lines were lost: the log output is blocked or too slow"
                    );
                    said = dropped;
                }
            }
        })?;
        Ok(())
    }

    /// Appends whole lines.
    pub fn push(&self, lines: &[u8]) {
        let mut state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.buffer.len() + lines.len() > CAPACITY {
            self.shared.meters.log_lines_dropped(ends(lines));
            return;
        }
        let wake = state.buffer.is_empty() && !state.writing;
        state.buffer.extend_from_slice(lines);
        drop(state);
        if wake {
            self.shared.changed.notify_all();
        }
    }

    /// Waits until everything is written, for `limit` at most.
    pub fn flush(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        let mut state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        while !state.buffer.is_empty() || state.writing {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = self.shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
            state = waited.0;
        }
    }
}

/// Returns the number of lines that end in these bytes.
fn ends(lines: &[u8]) -> u64 {
    number::count(lines.iter().filter(|byte| **byte == b'\n').count())
}

/// The output of the log.
struct Log<W> {
    out: W,
    /// Whether the output ends in the middle of a line.
    is_torn: bool,
}

impl<W: Write> Log<W> {
    /// Writes whole lines. Returns how many of them were not written completely.
    fn write(&mut self, lines: &[u8]) -> u64 {
        let mut left = lines;
        if self.is_torn && self.write_some(&mut b"\n".as_slice()) {
            self.is_torn = false;
        }
        if !self.is_torn {
            while !left.is_empty() && self.write_some(&mut left) {}
            let last = lines.len().checked_sub(left.len() + 1).and_then(|last| lines.get(last));
            self.is_torn = last.is_some_and(|last| *last != b'\n');
        }
        ends(left)
    }

    /// Writes a part of `lines` and removes it. Returns whether anything was written.
    fn write_some(&mut self, lines: &mut &[u8]) -> bool {
        loop {
            match self.out.write(lines) {
                Ok(0) => return false,
                Ok(written) => {
                    (_, *lines) = cut::at_most(lines, written);
                    return true;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(FULL),
                Err(_) => return false,
            }
        }
    }
}

/// One line to be appended to a [`Sink`].
#[derive(Debug)]
pub struct AppendedLine {
    sink: Sink,
    bytes: Vec<u8>,
}

impl AppendedLine {
    pub(super) const fn new(sink: Sink) -> Self {
        Self { sink, bytes: Vec::new() }
    }
}

impl Write for AppendedLine {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Drop for AppendedLine {
    fn drop(&mut self) {
        self.sink.push(&self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Stuck(std::sync::mpsc::Receiver<()>);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let _ = self.0.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_is_stuck_costs_lines_and_no_time() {
        let meters = Arc::new(ProcessMeters::default());
        let (release, gate) = std::sync::mpsc::channel();
        let sink = Sink::new(meters.clone());
        sink.write_to(Stuck(gate)).unwrap();
        let line = [[b'x'; 1023].as_slice(), b"\n"].concat();
        for _ in 0..3 * CAPACITY / line.len() {
            sink.push(&line);
        }
        assert!(meters.lines_dropped() > 0, "lines beyond the capacity are counted");
        drop(release);
        sink.flush(Duration::from_secs(5));
    }

    /// A log that treats each write as listed, and accepts nothing afterwards.
    struct ListingLog(Vec<std::io::Result<usize>>, Vec<u8>);

    impl Write for ListingLog {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let taken = if self.0.is_empty() { Err(ErrorKind::StorageFull.into()) } else { self.0.remove(0) }?;
            self.1.extend_from_slice(&bytes[..taken.min(bytes.len())]);
            Ok(taken.min(bytes.len()))
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn written(takes: Vec<std::io::Result<usize>>, lines: &[&str]) -> (Vec<u64>, String) {
        let mut log = Log { out: ListingLog(takes, Vec::new()), is_torn: false };
        let lost = lines.iter().map(|lines| log.write(lines.as_bytes())).collect();
        (lost, String::from_utf8(log.out.1).unwrap())
    }

    #[test]
    fn rules_1_and_2_lost_lines_are_counted_and_a_torn_line_is_ended() {
        let full = || Err(ErrorKind::StorageFull.into());
        let (lost, log) = written(vec![Ok(4), full(), Ok(1), Ok(9)], &["a1\na2\n", "b1\n"]);
        assert_eq!((lost, log.as_str()), (vec![1, 0], "a1\na\nb1\n"));
        let (lost, log) =
            written(vec![full(), Ok(9), Ok(3), full(), Ok(1), Ok(9)], &["a\nb\n", "c\n", "d\ne\n", "f\n"]);
        assert_eq!((lost, log.as_str()), (vec![2, 0, 1, 0], "c\nd\ne\nf\n"));
        let (lost, log) = written(vec![Ok(1), full(), full(), Ok(1), full()], &["ab\n", "cd\n", "ef\n", "gh\n"]);
        assert_eq!((lost, log.as_str()), (vec![1, 1, 1, 1], "a\n"));
        assert_eq!(written(vec![Ok(0)], &["a\n"]).0, [1], "what takes nothing is not asked for ever");
    }

    #[test]
    fn rule_3_a_log_that_is_full_for_now_is_waited_for() {
        let later = || Err(ErrorKind::WouldBlock.into());
        let interrupted = Err(ErrorKind::Interrupted.into());
        let (lost, log) = written(vec![later(), Ok(1), later(), interrupted, Ok(9)], &["abc\n"]);
        assert_eq!((lost, log.as_str()), (vec![0], "abc\n"));
    }
}
