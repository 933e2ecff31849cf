//! The reader under hyper and an independent reader agree where requests end, however the bytes arrive.
#![no_main]

use libfuzzer_sys::fuzz_target;
use strict_http::request_reader::{Bounds, Framing, Stop};
use metrika_gate_fuzz::requests;

fuzz_target!(|input: &[u8]| {
    let Some((seed, bytes)) = input.split_first() else { return };
    // What is wrong with a line shows at its end at the latest.
    let bytes = &[bytes, b"\r\n"].concat()[..];
    let bounds = Bounds { header_bytes: 4096, header_fields: 20 };
    let whole = Framing::new(bounds).look_at(bytes);
    let mut pieces = Framing::new(bounds);
    let mut rest = bytes;
    let mut step = usize::from(*seed) % 37 + 1;
    let mut split = Ok(());
    while split.is_ok() && !rest.is_empty() {
        let (piece, behind) = rest.split_at(step.min(rest.len()));
        split = pieces.look_at(piece);
        rest = behind;
        step = step * 7 % 41 + 1;
    }
    assert_eq!(whole.is_ok(), split.is_ok(), "the same, whole and in pieces");
    if let (Err(Stop::Fault(whole)), Err(Stop::Fault(split))) = (&whole, split) {
        // A target that arrives in pieces may be refused before it is known to be one, for another reason.
        assert_eq!(whole.in_body, split.in_body);
        assert!(whole.sound <= bytes.len());
    }
    let sound = match &whole {
        Ok(()) => bytes.len(),
        Err(Stop::Fault(fault)) => fault.sound,
        Err(Stop::Raw { sound }) => {
            // What is encoded is not encoded again.
            let mut rest = bytes[*sound..].to_vec();
            let mut framing = Framing::new(bounds);
            let _ = framing.look_at(&bytes[..*sound]);
            if framing.encode(&mut rest).is_ok() {
                assert!(!matches!(framing.look_at(&rest), Err(Stop::Raw { sound: 0 })));
            }
            *sound
        }
    };
    let read = requests::read(&bytes[..sound]);
    assert!(!read.broken, "what passes is right to the letter: {:?}", String::from_utf8_lossy(&bytes[..sound]));
    if whole.is_ok() {
        assert!(read.requests.iter().all(|request| request.head_bytes <= bounds.header_bytes));
    }
});
