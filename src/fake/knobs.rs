//! What the control panel can change about the answers.

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};

use super::answer::Answer;
use super::refusal::{ErrorType, Refusal};

/// The settings of the control panel.
pub struct Knobs {
    /// Answers to paths with the prefix come that much later; the longest prefix counts.
    pub slow: Vec<(String, Duration)>,
    /// The next answers are this.
    pub fail: Option<Fail>,
    /// The next answers break off.
    pub cut: Option<Cut>,
    /// The size of every log part.
    pub part_bytes: u64,
    /// How many parts a log request has.
    pub parts: u64,
    /// How many times the status of a log request is read as `created` before it is `processed`.
    pub status_reads: u64,
    /// The status of an invalid token; the documentation says 401 in one place and 403 in another.
    pub invalid_status: StatusCode,
    /// And its type; the troubleshooting has expired tokens under the refusals of access.
    pub invalid_type: ErrorType,
    /// Messages in Russian.
    pub is_russian: bool,
    /// The messages of error types, where they are not the usual ones.
    pub wording: HashMap<String, String>,
}

impl Default for Knobs {
    fn default() -> Self {
        Self {
            slow: Vec::new(),
            fail: None,
            cut: None,
            part_bytes: 64 * 1024,
            parts: 2,
            status_reads: 2,
            invalid_status: StatusCode::FORBIDDEN,
            invalid_type: ErrorType::InvalidToken,
            is_russian: false,
            wording: HashMap::new(),
        }
    }
}

/// An error that is given in place of answers.
pub struct Fail {
    pub refusal: Refusal,
    pub form: Form,
    /// With gzip, whatever the caller takes.
    pub is_packed: bool,
    pub times: u64,
    pub path: String,
}

/// The form of an error that is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As the documentation has it.
    Json,
    /// A page of HTML.
    Page,
    /// JSON that ends in the middle.
    Half,
    /// JSON of so many bytes and a little more.
    Huge(u32),
}

/// A connection that breaks.
pub struct Cut {
    /// After that many bytes of the body; without, before the status line.
    pub after: Option<u64>,
    pub times: u64,
    pub path: String,
}

impl Knobs {
    /// What is in force: errors and breaks that have been given are not.
    pub fn state(&self) -> Value {
        let slow = |(path, delay): &(String, Duration)| json!({ "path": path, "ms": delay.as_millis() });
        let fail = self.fail.as_ref().filter(|fail| fail.times > 0).map(|fail| {
            let (status, error_type) = (fail.refusal.status.as_u16(), &fail.refusal.error_type);
            json!({ "status": status, "error_type": error_type, "times": fail.times, "path": fail.path })
        });
        let cut = self.cut.as_ref().filter(|cut| cut.times > 0);
        let cut = cut.map(|cut| json!({ "after": cut.after, "times": cut.times, "path": cut.path }));
        json!({
            "slow": self.slow.iter().map(slow).collect::<Value>(),
            "fail": fail,
            "break": cut,
            "part_bytes": self.part_bytes,
            "logs": { "reads": self.status_reads, "parts": self.parts },
            "invalid": { "status": self.invalid_status.as_u16(), "error_type": self.invalid_type.as_str() },
            "wording": { "lang": if self.is_russian { "ru" } else { "en" }, "messages": self.wording },
        })
    }

    pub fn delay(&self, path: &str) -> Duration {
        let slow = self.slow.iter().filter(|(prefix, _)| path.starts_with(prefix));
        slow.max_by_key(|(prefix, _)| prefix.len()).map_or(Duration::ZERO, |(_, delay)| *delay)
    }

    /// The error to give for a request, if it is one of those.
    pub fn failure(&mut self, path: &str) -> Option<Answer> {
        let fail = self.fail.as_mut().filter(|fail| fail.times > 0 && path.starts_with(&fail.path))?;
        fail.times -= 1;
        let answer = match fail.form {
            Form::Json => Answer::from(&fail.refusal),
            Form::Page => Answer::page(&fail.refusal),
            Form::Half => Answer::half(&fail.refusal),
            Form::Huge(bytes) => {
                let padding = ".".repeat(usize::try_from(bytes).unwrap_or_default());
                let message = format!("{}{padding}", fail.refusal.message).into();
                Answer::from(&Refusal { message, ..fail.refusal.clone() })
            }
        };
        Some(if fail.is_packed { answer.packed() } else { answer })
    }

    /// A refusal as it is said: its status and its wording can be turned.
    pub fn said(&self, refusal: &Refusal) -> Refusal {
        let mut said = refusal.clone();
        if said.error_type == ErrorType::InvalidToken.as_str() {
            said = if self.invalid_type == ErrorType::InvalidToken { said } else { self.invalid_type.into() };
            said.status = self.invalid_status;
        }
        if let Some(message) = self.wording.get(&*said.error_type) {
            said.message = message.clone().into();
        } else if self.is_russian
            && let Some(message) = ErrorType::parse(&said.error_type).and_then(ErrorType::russian)
        {
            said.message = Cow::Borrowed(message);
        }
        said
    }

    /// Where the answer to a request breaks off, if it does.
    pub fn cut(&mut self, path: &str) -> Option<Option<u64>> {
        let cut = self.cut.as_mut().filter(|cut| cut.times > 0 && path.starts_with(&cut.path))?;
        cut.times -= 1;
        Some(cut.after)
    }
}

/// A status that an answer can have: 1xx are not answers, and 204 and 304 have no body to carry the error.
pub fn answerable(status: u16) -> Option<StatusCode> {
    StatusCode::from_u16(status).ok().filter(|status| (200..600).contains(&status.as_u16()))
}
