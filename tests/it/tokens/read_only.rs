//! Token files on read-only mounts, as Docker, Compose and Kubernetes make them: their mode cannot be changed there.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::cli::commands::{Files, outcome};
use crate::harness::gate::binary;
use crate::harness::{Gate, TWO_CALLERS, Upstream};

/// The program with `folder` mounted read-only, where the system lets a test do that.
fn mounted(folder: &Path) -> Option<Command> {
    let may = Command::new("unshare").args(["--mount", "true"]).output();
    if !may.is_ok_and(|output| output.status.success()) {
        return None;
    }
    let mount = "mount --bind \"$0\" \"$0\" && mount -o remount,bind,ro \"$0\" && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", mount]).arg(folder).arg(binary());
    Some(command)
}

fn set(file: &Path, mode: u32, owner: u32) {
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(mode)).unwrap();
    std::os::unix::fs::chown(file, Some(owner), None).unwrap();
}

#[test]
fn allow_mode_lifts_the_rules_of_mode_and_owner_where_nobody_can_write() {
    let files = Files::new();
    let folder = files.0.path();
    let Some(_) = mounted(folder) else { return };
    let check = |read_only: bool| {
        let mut command = if read_only { mounted(folder).unwrap() } else { Command::new(binary()) };
        let (code, out, error) = outcome(command.args(["check", "--config"]).arg(files.config()));
        (code, format!("{out}{error}").replace(&folder.display().to_string(), "FOLDER"))
    };
    let analytics = folder.join("analytics");
    for (mode, owner, allow_mode) in [(0o444, 0, "0444"), (0o644, 1000, "0644"), (0o400, 1000, "0400")] {
        set(&analytics, mode, owner);
        let (code, said) = check(true);
        assert_eq!(code, 77, "{said}");
        assert!(said.contains("its mount is read-only, so its mode cannot be changed here: for a Kubernetes volume"));
        assert!(said.contains(&format!("set tokens.analytics.allow_mode: \"{allow_mode}\"")), "{said}");
        assert!(!said.contains("chmod 0600") && !said.contains("chown"), "{said}");
        files.edit("/analytics', ", &format!("/analytics', allow_mode: '{allow_mode}', "));
        let (code, said) = check(true);
        assert_eq!(code, 0, "{mode:o} of {owner}: {said}");
        // The same file where it can be written.
        let (code, said) = check(false);
        assert!(code == 77 && said.contains("allow_mode applies to read-only mounts only"), "{code} {said}");
        files.edit(&format!("allow_mode: '{allow_mode}', "), "");
    }
    // Beside a mistake elsewhere, too.
    files.edit("/analytics', ", "/analytics', allow_mode: '0400', ");
    files.edit("callers:", "colors:");
    let (code, said) = check(true);
    assert!(code == 78 && said.contains("colors") && !said.contains("read-only"), "{said}");
}

/// If others may not read it at all, opening fails before anything can be checked.
#[test]
fn a_file_on_a_read_only_mount_that_cannot_be_opened_has_a_remedy() {
    let files = Files::new();
    let folder = files.0.path();
    let Some(mut command) = mounted(folder) else { return };
    set(folder, 0o755, 0);
    set(&folder.join("analytics"), 0o600, 1000);
    set(&folder.join("crm"), 0o600, 65532);
    // Root may open everything.
    let program = command.get_program().to_owned();
    let mut arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
    let binary = arguments.pop().unwrap();
    arguments.extend(["setpriv", "--reuid=65532", "--regid=65532", "--clear-groups"].map(Into::into));
    command = Command::new(program);
    let (code, out, error) =
        outcome(command.args(arguments).arg(binary).args(["check", "--config"]).arg(files.config()));
    assert_eq!(code, 77, "{out}{error}");
    assert!(
        out.contains("Permission denied") && out.contains("give the gate's user read permission on the source file"),
        "{out}"
    );
    assert!(!out.contains("token 'crm'"), "{out}");
}

#[test]
fn a_gauge_shows_the_tokens_with_lifted_rules() {
    let upstream = Upstream::plain();
    let config = format!(
        "{TWO_CALLERS}
tokens:
  analytics: {{file: '{{folder}}/analytics', allow_mode: '0444', scopes: [metrika:read]}}
  crm: {{file: '{{folder}}/crm', scopes: [metrika:write]}}
"
    );
    let gate = Gate::start(&upstream, &config);
    assert_eq!(gate.metric(&["token_allow_mode{", "analytics"]), 1.0);
    assert_eq!(gate.metrics(&["token_allow_mode{", "crm"]), ["metrika_gate_token_allow_mode{token=\"crm\"} 0"]);
    gate.replace_config(&gate.config().replace("allow_mode: '0444', ", ""));
    gate.until_metric(&["token_allow_mode{"], 0.0);
}
