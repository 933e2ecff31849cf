//! A reader of HTTP/1.1 requests, to the letter and over the whole of the bytes; written apart from the gate's.

/// A request that is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub method: String,
    pub target: String,
    /// Names in lower case.
    pub fields: Vec<(String, Vec<u8>)>,
    pub body: Vec<u8>,
    pub head_bytes: usize,
    pub http10: bool,
}

/// What a connection's bytes hold.
#[derive(Debug, Default)]
pub struct Read {
    pub requests: Vec<Request>,
    /// What follows them is no request, whatever comes next.
    pub broken: bool,
    /// What follows them may become one.
    pub unfinished: bool,
}

enum Stop {
    Broken,
    Unfinished,
}

struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn line(&mut self) -> Result<&'a [u8], Stop> {
        let Some(end) = self.0.iter().position(|byte| *byte == b'\n') else {
            let text = self.0.strip_suffix(b"\r").unwrap_or(self.0);
            return Err(if text.contains(&b'\r') { Stop::Broken } else { Stop::Unfinished });
        };
        let (line, rest) = self.0.split_at(end + 1);
        self.0 = rest;
        let line = line.strip_suffix(b"\r\n").ok_or(Stop::Broken)?;
        if line.contains(&b'\r') || line.contains(&0) { Err(Stop::Broken) } else { Ok(line) }
    }

    fn exactly(&mut self, length: u64) -> Result<&'a [u8], Stop> {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if self.0.len() < length {
            return Err(Stop::Unfinished);
        }
        let (taken, rest) = self.0.split_at(length);
        self.0 = rest;
        Ok(taken)
    }
}

/// Reads all requests that `bytes` begin with.
pub fn read(bytes: &[u8]) -> Read {
    let mut read = Read::default();
    let mut rest = Bytes(bytes);
    loop {
        while let Some(behind) = rest.0.strip_prefix(b"\r\n") {
            rest.0 = behind;
        }
        if rest.0.is_empty() {
            return read;
        }
        match request(&mut rest) {
            Ok(request) => read.requests.push(request),
            Err(Stop::Unfinished) => {
                read.unfinished = true;
                return read;
            }
            Err(Stop::Broken) => {
                read.broken = true;
                return read;
            }
        }
    }
}

/// Whether it may be a name (RFC 9110, section 5.6.2).
pub fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

fn request(rest: &mut Bytes<'_>) -> Result<Request, Stop> {
    let before = rest.0.len();
    let line = rest.line()?;
    let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let [method, target, version] = words[..] else { return Err(Stop::Broken) };
    let http10 = version == b"HTTP/1.0";
    // Beyond ASCII, only text in a query.
    let path = target.split(|byte| *byte == b'?').next().unwrap_or_default();
    let graphic = target.iter().all(|byte| byte.is_ascii_graphic() || !byte.is_ascii());
    let is_text = path.is_ascii() && std::str::from_utf8(target).is_ok() && !target.is_empty();
    if !is_token(method) || !graphic || !is_text || target.contains(&b'#') || !(http10 || version == b"HTTP/1.1") {
        return Err(Stop::Broken);
    }
    let fields = fields(rest)?;
    let head_bytes = before - rest.0.len();
    let values =
        |name: &str| fields.iter().filter(|(known, _)| known == name).map(|(_, value)| value).collect::<Vec<_>>();
    if values("host").len() != 1 {
        return Err(Stop::Broken);
    }
    let body = match (&values("content-length")[..], &values("transfer-encoding")[..]) {
        ([], []) => Vec::new(),
        ([length], []) => {
            let digits = !length.is_empty() && length.iter().all(u8::is_ascii_digit);
            let length = std::str::from_utf8(length).ok().filter(|_| digits).and_then(|length| length.parse().ok());
            rest.exactly(length.ok_or(Stop::Broken)?)?.to_vec()
        }
        ([], [coding]) if coding.eq_ignore_ascii_case(b"chunked") && !http10 => chunks(rest)?,
        _ => return Err(Stop::Broken),
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Request { method: text(method), target: text(target), fields, body, head_bytes, http10 })
}

fn fields(rest: &mut Bytes<'_>) -> Result<Vec<(String, Vec<u8>)>, Stop> {
    let mut fields = Vec::new();
    loop {
        let line = rest.line()?;
        if line.is_empty() {
            return Ok(fields);
        }
        let colon = line.iter().position(|byte| *byte == b':').ok_or(Stop::Broken)?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        let fine = value.iter().all(|byte| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f));
        if !is_token(name) || !fine {
            return Err(Stop::Broken);
        }
        fields.push((String::from_utf8_lossy(name).to_ascii_lowercase(), value.to_vec()));
    }
}

fn chunks(rest: &mut Bytes<'_>) -> Result<Vec<u8>, Stop> {
    let mut body = Vec::new();
    loop {
        let line = rest.line()?;
        let digits = line.split(|byte| *byte == b';').next().unwrap_or_default();
        let hexadecimal = (1..=15).contains(&digits.len()) && digits.iter().all(u8::is_ascii_hexdigit);
        let size = std::str::from_utf8(digits).ok().filter(|_| hexadecimal);
        let size = size.and_then(|digits| u64::from_str_radix(digits, 16).ok()).ok_or(Stop::Broken)?;
        if size == 0 {
            fields(rest)?;
            return Ok(body);
        }
        body.extend_from_slice(rest.exactly(size)?);
        if rest.0.len() < 2 {
            return Err(if b"\r\n".starts_with(rest.0) { Stop::Unfinished } else { Stop::Broken });
        }
        if rest.exactly(2)? != b"\r\n" {
            return Err(Stop::Broken);
        }
    }
}
