//! Error responses: every error that the API documents, in one table, and their common body.
//!
//! Source: <https://yandex.com/dev/metrika/en/intro/errors>. That list does not have `method_not_allowed`, and live
//! responses contain `quota_parallel_requests_by_uid` where it has `quota_parallel_requests`.

use std::borrow::Cow;

use http::StatusCode;
use serde::Serialize;

macro_rules! error_types {
    ($($name:ident $text:literal $status:ident $message:literal;)*) => {
        /// The type of an error.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum ErrorType { $($name,)* }

        impl ErrorType {
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            pub const fn status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$status,)* }
            }

            pub const fn message(self) -> &'static str {
                match self { $(Self::$name => $message,)* }
            }
        }
    };
}

error_types! {
    InvalidParameter "invalid_parameter" BAD_REQUEST "Invalid parameter";
    MissingParameter "missing_parameter" BAD_REQUEST "Missing parameter";
    FilterLimits "filter_limits" BAD_REQUEST "Too many conditions or too long a filter";
    QueryError "query_error" BAD_REQUEST "Query is too complicated. Please reduce the date interval or sampling.";
    TooMuchRows "too_much_rows" BAD_REQUEST "Too many rows are asked for";
    InvalidUploading "invalid_uploading" BAD_REQUEST "The uploaded file is empty or malformed";
    InvalidJson "invalid_json" BAD_REQUEST "The body is not valid JSON";
    LimitExceeded "limit_exceeded" BAD_REQUEST "A limit of the object is exceeded";
    Unauthorized "unauthorized" UNAUTHORIZED "Unauthorized";
    AccessDenied "access_denied" FORBIDDEN "Access is denied";
    InvalidToken "invalid_token" FORBIDDEN "Invalid oauth_token";
    CounterInConnect "counter_in_connect" FORBIDDEN "The counter belongs to an organisation";
    NotFound "not_found" NOT_FOUND "Object not found";
    MethodNotAllowed "method_not_allowed" METHOD_NOT_ALLOWED "The method is not supported for this resource";
    NotAcceptable "not_acceptable" NOT_ACCEPTABLE "The format is not supported";
    Conflict "conflict" CONFLICT "The object was changed by another request";
    QuotaByUser "quota_requests_by_uid" TOO_MANY_REQUESTS "The quota of requests for the user is exceeded";
    QuotaByAddress "quota_requests_by_ip" TOO_MANY_REQUESTS "The quota of requests for the IP address is exceeded";
    QuotaByCounter "quota_requests_by_counter_id" TOO_MANY_REQUESTS "The quota of requests for the counter is exceeded";
    QuotaParallel "quota_parallel_requests" TOO_MANY_REQUESTS "The quota of parallel requests is exceeded";
    QuotaParallelByUser "quota_parallel_requests_by_uid" TOO_MANY_REQUESTS "The quota of parallel requests is exceeded";
    QuotaDelegates "quota_delegate_requests" TOO_MANY_REQUESTS "The quota of requests for delegates is exceeded";
    QuotaGrants "quota_grants_requests" TOO_MANY_REQUESTS "The quota of requests for grants is exceeded";
    BackendError "backend_error" SERVICE_UNAVAILABLE "The service is temporarily unavailable";
    Timeout "timeout" GATEWAY_TIMEOUT "The request took too long";
}

impl ErrorType {
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|error_type| error_type.as_str() == text)
    }

    /// The message in Russian, for the errors that clients meet most: the API localises messages.
    pub fn russian(self) -> Option<&'static str> {
        let messages = [
            (Self::Unauthorized, "Требуется авторизация"),
            (Self::AccessDenied, "Доступ запрещён"),
            (Self::InvalidToken, "Неверный oauth_token"),
            (Self::CounterInConnect, "Счётчик привязан к организации"),
            (Self::NotFound, "Объект не найден"),
            (Self::QuotaByUser, "Превышена квота на количество запросов пользователя"),
            (Self::QuotaByAddress, "Превышена квота на количество запросов с IP-адреса"),
            (Self::QuotaByCounter, "Превышена квота на количество запросов к счётчику"),
            (Self::QuotaParallel, "Превышена квота на количество параллельных запросов"),
            (Self::QuotaParallelByUser, "Превышена квота на количество параллельных запросов"),
            (Self::QuotaDelegates, "Превышена квота на количество запросов на добавление представителя"),
            (Self::QuotaGrants, "Превышена квота на количество запросов на предоставление гостевого доступа"),
        ];
        messages.iter().find(|(error_type, _)| *error_type == self).map(|(_, message)| *message)
    }
}

/// An error response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub status: StatusCode,
    pub error_type: Cow<'static, str>,
    pub message: Cow<'static, str>,
}

impl Refusal {
    /// Creates an error with a message of its own.
    pub fn because(error_type: ErrorType, message: impl Into<Cow<'static, str>>) -> Self {
        Self { message: message.into(), ..Self::from(error_type) }
    }

    /// An error for an invalid parameter. The message does not repeat the value, which could be a secret.
    pub fn invalid(parameter: &str) -> Self {
        Self::because(ErrorType::InvalidParameter, format!("Invalid value of the parameter '{parameter}'"))
    }

    /// An error for a missing parameter.
    pub fn missing(parameter: &str) -> Self {
        Self::because(ErrorType::MissingParameter, format!("The parameter '{parameter}' is missing"))
    }

    /// The body, with its fields in the order of the documentation.
    pub fn body(&self) -> Vec<u8> {
        #[derive(Serialize)]
        struct Body<'a> {
            errors: [Entry<'a>; 1],
            code: u16,
            message: &'a str,
        }
        #[derive(Serialize)]
        struct Entry<'a> {
            error_type: &'a str,
            message: &'a str,
        }
        let entry = Entry { error_type: &self.error_type, message: &self.message };
        let body = Body { errors: [entry], code: self.status.as_u16(), message: &self.message };
        // Strings and a number can always be written.
        serde_json::to_vec(&body).unwrap_or_default()
    }

    /// An HTML page as the servlet engine behind the API produces when its application does not respond: clients must
    /// handle an error that is not JSON.
    pub fn page(&self) -> Vec<u8> {
        let status = self.status;
        format!("<html><head><title>Error {status}</title></head><body><h2>HTTP ERROR {status}</h2></body></html>\n")
            .into_bytes()
    }
}

impl From<ErrorType> for Refusal {
    fn from(error_type: ErrorType) -> Self {
        Self {
            status: error_type.status(),
            error_type: error_type.as_str().into(),
            message: error_type.message().into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bodies_that_were_seen() {
        for (error_type, body) in [
            (
                ErrorType::InvalidToken,
                r#"{"errors":[{"error_type":"invalid_token","message":"Invalid oauth_token"}],"code":403,"message":"Invalid oauth_token"}"#,
            ),
            (
                ErrorType::AccessDenied,
                r#"{"errors":[{"error_type":"access_denied","message":"Access is denied"}],"code":403,"message":"Access is denied"}"#,
            ),
        ] {
            assert_eq!(String::from_utf8(Refusal::from(error_type).body()).unwrap(), body);
        }
    }

    #[test]
    fn every_error_type_is_found_by_its_name() {
        for error_type in ErrorType::ALL {
            assert_eq!(ErrorType::parse(error_type.as_str()), Some(*error_type));
            assert!(error_type.status().is_client_error() || error_type.status().is_server_error());
        }
    }
}
