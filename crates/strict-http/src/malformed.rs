//! The reasons to reject a request that cannot be read: one kind for every check of the readers.
//!
//! The readers have no other error type, so every rejection has a kind. Its message states the problem and the fix, and
//! contains nothing of the request; the client and the log get the same text. `docs/malformed.md` has the table.

use std::fmt;

use crate::target::{Broken, Rule};

/// The part of a request that a kind concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The bytes are not HTTP.
    Syntax,
    /// `Host`.
    Host,
    /// The length of the body.
    Framing,
    /// The target.
    Target,
    /// The length of the target.
    TargetLength,
    /// The size of the header or of its parts.
    HeaderSize,
    /// The method.
    Method,
}

macro_rules! kinds {
    ($($class:ident { $($variant:ident = $word:literal, $message:literal;)* })*) => {
        /// The reason to reject a request because of its syntax.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Malformed {
            $($(#[doc = $message] $variant,)*)*
            /// The target breaks a rule.
            Target(Broken),
        }

        impl Malformed {
            const PLAIN: &[Self] = &[$($(Self::$variant),*),*];

            /// The word used in logs.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self {
                    $($(Self::$variant => $word,)*)*
                    Self::Target(broken) => broken.rule.word(),
                }
            }

            /// The class of the kind.
            #[must_use]
            pub const fn class(self) -> Class {
                match self {
                    $($(Self::$variant)|* => Class::$class,)*
                    Self::Target(_) => Class::Target,
                }
            }

            /// The message for the client.
            #[must_use]
            pub const fn message(self) -> &'static str {
                match self {
                    $($(Self::$variant => $message,)*)*
                    Self::Target(broken) => broken.rule.message(),
                }
            }
        }
    };
}

kinds! {
    Syntax {
        TlsHandshake = "tls_handshake",
            "The client speaks TLS, but this listener expects clear text: use http:// in the client's URL of the gate or of its proxy, or set tls for the listener.";
        TlsRecord = "tls_record",
            "The client sends TLS alerts or data, but this listener expects clear text: use http:// in the client's URL of the gate or of its proxy, or set tls for the listener.";
        PlainText = "plain_text",
            "The client sends clear text, but this listener or port of the proxy expects TLS: use https:// in the client's URL.";
        ConnectTarget = "connect_target",
            "The target of CONNECT is not a host and a port: send for example CONNECT api-metrika.yandex.net:443 HTTP/1.1.";
        Http2Preface = "http2_preface",
            "The client speaks HTTP/2, but the listener does not have http2: true, or the connection preface is incomplete: set http2: true, or configure the client for HTTP/1.1.";
        ProxyProtocolV1 = "proxy_protocol_v1",
            "The load balancer sends the PROXY protocol, version 1, which listeners do not support: disable it there.";
        ProxyProtocolV2 = "proxy_protocol_v2",
            "The load balancer sends the PROXY protocol, version 2, which listeners do not support: disable it there.";
        Socks4 = "socks4",
            "The client speaks SOCKS4, but the gate is not a SOCKS proxy: use the gate as the base URL of the API.";
        Socks5 = "socks5",
            "The client speaks SOCKS5, but the gate is not a SOCKS proxy: use the gate as the base URL of the API.";
        HttpResponse = "http_response",
            "The client sends the status line of a response: send a request, which begins with its method.";
        BinaryData = "binary_data",
            "The request line has a control byte, which HTTP/1.1 does not allow: check which protocol the client speaks.";
        NotARequestLine = "not_a_request_line",
            "The first line is not a request line: send a method, a target and HTTP/1.1, separated by one space.";
        Spacing = "request_line_spacing",
            "The parts of the request line are not separated by exactly one space: send a method, a target and HTTP/1.1, with nothing before or after them.";
        InvalidMethod = "invalid_method",
            "The method has an invalid character: use for example GET.";
        RawSpace = "raw_space",
            "The request line has more than three parts: percent-encode a space in the target as %20.";
        NoVersion = "no_version",
            "The request line has no version of HTTP: end it with HTTP/1.1.";
        UnsupportedVersion = "unsupported_version",
            "The version in the request line is neither HTTP/1.1 nor HTTP/1.0: use HTTP/1.1.";
        VersionInLowerCase = "version_in_lower_case",
            "The version in the request line is not in upper case: write HTTP/1.1.";
        BareLineFeed = "bare_line_feed",
            "A line ends with LF only: end every line with CR LF.";
        BareCarriageReturn = "bare_carriage_return",
            "A CR is not followed by LF: end every line with CR LF, and use CR nowhere else.";
        FoldedField = "folded_field",
            "A header field is continued on a line that begins with a space or a tab: write each field on one line.";
        FieldWithoutColon = "field_without_colon",
            "A header line has no colon: write each field as Name: value.";
        EmptyFieldName = "empty_field_name",
            "A header line begins with a colon: write each field as Name: value.";
        SpaceBeforeColon = "space_before_colon",
            "A header line has a space before its colon: put the colon directly after the name.";
        InvalidFieldName = "invalid_field_name",
            "The name of a header field has an invalid character: use letters, digits and hyphens.";
        ControlInField = "control_in_field",
            "A header field has a control byte such as NUL: remove it, or encode the value.";
        ForbiddenTrailer = "forbidden_trailer",
            "A trailer has the name of a field that is allowed only in the header: send it there.";
    }
    Host {
        NoHost = "no_host",
            "The request has no Host: send the host of the client's URL of the gate.";
        TwoHosts = "two_hosts",
            "The request has more than one Host: send one.";
        InvalidHost = "invalid_host",
            "The Host is not a name or an address with an optional port: write it as in gate.example:8080.";
        HostUnlikeTarget = "host_unlike_target",
            "The Host differs from the host and port in the target: send the same in both, or only the path as the target.";
    }
    Framing {
        ConnectWithBody = "connect_with_body",
            "A CONNECT request announces a body: send none; the bytes after its header are those of the tunnel.";
        InvalidContentLength = "invalid_content_length",
            "The Content-Length is not one number: send the length of the body in decimal digits.";
        TwoContentLengths = "two_content_lengths",
            "The request has more than one Content-Length: send one.";
        LengthAndEncoding = "content_length_and_transfer_encoding",
            "The request has both Content-Length and Transfer-Encoding: send one of them.";
        UnsupportedTransferEncoding = "unsupported_transfer_encoding",
            "The Transfer-Encoding is not chunked: send chunked alone, or a Content-Length.";
        TwoTransferEncodings = "two_transfer_encodings",
            "The request has more than one Transfer-Encoding: send one.";
        EncodingInHttp10 = "transfer_encoding_in_http10",
            "The HTTP/1.0 request has a Transfer-Encoding, which only HTTP/1.1 allows: use HTTP/1.1 or a Content-Length.";
        InvalidChunkSize = "invalid_chunk_size",
            "A chunk does not begin with its size: send 1 to 15 hexadecimal digits, then CR LF or an extension.";
        ChunkLineEnd = "chunk_line_end",
            "A chunk-size line does not end with CR LF, or has a CR elsewhere: end it with CR LF.";
        ChunkEnd = "chunk_end",
            "The data of a chunk is not followed by CR LF: send the exact size, and CR LF after the data.";
        ControlInChunkExtension = "control_in_chunk_extension",
            "A chunk extension has a control byte: leave extensions out.";
        ChunkLineTooLong = "chunk_line_too_long",
            "A chunk-size line exceeds 256 bytes: leave extensions out.";
        ChunkExtensionsTooLong = "chunk_extensions_too_long",
            "The chunk extensions of the body exceed 4096 bytes in total: leave extensions out.";
    }
    TargetLength {
        TargetTooLong = "target_too_long",
            "The request target exceeds limits.target_bytes of the gate: request less at once.";
    }
    HeaderSize {
        HeaderTooLarge = "header_too_large",
            "The request header exceeds limits.header_bytes of the gate: send fewer or shorter fields.";
        TooManyFields = "too_many_fields",
            "The header fields or trailers of the request exceed limits.header_fields of the gate: send fewer.";
        FieldNameTooLong = "field_name_too_long",
            "The name of a header field exceeds 1024 bytes: use a shorter one.";
        TrailersTooLarge = "trailers_too_large",
            "The trailers exceed 8192 bytes: leave them out; the gate does not use them.";
    }
    Method {
        Connect = "connect",
            "CONNECT requests a tunnel, but this listener is not a forward proxy, or CONNECT is not the first request of its connection: use the gate as the base URL of the API, or set proxy: true for the listener.";
    }
}

impl Malformed {
    /// Returns every kind; rules of targets are returned as broken at their first byte.
    pub fn all() -> impl Iterator<Item = Self> {
        Self::PLAIN.iter().copied().chain(Rule::ALL.iter().map(|rule| Self::Target(rule.at(0))))
    }
}

/// The text for logs, which includes the position in a target.
impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Self::Target(broken) = self { broken.fmt(f) } else { f.write_str(self.message()) }
    }
}

impl std::error::Error for Malformed {}

impl From<Broken> for Malformed {
    fn from(broken: Broken) -> Self {
        Self::Target(broken)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_kind_has_its_own_word() {
        let words: BTreeSet<_> = Malformed::all().map(Malformed::word).collect();
        assert_eq!(words.len(), Malformed::all().count());
        let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        assert!(words.iter().all(|word| word.bytes().all(fits)), "{words:?}");
    }

    /// Messages are put into JSON and into a header field without escaping.
    #[test]
    fn messages_need_no_escaping() {
        for kind in Malformed::all() {
            let message = kind.message();
            let fits = |byte: u8| (b' '..0x7f).contains(&byte) && byte != b'"' && byte != b'\\';
            assert!(message.bytes().all(fits) && message.ends_with('.'), "{message:?}");
        }
    }
}
