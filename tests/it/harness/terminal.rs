//! A command on a pseudo terminal, as a person has it.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdout, Command, Stdio};

/// A command on a pseudo terminal, which `script` makes.
pub struct Terminal {
    child: Child,
    shown: BufReader<ChildStdout>,
}

impl Terminal {
    /// A shell that runs the command, and then these words. `None` on a system without `script`.
    pub fn start(command: &Command, then: &str) -> Option<Self> {
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let words: Vec<_> = words.map(|word| format!("'{}'", word.to_str().unwrap())).collect();
        // An interrupt reaches the shell, too. Some shells (dash) end there, unless they have a trap; the command has none.
        let line = format!("trap : INT QUIT; {}{then}", words.join(" "));
        let mut script = Command::new("script");
        script.env("SHELL", "/bin/sh").args(["-qec", &line, "/dev/null"]);
        let mut child = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().ok()?;
        let shown = BufReader::new(child.stdout.take().unwrap());
        Some(Self { child, shown })
    }

    /// Reads up to a line with this text, and returns the line.
    pub fn until(&mut self, text: &str) -> String {
        loop {
            let mut line = String::new();
            assert!(self.shown.read_line(&mut line).unwrap() > 0, "it ended before {text}");
            if line.contains(text) {
                return line;
            }
        }
    }

    /// Reads up to the question for a secret.
    pub fn until_prompt(&mut self) {
        let mut prompt = Vec::new();
        self.shown.read_until(b')', &mut prompt).unwrap();
        assert!(String::from_utf8_lossy(&prompt).contains("(not shown)"), "{prompt:?}");
    }

    /// Reads up to this byte.
    pub fn until_byte(&mut self, byte: u8) {
        self.shown.read_until(byte, &mut Vec::new()).unwrap();
    }

    pub fn type_in(&mut self, text: &str) {
        self.child.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// What is shown until the shell ends, and whether it ended well.
    pub fn end(mut self) -> (String, bool) {
        let mut rest = Vec::new();
        self.shown.read_to_end(&mut rest).unwrap();
        let status = self.child.wait().unwrap();
        (String::from_utf8(rest).unwrap(), status.success())
    }
}
