//! Interned names of the configuration; each kind has its own type.
//!
//! A name stays equal to itself across reloads, so the metrics of a caller continue when the configuration changes.

metrica::interned_names! {
    /// The `id` of a caller in the configuration.
    CallerId;
    /// The name of a token in the configuration; logs and metrics contain it instead of the token.
    TokenAlias;
    /// The name of a listener in the configuration.
    ListenerName;
    /// The name of a group of counters in the configuration.
    GroupName;
}
