//! The assumptions about Metrica that its documentation does not state, or states ambiguously. `docs/assumptions.md` is
//! generated from this list.

/// A behaviour of Metrica that the gate relies on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Assumption {
    /// The name in JSON and in the table.
    pub name: &'static str,
    /// The assumption as a sentence.
    pub says: &'static str,
    /// The code that relies on it.
    pub relied_on: &'static str,
    /// The change to make if it does not hold.
    pub otherwise: &'static str,
    /// The reason why it cannot be tested, if it cannot.
    pub unasked: Option<&'static str>,
}

macro_rules! assumptions {
    ($($(#[doc = $doc:literal])* $variant:ident = $name:literal, $says:literal, $relied_on:literal, $otherwise:literal
        $(, never: $unasked:literal)?;)*) => {
        /// The assumptions.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[expect(missing_docs, reason = "each is what its sentence says")]
        pub enum Assumed { $($(#[doc = $doc])* $variant,)* }

        impl Assumed {
            /// All assumptions, in the order in which they are shown.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Returns the description of the assumption.
            #[must_use]
            pub const fn of(self) -> Assumption {
                match self {
                    $(Self::$variant => Assumption {
                        name: $name,
                        says: $says,
                        relied_on: $relied_on,
                        otherwise: $otherwise,
                        unasked: { #[allow(unused_variables, reason = "most can be asked")] let never: Option<&'static str> = None; $(let never = Some($unasked);)? never },
                    },)*
                }
            }
        }
    };
}

assumptions! {
    Http2 = "http2", "HTTP/2 is offered (ALPN h2)", "`upstream.http2: true` (`src/upstream/pool.rs`)",
        "nothing: HTTP/1.1 is used where HTTP/2 is not offered; leave `upstream.http2` off";
    Coding = "coding", "responses are uncompressed or compressed with gzip, never otherwise",
        "`src/response/coding.rs` requests and decodes gzip only",
        "the gate responds with 502 `upstream_encoding` to another coding: add that coding to `src/response/coding.rs`";
    WithoutToken = "without_token", "a request without a token gets 401 with Metrica's JSON and the type `unauthorized`",
        "`crates/metrica/src/error_type.rs`, `crates/metrica/src/cause.rs`: the type decides, then the status", "add the observed type to `crates/metrica/src/error_type.rs`";
    BadToken = "bad_token", "a request with an invalid token gets 401 or 403 with Metrica's JSON and `invalid_token` or `unauthorized`",
        "token health (`src/health.rs`) suspends a token for these responses only",
        "add the observed type to `crates/metrica/src/error_type.rs`; otherwise invalid tokens are not detected";
    Accepted = "accepted", "the token is accepted in the form `Authorization: OAuth`", "`src/token.rs`, every request",
        "change the scheme in `src/token.rs`";
    ListNeedsNoGrant = "list", "the list of counters is an object with `counters` and `rows`, and requires no grant",
        "`src/health/question.rs`: the probe for valid tokens and for `metrika:read`",
        "choose another probe in `src/health/question.rs`";
    PermissionInList = "permission_in_list", "each counter of the list has `permission` and `owner_login`",
        "`crates/metrica/src/observed_rights.rs` and the doctor distinguish a missing scope from a missing grant by `permission`",
        "correct the fields in `crates/metrica/src/response.rs`; until then 403s are `ambiguous`";
    PermissionOfOne = "permission_of_one", "a single counter has `permission`, with a known value",
        "the same", "add the value to `crates/metrica/src/observed_rights.rs` and `src/doctor/finding.rs`";
    ForeignCounter = "foreign_counter", "a counter without a grant gets 403 `access_denied`",
        "`crates/metrica/src/cause.rs`: `counter_not_granted`", "if it is 404, treat `not_found` of a counter in the same way in `crates/metrica/src/cause.rs`";
    PublicWithBadToken = "public_with_bad_token", "an invalid token cannot get a report of a public counter",
        "`crates/metrica/src/observed_rights.rs`: success on a public counter proves nothing, so the gate works either way",
        "nothing: the gate detects an invalid token later, by its first request for another counter";
    FinalSlash = "final_slash", "a trailing slash of a path has no meaning",
        "`crates/strict-http/src/target/canonical.rs` removes it", "refuse it there (`strict: true` does)";
    EncodedLess = "encoded_less", "`%3C` in a query means what a raw `<` means",
        "`crates/strict-http/src/target/canonical.rs` encodes it", "refuse raw characters there (`strict: true` does)";
    IdsTwice = "ids_twice", "`ids=1&ids=1` means what `ids=1,1` means", "`crates/strict-http/src/target/canonical.rs` joins them",
        "refuse the second there (`strict: true` does)";
    UnknownPath = "unknown_path", "an unknown path gets 404 with Metrica's JSON",
        "`crates/metrica/src/error_type.rs`: a response without the JSON does not count as Metrica's", "nothing breaks; the reason is `other`";
    Quota = "quota", "an exhausted quota gets 429 or 420 with a type that begins with `quota_`",
        "`crates/metrica/src/error_type.rs`, `metrika_gate_quota_rejections_total`", "add the status or the type in `crates/metrica/src/error_type.rs`";
    Accounts = "accounts", "the list of accounts has `user_login` for each",
        "`crates/metrica/src/response.rs`: `not_representative`, and the doctor's `represents`", "correct the field there";
    Issuer = "issuer", "Yandex ID returns `login` and `client_id` for a token with any scope",
        "`src/health/identity.rs`: `owner_mismatch`", "correct the fields there, or leave `identity` out";
    ScopeLikeGrant = "scope_like_grant", "Metrica refuses a missing scope and a missing grant with the same message",
        "`crates/metrica/src/cause.rs` distinguishes them by observed rights", "if the messages differ, parse them in `crates/metrica/src/error_type.rs`",
        never: "a test requires a token without a scope, or a write";
    DeleteIs200 = "delete_is_200", "DELETE gets 200 and a body, never 204",
        "only the stand-in (`crates/fake-metrica`)", "correct `crates/fake-metrica`", never: "a test requires a write";
    SharedQuota = "shared_quota", "quotas apply to the owner's login, the address and the counter",
        "the documentation of quotas, and the reasons `quota_*`", "correct the hints in `crates/metrica/src/cause.rs`",
        never: "a test requires an exhausted quota";
}
