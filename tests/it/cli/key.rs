//! The commands about identity: `key new`, the proofs that `explain` is given, and the warnings of `check`.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::process::{Output, Stdio};

use metrika_gate::policy::caller::KeyHash;
use metrika_gate::policy::key::is_whole;

use crate::harness::gate::program;

fn new_key(caller: &str) -> (Vec<String>, String) {
    // Another folder, and no configuration.
    let output = program().args(["key", "new", caller]).env_clear().current_dir("/").output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let lines = String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
    (lines, String::from_utf8(output.stderr).unwrap())
}

#[test]
fn a_new_key_is_printed_once_with_its_hash() {
    let mut seen = BTreeSet::new();
    for _ in 0..20 {
        let (lines, advice) = new_key("etl");
        let [key, hash] = lines.as_slice() else { panic!("{lines:?}") };
        assert!(is_whole(key.as_bytes()), "{key}");
        assert_eq!(*hash, KeyHash::of(key.as_bytes()).to_string());
        assert!(advice.contains(&format!("etl {hash}")) && !advice.contains("mgk_"), "{advice}");
        assert!(seen.insert(key.clone()), "every key is new");
    }
    // No character is fixed by chance.
    let characters: BTreeSet<char> = seen.iter().flat_map(|key| key[4..47].chars()).collect();
    assert!(characters.len() > 55, "{characters:?}");
    let wrong = program().args(["key", "new", "a b"]).output().unwrap();
    assert_eq!(wrong.status.code(), Some(2));
}

fn config(folder: &Path, callers: &str) -> std::path::PathBuf {
    let text = format!(
        "
listeners:
  - {{name: app, address: '127.0.0.1:0'}}
  - {{name: net, address: '10.255.255.1:8080', allow_remote: true}}
tokens: {{analytics: {{file: '{}/analytics', scopes: [metrika:read]}}}}
callers:
{callers}
",
        folder.display()
    );
    let file = folder.join("gate.yaml");
    std::fs::write(&file, text).unwrap();
    file
}

/// Adds a listener that asks for certificates, and the keys of service accounts.
fn verifies_certificates_and_accounts(folder: &Path, file: &Path) {
    let ca = folder.join("ca");
    assert!(program().args(["ca", "init"]).arg(&ca).status().unwrap().success());
    let (text, at) = (std::fs::read_to_string(file).unwrap(), ca.display());
    let listener = format!(
        "listeners:\n  - {{name: tls, address: '127.0.0.1:0', tls: {{authority: '{at}', client_ca: '{at}/ca.pem'}}}}\n"
    );
    let accounts =
        "service_accounts: {jwks_url: 'https://cluster.local/jwks', issuer: 'https://cluster.local', audience: gate}\n";
    std::fs::write(file, text.replace("listeners:\n", &listener) + accounts).unwrap();
}

fn explained(file: &Path, arguments: &[&str], key: Option<&str>) -> (Option<i32>, String) {
    let mut command = program();
    command.args(["explain", "GET", "/management/v1/counters", "--config"]).arg(file).args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(key.unwrap_or_default().as_bytes()).unwrap();
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    (status.code(), String::from_utf8([stdout, stderr].concat()).unwrap())
}

const RIGHTS: &str = "scopes: [metrika:read], tokens: [analytics]";

#[test]
fn explain_shows_the_caller_that_a_proof_names_and_the_condition_that_fails() {
    let folder = tempfile::tempdir().unwrap();
    let [(one, _), (two, _), (three, _)] = [new_key("etl"), new_key("both"), new_key("nobody")];
    let file = config(
        folder.path(),
        &format!(
            "  - {{id: etl, match: {{listener: app, key_sha256: ['{}']}}, {RIGHTS}}}
  - {{id: both, match: {{key_sha256: ['{}'], san: ['dns:etl.example']}}, {RIGHTS}}}
  - {{id: pod, match: {{service_account: [metrika/etl]}}, {RIGHTS}}}",
            one[1], two[1]
        ),
    );
    verifies_certificates_and_accounts(folder.path(), &file);
    let (code, said) = explained(&file, &["--key-stdin"], Some(&format!("{}\n", one[0])));
    assert_eq!(code, Some(0), "{said}");
    for line in [
        &format!("proofs     key_sha256 {}...\n", &one[1][..8]),
        "caller     etl (",
        "identity   proven, if listener holds too\n",
        "decision   allowed",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    assert!(!said.contains("caller     both") && !said.contains("caller     pod") && !said.contains("mgk_"), "{said}");

    let (code, said) = explained(&file, &["--key-stdin"], Some(&two[0]));
    assert!(code == Some(1) && said.contains("identity   not proven: san does not hold"), "{said}");
    assert!(said.contains("401 unknown_caller") && said.contains("its condition san does not hold"), "{said}");
    let both = ["--key-stdin", "--san", "dns:ETL.example"];
    let (code, said) = explained(&file, &both, Some(&format!("OAuth {}", two[0])));
    assert!(code == Some(0) && said.contains("identity   proven\n"), "{said}");

    let (code, said) = explained(&file, &["--key-stdin"], Some(&three[0]));
    assert!(code == Some(1) && said.contains("caller     none\ndecision   refused: 401 key_unknown"), "{said}");
    let (code, said) = explained(&file, &["--service-account", "metrika/etl"], None);
    assert!(code == Some(0) && said.contains("caller     pod") && said.contains("identity   proven\n"), "{said}");
    let (code, said) = explained(&file, &["--service-account", "metrika/other", "--as", "pod"], None);
    assert!(code == Some(1) && said.contains("identity   not proven: service_account does not hold"), "{said}");
    let (code, said) = explained(&file, &["--key-stdin", "--format", "json"], Some(&one[0]));
    let json: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &json["proofs"]["key_sha256"]), (Some(0), &one[1].as_str().into()), "{said}");
    assert_eq!(json["verdicts"][0]["identity"], "proven, if listener holds too");

    for (arguments, key, expected) in [
        (["--key-stdin"].as_slice(), Some(&one[0][..50]), "checksum of the key is wrong"),
        (&["--key-stdin"], Some("y0_AgAAAA"), "stdin has no key"),
        (&["--san", "etl.example"], None, "invalid --san"),
        (&["--service-account", "etl"], None, "invalid --service-account"),
    ] {
        let (code, said) = explained(&file, arguments, key);
        assert!(code == Some(2) && said.contains(expected) && !said.contains(&one[0][..12]), "{said}");
    }
}

#[test]
fn check_warns_of_keys_in_clear_text_and_of_addresses_alone() {
    let folder = tempfile::tempdir().unwrap();
    crate::harness::files::write_private(&folder.path().join("analytics"), crate::harness::READ_TOKEN);
    let hash = "ab".repeat(32);
    let said = |callers: &str| {
        let file = config(folder.path(), callers);
        let output = program().args(["check", "--config"]).arg(file).output().unwrap();
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    };
    let clear = said(&format!("  - {{id: etl, match: {{listener: net, key_sha256: ['{hash}']}}, {RIGHTS}}}"));
    assert!(clear.contains("callers[0]: caller 'etl' sends its key to listener 'net', which has no tls"), "{clear}");
    assert!(!clear.contains("address alone"), "{clear}");
    let near = said(&format!("  - {{id: etl, match: {{listener: app, key_sha256: ['{hash}']}}, {RIGHTS}}}"));
    assert!(!near.contains("sends its key"), "{near}");
    let address = said(&format!("  - {{id: etl, match: {{listener: net, source: [10.0.0.0/8]}}, {RIGHTS}}}"));
    assert!(address.contains("caller 'etl' is known by its network address alone"), "{address}");
    let empty = said(&format!("  - {{id: etl, match: {{listener: app, key_sha256: []}}, {RIGHTS}}}"));
    assert!(empty.contains("caller 'etl' has no key, so it matches nobody: key_sha256 has no hash for it"), "{empty}");
    std::fs::write(folder.path().join("keys"), "").unwrap();
    let named = format!(
        "  - {{id: etl, match: {{listener: app, key_sha256: []}}, {RIGHTS}}}\nkeys_file: {}/keys",
        folder.path().display()
    );
    let lonely = said(&named);
    assert!(
        lonely.contains("caller 'etl' has no key, so it matches nobody: keys_file and key_sha256 have no hash for it"),
        "{lonely}"
    );
    let itself = said(&format!("  - {{id: etl, match: {{key_sha256: ['{}']}}, {RIGHTS}}}", new_key("etl").0[0]));
    assert!(itself.contains("this looks like a key itself") && !itself.contains("mgk_"), "{itself}");
}
