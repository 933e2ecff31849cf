//! The accounts and counters in the world of every row, with names and numbers of its own.
//!
//! | name | what |
//! |---|---|
//! | `{shop}` | the account that owns the row's tokens by default; represents `{client}` |
//! | `{Shop}` | the same, in another spelling of its login |
//! | `{other}`, `{stranger}`, `{ivan}` | other accounts |
//! | `{client}` | an account that `{shop}` represents |
//! | `{porg}` | an account of an organisation, in which `{ivan}` works |
//! | `{own}`, `{edit}`, `{view}`, `{analyst}` | counters on which `{shop}` has this; but for the first, `{other}` owns them |
//! | `{none}`, `{foreign}` | counters of `{stranger}` and `{other}` on which `{shop}` has nothing |
//! | `{public}` | a counter of `{stranger}` with public statistics |
//! | `{org}` | a counter of `{porg}`, bound to the organisation, which `{shop}` may edit |
//! | `{theirs}`, `{theirview}` | a counter of `{client}`, and one that `{client}` may look at |
//! | `{personal}` | a counter of `{ivan}` |
//! | `{demo}` | the documentation's counter |

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::row::{Kind, Row, Tok};
use super::world::{Counter, DEMO, State, Token, World};

const LOGINS: [&str; 5] = ["shop", "other", "stranger", "ivan", "client"];

const COUNTERS: [&str; 11] =
    ["own", "edit", "view", "analyst", "none", "foreign", "public", "org", "theirs", "theirview", "personal"];

/// The cast of the row at a place of its group.
#[derive(Debug, Clone)]
pub struct Cast {
    /// Names to their values.
    names: BTreeMap<String, String>,
    place: usize,
}

impl Cast {
    /// The names of the row at `place`.
    pub fn new(place: usize) -> Self {
        let logins = LOGINS.iter().map(|name| ((*name).to_owned(), format!("{name}-{place}")));
        let counters =
            (1..).zip(COUNTERS).map(|(at, name)| (name.to_owned(), (7_000_000 + place * 100 + at).to_string()));
        let rest = [
            ("porg".to_owned(), format!("porg-{place}")),
            ("Shop".to_owned(), format!("Shop.{place}")),
            ("demo".to_owned(), DEMO.to_string()),
        ];
        Self { names: logins.chain(counters).chain(rest).collect(), place }
    }

    /// Puts names and numbers in the place of braces.
    pub fn names(&self, text: &str) -> String {
        let replaced =
            self.names.iter().fold(text.to_owned(), |text, (name, it)| text.replace(&format!("{{{name}}}"), it));
        assert!(!replaced.contains('{') || text.contains("{folder}"), "an unknown name in {text}");
        replaced
    }

    /// The value of one name.
    pub fn name(&self, name: &str) -> &str {
        self.names.get(name).unwrap_or_else(|| panic!("no {name} in the cast"))
    }

    /// The number of a counter.
    pub fn counter(&self, name: &str) -> u64 {
        self.name(name).parse().unwrap()
    }

    /// The listener of the row.
    pub fn listener(&self) -> String {
        format!("l-{}", self.place)
    }

    /// The label of the row's caller.
    pub fn caller(&self, row: &Row) -> String {
        if row.caller.is_empty() { "caller=\"unknown\"".to_owned() } else { format!("caller=\"c-{}\"", self.place) }
    }

    /// The name of a token in the configuration.
    pub fn alias(&self, token: &str) -> String {
        format!("{token}-{}", self.place)
    }

    /// The secret of a token; another one for each time that its file is written.
    pub fn secret(&self, token: &Tok, time: usize) -> String {
        if token.kind == Kind::Mangled {
            return format!("y0_cut{}{}", token.alias, self.place);
        }
        format!("y0_judge-{}-{}-{time}-{}", token.alias, self.place, "0".repeat(32))
    }

    /// A token as it was issued.
    pub fn token(&self, token: &Tok, scopes: &str) -> Token {
        Token {
            of: self.name(token.of).to_owned(),
            scopes: scopes.split_whitespace().map(str::to_owned).collect(),
            death: None,
            is_personal: token.kind == Kind::Personal,
        }
    }

    /// The world of a row.
    pub fn world(&self, row: &Row) -> Arc<World> {
        let granted = |owner: &str, grants: &[(&str, &str)]| Counter {
            owner: self.name(owner).to_owned(),
            grants: grants.iter().map(|(login, right)| (self.name(login).to_owned(), (*right).to_owned())).collect(),
            ..Counter::default()
        };
        let counters = [
            ("own", granted("shop", &[])),
            ("edit", granted("other", &[("shop", "edit")])),
            ("view", granted("other", &[("shop", "view")])),
            ("analyst", granted("other", &[("shop", "analyst")])),
            ("none", granted("stranger", &[])),
            ("foreign", granted("other", &[])),
            ("public", Counter { is_public: true, ..granted("stranger", &[]) }),
            ("org", Counter { in_connect: true, ..granted("porg", &[("shop", "edit")]) }),
            ("theirs", granted("client", &[])),
            ("theirview", granted("other", &[("client", "view")])),
            ("personal", granted("ivan", &[])),
        ];
        let demo = (DEMO, Counter { owner: "metrika-demo".to_owned(), is_public: true, ..Counter::default() });
        let tokens = row.tokens.iter().map(|token| (self.secret(token, 0), self.token(token, token.has)));
        Arc::new(World::new(State {
            tokens: tokens.collect(),
            counters: counters.into_iter().map(|(name, it)| (self.counter(name), it)).chain([demo]).collect(),
            represents: BTreeSet::from([(self.name("shop").to_owned(), self.name("client").to_owned())]),
            wording: self.place,
            ..State::default()
        }))
    }

    /// The lines of the configuration that are the row's: a listener, a caller and tokens.
    pub fn configuration(&self, row: &Row) -> [String; 3] {
        let Self { place, .. } = self;
        let aliases: Vec<_> = row.tokens.iter().map(|token| self.alias(token.alias)).collect();
        let scopes = |declared: &str| {
            let scopes: Vec<_> = declared.split_whitespace().map(|scope| format!("metrika:{scope}")).collect();
            scopes.join(", ")
        };
        let token = |token: &Tok| {
            let alias = self.alias(token.alias);
            let keys = if token.keys.is_empty() { String::new() } else { format!(", {}", self.names(token.keys)) };
            format!("  {alias}: {{file: '{{folder}}/{alias}', scopes: [{}]{keys}}}\n", scopes(token.declared))
        };
        let caller = format!(
            "  - {{id: c-{place}, match: {{listener: l-{place}}}, tokens: [{}], {}}}\n",
            aliases.join(", "),
            self.names(row.caller)
        );
        [
            format!("  - {{name: l-{place}, address: '127.0.0.1:0'}}\n"),
            if row.caller.is_empty() { String::new() } else { caller },
            row.tokens.iter().map(token).collect(),
        ]
    }
}
