//! The integration tests: one binary, over real sockets, against the real program.

#![cfg(test)]

mod answers;
mod answers_http2;
mod admin;
mod architecture;
mod canary;
mod commands;
mod config;
mod credentials;
mod cut;
mod demo;
mod early;
mod floods;
mod forward;
mod framing;
mod framing_bodies;
mod harness;
mod hosts;
mod http2;
mod identify;
mod interim;
mod leaving;
mod limits;
mod matrix;
mod metrics;
mod packed;
mod poison;
mod properties;
mod redirects;
mod reference;
mod reflection;
mod rejections;
mod reload;
mod retry;
mod sandbox;
mod secrets;
mod shutdown;
mod streaming;
mod stuck;
mod timeouts;
mod tls;
mod token_files;
mod transcript;
mod whole_request;
