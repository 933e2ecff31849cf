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
    Coding = "coding", "answers are plain or compressed with gzip, and with nothing else",
        "`src/response/coding.rs` asks for gzip or nothing, and reads it",
        "the gate answers 502 `upstream_encoding` for another coding: teach `src/response/coding.rs` that coding";
    WithoutToken = "without_token", "without a token the answer is 401 with Metrica's JSON and the type `unauthorized`",
        "`crates/metrica/src/error_type.rs`, `crates/metrica/src/cause.rs`: the type decides, then the status", "add the type that is seen to `crates/metrica/src/error_type.rs`";
    BadToken = "bad_token", "with an invalid token it is 401 or 403 with Metrica's JSON and `invalid_token` or `unauthorized`",
        "the health of tokens (`src/health.rs`) suspends a token for these only",
        "add the type that is seen to `crates/metrica/src/error_type.rs`, or no dead token is found";
    Accepted = "accepted", "the token is accepted in the form `Authorization: OAuth`", "`src/token.rs`, every request",
        "change the scheme in `src/token.rs`";
    ListNeedsNoGrant = "list", "the list of counters is an object with `counters` and `rows`, and needs no grant",
        "`src/health/question.rs`: it is how a token is asked whether it is valid and reads",
        "choose another question in `src/health/question.rs`";
    PermissionInList = "permission_in_list", "each counter of the list has `permission` and `owner_login`",
        "`crates/metrica/src/observed_rights.rs` and the doctor tell a missing scope from a missing grant by `permission`",
        "correct the fields in `crates/metrica/src/response.rs`; until then 403s are `ambiguous`";
    PermissionOfOne = "permission_of_one", "so has a counter that is asked for by itself, with a word that is known",
        "the same", "add the word to `crates/metrica/src/observed_rights.rs` and `src/doctor/finding.rs`";
    ForeignCounter = "foreign_counter", "a counter without a grant is 403 `access_denied`",
        "`crates/metrica/src/cause.rs`: `counter_not_granted`", "where it is 404, treat `not_found` of a counter alike in `crates/metrica/src/cause.rs`";
    PublicWithBadToken = "public_with_bad_token", "a report of a public counter is refused to an invalid token",
        "`crates/metrica/src/observed_rights.rs`: success on a public counter proves nothing, so nothing breaks either way",
        "nothing: then a dead token is found later, by its first request for another counter";
    FinalSlash = "final_slash", "a slash at the end of a path changes nothing",
        "`crates/strict-http/src/target/canonical.rs` takes it away", "refuse it there (`strict: true` does)";
    EncodedLess = "encoded_less", "`%3C` in a query means what a raw `<` means",
        "`crates/strict-http/src/target/canonical.rs` encodes it", "refuse raw characters there (`strict: true` does)";
    IdsTwice = "ids_twice", "`ids=1&ids=1` means what `ids=1,1` means", "`crates/strict-http/src/target/canonical.rs` joins them",
        "refuse the second there (`strict: true` does)";
    UnknownPath = "unknown_path", "a path that is unknown is 404 with Metrica's JSON",
        "`crates/metrica/src/error_type.rs`: an answer without the JSON is not taken for Metrica's", "nothing breaks; the reason is `other`";
    Quota = "quota", "a quota is 429 or 420 with a type that begins with `quota_`",
        "`crates/metrica/src/error_type.rs`, `metrika_gate_quota_rejections_total`", "add the status or the type in `crates/metrica/src/error_type.rs`";
    Accounts = "accounts", "the list of accounts has `user_login` for each",
        "`crates/metrica/src/response.rs`: `not_representative`, and the doctor's `represents`", "correct the field there";
    Issuer = "issuer", "Yandex ID answers a token of any right with `login` and `client_id`",
        "`src/health/identity.rs`: `owner_mismatch`", "correct the fields there, or leave `identity` out";
    ScopeLikeGrant = "scope_like_grant", "a missing scope and a missing grant are refused in the same words",
        "`crates/metrica/src/cause.rs` tells them apart by what it has seen", "if the words differ, read the type in `crates/metrica/src/error_type.rs`",
        never: "it takes a token without a scope, or a write";
    DeleteIs200 = "delete_is_200", "DELETE is answered with 200 and a body, never with 204",
        "nothing but the stand-in (`crates/fake-metrica`)", "correct `crates/fake-metrica`", never: "only a write would tell";
    SharedQuota = "shared_quota", "quotas are of the owner's login, of the address and of the counter",
        "the documentation of quotas, and the reasons `quota_*`", "correct the hints in `crates/metrica/src/cause.rs`",
        never: "it takes a quota that is used up";
}
