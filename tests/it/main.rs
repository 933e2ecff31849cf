//! The integration tests: one binary, over real sockets, against the real program.

#![cfg(test)]

mod architecture;
mod canary;
mod commands;
mod config;
mod credentials;
mod cut;
mod demo;
mod forward;
mod harness;
mod http2;
mod identify;
mod interim;
mod limits;
mod matrix;
mod metrics;
mod properties;
mod reference;
mod rejections;
mod reload;
mod retry;
mod shutdown;
mod streaming;
mod timeouts;
mod tls;
mod transcript;
