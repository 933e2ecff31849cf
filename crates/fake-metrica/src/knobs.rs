//! The settings of the control panel, which change responses.

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};
use strict_http::number;

use super::answer::Answer;
use super::refusal::{ErrorType, Refusal};

/// The settings of the control panel.
pub struct Knobs {
    /// Delays by path prefix; the longest matching prefix applies.
    pub slow: Vec<(String, Duration)>,
    /// An error for the next requests.
    pub fail: Option<Fail>,
    /// A connection break for the next responses.
    pub cut: Option<Cut>,
    /// The size of every log part, in bytes.
    pub part_bytes: u64,
    /// The number of parts of a log request.
    pub parts: u64,
    /// The number of times that the status of a log request is read as `created` before it is `processed`.
    pub status_reads: u64,
    /// The status of an invalid token; the documentation has 401 in one place and 403 in another.
    pub invalid_status: StatusCode,
    /// The type of that refusal: the documentation lists expired tokens under refusals of access.
    pub invalid_type: ErrorType,
    /// Whether messages are in Russian.
    pub is_russian: bool,
    /// Messages by error type that replace the usual ones.
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

/// An error that replaces responses.
pub struct Fail {
    pub refusal: Refusal,
    pub form: Form,
    /// Whether the body is compressed with gzip, whatever the client accepts.
    pub is_packed: bool,
    pub times: u64,
    pub path: String,
}

/// The form of a generated error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// The documented JSON.
    Json,
    /// An HTML page.
    Page,
    /// JSON cut off in the middle.
    Half,
    /// JSON of slightly more than this many bytes.
    Huge(u32),
}

/// A break of connections.
pub struct Cut {
    /// The number of body bytes before the break; without it, the break comes before the status line.
    pub after: Option<u64>,
    pub times: u64,
    pub path: String,
}

impl Knobs {
    /// The settings in force, without errors and breaks that are used up.
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

    /// Returns the configured error for a request, if there is one.
    pub fn failure(&mut self, path: &str) -> Option<Answer> {
        let fail = self.fail.as_mut().filter(|fail| fail.times > 0 && path.starts_with(&fail.path))?;
        fail.times -= 1;
        let answer = match fail.form {
            Form::Json => Answer::from(&fail.refusal),
            Form::Page => Answer::page(&fail.refusal),
            Form::Half => Answer::half(&fail.refusal),
            Form::Huge(bytes) => {
                let padding = ".".repeat(number::length(bytes.into()));
                let message = format!("{}{padding}", fail.refusal.message).into();
                Answer::from(&Refusal { message, ..fail.refusal.clone() })
            }
        };
        Some(if fail.is_packed { answer.packed() } else { answer })
    }

    /// Applies the configured status and wording to an error.
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

    /// Returns the position at which the response to a request is cut off, if configured.
    pub fn cut(&mut self, path: &str) -> Option<Option<u64>> {
        let cut = self.cut.as_mut().filter(|cut| cut.times > 0 && path.starts_with(&cut.path))?;
        cut.times -= 1;
        Some(cut.after)
    }
}

/// Converts the status of a response, from 200 to 599. 204 and 304 have no body, so they carry no error.
pub fn answerable(status: u16) -> Option<StatusCode> {
    StatusCode::from_u16(status).ok().filter(|status| (200..600).contains(&status.as_u16()))
}
