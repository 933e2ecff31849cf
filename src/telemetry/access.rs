//! The access line: one per exchange, even if the caller disconnects.

use std::io::Write;
use std::time::{Duration, SystemTime};

use metrica::scope::{AnyOf, ScopeSet};
use metrica::subject::{Counters, Subject};

use super::written_time::{WrittenTime, last_digit};
use super::{Form, TraceId};
use crate::metrics::{Finished, Refusal};
use crate::policy::caller::Evidence;
use crate::policy::names::TokenAlias;

/// The content of a line in addition to [`Finished`].
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The request id, shared with the caller and Metrica; 1 to 128 visible ASCII characters.
    pub request_id: &'a [u8],
    /// The trace that the request belongs to.
    pub trace: Option<TraceId>,
    /// The status of the upstream's response, if there was one.
    pub upstream_status: Option<u16>,
    /// The end of the exchange.
    pub outcome: Outcome,
    /// The number of retries.
    pub resent: u32,
    /// Whether the request chose its account, and the token with which Metrica denied it before another account was tried.
    pub account: (bool, Option<TokenAlias>),
    /// The path, only for an operation that the catalogue lacks.
    pub path: Option<&'a str>,
    /// The counters and logins of the request, if they were read.
    pub subject: Option<&'a Subject>,
    /// The scopes of which the operation needs any one, and those that are declared, of the caller or of its tokens; only
    /// where the request was refused because of them.
    pub rights: Option<(ScopeSet, ScopeSet)>,
    /// The evidence of the connection, only if it matches no caller.
    pub evidence: Option<&'a Evidence>,
}

/// The end of an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The caller received the complete response.
    Complete,
    /// The caller disconnected before the end.
    CallerGone,
    /// The caller stopped sending its request or reading the response for longer than `timeouts.body_idle`.
    CallerStalled,
    /// The upstream's response was cut off or stalled.
    UpstreamCut,
    /// The process ended before the exchange.
    GateEnded,
}

impl Outcome {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::CallerGone => "caller_gone",
            Self::CallerStalled => "caller_stalled",
            Self::UpstreamCut => "upstream_cut",
            Self::GateEnded => "gate_ended",
        }
    }
}

/// Lines that were not handed over yet.
#[derive(Debug, Default)]
pub struct Lines {
    /// Their bytes.
    pub bytes: Vec<u8>,
    time: WrittenTime,
}

impl Lines {
    /// Appends the line of an exchange that has just ended.
    pub fn write(&mut self, form: Form, finished: &Finished, context: &Context<'_>) {
        let Self { bytes, time } = self;
        let time = time.at(SystemTime::now());
        // Writing to memory cannot fail.
        let _ = match form {
            Form::Json => write_json(bytes, time, finished, context),
            Form::Human => write_human(bytes, time, finished, context),
        };
    }
}

struct WrittenSubject {
    caller: &'static str,
    operation: &'static str,
    token: &'static str,
    method: &'static str,
    reason: &'static str,
    origin: &'static str,
    /// Advice for the operator.
    advice: Option<&'static str>,
}

impl WrittenSubject {
    fn of(finished: &Finished) -> Self {
        Self {
            caller: finished.caller.map_or("unknown", |caller| caller.as_str()),
            operation: finished.operation.map_or("none", |operation| operation.as_str()),
            token: finished.token.map_or("none", |token| token.as_str()),
            method: finished.verb.map_or("other", |verb| verb.as_str()),
            reason: finished.refusal.map_or("", |refusal| refusal.reason()),
            origin: finished.refusal.map_or("", |refusal| refusal.origin().as_str()),
            advice: finished.refusal.and_then(Refusal::advice),
        }
    }
}

/// Writes a duration in milliseconds, with two decimals only where they matter.
fn write_milliseconds(line: &mut Vec<u8>, duration: Duration) {
    let micros = duration.as_secs().saturating_mul(1_000_000).saturating_add(duration.subsec_micros().into());
    let hundredths = micros.saturating_add(5) / 10;
    write_number(line, hundredths / 100);
    match hundredths % 100 {
        0 => {}
        tens if tens % 10 == 0 => line.extend_from_slice(&[b'.', last_digit(tens / 10)]),
        both => line.extend_from_slice(&[b'.', last_digit(both / 10), last_digit(both)]),
    }
}

/// Writes texts as they are: what every line has is written without `write!`, which takes 80 instructions for each part, 4,700
/// for a line instead of 1,400.
fn put(line: &mut Vec<u8>, texts: &[&str]) {
    texts.iter().for_each(|text| line.extend_from_slice(text.as_bytes()));
}

fn write_json(line: &mut Vec<u8>, time: &[u8], finished: &Finished, context: &Context<'_>) -> std::io::Result<()> {
    let WrittenSubject { caller, operation, token, method, reason, origin, advice } = WrittenSubject::of(finished);
    // Names, closed enums and advice need no escaping: they contain no quote, backslash or control character. The id
    // of a configured operation contains braces at most.
    line.extend_from_slice(br#"{"timestamp":""#);
    line.extend_from_slice(time);
    put(line, &[r#"","level":"INFO","target":"access","message":"request","caller":""#, caller]);
    put(line, &[r#"","operation":""#, operation, r#"","method":""#, method, r#"","status":"#]);
    write_number(line, finished.code.into());
    put(line, &[r#","token":""#, token, "\""]);
    if let Some(status) = context.upstream_status {
        put(line, &[r#","upstream_status":"#]);
        write_number(line, status.into());
    }
    if !reason.is_empty() {
        put(line, &[r#","origin":""#, origin, r#"","reason":""#, reason, "\""]);
    }
    if let Some(advice) = advice {
        write!(line, r#","advice":"{advice}""#)?;
    }
    if let Some((needed, declared)) = context.rights {
        write!(line, r#","needs":"{}","declared":"{declared}""#, AnyOf(needed))?;
    }
    if let Some(reason) = finished.would_refuse {
        write!(line, r#","would_refuse":"{}""#, reason.as_str())?;
    }
    put(line, &[r#","request_bytes":"#]);
    write_number(line, finished.request_bytes);
    put(line, &[r#","response_bytes":"#]);
    write_number(line, finished.response_bytes);
    put(line, &[r#","duration_ms":"#]);
    write_milliseconds(line, finished.duration);
    if let Some(duration) = finished.upstream_duration {
        put(line, &[r#","upstream_ms":"#]);
        write_milliseconds(line, duration);
    }
    if let Some(wait) = finished.quota_wait.filter(|wait| !wait.is_zero()) {
        put(line, &[r#","quota_wait_ms":"#]);
        write_milliseconds(line, wait);
    }
    if context.resent > 0 {
        write!(line, r#","resent":{}"#, context.resent)?;
    }
    if context.account.0 {
        line.extend_from_slice(b",\"account\":true");
    }
    if let Some(denied) = context.account.1 {
        write!(line, r#","denied_token":"{denied}""#)?;
    }
    if let Some(subject) = context.subject {
        write_subject_json(line, subject);
    }
    if let Some(path) = context.path {
        line.extend_from_slice(b",\"path\":\"");
        write_path(line, path);
        line.push(b'"');
    }
    if let Some(Evidence { listener, peer, names: _ }) = context.evidence {
        write!(line, r#","listener":"{listener}","peer":"{peer}""#)?;
    }
    if let Some(trace) = context.trace {
        line.extend_from_slice(b",\"trace_id\":\"");
        line.extend_from_slice(trace.digits());
        line.push(b'"');
    }
    line.extend_from_slice(b",\"request_id\":\"");
    write_escaped(line, context.request_id);
    put(line, &[r#"","outcome":""#, context.outcome.as_str(), "\"}\n"]);
    Ok(())
}

fn write_human(line: &mut Vec<u8>, time: &[u8], finished: &Finished, context: &Context<'_>) -> std::io::Result<()> {
    let WrittenSubject { caller, operation, token, method, reason, origin, advice } = WrittenSubject::of(finished);
    line.extend_from_slice(time);
    write!(line, " ACCESS {} {caller} {method} {operation} token={token}", finished.code)?;
    if !reason.is_empty() {
        write!(line, " {origin}:{reason}")?;
    }
    if let Some(reason) = finished.would_refuse {
        write!(line, " would_refuse={}", reason.as_str())?;
    }
    write!(line, " up={} down={} ", finished.request_bytes, finished.response_bytes)?;
    write_milliseconds(line, finished.duration);
    line.extend_from_slice(b"ms");
    if context.account.0 {
        line.extend_from_slice(b" account=chosen");
    }
    if let Some(denied) = context.account.1 {
        write!(line, " denied_token={denied}")?;
    }
    if let Some(subject) = context.subject {
        write_subject_human(line, subject);
    }
    if let Some(path) = context.path {
        line.extend_from_slice(b" path=");
        write_path(line, path);
    }
    if let Some(Evidence { listener, peer, names: _ }) = context.evidence {
        write!(line, " listener={listener} peer={peer}")?;
    }
    if context.outcome != Outcome::Complete {
        write!(line, " {}", context.outcome.as_str())?;
    }
    if let Some((needed, declared)) = context.rights {
        write!(line, " needs=\"{}\" declared=\"{declared}\"", AnyOf(needed))?;
    }
    if let Some(advice) = advice {
        write!(line, " advice=\"{advice}\"")?;
    }
    if let Some(trace) = context.trace {
        line.extend_from_slice(b" trace=");
        line.extend_from_slice(trace.digits());
    }
    line.extend_from_slice(b" id=");
    write_escaped(line, context.request_id);
    line.push(b'\n');
    Ok(())
}

/// The maximum number of counters, and of logins, in a line.
const LONGEST_LIST: usize = 10;

/// The maximum length of a Yandex login, in an organisation or with a domain.
const LONGEST_LOGIN: usize = 128;

/// Writes `counters`, `ulogin` and `direct_client_logins`, as far as the request has them.
fn write_subject_json(line: &mut Vec<u8>, subject: &Subject) {
    match &subject.counters {
        Counters::None => {}
        Counters::Unreadable => line.extend_from_slice(b",\"unreadable_counters\":true"),
        counters @ (Counters::One(_) | Counters::Several(_)) => {
            line.extend_from_slice(b",\"counters\":[");
            write_list(line, counters.as_slice(), |line, counter| write_number(line, *counter));
            line.push(b']');
            if counters.as_slice().len() > LONGEST_LIST {
                line.extend_from_slice(b",\"more_counters\":true");
            }
        }
    }
    if let Some(login) = &subject.login {
        line.extend_from_slice(b",\"ulogin\":\"");
        write_login(line, login);
        line.push(b'"');
    }
    if !subject.clients.is_empty() {
        line.extend_from_slice(b",\"direct_client_logins\":[");
        write_list(line, &subject.clients, |line, login| {
            line.push(b'"');
            write_login(line, login);
            line.push(b'"');
        });
        line.push(b']');
        if subject.clients.len() > LONGEST_LIST {
            line.extend_from_slice(b",\"more_logins\":true");
        }
    }
}

fn write_subject_human(line: &mut Vec<u8>, subject: &Subject) {
    match &subject.counters {
        Counters::None => {}
        Counters::Unreadable => line.extend_from_slice(b" counters=?"),
        counters @ (Counters::One(_) | Counters::Several(_)) => {
            line.extend_from_slice(b" counters=");
            write_list(line, counters.as_slice(), |line, counter| write_number(line, *counter));
            if counters.as_slice().len() > LONGEST_LIST {
                line.extend_from_slice(b",...");
            }
        }
    }
    if let Some(login) = &subject.login {
        line.extend_from_slice(b" ulogin=");
        write_login(line, login);
    }
    if !subject.clients.is_empty() {
        line.extend_from_slice(b" direct_client_logins=");
        write_list(line, &subject.clients, |line, login| write_login(line, login));
        if subject.clients.len() > LONGEST_LIST {
            line.extend_from_slice(b",...");
        }
    }
}

fn write_list<T>(line: &mut Vec<u8>, elements: &[T], write: impl Fn(&mut Vec<u8>, &T)) {
    for (position, element) in elements.iter().take(LONGEST_LIST).enumerate() {
        if position > 0 {
            line.push(b',');
        }
        write(line, element);
    }
}

fn write_number(line: &mut Vec<u8>, number: u64) {
    line.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Writes a login. Characters that logins never contain (a space, a comma, a quote) are replaced, because they could
/// end the value.
fn write_login(line: &mut Vec<u8>, login: &str) {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.@".contains(&byte);
    // A long text without a dot or `@` could be a misplaced token, as no plain login is that long and tokens contain
    // neither.
    if login.len() > LONGEST_SEGMENT && !login.contains(['.', '@']) {
        line.push(b'?');
        return;
    }
    line.extend(login.bytes().take(LONGEST_LOGIN).map(|byte| if fits(byte) { byte } else { b'?' }));
    if login.len() > LONGEST_LOGIN {
        line.push(b'?');
    }
}

/// The maximum length of a path in a line.
const LONGEST_PATH: usize = 200;

/// The maximum length of a path segment; no name in the API is longer, and a longer one could be a misplaced token.
const LONGEST_SEGMENT: usize = 30;

fn write_path(line: &mut Vec<u8>, path: &str) {
    let mut written = 0;
    for segment in path.split('/').skip(1) {
        line.push(b'/');
        if segment.len() > LONGEST_SEGMENT {
            line.extend_from_slice("…".as_bytes());
        } else {
            write_escaped(line, segment.as_bytes());
        }
        written += segment.len() + 1;
        if written > LONGEST_PATH {
            line.extend_from_slice("…".as_bytes());
            return;
        }
    }
}

/// Escapes quotes and backslashes, and replaces control characters and all of non-ASCII, which includes bidirectional
/// and C1 controls: a terminal or a line-based reader could interpret them.
fn write_escaped(line: &mut Vec<u8>, bytes: &[u8]) {
    if bytes.iter().all(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\')) {
        // Nearly always: one copy, and not one for each byte.
        line.extend_from_slice(bytes);
        return;
    }
    for byte in bytes {
        match byte {
            b'"' | b'\\' => line.extend_from_slice(&[b'\\', *byte]),
            0..=0x1f | 0x7f.. => line.push(b'?'),
            _ => line.push(*byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use metrica::cause::Cause;
    use metrica::operation::{OperationId, Verb};

    use super::*;
    use crate::policy::caller::Peer;
    use crate::policy::names::{CallerId, ListenerName};
    use crate::policy::rejection::Reason;

    fn line(form: Form) -> String {
        line_about(form, None)
    }

    fn line_about(form: Form, subject: Option<&Subject>) -> String {
        line_of(form, subject, Refusal::Gate(Reason::ScopeDenied), None)
    }

    fn line_of(
        form: Form,
        subject: Option<&Subject>,
        refusal: Refusal,
        rights: Option<(ScopeSet, ScopeSet)>,
    ) -> String {
        let finished = Finished {
            quota_wait: None,
            caller: Some(CallerId::new("reports")),
            operation: Some(OperationId::new("GET /new/{id}")),
            marks: [None; 2],
            token: None,
            needed: None,
            ended: std::time::Instant::now(),
            verb: Some(Verb::Get),
            code: 403,
            refusal: Some(refusal),
            would_refuse: None,
            duration: Duration::from_micros(1234),
            upstream_duration: None,
            request_bytes: 1,
            response_bytes: 2,
            group: crate::metrics::usage::Group::None,
        };
        let evidence = Evidence::new(ListenerName::new("crm"), Peer::Process { uid: 7, gid: 8 });
        let context = Context {
            request_id: br#"a"b\c"#,
            trace: None,
            upstream_status: None,
            outcome: Outcome::Complete,
            resent: 0,
            account: (true, Some(TokenAlias::new("first"))),
            path: Some("/a/y0_AgAAAAAsecretsecretsecretsecretsecret/b"),
            subject,
            rights,
            evidence: Some(&evidence),
        };
        let mut lines = Lines::default();
        lines.write(form, &finished, &context);
        String::from_utf8(lines.bytes).unwrap()
    }

    /// R-17: for all bytes of any origin.
    #[test]
    fn bytes_of_a_caller_are_escaped() {
        let all: Vec<u8> = (0..=u8::MAX).chain("\u{202e}\u{9b}31m\u{2028}".bytes()).collect();
        let mut line = Vec::new();
        write_escaped(&mut line, &all);
        assert!(line.iter().all(|byte| (0x20..0x7f).contains(byte)), "{line:?}");
        let text = format!("\"{}\"", String::from_utf8(line).unwrap());
        assert_eq!(serde_json::from_str::<String>(&text).unwrap().len(), all.len());
        let mut line = Vec::new();
        write_path(&mut line, "/a\u{1b}[31m/\u{202e}b\n/\"");
        assert_eq!(String::from_utf8(line).unwrap(), "/a?[31m/???b?/\\\"");
    }

    #[test]
    fn milliseconds_have_significant_digits_only() {
        for (micros, expected) in [
            (0, "0"),
            (4, "0"),
            (5, "0.01"),
            (480, "0.48"),
            (5_700, "5.7"),
            (26_054, "26.05"),
            (1_000_000, "1000"),
            (9_995, "10"),
        ] {
            let mut written = Vec::new();
            write_milliseconds(&mut written, Duration::from_micros(micros));
            assert_eq!(String::from_utf8(written).unwrap(), expected, "{micros}");
        }
    }

    #[test]
    fn json_lines_are_json() {
        let line: serde_json::Value = serde_json::from_str(&line(Form::Json)).unwrap();
        assert_eq!(line["reason"], "scope_denied");
        assert_eq!(line["request_id"], r#"a"b\c"#);
        assert_eq!(line["path"], "/a/…/b");
        assert_eq!(line["listener"], "crm");
        assert_eq!(line["peer"], "uid 7 gid 8");
        assert_eq!(line["duration_ms"], 1.23);
        assert_eq!((&line["account"], &line["denied_token"]), (&true.into(), &"first".into()));
    }

    #[test]
    fn refusals_of_metrica_have_advice_for_the_operator() {
        for cause in Cause::ALL {
            let rights = Some((ScopeSet::from_index(6), ScopeSet::from_index(1)));
            let text = line_of(Form::Json, None, Refusal::Upstream(*cause), rights);
            let json: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert_eq!(json["advice"], cause.advice(), "{cause:?}");
            assert_eq!(json["needs"], "metrika:write or metrika:expenses");
            assert_eq!(json["declared"], "metrika:read");
            let human = line_of(Form::Human, None, Refusal::Upstream(*cause), rights);
            assert!(human.contains(&format!(" advice=\"{}\" id=", cause.advice())), "{human}");
            assert_eq!(human.matches('\n').count(), 1);
        }
    }

    /// Returns the subject of `target`, as JSON and as text.
    fn write_subject(target: &str) -> (serde_json::Value, String) {
        use metrica::operation::{Catalogue, Lookup};
        let (path, query) = target.split_once('?').unwrap();
        let catalogue = Catalogue::built_in();
        let Lookup::Known(operation) = catalogue.find(Verb::Get, path) else { panic!("{target} is no operation") };
        let names = strict_http::target::check(path, Some(query), 48 * 1024).unwrap();
        let subject = Subject::of(operation, path, Some(query), names);
        let json = line_about(Form::Json, Some(&subject));
        (serde_json::from_str(&json).unwrap(), line_about(Form::Human, Some(&subject)))
    }

    #[test]
    fn lines_name_counters_and_logins() {
        let (json, human) = write_subject("/stat/v1/data?ids=1,2&ulogin=shop-x&direct_client_logins=a,b");
        assert_eq!(json["counters"], serde_json::json!([1, 2]));
        assert_eq!(
            (&json["ulogin"], &json["direct_client_logins"]),
            (&"shop-x".into(), &serde_json::json!(["a", "b"]))
        );
        assert!(human.contains(" counters=1,2 ulogin=shop-x direct_client_logins=a,b path="), "{human}");
        let (json, human) = write_subject("/stat/v1/data?ids=1,x");
        assert_eq!((json.get("counters"), &json["unreadable_counters"]), (None, &true.into()));
        assert!(human.contains(" counters=? path="), "{human}");
        let (json, human) = write_subject("/stat/v1/data?metrics=ym:s:visits");
        assert!(json.get("counters").is_none() && json.get("ulogin").is_none() && !human.contains("counters="));
    }

    #[test]
    fn lists_are_bounded() {
        let many: Vec<_> = (1..=11).map(|number| number.to_string()).collect();
        let all = many.join(",");
        let (json, human) = write_subject(&format!("/stat/v1/data?ids={all}&direct_client_logins={all}"));
        assert_eq!(json["counters"].as_array().unwrap().len(), 10);
        assert_eq!((&json["more_counters"], &json["more_logins"]), (&true.into(), &true.into()));
        assert!(human.contains(" counters=1,2,3,4,5,6,7,8,9,10,... direct_client_logins=1,2,"), "{human}");
        let ten = many[..10].join(",");
        let (json, human) = write_subject(&format!("/stat/v1/data?ids={ten}"));
        assert!(json.get("more_counters").is_none() && !human.contains("..."), "{human}");
    }

    /// R-17: a login cannot end its value or its line.
    #[test]
    fn logins_have_the_letters_of_logins() {
        let (json, human) = write_subject("/stat/v1/data?ids=1&ulogin=a%22,%0A+b%D1%8F%20token=x");
        assert_eq!(json["ulogin"], "a????b???token?x");
        assert!(human.contains(" ulogin=a????b???token?x path="), "{human}");
        let (json, _) = write_subject(&format!("/stat/v1/data?ulogin={}", "x@y.z".repeat(8000)));
        assert_eq!(json["ulogin"], format!("{}x@y?", "x@y.z".repeat(25)));
        let (json, _) = write_subject(
            "/stat/v1/data?ulogin=y0_AgAAAAAsecretsecretsecretsecretsecret&direct_client_logins=a,AQAAAAAsecretsecretsecretsecretsecret",
        );
        assert_eq!((&json["ulogin"], &json["direct_client_logins"]), (&"?".into(), &serde_json::json!(["a", "?"])));
    }

    #[test]
    fn human_lines_are_one_line() {
        assert!(line(Form::Human).contains(" ACCESS 403 reports GET GET /new/{id} token=none gate:scope_denied up=1"));
        assert_eq!(line(Form::Human).matches('\n').count(), 1);
    }
}
