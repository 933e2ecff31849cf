//! Whatever a configuration holds, it is read or every mistake is said with its place; and reading it ends.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use metrika_gate::config::Config;

fuzz_target!(|text: &[u8]| {
    let Ok(text) = std::str::from_utf8(text) else { return };
    // What it names on the disk is not for a fuzzer to touch.
    if text.contains("ca_file") {
        return;
    }
    match Config::parse(text, Path::new("gate.yaml")) {
        Ok(config) => assert!(!config.listeners.is_empty() && !config.callers.is_empty()),
        Err(error) => assert!(!error.to_string().trim().is_empty()),
    }
});
