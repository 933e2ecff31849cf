//! A reader of what a caller receives, to the letter.

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case.
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// It ends where its own framing says so, and not where the connection was closed prematurely.
    pub whole: bool,
}

impl Answer {
    /// The only value of a field; a field that stands twice is no answer.
    pub fn field(&self, name: &str) -> Option<&str> {
        let mut values = self.fields.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str());
        let value = values.next();
        assert!(values.next().is_none(), "{name} stands once: {self:?}");
        value
    }

    /// The gate's own.
    pub fn is_refusal(&self) -> bool {
        self.field("x-gate-error").is_some()
    }
}

/// Reads everything that a caller received until its connection ended. `to_head` says which answers are to a HEAD.
///
/// # Panics
/// When it is not a sequence of answers, of which only the last may be cut.
pub fn read(bytes: &[u8], to_head: impl Fn(usize) -> bool) -> Vec<Answer> {
    let mut answers: Vec<Answer> = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        assert!(answers.last().is_none_or(|last| last.whole), "bytes behind an answer that was cut: {:?}", text(bytes));
        let Some((answer, behind)) = answer(rest, to_head(answers.len())) else { break };
        rest = behind;
        if !(100..200).contains(&answer.status) {
            answers.push(answer);
        }
    }
    answers
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// One answer, and what is behind it; `None` when not even its header is whole.
fn answer(bytes: &[u8], to_head: bool) -> Option<(Answer, &[u8])> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    // A value may hold what is not UTF-8 (RFC 9110, section 5.5).
    let (head, rest) = (String::from_utf8_lossy(&bytes[..end]), &bytes[end + 4..]);
    let mut lines = head.split("\r\n");
    let line = lines.next().expect("a status line");
    let status = line.strip_prefix("HTTP/1.1 ").or_else(|| line.strip_prefix("HTTP/1.0 ")).expect(line);
    let status = status.get(..3).and_then(|code| code.parse().ok()).expect(line);
    let field = |line: &str| {
        let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("a field: {line:?}"));
        assert!(!line.contains(['\r', '\n', '\0']) && !name.is_empty() && !name.contains(' '), "{line:?}");
        (name.to_ascii_lowercase(), value.trim().to_owned())
    };
    let mut answer = Answer { status, fields: lines.map(field).collect(), body: Vec::new(), whole: true };
    let length = answer.field("content-length").map(|length| length.parse::<usize>().expect("a length"));
    let chunked = answer.field("transfer-encoding").map(|coding| assert_eq!(coding, "chunked")).is_some();
    assert!(!(chunked && length.is_some()), "one framing: {head:?}");
    let bare = to_head || (100..200).contains(&status) || status == 204 || status == 304;
    let taken = match length {
        _ if bare => 0,
        _ if chunked => {
            let (body, taken) = chunks(rest);
            (answer.body, answer.whole) = (body, taken.is_some());
            taken.unwrap_or(rest.len())
        }
        Some(length) => {
            answer.whole = rest.len() >= length;
            answer.body = rest[..length.min(rest.len())].to_vec();
            answer.body.len()
        }
        // Until the connection ends.
        None => {
            answer.body = rest.to_vec();
            rest.len()
        }
    };
    Some((answer, &rest[taken..]))
}

/// The body of chunks, and how many bytes it took when it is whole.
fn chunks(bytes: &[u8]) -> (Vec<u8>, Option<usize>) {
    let mut body = Vec::new();
    let mut at = 0;
    loop {
        let Some(end) = bytes[at..].windows(2).position(|two| two == b"\r\n") else { return (body, None) };
        let digits = std::str::from_utf8(&bytes[at..at + end]).expect("a size is text");
        let size = usize::from_str_radix(digits, 16).unwrap_or_else(|_| panic!("a size: {digits:?}"));
        at += end + 2;
        if size == 0 {
            break;
        }
        body.extend_from_slice(&bytes[at..bytes.len().min(at + size)]);
        if bytes.len() < at + size + 2 {
            return (body, None);
        }
        assert_eq!(&bytes[at + size..at + size + 2], b"\r\n", "a chunk's end");
        at += size + 2;
    }
    // Trailers, and the empty line.
    loop {
        let Some(end) = bytes[at..].windows(2).position(|two| two == b"\r\n") else { return (body, None) };
        at += end + 2;
        if end == 0 {
            return (body, Some(at));
        }
    }
}
