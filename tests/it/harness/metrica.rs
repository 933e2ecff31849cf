//! The stand-in for Metrica with an account for every reason that Metrica has to refuse.

use fake_metrica::{Fake, FakeToken, Permission, Settings};
use metrica::scope::Scope;

/// The application of every token but [`OTHER_APPLICATION`]'s.
pub const CLIENT_ID: &str = fake_metrica::DEMO_CLIENT_ID;

/// Reads, as shop-owner.
pub const READS: &str = "test-000000000000000000000000reads";
/// Writes and does not read, as shop-owner.
pub const WRITES: &str = "test-00000000000000000000000writes";
/// Reads and writes, as shop-owner.
pub const ALL: &str = "test-00000000000000000000000000all";
/// Uploads expenses and nothing else, as shop-owner.
pub const EXPENSES: &str = "test-000000000000000000000expenses";
/// Reads, as shop-owner, for the application [`OTHER_CLIENT_ID`].
pub const OTHER_APPLICATION: &str = "test-000000000000000000application";
/// Reads, as another account without a counter.
pub const STRANGER: &str = "test-000000000000000000000stranger";
/// Reads, of an organisation's account, but issued by a person.
pub const PERSONAL: &str = "test-000000000000000000000personal";
/// Reads, of an organisation's account.
pub const ORGANISATION: &str = "test-00000000000000000organisation";

/// See [`OTHER_APPLICATION`].
pub const OTHER_CLIENT_ID: &str = "fedcba9876543210fedcba9876543210";

/// A counter that shop-owner and the organisation own.
pub const OWN: u64 = 101;
/// A counter that shop-owner may look at.
pub const VIEW: u64 = 102;
/// A counter of an organisation, on which shop-owner has no grant.
pub const IN_CONNECT: u64 = 103;
/// A counter that nobody here has a grant on.
pub const FOREIGN: u64 = 104;
/// The documentation's counter, which everybody may look at.
pub const OPEN: u64 = metrika_gate::health::question::OPEN_COUNTER;

/// The account that shop-owner represents.
pub const REPRESENTED: &str = "shop-client";

/// A token of an account that represents nobody.
pub fn token(secret: &str, owner: &str, scopes: &[Scope], counters: &[(u64, Permission)]) -> FakeToken {
    FakeToken {
        secret: secret.to_owned(),
        owner: owner.to_owned(),
        scopes: scopes.iter().copied().collect(),
        counters: counters.to_vec(),
        represents: Vec::new(),
        ..FakeToken::default()
    }
}

/// Starts it.
pub fn metrica() -> Fake {
    let of_shop = |secret: &str, scopes: &[Scope]| FakeToken {
        represents: vec![REPRESENTED.to_owned()],
        ..token(secret, "shop-owner", scopes, &[(OWN, Permission::Own), (VIEW, Permission::View)])
    };
    let read = |secret| of_shop(secret, &[Scope::Read]);
    let tokens = vec![
        read(READS),
        of_shop(WRITES, &[Scope::Write]),
        of_shop(ALL, &[Scope::Read, Scope::Write]),
        of_shop(EXPENSES, &[Scope::Expenses]),
        FakeToken { client_id: OTHER_CLIENT_ID.to_owned(), ..read(OTHER_APPLICATION) },
        FakeToken { owner: "stranger".to_owned(), counters: Vec::new(), represents: Vec::new(), ..read(STRANGER) },
        FakeToken { owner: "porg-shop".to_owned(), login: Some("ivan".to_owned()), ..read(PERSONAL) },
        FakeToken { owner: "porg-shop".to_owned(), ..read(ORGANISATION) },
    ];
    let fake = Fake::start(Settings { tokens, ..Settings::default() }).unwrap();
    fake.turn(&format!("organisation?counter={IN_CONNECT}")).unwrap();
    fake.turn(&format!("public?counter={OPEN}")).unwrap();
    fake
}
