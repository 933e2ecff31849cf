//! The bodies of successful responses, as far as they show counters and accounts.

use serde::Deserialize;

use crate::login;

/// A counter as the API shows it to the owner of a token.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Shown {
    /// The number; zero if the response has none.
    #[serde(default)]
    pub id: u64,
    /// The API's word for what the owner of the token may do with it.
    pub permission: String,
    /// Who owns it.
    owner_login: Option<String>,
}

impl Shown {
    /// The login of the token's owner, where the counter is its own.
    #[must_use]
    pub fn owner(&self) -> Option<&str> {
        self.owner_login.as_deref().filter(|login| self.permission == "own" && login::is_one(login))
    }
}

/// The counter that an answer shows.
#[must_use]
pub fn counter_in(body: &[u8]) -> Option<Shown> {
    #[derive(Deserialize)]
    struct Answer {
        counter: Shown,
    }
    serde_json::from_slice(body).ok().map(|Answer { counter }| counter)
}

/// The API's word for what the owner of a token may do with the counter that an answer shows.
#[must_use]
pub fn permission_in(body: &[u8]) -> Option<String> {
    counter_in(body).map(|counter| counter.permission)
}

/// A list of counters, or a page of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Those that it shows.
    pub counters: Vec<Shown>,
    /// It has no more than these.
    pub is_whole: bool,
    /// The number of elements, with those that cannot be read.
    pub received: usize,
    /// The total number of counters, if the response has it.
    pub rows: Option<usize>,
}

/// The counters in a list; nothing where it is none.
#[must_use]
pub fn listed_in(body: &[u8]) -> Option<Listed> {
    #[derive(Deserialize)]
    struct Answer {
        rows: Option<usize>,
        counters: Vec<serde_json::Value>,
    }
    let Answer { rows, counters } = serde_json::from_slice(body).ok()?;
    let received = counters.len();
    // An element of another form is left out, so the list is not whole without it.
    let counters: Vec<Shown> =
        counters.into_iter().filter_map(|counter| serde_json::from_value(counter).ok()).collect();
    let is_whole = rows.is_some_and(|rows| rows <= counters.len());
    Some(Listed { counters, is_whole, received, rows })
}

/// The logins in a list of accounts.
#[must_use]
pub fn accounts_in(body: &[u8]) -> Option<Vec<String>> {
    #[derive(Deserialize)]
    struct Answer {
        accounts: Vec<Account>,
    }
    #[derive(Deserialize)]
    struct Account {
        user_login: String,
    }
    let answer: Answer = serde_json::from_slice(body).ok()?;
    Some(answer.accounts.into_iter().map(|account| account.user_login).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_is_read_from_a_counter_with_permission_own() {
        let owner = |permission: &str, login: &str| {
            let one = format!(r#"{{"id":5,"permission":"{permission}","owner_login":"{login}"}}"#);
            let listed = listed_in(format!(r#"{{"rows":1,"counters":[{one}]}}"#).as_bytes()).unwrap();
            let shown = counter_in(format!(r#"{{"counter":{one}}}"#).as_bytes()).unwrap();
            assert_eq!((&listed.counters[..], listed.is_whole, shown.id), (&[shown.clone()][..], true, 5));
            shown.owner().map(str::to_owned)
        };
        assert_eq!(owner("own", "shop").as_deref(), Some("shop"));
        assert_eq!((owner("edit", "shop"), owner("view", "shop"), owner("own", "two words")), (None, None, None));
        assert_eq!((listed_in(b"{}"), listed_in(b"<html>"), counter_in(b"{}")), (None, None, None));
        let is_whole = |body: &str| listed_in(body.as_bytes()).unwrap().is_whole;
        assert!(is_whole(r#"{"rows":0,"counters":[]}"#) && !is_whole(r#"{"rows":1,"counters":[]}"#));
        assert!(!is_whole(r#"{"counters":[]}"#), "it does not say so");
        let half = br#"{"counters":[{"id":1},{"permission":"view"}]}"#;
        assert_eq!(listed_in(half).map(|list| list.counters.len()), Some(1));
    }

    #[test]
    fn a_list_with_a_counter_that_cannot_be_read_is_not_whole() {
        let listed =
            listed_in(br#"{"rows":2,"counters":[{"id":1,"permission":"own"},{"id":"2","permission":"view"}]}"#)
                .unwrap();
        assert_eq!((listed.counters.len(), listed.is_whole), (1, false));
        assert_eq!((listed.received, listed.rows), (2, Some(2)));
    }
}
