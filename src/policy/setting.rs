//! Settings that make an operation destructive, in a query or a JSON body.
//!
//! 1. A name matches the setting's if the most lenient reader would accept it: in another case, with punctuation or
//!    brackets, decoded twice, in full-width letters. A spelling other than the setting's own is refused with any value.
//! 2. A value is accepted if it clearly differs: only letters, digits, `_` and `-`, which do not spell the setting's value.
//! 3. The text after a semicolon is checked as a pair too, because some readers treat it as an ampersand.
//! 4. In a body, the name is searched for at any depth; its value must be a string.

use metrica::operation::Setting;
use metrica::subject::json::{Scalar, Sought};
use strict_http::target::{letters, name_and_value, plain, spelled};

/// Whether `query` could contain the setting (rules 1 to 3).
#[cold]
pub(super) fn may_be_set_in(query: &str, setting: Setting) -> bool {
    let wanted = letters(setting.name.as_bytes());
    query.split(['&', ';']).any(|pair| {
        let (name, value) = name_and_value(pair);
        spelled(name.as_bytes()) == wanted
            && (name != setting.name || !is_plainly_another(&plain(value.as_bytes()), setting.value))
    })
}

/// Whether a value clearly differs from `than` (rule 2).
pub(super) fn is_plainly_another(value: &[u8], than: &str) -> bool {
    let is_plain = value.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
    is_plain && letters(value) != letters(than.as_bytes())
}

/// The search for a setting in a body (rule 4).
pub(super) struct InBody {
    pub(super) setting: Setting,
    /// Whether the body could contain it.
    pub(super) is_there: bool,
}

impl Sought for InBody {
    type Place = ();

    fn place(&mut self, key: &str, outer: Option<()>) -> Option<()> {
        outer.or_else(|| (spelled(key.as_bytes()) == letters(self.setting.name.as_bytes())).then_some(()))
    }

    fn take(&mut self, (): (), value: Scalar<'_>) -> bool {
        let Scalar::Text(text) = value else { return false };
        self.is_there |= !is_plainly_another(text.as_bytes(), self.setting.value);
        true
    }
}

#[cfg(test)]
mod tests {
    use metrica::operation::Verb;

    use crate::policy::rules::tests::{NOTHING_OWED, decide};
    use crate::policy::rules::{Breach, Rules};

    #[test]
    fn rules_1_to_3_a_parameter_makes_it_destructive_in_whatever_spelling() {
        let careful = Rules { destructive: false, ..Rules::default() };
        let params = "/management/v1/counter/1/user_params/uploadings/upload";
        let contacts = "/cdp/api/v1/counter/1/data/contacts/csv";
        let post = |rules: &Rules, target: &str| decide(rules, Verb::Post, target);
        for (path, query) in [
            (params, "action=delete_keys"),
            (params, "action=DELETE_KEYS"),
            (params, "action=deleteKeys"),
            (params, "action=delete%5Fkeys"),
            (params, "action=%64elete_keys"),
            (params, "action=%2564elete_keys"),
            (params, "action=+delete_keys"),
            (params, "action=delete_keys%20"),
            (params, "action=delete_key%C5%BF"),
            (params, "action=update&action=delete_keys"),
            (params, "action=update,delete_keys"),
            (params, "action=update;action=delete_keys"),
            (params, "x=1;action=delete_keys"),
            (params, "Action=update"),
            (params, "action[]=update"),
            (params, "a-ction=update"),
            (params, "action%5B%5D=update"),
            (contacts, "merge_mode=SAVE"),
            (contacts, "merge_mode=save"),
            (contacts, "mergeMode=APPEND"),
            (contacts, "merge_mode=%EF%BC%B3AVE"),
            (contacts, "merge_mode=APPEND&merge_mode=SAVE"),
        ] {
            let target = format!("{path}?{query}");
            assert!(matches!(post(&careful, &target), Err(Breach::Setting(_))), "{target}");
            assert_eq!(post(&Rules::default(), &target), NOTHING_OWED, "{target}");
        }
        for (path, query) in [
            (params, "action=update"),
            (params, "transaction=delete_keys"),
            (params, "x=action%3Ddelete_keys"),
            (contacts, "merge_mode=APPEND&delimiter_type=COMMA"),
            (contacts, "merge_mode=UPDATE"),
            ("/management/v1/counter/1/goals", "action=delete_keys"),
        ] {
            assert_eq!(post(&careful, &format!("{path}?{query}")), NOTHING_OWED, "{query}");
        }
    }

    #[test]
    fn rule_4_a_member_of_the_body_makes_it_destructive() {
        let careful = Rules { destructive: false, ..Rules::default() };
        let target = "/management/v1/counter/1/user_params/uploading/2/confirm";
        let look = decide(&careful, Verb::Post, target).unwrap().body;
        assert!(look.is_due() && !look.counters);
        assert_eq!(decide(&Rules::default(), Verb::Post, target), NOTHING_OWED);
        assert!(decide(&careful, Verb::Put, &target.replace("/confirm", "")).unwrap().body.is_due());
        let reading = careful.reading(look);
        for (body, expected) in [
            ("", true),
            (r#"{"uploading":{"action":"update","content_id_type":"user_id"}}"#, true),
            (r#"{"uploading":{"action":null,"id":7,"comment":"delete_keys"}}"#, true),
            (r#"{"uploading":{"action":"delete_keys"}}"#, false),
            (r#"{"uploading":{"Action":"Delete-Keys"}}"#, false),
            (r#"{"uploading":{"ac\u0074ion":"delete_keys"}}"#, false),
            (r#"{"a":[{"action":["delete_keys"]}]}"#, false),
            (r#"{"action":{"x":"delete_keys"}}"#, false),
            (r#"{"uploading":{"action":"delete_keys "}}"#, false),
            (r#"{"uploading":{"action":1}}"#, false),
            (r#"{"uploading":{"action":"update","action":"delete_keys"}}"#, false),
            ("action=update", false),
        ] {
            assert_eq!(reading.check(body.as_bytes()).is_ok(), expected, "{body}");
        }
    }
}
