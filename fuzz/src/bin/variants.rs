//! Writes variants of inputs into a folder: variants COUNT FOLDER INPUT...
//!
//! They are the same on every machine, unlike the inputs of a libFuzzer with a fixed seed; see README.md.

use std::path::Path;
use std::process::ExitCode;

use metrika_gate_fuzz::variants::{dictionary, variant};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [count, folder, files @ ..] = &arguments[..] else {
        eprintln!("usage: variants COUNT FOLDER INPUT...");
        return ExitCode::from(2);
    };
    let count: u64 = count.parse().expect("a number");
    let words = dictionary(&std::fs::read_to_string("http.dict").expect("fuzz/http.dict"));
    for file in files {
        let input = std::fs::read(file).unwrap_or_else(|error| panic!("{file}: {error}"));
        let name = Path::new(file).file_name().expect("a file").to_string_lossy();
        for number in 0..count {
            let path = Path::new(folder).join(format!("{name}.{number:04}"));
            std::fs::write(&path, variant(&name, number, &input, &words)).expect("room on the disk");
        }
    }
    ExitCode::SUCCESS
}

// The instrumentation needs it.
use libfuzzer_sys as _;
