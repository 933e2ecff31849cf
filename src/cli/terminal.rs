//! Input of a secret: from a terminal, which does not show it, or from a pipe or file as standard input.
//!
//! 1. Secrets come neither from the command line nor from the environment, which other processes can see.
//! 2. The prompt is written to the terminal only, and at most [`MOST`] bytes are read.
//! 3. Ctrl-C and Ctrl-\ end the command with the echo switched on again: while the echo is off, they are characters that
//!    end the line, and no signals.
//! 4. Input that follows the line is discarded: the shell would run what is left of a pasted code.
//! 5. A signal that ends the command while the echo is off (SIGTERM, SIGINT, SIGHUP, SIGQUIT) switches it on again first.

use std::io::{IsTerminal, Read, Write};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};
use strict_http::number;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use zeroize::Zeroizing;

use super::token::{UNCHANGED, ended};
use crate::cli::oauth_paste::MOST;

/// Ctrl-C and Ctrl-\.
const ENDS: [u8; 2] = [0x03, 0x1c];

/// The time within which the rest of a pasted text arrives.
const REST: Duration = Duration::from_millis(50);

/// The exit code of a command that a person interrupted: 128 and the number of SIGINT.
pub(super) const INTERRUPTED: u8 = 130;

/// The number of SIGINT.
const SIGINT: i32 = 2;

/// The modes of the terminal before, while its echo is off.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// A terminal whose echo is off, until this is dropped.
struct Silent;

impl Silent {
    fn new() -> anyhow::Result<Self> {
        watch_signals()?;
        let before = tcgetattr(std::io::stdin()).context("cannot read the modes of the terminal")?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO | LocalModes::ISIG);
        // Rule 3.
        let [interrupt, quit] = ENDS;
        silent.special_codes[SpecialCodeIndex::VEOL] = interrupt;
        silent.special_codes[SpecialCodeIndex::VEOL2] = quit;
        // First, so that a signal between the two finds it.
        *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
        let this = Self;
        tcsetattr(std::io::stdin(), OptionalActions::Flush, &silent).context("cannot switch off the echo")?;
        Ok(this)
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        // Rule 4.
        std::thread::sleep(REST);
        restore();
    }
}

/// Switches the echo on again, if it is off. Returns whether it was off.
fn restore() -> bool {
    let before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some(before) = before else { return false };
    // A terminal that is gone needs no modes.
    let _ = tcsetattr(std::io::stdin(), OptionalActions::Flush, &before);
    let _ = writeln!(std::io::stderr());
    true
}

/// Ends the process on the signals that would end it anyway, after the echo was switched on again (rule 5).
fn watch_signals() -> anyhow::Result<()> {
    static WATCHED: Mutex<bool> = Mutex::new(false);
    let mut watched = WATCHED.lock().unwrap_or_else(PoisonError::into_inner);
    if *watched {
        return Ok(());
    }
    let runtime = Builder::new_current_thread().enable_io().build()?;
    let inside = runtime.enter();
    let mut hangup = signal(SignalKind::hangup())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut quit = signal(SignalKind::quit())?;
    let mut terminate = signal(SignalKind::terminate())?;
    drop(inside);
    let wait = move || loop {
        let number = runtime.block_on(async {
            tokio::select! {
                _ = hangup.recv() => 1,
                _ = interrupt.recv() => SIGINT,
                _ = quit.recv() => 3,
                _ = terminate.recv() => 15,
            }
        });
        if restore() {
            // Nobody may be there to read it.
            let _ = writeln!(std::io::stderr(), "metrika-gate: {UNCHANGED}");
        } else if number == SIGINT {
            // Outside of a prompt, Ctrl-C is for `attend`, which knows what was changed.
            continue;
        }
        std::process::exit(128 + number);
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(wait)?;
    *watched = true;
    Ok(())
}

/// Reads one line without showing it. An empty text is the end of the input.
pub(super) fn line(prompt: &str) -> anyhow::Result<Zeroizing<String>> {
    let silent = asked(prompt)?;
    let mut read = Zeroizing::new(Vec::with_capacity(MOST));
    let mut byte = [0];
    // One byte at a time: a pipe may hold the next line already.
    while read.len() < MOST && std::io::stdin().read(&mut byte).context("cannot read standard input")? > 0 {
        read.extend_from_slice(&byte);
        if byte == *b"\n" {
            break;
        }
        if silent.is_some() && byte.iter().all(|byte| ENDS.contains(byte)) {
            return Err(ended(INTERRUPTED, UNCHANGED));
        }
    }
    text(&read)
}

/// Reads everything up to the end of a pipe, or one line of a terminal.
pub(super) fn everything(prompt: &str) -> anyhow::Result<Zeroizing<String>> {
    if std::io::stdin().is_terminal() {
        return line(prompt);
    }
    let mut read = Zeroizing::new(Vec::with_capacity(MOST + 1));
    let most = number::count(MOST) + 1;
    std::io::stdin().take(most).read_to_end(&mut read).context("cannot read standard input")?;
    text(&read)
}

/// Shows the prompt and switches the echo off, on a terminal.
fn asked(prompt: &str) -> anyhow::Result<Option<Silent>> {
    if !std::io::stdin().is_terminal() {
        return Ok(None);
    }
    // Before the prompt: whoever answers at once is not shown either.
    let silent = Silent::new()?;
    write!(std::io::stderr(), "{prompt} (not shown): ")?;
    Ok(Some(silent))
}

fn text(bytes: &[u8]) -> anyhow::Result<Zeroizing<String>> {
    let text = std::str::from_utf8(bytes).map_err(|_| anyhow::anyhow!("the input is not UTF-8"))?;
    Ok(Zeroizing::new(text.to_owned()))
}
