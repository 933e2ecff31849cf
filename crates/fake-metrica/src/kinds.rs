//! The kinds of objects that the API keeps in lists: their names, owners and fields.

/// The owner of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// The counter in the path.
    Counter,
    /// The account of the token.
    Account,
    /// Nobody: the list is the same for all and never changes.
    Everybody,
}

/// The contents of the response to a creation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    /// The new object, under the singular key.
    Item,
    /// The whole list, under the plural key.
    List,
    /// `"success": true`; the request body holds a list, not an object.
    Success,
}

/// A kind of object.
#[derive(Debug)]
pub struct Kind {
    /// The first word of the ids of operations on the list.
    pub list_noun: &'static str,
    /// The first word of the ids of operations on one object.
    pub item_noun: &'static str,
    /// The key of the list in JSON.
    pub plural: &'static str,
    /// The key of one object in JSON.
    pub singular: &'static str,
    pub whose: Whose,
    /// The field that identifies objects: a generated number, given in the path, or a login, given in the query.
    pub key: &'static str,
    pub created: Created,
    /// The field in which the initial objects differ; `labels` has its values.
    pub label: &'static str,
    pub labels: &'static [&'static str],
    /// Default values of the other fields, as JSON.
    pub defaults: &'static str,
    /// The fields required in a creation. If there are any, the object must be under the singular key of the body.
    pub required: &'static [&'static str],
    /// The accepted values of `type`; empty accepts any.
    pub types: &'static [&'static str],
}

impl Kind {
    /// Whether objects are identified by a login.
    pub fn is_by_login(&self) -> bool {
        self.key == "user_login"
    }

    pub fn of(noun: &str) -> Option<&'static Self> {
        KINDS.iter().find(|kind| kind.list_noun == noun || kind.item_noun == noun)
    }
}

const PLAIN: Kind = Kind {
    list_noun: "",
    item_noun: "",
    plural: "",
    singular: "",
    whose: Whose::Counter,
    key: "id",
    created: Created::Item,
    label: "name",
    labels: &[],
    defaults: "{}",
    required: &[],
    types: &[],
};

const fn kind(list_noun: &'static str, item_noun: &'static str) -> Kind {
    Kind { list_noun, item_noun, plural: list_noun, singular: item_noun, ..PLAIN }
}

/// The types of goals: those of the reference, two of an older version, and those of goals that Metrica creates itself.
///
/// Source: <https://yandex.com/dev/metrika/en/management/openapi/goal/addGoal>.
const GOAL_TYPES: &[&str] = &[
    "url",
    "number",
    "step",
    "action",
    "phone",
    "email",
    "payment_system",
    "messenger",
    "file",
    "search",
    "social",
    "visit_duration",
    "chat",
    "form",
    "button",
    "call",
    "conditional_call",
    "contact_data",
    "contact_data_sent",
    "a_cart",
    "a_purchase",
    "a_create_order",
    "e_purchase",
    "cdp_order_in_progress",
    "cdp_order_paid",
    "cdp_order_cancelled",
    "cdp_order_spam",
];

const KINDS: &[Kind] = &[
    Kind {
        labels: &["Order placed", "Basket opened"],
        defaults: r#"{"type":"url","default_price":0.0,"is_retargeting":0,"goal_source":"user","is_favorite":0,
            "prev_goal_id":0,"status":"Active","conditions":[{"type":"contain","url":"/thanks"}]}"#,
        required: &["name", "type"],
        types: GOAL_TYPES,
        ..kind("goals", "goal")
    },
    Kind {
        label: "value",
        labels: &["192.0.2.1"],
        defaults: r#"{"attr":"client_ip","type":"equal","action":"exclude","status":"active","with_subdomains":false}"#,
        ..kind("filters", "filter")
    },
    Kind {
        label: "value",
        labels: &["utm_debug"],
        defaults: r#"{"action":"cut_parameter","attr":"url","status":"active"}"#,
        ..kind("operations", "operation")
    },
    Kind {
        key: "user_login",
        label: "user_login",
        labels: &["demo-colleague"],
        defaults: r#"{"perm":"view","comment":"","created_at":"2026-01-15T12:00:00+03:00",
            "partner_data_access":false}"#,
        ..kind("grants", "grant")
    },
    Kind {
        defaults: r#"{"expression":"ym:s:isNewUser=='Yes'","interface_value":"",
            "create_time":"2026-01-15T12:00:00+03:00"}"#,
        ..kind("access_filters", "access_filter")
    },
    Kind {
        key: "segment_id",
        labels: &["New visitors"],
        defaults: r#"{"expression":"ym:s:isNewUser=='Yes'","segment_source":"api","is_retargeting":0}"#,
        ..kind("segments", "segment")
    },
    Kind { plural: "segments", key: "segment_id", ..kind("interface_segments", "interface_segment") },
    Kind {
        label: "title",
        labels: &["New design"],
        defaults: r#"{"date":"2026-01-15","time":"12:00","message":"","group":"A"}"#,
        ..kind("chart_annotations", "chart_annotation")
    },
    Kind { whose: Whose::Account, labels: &["Shops"], ..kind("labels", "label") },
    Kind {
        whose: Whose::Account,
        key: "user_login",
        label: "user_login",
        labels: &["demo-delegate"],
        created: Created::List,
        defaults: r#"{"created_at":"2026-01-15T12:00:00+03:00","comment":""}"#,
        ..kind("delegates", "delegate")
    },
    Kind {
        whose: Whose::Account,
        key: "user_login",
        label: "user_login",
        labels: &["demo-principal"],
        defaults: r#"{"created_at":"2026-01-15T12:00:00+03:00"}"#,
        ..kind("accounts", "account")
    },
    Kind {
        whose: Whose::Account,
        labels: &["Demo client"],
        defaults: r#"{"chief_login":"demo-client"}"#,
        ..kind("clients", "client")
    },
    Kind {
        key: "ce_id",
        label: "transfer_id",
        labels: &["demo-transfer"],
        defaults: r#"{"folder_id":"demo-folder","status":"running","quota":0,"type":"visits","locked":false,"tables":[]}"#,
        ..kind("cloud_exports", "cloud_export")
    },
    Kind { whose: Whose::Everybody, labels: &["telegram", "whatsapp", "viber"], ..kind("messengers", "messenger") },
    Kind { whose: Whose::Everybody, labels: &["vkontakte", "odnoklassniki"], ..kind("social_networks", "network") },
    Kind {
        plural: "order_statuses",
        created: Created::Success,
        label: "humanized",
        labels: &["In progress"],
        defaults: r#"{"type":"IN_PROGRESS"}"#,
        ..kind("cdp_order_statuses", "cdp_order_status")
    },
    Kind {
        plural: "attributes",
        created: Created::Success,
        labels: &["age"],
        defaults: r#"{"type_name":"numeric","multivalued":false,"humanized":"Age"}"#,
        ..kind("cdp_attributes", "cdp_attribute")
    },
    Kind { plural: "items", created: Created::Success, ..kind("cdp_products", "cdp_product") },
    Kind {
        plural: "types",
        labels: &["colour"],
        defaults: r#"{"group":"LIST","humanized":"Colour"}"#,
        ..kind("cdp_types", "cdp_type")
    },
    Kind {
        whose: Whose::Everybody,
        plural: "predefined_types",
        labels: &["text", "numeric", "date", "datetime"],
        defaults: r#"{"group":"PREDEFINED"}"#,
        ..kind("cdp_predefined_types", "cdp_predefined_type")
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_objects() {
        for kind in KINDS {
            let defaults: Result<serde_json::Map<_, _>, _> = serde_json::from_str(kind.defaults);
            assert!(defaults.is_ok(), "{}: {defaults:?}", kind.plural);
        }
    }
}
