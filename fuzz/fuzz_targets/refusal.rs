//! A refusal's body, in any pieces and however it is packed, has a type, and reading it ends.
#![no_main]

use std::io::Write;

use libfuzzer_sys::fuzz_target;
use metrika_gate::response::coding::Coding;
use metrika_gate::response::error_body::ErrorBody;
use metrica::error_type::{ErrorType, LOOKED_AT};

fn read(coding: Coding, body: &[u8], step: usize) -> ErrorType {
    let mut refusal = ErrorBody::new(coding);
    body.chunks(step).for_each(|piece| refusal.look_at(piece));
    refusal.error_type()
}

fuzz_target!(|input: &[u8]| {
    let Some((seed, body)) = input.split_first() else { return };
    let step = usize::from(*seed) + 1;
    let said = read(Coding::Plain, body, step);
    assert_eq!(said, ErrorType::in_body(&body[..body.len().min(LOOKED_AT)]), "the same, whole and in pieces");
    // As it is, it is hardly gzip; packed, it says the same.
    read(Coding::Gzip, body, step);
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packer.write_all(body).expect("memory takes it");
    let packed = packer.finish().expect("memory takes it");
    if body.len() < LOOKED_AT && packed.len() < LOOKED_AT {
        assert_eq!(read(Coding::Gzip, &packed, step), said);
    }
});
