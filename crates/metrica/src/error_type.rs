//! The `error_type` in the body of a refusal by Metrica.
//!
//! 1. Metrica's errors are JSON with `errors[].error_type`; the type decides, never the message, which is localised.
//! 2. Types are a closed list: the documented ones and those observed in live responses. A name that begins with `quota_` is
//!    read as `quota_other`, any other name as `other`.
//! 3. Only a copy of the first bytes of the body is examined, so it may be cut after its type. The body is forwarded
//!    unchanged, whatever its contents.
//!
//! Source: <https://yandex.com/dev/metrika/en/intro/errors>, <https://yandex.com/dev/metrika/en/intro/quotas>.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// The maximum number of bytes of a refusal's body that is examined. Metrica's bodies have a few hundred.
pub const LOOKED_AT: usize = 8 * 1024;

macro_rules! error_types {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)*) => {
        /// An `error_type` of Metrica.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum ErrorType {
            $($(#[doc = $doc])+ $variant,)*
        }

        impl ErrorType {
            /// All types.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The name used in bodies, metrics and logs.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

error_types! {
    /// 400
    InvalidParameter = "invalid_parameter",
    /// 401: no usable credential.
    Unauthorized = "unauthorized",
    /// 403: a right or a scope is missing; Metrica does not distinguish the two.
    AccessDenied = "access_denied",
    /// 403 (documented) or 401 (the authorization page): the token is invalid, expired or revoked.
    InvalidToken = "invalid_token",
    /// 403: the counter belongs to an organisation.
    CounterInConnect = "counter_in_connect",
    /// 404
    NotFound = "not_found",
    /// 429: requests per login.
    QuotaRequestsByUid = "quota_requests_by_uid",
    /// 429: requests per IP address, 30 per second.
    QuotaRequestsByIp = "quota_requests_by_ip",
    /// 429: requests per counter.
    QuotaRequestsByCounterId = "quota_requests_by_counter_id",
    /// 429: parallel requests per login, three at once.
    QuotaParallelRequests = "quota_parallel_requests",
    /// 429: the name that the live API uses for the one above.
    QuotaParallelRequestsByUid = "quota_parallel_requests_by_uid",
    /// 429: requests that add delegates.
    QuotaDelegateRequests = "quota_delegate_requests",
    /// 429: requests that grant access.
    QuotaGrantsRequests = "quota_grants_requests",
    /// Any other name that begins with `quota_`.
    QuotaOther = "quota_other",
    /// 503
    BackendError = "backend_error",
    /// 504
    Timeout = "timeout",
    /// Any other name, or a body without a type.
    Other = "other",
}

impl ErrorType {
    /// Returns the type with this name (rule 2).
    #[must_use]
    pub fn of(name: &str) -> Self {
        let other = if name.starts_with("quota_") { Self::QuotaOther } else { Self::Other };
        Self::ALL.iter().copied().find(|known| known.as_str() == name).unwrap_or(other)
    }

    /// Returns the type in a refusal's body (rules 1 to 3), or [`Self::Other`] if it has none.
    #[must_use]
    pub fn in_body(body: &[u8]) -> Self {
        let found = Cell::new(None);
        // A truncated body fails to parse after its type, which has been found by then.
        let _ = Refusal(&found).deserialize(&mut serde_json::Deserializer::from_slice(body));
        found.get().unwrap_or(Self::Other)
    }
}

/// A string, borrowed if it contains no escape.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// Searches for `errors`, then its list, then the `error_type` of the first element.
struct Refusal<'a>(&'a Cell<Option<ErrorType>>);
struct Errors<'a>(&'a Cell<Option<ErrorType>>);
struct Detail<'a>(&'a Cell<Option<ErrorType>>);

macro_rules! looks_into {
    ($kind:ident, $what:literal, $method:ident, $access:ident, |$self:ident, $inside:ident| $look:block) => {
        impl<'de> DeserializeSeed<'de> for $kind<'_> {
            type Value = ();

            fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
                deserializer.deserialize_any(self)
            }
        }

        impl<'de> Visitor<'de> for $kind<'_> {
            type Value = ();

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str($what)
            }

            fn $method<A: $access<'de>>($self, mut $inside: A) -> Result<(), A::Error> $look
        }
    };
}

looks_into!(Refusal, "an object with errors", visit_map, MapAccess, |self, object| {
    while let Some(Text(key)) = object.next_key()? {
        if key == "errors" {
            object.next_value_seed(Errors(self.0))?;
        } else {
            object.next_value::<IgnoredAny>()?;
        }
    }
    Ok(())
});

looks_into!(Errors, "a list of errors", visit_seq, SeqAccess, |self, list| {
    list.next_element_seed(Detail(self.0))?;
    while list.next_element::<IgnoredAny>()?.is_some() {}
    Ok(())
});

looks_into!(Detail, "an error", visit_map, MapAccess, |self, object| {
    while let Some(Text(key)) = object.next_key()? {
        if key == "error_type" {
            let Text(name) = object.next_value()?;
            self.0.set(Some(ErrorType::of(&name)));
        } else {
            object.next_value::<IgnoredAny>()?;
        }
    }
    Ok(())
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_1_the_type_decides() {
        let body = br#"{"errors":[{"error_type":"invalid_token","message":"Invalid oauth_token"}],"code":403,"message":"Invalid oauth_token"}"#;
        assert_eq!(ErrorType::in_body(body), ErrorType::InvalidToken);
        let spread = "{ \"code\": 403, \"errors\" : [ {\"message\":\"нет\", \"location\":\"x\", \"error_type\" : \"access_denied\"} ] }";
        assert_eq!(ErrorType::in_body(spread.as_bytes()), ErrorType::AccessDenied);
        let second = br#"{"errors":[{"message":"a"},{"error_type":"access_denied"}]}"#;
        assert_eq!(ErrorType::in_body(second), ErrorType::Other, "it is the first error's");
    }

    #[test]
    fn rule_2_the_list_is_closed() {
        assert_eq!(ErrorType::of("quota_parallel_requests_by_uid"), ErrorType::QuotaParallelRequestsByUid);
        assert_eq!(ErrorType::of("quota_of_tomorrow"), ErrorType::QuotaOther);
        assert_eq!(ErrorType::of("surprise"), ErrorType::Other);
    }

    #[test]
    fn rule_3_a_body_truncated_after_its_type_has_that_type() {
        let body = format!(
            r#"{{"code":429,"errors":[{{"error_type":"quota_parallel_requests","message":"{}"#,
            "x".repeat(9000)
        );
        assert_eq!(ErrorType::in_body(&body.as_bytes()[..LOOKED_AT]), ErrorType::QuotaParallelRequests);
        let late = format!(r#"{{"message":"{}","errors":[{{"error_type":"invalid_token"}}]}}"#, "x".repeat(9000));
        assert_eq!(ErrorType::in_body(&late.as_bytes()[..LOOKED_AT]), ErrorType::Other);
    }

    #[test]
    fn rule_3_any_body_is_survived() {
        for body in [
            &b""[..],
            b"<html>",
            b"{\"errors\":[]}",
            b"{\"errors\":[{\"error_type\":\"invalid_token",
            b"{\"errors\":{\"error_type\":\"invalid_token\"}}",
            b"[1]",
            b"\xff\xfe",
            b"null",
        ] {
            assert_eq!(ErrorType::in_body(body), ErrorType::Other, "{body:?}");
        }
    }
}
