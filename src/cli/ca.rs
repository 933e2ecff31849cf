//! `ca`: a private certificate authority for the listeners of the gate ([`crate::config::certificates`]).

use std::fs::{DirBuilder, OpenOptions};
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use strict_http::host::Host;
use zeroize::Zeroizing;

use crate::config::certificates::{Authority, LEAF_DAYS, NewKey};
use crate::config::tls::names::{AUTHORITY, AUTHORITY_KEY, LEAF, LEAF_KEY};
use crate::files::writing::{NotLocked, NotReplaced, lock_folder};
use crate::files::{self, ExternalFile, Purpose};
use crate::policy::names::ListenerName;

#[derive(Debug, Args)]
pub(super) struct CaArgs {
    #[command(subcommand)]
    command: CaCommand,
}

#[derive(Debug, Subcommand)]
enum CaCommand {
    /// Create an authority and a first certificate in an empty folder
    Init(InitArgs),
    /// Replace the certificate and its key, for example from a timer
    Issue(IssueArgs),
    /// Print the certificate of the authority, for the callers
    Bundle(BundleArgs),
}

#[derive(Debug, Args)]
struct InitArgs {
    /// The folder, which is created if it does not exist
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// A name of the gate beside Metrica's names and localhost; repeatable
    #[arg(long = "name", value_name = "NAME", env = "METRIKA_GATE_CA_NAME", value_parser = name, value_delimiter = ',')]
    names: Vec<String>,
    /// An address of the gate beside loopback addresses; repeatable
    #[arg(long = "address", value_name = "IP", env = "METRIKA_GATE_CA_ADDRESS", value_delimiter = ',')]
    addresses: Vec<IpAddr>,
    #[command(flatten)]
    lifetime: Lifetime,
}

#[derive(Debug, Args)]
struct IssueArgs {
    /// The folder of the authority
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    #[command(flatten)]
    lifetime: Lifetime,
}

#[derive(Debug, Args)]
struct Lifetime {
    /// The lifetime of the certificate in days
    #[arg(long, value_name = "N", env = "METRIKA_GATE_CA_DAYS", default_value_t = LEAF_DAYS, value_parser = clap::value_parser!(u32).range(1..=825))]
    days: u32,
}

#[derive(Debug, Args)]
struct BundleArgs {
    /// The folder of the authority
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Append the roots of this system, for clients whose setting replaces them. Later changes of the system do not reach
    /// the copy
    #[arg(long, env = "METRIKA_GATE_CA_WITH_SYSTEM")]
    with_system: bool,
}

/// Reads a name of a host, which is not an address.
fn name(text: &str) -> Result<String, String> {
    let is_name = !text.contains(['_', ':']) && matches!(Host::of(text.as_bytes()), Some(Host::Name(_)));
    let is_plain = is_name && !text.ends_with('.') && !text.starts_with(['.', '-']);
    let name = is_plain.then(|| text.to_ascii_lowercase());
    let name = name.ok_or_else(|| "expected a name as in gate.example; for an address, use --address".to_owned())?;
    if is_shared(&name) {
        return Err(format!(
            "the authority would sign every name below '{name}', and others own most of them; give the name of one host, for example gate.{name}, or gate.internal on a network of your own"
        ));
    }
    Ok(name)
}

/// Names below which no registry registers: reserved (RFC 6761, RFC 6762, RFC 8375, the resolution of ICANN on `internal`), or
/// of clusters and local networks by convention.
const PRIVATE: [&str; 14] = [
    "localhost",
    "local",
    "internal",
    "lan",
    "home",
    "corp",
    "private",
    "intranet",
    "home.arpa",
    "svc",
    "test",
    "example",
    "invalid",
    "localdomain",
];

/// Second-level names below which the registries of countries register, as in `co.uk`.
const OF_REGISTRIES: [&str; 14] =
    ["ac", "asso", "co", "com", "edu", "go", "gob", "gov", "mil", "msk", "ne", "net", "or", "org"];

/// Whether a name is a domain below which strangers register: a top-level name that is not private, or a second-level one of a
/// registry. It is a rule of thumb; [`is_broad`] warns of the others.
fn is_shared(name: &str) -> bool {
    match name.rsplit_once('.') {
        None => !PRIVATE.contains(&name),
        Some((second, top)) => top.len() == 2 && OF_REGISTRIES.contains(&second),
    }
}

/// Whether a name looks like a domain and not like a host: it has two labels, and its top-level name is not private.
fn is_broad(name: &str) -> bool {
    let is_domain = |(rest, top): (&str, &str)| !rest.contains('.') && !PRIVATE.contains(&top);
    name.rsplit_once('.').is_some_and(is_domain) && !PRIVATE.contains(&name)
}

pub(super) fn run(args: &CaArgs, out: &mut dyn Write) -> anyhow::Result<u8> {
    super::harden::harden();
    match &args.command {
        CaCommand::Init(args) => init(args, out)?,
        CaCommand::Issue(args) => issue(args, out)?,
        CaCommand::Bundle(args) => bundle(args, out)?,
    }
    Ok(0)
}

fn init(InitArgs { folder, names, addresses, lifetime }: &InitArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    let shown = folder.display();
    match DirBuilder::new().mode(0o755).create(folder) {
        Ok(()) => {}
        Err(_) if folder.is_dir() => {
            let mut entries = folder.read_dir().with_context(|| format!("cannot read {shown}"))?;
            if entries.next().is_some() {
                bail!("{shown} is not empty; choose another folder, so that no key is replaced");
            }
        }
        Err(error) => return Err(error).with_context(|| format!("cannot create {shown}")),
    }
    let authority = create(folder, names, addresses, lifetime.days)?;
    writeln!(
        out,
        "created {shown} for {} names; the certificate is valid for {} days
- set tls: {{authority: {shown}}} for a listener
- give the callers {shown}/{AUTHORITY} (metrika-gate ca bundle {shown})
- renew with metrika-gate ca issue {shown}, or with renew: true beside authority
- keep {AUTHORITY_KEY} on another machine unless the gate renews: with it, one can pose as Metrica to these callers",
        authority.names().len(),
        lifetime.days,
    )?;
    for name in names.iter().filter(|name| is_broad(name)) {
        writeln!(
            out,
            "- {AUTHORITY_KEY} signs every name below {name}, too; if others share that domain, start again with the name of one host"
        )?;
    }
    Ok(())
}

/// Creates the four files of an authority in an empty folder. Its certificate is valid for so many days.
pub(super) fn create(folder: &Path, names: &[String], addresses: &[IpAddr], days: u32) -> anyhow::Result<Authority> {
    let now = SystemTime::now();
    let (authority, certificate, authority_key) = Authority::create(names, addresses, now)?;
    let key = NewKey::generate()?;
    let leaf = authority.issue(&key, days, now)?;
    let made = [
        (AUTHORITY_KEY, 0o600, authority_key.as_bytes()),
        (AUTHORITY, 0o644, certificate.as_bytes()),
        (LEAF_KEY, 0o600, key.pem().as_bytes()),
        (LEAF, 0o644, leaf.as_bytes()),
    ]
    .map(|(name, mode, bytes)| write_new(&folder.join(name), mode, bytes));
    made.into_iter().collect::<anyhow::Result<()>>()?;
    Ok(authority)
}

fn write_new(path: &Path, mode: u32, bytes: &[u8]) -> anyhow::Result<()> {
    let opened = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let written = opened.and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()));
    // Without its cause, which would select the exit code of an address in use.
    written.map_err(|error| anyhow::anyhow!("cannot write {}: {error}", path.display()))
}

/// The maximum size of the files of an authority in bytes.
const FILE_BYTES: usize = 64 * 1024;

/// Returns the row of a file of an authority. The command line names no listener.
fn row(folder: &Path, name: &str) -> ExternalFile {
    let listener = ListenerName::new("ca");
    let purpose = if name == AUTHORITY_KEY { Purpose::AuthorityKey(listener) } else { Purpose::Authority(listener) };
    ExternalFile::new(purpose, &folder.join(name))
}

/// Reads a file of an authority.
fn read(folder: &Path, name: &str) -> anyhow::Result<Vec<u8>> {
    let row = row(folder, name);
    let opened = row.open().map_err(std::io::Error::from);
    let bytes = opened.and_then(|opened| files::reading::read_from(opened, FILE_BYTES));
    bytes.with_context(|| format!("cannot use {}", row.path.display()))
}

/// Reads the authority in `folder`.
fn authority(folder: &Path, now: SystemTime) -> anyhow::Result<Authority> {
    let (certificate, key) = (read(folder, AUTHORITY)?, Zeroizing::new(read(folder, AUTHORITY_KEY)?));
    let key = std::str::from_utf8(&key).with_context(|| format!("{AUTHORITY_KEY} is not text"))?;
    Ok(Authority::read(&certificate, key, now)?)
}

fn issue(IssueArgs { folder, lifetime }: &IssueArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    let _lock = match lock_folder(folder) {
        Ok(lock) => lock,
        Err(error @ NotLocked::Busy(_)) => {
            let who = "another `ca issue`, or a gate with renew: true; run the command again";
            return Err(super::token::ended(75, format!("{error}: {who}")));
        }
        Err(error @ NotLocked::Failed { .. }) => return Err(error.into()),
    };
    let now = SystemTime::now();
    let authority = authority(folder, now)?;
    let key = NewKey::generate()?;
    let leaf = authority.issue(&key, lifetime.days, now)?;
    let (key_file, leaf_file, pem) = (folder.join(LEAF_KEY), folder.join(LEAF), key.pem());
    // From the rename of the key on, the gate finds the certificate also beside its place.
    let replaced = files::replace_together(&[(&key_file, pem.as_bytes()), (&leaf_file, leaf.as_bytes())]);
    replaced.map_err(|error| match error {
        NotReplaced::Unchanged { .. } => anyhow::Error::new(error),
        NotReplaced::Begun { .. } => anyhow::Error::new(error).context(
            "the new key is in use, with a certificate beside its place; remove the obstacle and run the command again",
        ),
    })?;
    writeln!(out, "issued {}; it is valid for {} days", leaf_file.display(), lifetime.days)?;
    Ok(())
}

fn bundle(BundleArgs { folder, with_system }: &BundleArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    let own = read(folder, AUTHORITY)?;
    out.write_all(&own)?;
    if !with_system {
        return Ok(());
    }
    let system = rustls_native_certs::load_native_certs().certs;
    if system.is_empty() {
        bail!("the system has no roots; install its package of certificate authorities (ca-certificates)");
    }
    let date = humantime::format_rfc3339_seconds(SystemTime::now());
    writeln!(
        out,
        "# the {} roots of the system at {date}; later changes of the system do not reach this copy",
        system.len()
    )?;
    for root in &system {
        out.write_all(pem::encode(&pem::Pem::new("CERTIFICATE", root.as_ref())).as_bytes())?;
    }
    writeln!(
        std::io::stderr(),
        "metrika-gate: the copy contains {} roots of the system as of now; repeat the command after updates of the system",
        system.len()
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_is_for_no_domain_that_strangers_share() {
        for shared in ["com", "RU", "arpa", "net", "gate", "xn--p1ai", "co.uk", "Com.Ru", "msk.ru", "org.br"] {
            let said = name(shared).unwrap_err();
            assert!(said.contains("every name below") && said.contains("gate.internal"), "{shared}: {said}");
        }
        for own in [
            "localhost",
            "internal",
            "lan",
            "home.arpa",
            "gate.co.uk",
            "gate.svc",
            "gate.metrika.svc.cluster.local",
            "gate.example",
        ] {
            assert_eq!(name(own).as_deref(), Ok(own));
        }
        let broad = |name: &&str| is_broad(name);
        let names = ["shop.ru", "com.tr", "gate.shop.ru", "gate.internal", "cluster.local", "home.arpa", "internal"];
        assert_eq!(names.iter().filter(|name| broad(name)).collect::<Vec<_>>(), [&"shop.ru", &"com.tr"]);
    }
}
