//! The buffer between those who log and the one thread that writes.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::metrics::process::ProcessMeters;

/// So much is kept while whoever reads the log is slow: some ten seconds of a busy gate.
const CAPACITY: usize = 8 * 1024 * 1024;

/// Takes log lines and never waits for their reader.
#[derive(Clone, Debug)]
pub struct Sink {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    meters: Arc<ProcessMeters>,
    writing: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    buffer: Vec<u8>,
    writing: bool,
}

impl Sink {
    /// Keeps lines until there is a thread that writes them.
    #[must_use]
    pub fn new(meters: Arc<ProcessMeters>) -> Self {
        let shared =
            Shared { state: Mutex::default(), changed: Condvar::new(), meters, writing: AtomicBool::new(false) };
        Self { shared: Arc::new(shared) }
    }

    /// Starts the thread that writes to `out`, unless there is one.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn write_to(&self, mut out: impl Write + Send + 'static) -> std::io::Result<()> {
        if self.shared.writing.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        let shared = self.shared.clone();
        std::thread::Builder::new().name("log".to_owned()).spawn(move || {
            let mut taken = Vec::new();
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
                // A log that cannot be written has nobody to be told.
                let _ = out.write_all(&taken).and_then(|()| out.flush());
                taken.clear();
            }
        })?;
        Ok(())
    }

    /// Takes whole lines.
    pub fn push(&self, lines: &[u8]) {
        let mut state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.buffer.len() + lines.len() > CAPACITY {
            let dropped = lines.iter().filter(|byte| **byte == b'\n').count();
            self.shared.meters.log_lines_dropped(u64::try_from(dropped).unwrap_or(0));
            return;
        }
        let wake = state.buffer.is_empty() && !state.writing;
        state.buffer.extend_from_slice(lines);
        drop(state);
        if wake {
            self.shared.changed.notify_all();
        }
    }

    /// Waits until everything is written, `limit` at most.
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

/// One line on its way into a [`Sink`].
#[derive(Debug)]
pub struct Line {
    sink: Sink,
    bytes: Vec<u8>,
}

impl Line {
    pub(super) const fn new(sink: Sink) -> Self {
        Self { sink, bytes: Vec::new() }
    }
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
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
        assert!(meters.read().1 > 0, "lines beyond the capacity are counted");
        drop(release);
        sink.flush(Duration::from_secs(5));
    }
}
