//! A refusal's body, in any pieces and however it is packed, has a type, and reading it takes bounded memory.
#![no_main]

use std::io::Write;

use libfuzzer_sys::fuzz_target;
use metrika_gate::verdict::{ErrorType, LOOKED_AT};

fuzz_target!(|body: &[u8]| {
    let said = ErrorType::in_body(body);
    assert!(!said.as_str().is_empty());
    let text = String::from_utf8_lossy(body);
    if said != ErrorType::Other {
        assert!(text.contains("error_type") || text.contains('\\'), "a type that nobody said: {}", said.as_str());
    }
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packer.write_all(body).and_then(|()| packer.flush()).expect("memory takes it");
    assert!(LOOKED_AT > 0);
});
