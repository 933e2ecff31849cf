//! The integration tests: one binary, over real sockets, against the real program.

#![cfg(test)]

mod harness;
mod judge;

mod callers {
    mod descriptors;
    mod early;
    mod floods;
    mod framing;
    mod framing_bodies;
    mod hosts;
    mod interim;
    mod leaving;
    mod limits;
    mod malformed;
    mod parking;
    mod prefaces;
    mod read_ahead;
    mod sockets;
    mod stalls;
    mod timeouts;
    mod whole_request;
}

mod tls {
    mod certificates;
    mod client_certificates;
    mod clients;
    mod handshakes;
    mod proxy;
}

mod callers_http2 {
    mod early_responses;
    mod floods;
    mod frames;
    mod requests;
    mod waiting;
}

mod policy {
    mod body_types;
    mod canonical;
    mod conditions;
    mod filtered_lists;
    mod identify;
    mod keys;
    mod matrix;
    pub mod rejections;
    pub mod rules;
    mod rules_bodies;
    mod rules_marks;
    mod rules_parts;
    mod service_accounts;
    mod spellings;
    mod target_errors;
}

mod tokens {
    mod accounts;
    mod credentials;
    mod health;
    mod owners;
    mod read_only;
    mod revoked;
    mod suspicion;
    mod token_files;
}

mod upstream {
    mod age;
    mod chaos_upstream;
    pub mod http2;
    mod poison;
    mod proxy;
    mod proxy_files;
    mod responses;
    mod responses_http2;
    mod retry;
    mod retry_http2;
    mod stuck;
    mod tls;
}

mod response {
    mod compressed_refusals;
    mod cut;
    mod forward;
    mod reasons;
    mod redirects;
    pub mod reflection;
    mod streaming;
    mod transcript;
}

mod process {
    mod admin;
    mod chaos;
    mod connection_metrics;
    mod external;
    mod forging;
    mod log_lines;
    mod manager;
    mod metrics;
    mod reload;
    mod reload_half;
    mod reload_states;
    mod sandbox;
    mod shutdown;
    mod status_page;
    mod usage;
    mod watching;
}

mod secrets {
    pub mod canary;
    mod unusual_places;
}

mod cli {
    mod assumptions;
    mod client_env;
    mod command_line;
    pub mod commands;
    mod config;
    mod demo;
    pub mod doctor;
    mod doctor_reasons;
    mod doctor_remedies;
    mod key;
    mod manual;
    mod narrowing;
    mod quick_start;
    mod quotas;
    pub mod reference;
    mod schema;
    pub mod suggest;
    pub mod token;
    mod token_faults;
    mod token_people;
    mod token_start;
    pub mod troubleshooting;
    mod warnings;
    mod yaml;
}

mod project {
    mod architecture;
    mod fallbacks;
    mod properties;
    mod supply;
}

mod quota {
    mod changes;
    mod fleet;
    mod fleet_reports;
    mod memory;
    mod modes;
    mod restart;
    mod sharing;
}
