//! The errors of the OAuth server, each with its words and its remedy.
//!
//! 1. The list is closed. An unknown error is reported as such; its text is not repeated.
//! 2. The same error has different causes in different steps, so words and remedy depend on the step.

use std::fmt;

use crate::health::question::Obstacle;

/// The step in which an error occurred.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The page on which a person decides.
    Page,
    /// The request for the code of a device.
    DeviceCode,
    /// The exchange of a device for a token.
    Device,
    /// The exchange of a code for a token.
    Code,
    /// The exchange of a refresh token.
    Refresh,
    /// The end of a token.
    Revoke,
}

impl Step {
    /// All steps.
    #[cfg(test)]
    pub const ALL: [Self; 6] = [Self::Page, Self::DeviceCode, Self::Device, Self::Code, Self::Refresh, Self::Revoke];

    /// Returns the words for the action of the step.
    const fn action(self) -> &'static str {
        match self {
            Self::Page => "the page",
            Self::DeviceCode => "the request for a device code",
            Self::Device => "the request for the token of a device",
            Self::Code => "the exchange of the code",
            Self::Refresh => "the renewal of the token",
            Self::Revoke => "the revocation of the token",
        }
    }
}

macro_rules! errors {
    ($($(#[$doc:meta])* $name:ident $text:literal;)*) => {
        /// The name of an error.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum OAuthError {
            $($(#[$doc])* $name,)*
            /// Any other error.
            Other,
        }

        impl OAuthError {
            /// All errors that have a name.
            #[cfg(test)]
            pub const NAMED: &[Self] = &[$(Self::$name,)*];

            /// Returns the error with a name.
            #[must_use]
            pub fn named(text: &str) -> Self {
                match text { $($text => Self::$name,)* _ => Self::Other }
            }

            /// Returns the name.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* Self::Other => "an unknown error" }
            }
        }
    };
}

errors! {
    /// The person has not decided yet.
    Pending "authorization_pending";
    /// Requests are too frequent.
    SlowDown "slow_down";
    /// The code of a device has expired.
    Expired "expired_token";
    /// The person denied access.
    Denied "access_denied";
    /// The code is malformed.
    BadCode "bad_verification_code";
    /// The application is unknown, or its secret is wrong.
    InvalidClient "invalid_client";
    /// The code or refresh token is not valid, or not any more.
    InvalidGrant "invalid_grant";
    /// The request is malformed.
    InvalidRequest "invalid_request";
    /// The application does not have a right.
    InvalidScope "invalid_scope";
    /// The application is blocked, or not yet approved.
    UnauthorizedClient "unauthorized_client";
    /// The kind of grant is unknown.
    UnsupportedGrant "unsupported_grant_type";
    /// The token is not bound to a device.
    UnsupportedToken "unsupported_token_type";
    /// Another authentication scheme is required.
    BasicRequired "Basic auth required";
    /// The field with the client is malformed.
    MalformedHeader "Malformed Authorization header";
    /// The server failed.
    Server "server_error";
    /// The server is overloaded.
    Unavailable "temporarily_unavailable";
}

impl OAuthError {
    /// Whether the same request can succeed later.
    #[must_use]
    pub const fn is_temporary(self) -> bool {
        matches!(self, Self::Pending | Self::SlowDown | Self::Server | Self::Unavailable)
    }

    /// Returns the words for the error in a step.
    #[must_use]
    pub fn message(self, step: Step) -> String {
        let words = match (self, step) {
            (Self::Pending, _) => "nobody has allowed or denied the access yet",
            (Self::SlowDown, _) => "the requests are too frequent",
            (Self::Expired, _) => "the time for entering the code is over",
            (Self::Denied, _) => "the access was denied on the page of Yandex",
            (Self::BadCode, _) => "the code is malformed: it is not the one that Yandex shows",
            (Self::InvalidClient, Step::Page) => "the application does not exist",
            (Self::InvalidClient, _) => "the application does not exist, or its secret is missing or wrong",
            (Self::InvalidGrant, Step::Refresh) => {
                "Yandex does not accept the refresh token: it was used before, has expired, was revoked, or belongs to another application"
            }
            (Self::InvalidGrant, Step::Revoke) => "the token is already invalid, or belongs to another application",
            (Self::InvalidGrant, Step::Device) => "the code of the device is unknown or was used before",
            (Self::InvalidGrant, _) => {
                "the code has expired (10 minutes), was used before, or belongs to another login or application"
            }
            (Self::InvalidRequest, _) => "the OAuth server does not understand the request",
            (Self::InvalidScope, _) => "the application lacks a right that was requested",
            (Self::UnauthorizedClient, _) => "the application is blocked or not yet approved",
            (Self::UnsupportedGrant, _) => "the OAuth server does not offer this flow",
            (Self::UnsupportedToken, _) => "the token is not bound to a device, so only a person can revoke it",
            (Self::BasicRequired | Self::MalformedHeader, _) => {
                "the OAuth server rejects the form of the client's credentials"
            }
            (Self::Server | Self::Unavailable, _) => "the OAuth server failed",
            (Self::Other, _) => "the OAuth server reports an unknown error",
        };
        format!("{}: {words} ({})", step.action(), self.as_str())
    }

    /// Returns the action that resolves the error in a step.
    #[must_use]
    pub const fn remedy(self, step: Step) -> &'static str {
        match (self, step) {
            (Self::Pending | Self::Expired, _) => "run the command again and enter the code in time",
            (Self::SlowDown | Self::Server | Self::Unavailable, _) => "retry in a few minutes",
            (Self::Denied, _) => "run the command again and click Allow",
            (Self::InvalidClient, Step::Page) => {
                "compare client_id with the application at https://oauth.yandex.ru; it was deleted or is mistyped"
            }
            (Self::InvalidClient, _) => {
                "compare client_id and client_secret_file with the application at https://oauth.yandex.ru"
            }
            (Self::InvalidGrant, Step::Refresh) => {
                "if client_id has changed since the last login, restore it; otherwise run `metrika-gate token login ALIAS`; the access token may work until its expiry (`metrika-gate token status`)"
            }
            (Self::InvalidGrant, Step::Revoke) => {
                "check it with `metrika-gate token status`; if it is still accepted, compare client_id, or let its owner revoke the access at https://id.yandex.ru/personal/data-access"
            }
            (Self::BadCode | Self::InvalidGrant, _) => "run the command again and paste the new code once",
            (Self::InvalidScope, _) => {
                "compare the rights of the application at https://oauth.yandex.ru with the scopes of the token; changing an application's rights invalidates all its tokens"
            }
            (Self::UnauthorizedClient, _) => "look at the state of the application at https://oauth.yandex.ru",
            (Self::UnsupportedToken, _) => {
                "let its owner revoke the access at https://id.yandex.ru/personal/data-access"
            }
            (Self::UnsupportedGrant, _) => "choose another flow with --flow",
            (Self::InvalidRequest | Self::BasicRequired | Self::MalformedHeader | Self::Other, _) => {
                "check that oauth.url leads to Yandex OAuth and that no proxy responds in its place; choose another flow with --flow"
            }
        }
    }
}

/// The reason why a request to the OAuth server has no result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The server refused it.
    Refused(Step, OAuthError),
    /// There is no response.
    Unreached(Step, Obstacle),
    /// The response is not one of an OAuth server; this is its status.
    Unreadable(Step, u16),
}

impl Fault {
    /// Whether the request has surely changed nothing: it was refused, or never sent.
    #[must_use]
    pub const fn has_no_effect(&self) -> bool {
        match self {
            Self::Refused(_, error) => !error.is_temporary(),
            Self::Unreached(_, why) => matches!(why, Obstacle::Connection(_)),
            Self::Unreadable(..) => false,
        }
    }

    /// Whether the same request can succeed later.
    #[must_use]
    pub const fn is_temporary(&self) -> bool {
        match self {
            Self::Refused(_, error) => error.is_temporary(),
            Self::Unreached(..) | Self::Unreadable(..) => true,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(step, error) => write!(f, "{}; {}", error.message(*step), error.remedy(*step)),
            Self::Unreached(step, Obstacle::Connection(why)) if is_of_clock(why) => write!(
                f,
                "{}: no connection: {why}; compare the clock of this machine with the real time and set it, or renew the certificate, and retry",
                step.action()
            ),
            Self::Unreached(step, why) => {
                write!(f, "{}: {why}; check oauth.url and oauth.connect_to, and retry", step.action())
            }
            Self::Unreadable(step, status) => write!(
                f,
                "{}: the response (status {status}) is not one of Yandex OAuth; check that oauth.url leads to it and that no proxy responds in its place",
                step.action()
            ),
        }
    }
}

impl std::error::Error for Fault {}

/// Whether a failed handshake can have failed because of the clock: a certificate is not valid at this time.
fn is_of_clock(why: &str) -> bool {
    ["certificate expired", "certificate not valid yet"].iter().any(|words| why.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_1_names_are_found_and_unknown_ones_are_not_repeated() {
        for error in OAuthError::NAMED {
            assert_eq!(OAuthError::named(error.as_str()), *error);
        }
        assert_eq!(OAuthError::named("secret"), OAuthError::Other);
        assert!(!Fault::Refused(Step::Code, OAuthError::named("secret")).to_string().contains("secret"));
    }

    #[test]
    fn rule_2_every_error_has_words_and_a_remedy_in_every_step() {
        for step in Step::ALL {
            for error in OAuthError::NAMED.iter().chain(&[OAuthError::Other]) {
                let said = Fault::Refused(step, *error).to_string();
                assert!(said.contains("; ") && said.contains(error.as_str()), "{said}");
            }
        }
        let refresh = Fault::Refused(Step::Refresh, OAuthError::InvalidGrant).to_string();
        assert!(refresh.contains("another application") && refresh.contains("token login"), "{refresh}");
        let revoke = Fault::Refused(Step::Revoke, OAuthError::UnsupportedToken).to_string();
        assert!(revoke.contains("personal/data-access"), "{revoke}");
    }
}
