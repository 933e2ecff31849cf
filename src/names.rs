//! Names of the configuration, interned: each kind is a type of its own.
//!
//! A name is equal to itself across reloads too: the counters of a caller go on when the configuration changes.

metrica::interned_names! {
    /// The `id` of a caller in the configuration.
    CallerId;
    /// The name of a token in the configuration: what logs and metrics say in place of the token.
    TokenAlias;
    /// The name of a listener in the configuration.
    ListenerName;
    /// The name of a group of counters in the configuration.
    GroupName;
}
