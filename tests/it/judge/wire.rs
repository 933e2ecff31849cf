//! Requests and answers of the judge's Metrica, as they are on the wire.

/// The parts of a request that Metrica reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// `GET`.
    pub method: String,
    /// Without its query.
    pub path: String,
    /// Names and values, decoded.
    pub query: Vec<(String, String)>,
    /// The host that was asked.
    pub host: String,
    /// The token behind `OAuth `.
    pub token: Option<String>,
    /// It has no id of a caller's request: the gate, or the doctor, asks by itself.
    pub is_own: bool,
}

impl Request {
    /// The request with this head.
    pub fn of(head: &str) -> Self {
        let mut lines = head.lines();
        let mut line = lines.next().unwrap_or_default().split(' ');
        let method = line.next().unwrap_or_default().to_owned();
        let target = line.next().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let fields: Vec<(String, &str)> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_lowercase(), value.trim()))
            .collect();
        let field = |name: &str| fields.iter().find(|(known, _)| known == name).map(|(_, value)| *value);
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let pair = |pair: &str| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(name), decoded(value))
        };
        Self {
            method,
            path: path.to_owned(),
            query: pairs.map(pair).collect(),
            host: field("host").unwrap_or_default().split(':').next().unwrap_or_default().to_owned(),
            token: field("authorization").and_then(|value| value.strip_prefix("OAuth ")).map(str::to_owned),
            is_own: field("x-request-id").is_none(),
        }
    }

    /// The first parameter of a name.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// Takes percent-encoding off; `+` is a space.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits: String = rest.by_ref().take(2).map(char::from).collect();
                u8::from_str_radix(&digits, 16).unwrap_or(b'?')
            }
            other => other,
        });
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// 200.
    pub status: u16,
    /// `application/json`.
    pub kind: &'static str,
    /// The body.
    pub body: String,
}

impl Said {
    /// JSON.
    pub const fn json(status: u16, body: String) -> Self {
        Self { status, kind: "application/json", body }
    }

    /// An error as Metrica writes it.
    pub fn error(status: u16, error_type: &str, message: &str) -> Self {
        Self::json(
            status,
            format!(
                r#"{{"errors":[{{"error_type":"{error_type}","message":"{message}"}}],"code":{status},"message":"{message}"}}"#
            ),
        )
    }

    /// A page of something in between, or of Metrica's web server.
    pub fn page(status: u16, title: &str) -> Self {
        let body = format!("<html><head><title>{title}</title></head><body>{title}</body></html>");
        Self { status, kind: "text/html", body }
    }

    /// The body that most clients saw for a dead token.
    pub fn invalid_token(status: u16) -> Self {
        Self::error(status, "invalid_token", "Invalid oauth_token")
    }

    /// The head and the body.
    pub fn bytes(&self) -> Vec<u8> {
        let Self { status, kind, body } = self;
        format!("HTTP/1.1 {status} Said\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
            .into_bytes()
    }
}
