//! No CONNECT request, and no absolute target, leads to anything but Metrica's names on the ports of the proxy; and the bytes
//! behind a header are the same in whatever pieces they arrive.
#![no_main]

use http::Uri;
use libfuzzer_sys::fuzz_target;
use metrika_gate::policy::proxy;
use strict_http::connect::{ConnectReader, Target, agree};
use strict_http::host::METRICA;
use strict_http::request_reader::Bounds;

const BOUNDS: Bounds = Bounds { header_bytes: 4096, header_fields: 20 };

/// Whether an independent reader finds one of Metrica's names and an allowed port.
fn is_metricas(authority: &str) -> bool {
    let Some((host, port)) = authority.rsplit_once(':') else { return false };
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    METRICA.contains(&host.as_str()) && (port == "443" || port == "80")
}

/// Reads in pieces of this size: the target and the number of bytes of the header, or the error.
fn read(bytes: &[u8], size: usize) -> Result<Option<(Target, usize)>, &'static str> {
    let (mut reader, mut before) = (ConnectReader::new(BOUNDS), 0);
    for piece in bytes.chunks(size.max(1)) {
        match reader.look_at(piece) {
            Ok(Some((target, used))) => return Ok(Some((target, before + used))),
            Ok(None) => before += piece.len(),
            Err(kind) => return Err(kind.word()),
        }
    }
    Ok(None)
}

fuzz_target!(|bytes: &[u8]| {
    let whole = read(bytes, bytes.len());
    for size in [1, 2, 7, 100] {
        assert_eq!(read(bytes, size), whole, "in pieces of {size}");
    }
    if let Ok(Some((target, used))) = &whole {
        let authority = String::from_utf8_lossy(target.authority());
        let head = bytes.get(..*used).expect("bytes that were read");
        assert!(head.ends_with(b"\r\n\r\n") && head.starts_with(format!("CONNECT {authority} HTTP/1.").as_bytes()));
        assert_eq!(proxy::tunnel(target).is_ok(), is_metricas(&authority), "{authority}");
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Some(target) = Target::of(bytes) {
        assert_eq!(proxy::tunnel(&target).is_ok(), is_metricas(text), "{text}");
    }
    if let Ok(uri) = text.parse::<Uri>()
        && let Some(authority) = uri.authority()
        && proxy::absolute(&uri).is_ok()
    {
        let host = uri.host().unwrap_or_default();
        assert!(METRICA.contains(&host.trim_end_matches('.').to_ascii_lowercase().as_str()), "{text}");
        assert!(!authority.as_str().contains('@') && matches!(uri.port_u16(), None | Some(80 | 443)), "{text}");
    }
    if let Some((one, other)) = text.split_once(' ') {
        let (one, other) = (one.as_bytes(), other.as_bytes());
        assert_eq!(agree(one, other, 80), agree(other, one, 80), "{text}");
    }
});
