//! Input of a secret: from a terminal, which does not show it, or from a pipe or file as standard input.
//!
//! 1. Secrets come neither from the command line nor from the environment, which other processes can see.
//! 2. The prompt is written to the terminal only, and at most [`MOST`] bytes are read.
//! 3. Ctrl-C and Ctrl-\ end the command with the echo switched on again: while the echo is off, they are characters that
//!    end the line, and no signals.
//! 4. Input that follows the line is discarded: the shell would run what is left of a pasted code.

use std::io::{IsTerminal, Read, Write};
use std::time::Duration;

use anyhow::Context;
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};
use strict_http::number;
use zeroize::Zeroizing;

use super::token::{UNCHANGED, ended};
use crate::cli::oauth_paste::MOST;

/// Ctrl-C and Ctrl-\.
const ENDS: [u8; 2] = [0x03, 0x1c];

/// The time within which the rest of a pasted text arrives.
const REST: Duration = Duration::from_millis(50);

/// The exit code of a command that a person interrupted: 128 and the number of SIGINT.
pub(super) const INTERRUPTED: u8 = 130;

/// The terminal with its modes before, which are restored on drop.
struct Silent(Termios);

impl Silent {
    fn new() -> anyhow::Result<Self> {
        let before = tcgetattr(std::io::stdin()).context("cannot read the modes of the terminal")?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO | LocalModes::ISIG);
        // Rule 3.
        let [interrupt, quit] = ENDS;
        silent.special_codes[SpecialCodeIndex::VEOL] = interrupt;
        silent.special_codes[SpecialCodeIndex::VEOL2] = quit;
        tcsetattr(std::io::stdin(), OptionalActions::Flush, &silent).context("cannot switch off the echo")?;
        Ok(Self(before))
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        // Rule 4. A terminal that is gone needs no modes.
        std::thread::sleep(REST);
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Flush, &self.0);
        let _ = writeln!(std::io::stderr());
    }
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
