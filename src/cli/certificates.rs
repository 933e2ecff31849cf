//! Warnings of `check` about the certificates of listeners.

use std::path::Path;
use std::time::SystemTime;

use rustix::fs::{Access, access};

use super::check::{Warning, key};
use crate::config::document::Step;
use crate::config::tls::names::AUTHORITY_KEY;
use crate::config::{Config, Tls};
use crate::files::External;
use crate::process::sandbox::Needs;

/// Returns warnings about certificates that clients do not accept at `now` and that the gate does not renew, and about keys of authorities that the gate can
/// read and does not need.
pub(super) fn warnings(config: &Config, now: SystemTime) -> Vec<Warning> {
    let needs = config.sandbox.then(|| Needs::of(&External::of(config, None)));
    let mut warnings = Vec::new();
    for (position, listener) in config.listeners.iter().enumerate() {
        let Some(tls) = &listener.tls else { continue };
        let (name, place) = (listener.name, || vec![key("listeners"), Step::Index(position), key("tls")]);
        if let Err(untimely) = tls.leaf.check_time(now)
            && tls.files.renewed_from.is_none()
        {
            warnings.push((
                place(),
                format!(
                    "listener '{name}': clients refuse it, and a running gate keeps a valid one that it has: {untimely}"
                ),
            ));
        }
        if tls.leaf.is_staged && tls.files.renewed_from.is_none() {
            let staged = crate::files::writing::staged(&tls.files.certificate);
            warnings.push((place(), format!("listener '{name}': the key does not fit {}, but {}, which an interrupted `metrika-gate ca issue` left; the gate uses that; run the command again", tls.files.certificate.display(), staged.display())));
        }
        warnings.extend(exposed_key(tls, needs.as_ref()).map(|said| (place(), format!("listener '{name}': {said}"))));
    }
    warnings
}

/// Describes the key of an authority that lies beside the certificate and that the gate can read without needing it.
fn exposed_key(tls: &Tls, needs: Option<&Needs>) -> Option<String> {
    if tls.files.renewed_from.is_some() {
        return None;
    }
    let folders = [&tls.files.certificate, &tls.files.key].map(|file| file.parent());
    let beside = folders.into_iter().flatten().map(|folder| folder.join(AUTHORITY_KEY));
    let is_readable = |path: &Path| path.is_file() && access(path, Access::READ_OK).is_ok();
    let path = beside.filter(|path| needs.is_none_or(|needs| needs.can_read(path))).find(|path| is_readable(path))?;
    Some(format!(
        "the gate can read {}, so a thief of the gate can pose as Metrica to the callers; move it to the machine that runs `metrika-gate ca issue`, or set renew: true if the gate shall renew the certificate",
        path.display()
    ))
}
