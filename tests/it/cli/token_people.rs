//! Situations of people with the tokens of a configuration: mistakes, interruptions, and other programs.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::process::Stdio;

use fake_metrica::DEMO_CLIENT_ID;

use super::token::{Dialog, End, Life, RENEWED};
use crate::harness::Gate;
use crate::harness::files::write_private;
use crate::harness::gate::{program, until};
use crate::harness::terminal::Terminal;

impl Life {
    /// A token of another device, which other programs have.
    pub fn of_another_device(&self) -> String {
        let address = format!(
            "https://oauth.yandex.ru/authorize?response_type=token&client_id={DEMO_CLIENT_ID}&device_id=another-device"
        );
        let result = self.click(&address, "demo-owner", "allow");
        result.split("access_token=").nth(1).unwrap().split('&').next().unwrap().to_owned()
    }

    fn check(&self) -> End {
        let output = program().args(["check", "--config"]).arg(self.file("gate.yaml")).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        End { code: output.status.code().unwrap_or(-1), out: text(output.stdout), error: text(output.stderr) }
    }

    /// Whether Metrica accepts a token.
    pub fn accepts(&self, token: &str) -> bool {
        let kept = std::fs::read_to_string(self.file("crm")).ok();
        write_private(&self.file("crm"), token);
        let works = self.works();
        std::fs::remove_file(self.file("crm")).unwrap();
        if let Some(kept) = kept {
            write_private(&self.file("crm"), &kept);
        }
        works
    }
}

#[test]
fn a_token_that_another_program_wrote_is_not_revoked_unasked() {
    let life = Life::new(RENEWED);
    assert_eq!(life.log_in().code, 0);
    let (own, other) = (life.read("crm"), life.of_another_device());
    assert_ne!(own, other);
    write_private(&life.file("crm"), &other);
    let end = life.run(&["revoke", "crm"], "");
    assert_eq!(end.code, 1, "{end:?}");
    for words in ["another program has replaced token 'crm'", "nothing was revoked", "--replaced", "data-access"] {
        assert!(end.error.contains(words), "{words}: {end:?}");
    }
    assert!(life.accepts(&own) && life.accepts(&other) && life.read("crm") == other);
    assert!(life.file("crm.refresh").exists() && life.file("crm.json").exists());
    let end = life.run(&["revoke", "crm", "--replaced"], "");
    assert!(end.code == 0 && !life.accepts(&other) && life.accepts(&own), "{end:?}");
}

/// Killed when the token has left its place and has not ended yet, and again when it has ended.
#[test]
fn a_revoked_token_leaves_its_place_first_and_a_killed_command_is_repeated() {
    let life = Life::new(RENEWED);
    assert_eq!(life.log_in().code, 0);
    let (token, other) = (life.read("crm"), life.of_another_device());
    life.fake.turn("slow?path=/revoke_token&ms=60000").unwrap();
    let dialog = Dialog::start(life.command(&["revoke", "crm"]));
    until("the token leaves its place", || !life.file("crm").exists());
    dialog.signal("KILL");
    dialog.end("");
    assert!(life.accepts(&token), "it has not ended yet");
    life.fake.turn("slow?ms=0").unwrap();
    for words in [life.check().out, life.run(&["status"], "").out] {
        assert!(words.contains("crm.revoking") && words.contains("token revoke crm` again"), "{words}");
    }
    // Meanwhile another program writes a token, which stays.
    write_private(&life.file("crm"), &other);
    let end = life.run(&["revoke", "crm"], "");
    assert!(end.code == 0 && end.out.contains("requests use the token that another program has put in"), "{end:?}");
    assert!(!life.accepts(&token) && life.accepts(&other) && life.read("crm") == other);
    for name in ["crm.refresh", "crm.json", "crm.revoking"] {
        assert!(!life.file(name).exists(), "{name}");
    }
    std::fs::remove_file(life.file("crm")).unwrap();
    write_private(&life.file("crm.revoking"), &token);
    let end = life.run(&["revoke", "crm"], "");
    assert!(end.code == 0 && !life.file("crm.revoking").exists(), "{end:?}");
    assert!(life.run(&["revoke", "crm"], "").error.contains("is missing"));
}

#[test]
fn a_revocation_that_is_refused_changes_nothing_and_one_without_an_answer_is_repeated() {
    let life = Life::new(RENEWED);
    assert_eq!(life.log_in().code, 0);
    life.fake.turn("oauth_fail?path=/revoke_token&error=invalid_client").unwrap();
    let end = life.run(&["revoke", "crm"], "");
    assert!(end.code == 1 && life.works() && !life.file("crm.revoking").exists(), "{end:?}");
    // Without a connection, nothing is sent.
    let config = life.read("gate.yaml");
    let (before, oauth) = config.split_once("oauth: ").unwrap();
    let oauth = oauth.replacen(&life.fake.address().to_string(), "127.0.0.1:1", 1);
    std::fs::write(life.file("gate.yaml"), format!("{before}oauth: {oauth}")).unwrap();
    let end = life.run(&["revoke", "crm"], "");
    assert!(end.code == 75 && !end.error.contains("set aside"), "{end:?}");
    assert!(life.works() && !life.file("crm.revoking").exists(), "{end:?}");
    std::fs::write(life.file("gate.yaml"), config).unwrap();
    life.fake.turn("break?path=/revoke_token&times=1").unwrap();
    let end = life.run(&["revoke", "crm"], "");
    assert!(end.code == 75 && end.error.contains("set aside in") && end.error.contains("token revoke crm`"), "{end:?}");
    assert!(!life.file("crm").exists() && life.file("crm.revoking").exists());
    let end = life.run(&["revoke", "crm"], "");
    assert!(end.code == 0 && !life.file("crm.revoking").exists(), "{end:?}");
}

/// A login came between the interrupted revocation and its repetition.
#[test]
fn the_end_of_an_interrupted_revocation_spares_a_later_login() {
    let life = Life::new(RENEWED);
    assert_eq!(life.log_in().code, 0);
    let (token, earlier) = (life.read("crm"), life.of_another_device());
    write_private(&life.file("crm.revoking"), &earlier);
    // As a login leaves it that is killed after the token is in its place.
    let record: serde_json::Value = serde_json::from_str(&life.read("crm.json")).unwrap();
    let pending = serde_json::json!({"access": token.trim(), "record": record});
    write_private(&life.file("crm.refresh.pending"), &pending.to_string());
    let end = life.run(&["revoke", "crm"], "");
    assert_eq!(
        (end.code, end.out.as_str()),
        (0, "the token that was set aside for 'crm' is revoked; the token of the last login stays in use\n"),
        "{end:?}"
    );
    assert!(!life.accepts(&earlier) && life.accepts(&token) && life.read("crm") == token);
    assert!(life.file("crm.refresh").exists() && life.file("crm.json").exists());
    assert!(!life.file("crm.revoking").exists());
}

/// The tokens of a configuration in which `crm` has the standby `second`.
fn with_standby(life: &Life) -> String {
    let at = life.folder.path().display();
    format!(
        "tokens: {{crm: {{file: '{at}/crm', standby: second, {}}}, second: {{file: '{at}/second', scopes: [metrika:read], owner: demo-owner}}}}\n",
        RENEWED.replace("{at}", &at.to_string())
    )
}

/// The gate has a standby, and never sends the token that is revoked.
#[test]
fn a_gate_moves_to_the_standby_before_a_token_ends() {
    let life = Life::new(RENEWED);
    assert_eq!(life.log_in().code, 0);
    write_private(&life.file("second"), &life.of_another_device());
    let tokens = with_standby(&life);
    let config = format!(
        "\nlisteners: [{{name: app, address: '127.0.0.1:0'}}]\n{tokens}\
         callers: [{{id: reports, match: {{listener: app}}, scopes: [metrika:read], tokens: [crm]}}]\n"
    );
    let gate = Gate::plan_for(&life.fake.address().to_string(), life.fake.ca_pem(), &config).start();
    assert_eq!(gate.get("app", "/management/v1/counters").status, 200);
    let written = life.read("gate.yaml").replace("127.0.0.1:1'", &format!("{}'", gate.admin_place()));
    let before: String =
        written.lines().filter(|line| !line.starts_with("tokens:")).map(|line| format!("{line}\n")).collect();
    std::fs::write(life.file("gate.yaml"), format!("{before}{tokens}")).unwrap();
    let end = std::thread::scope(|scope| {
        let command = scope.spawn(|| life.run(&["revoke", "crm"], ""));
        while !command.is_finished() {
            assert_eq!(gate.get("app", "/management/v1/counters").status, 200);
        }
        command.join().unwrap()
    });
    assert!(end.code == 0 && end.out.ends_with("requests use the standby 'second'\n"), "{end:?}");
    assert_eq!(gate.metric(&["auth_failures_total", "upstream"]), 0.0);
}

/// The callers of a token whose standby is dead would be refused.
#[test]
fn a_token_is_not_revoked_for_a_dead_standby() {
    let life = Life::new(RENEWED);
    assert_eq!(life.log_in().code, 0);
    write_private(&life.file("second"), "y0_a-token-that-has-ended-0000000000000");
    let tokens = with_standby(&life);
    let written = life.read("gate.yaml");
    let others: String =
        written.lines().filter(|line| !line.starts_with("tokens:")).map(|line| format!("{line}\n")).collect();
    std::fs::write(life.file("gate.yaml"), format!("{others}{tokens}")).unwrap();
    let token = life.read("crm");
    let end = life.run(&["revoke", "crm"], "");
    assert!(end.code == 1 && end.error.contains("rejects the token of the standby 'second', so nothing"), "{end:?}");
    assert_eq!(life.read("crm"), token);
    let end = life.run(&["revoke", "crm", "--without-standby"], "");
    assert!(end.code == 0 && !life.file("crm").exists(), "{end:?}");
}

#[test]
fn the_rules_of_the_gate_hold_before_a_token_is_installed() {
    let life = Life::new(RENEWED);
    let demo = &fake_metrica::demo_tokens()[0].secret;
    let end = life.run(&["import", "crm"], demo);
    assert!(end.code == 78 && end.error.contains("'crm' is a demo token; use a real token"), "{end:?}");
    assert!(!life.file("crm").exists() && !life.file("crm.refresh.pending").exists());
    let (open, written) = (life.file("open"), life.read("gate.yaml"));
    let inside = written.replace("/crm', scopes", "/open/crm', scopes");
    assert_ne!(inside, written);
    std::fs::write(life.file("gate.yaml"), inside).unwrap();
    std::fs::create_dir(&open).unwrap();
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o777)).unwrap();
    for command in [&["login", "crm", "--flow", "code"][..], &["import", "crm"], &["refresh"]] {
        let end = life.run(command, "");
        assert!(end.code == 77 && end.error.contains("the gate would reject the file"), "{end:?}");
        assert!(end.error.contains("chmod o-w it") && !end.error.contains("Open this"), "{end:?}");
    }
    write_private(&open.join("crm"), demo);
    assert_eq!(life.check().code, 77, "as check does");
}

#[test]
fn another_account_has_words_for_its_origin() {
    let life = Life::new(RENEWED);
    let other = {
        let (dialog, address) = life.ask(&["login", "crm", "--flow", "implicit"]);
        let result = life.click(&address, "demo-other", "allow");
        let end = dialog.end(&format!("{result}\n"));
        assert!(end.error.contains("[-] owner: demo-other, but demo-owner is configured; sign in"), "{end:?}");
        assert!(end.error.contains("the browser was signed in with another account"), "{end:?}");
        result
    };
    let end = life.run(&["import", "crm"], &other);
    assert!(end.code == 1 && end.error.contains("demo-other, but demo-owner is configured"), "{end:?}");
    assert!(!end.error.contains("browser"), "nobody has used one: {end:?}");
    life.configure(&RENEWED.replace("owner: demo-owner", "owner: porg-shop"));
    let (dialog, address) = life.ask(&["login", "crm", "--flow", "code"]);
    let end = dialog.end(&format!("{}\n", life.click(&address, "demo-owner", "allow")));
    for words in [
        "signed in as a member of the organisation porg-shop, choose that organisation on the page,",
        "demo-owner, who issued it as a person; porg-shop is an account of an organisation",
        "passport:business",
        "choose porg-shop in the list of accounts",
    ] {
        assert!(end.error.contains(words), "{words}: {end:?}");
    }
}

#[test]
fn each_step_names_the_next_one() {
    let life = Life::new(RENEWED);
    let file = life.file("first.yaml");
    let init = program().args(["init", "--out"]).arg(&file).output().unwrap();
    let said = String::from_utf8(init.stdout).unwrap();
    let (login, check) =
        (said.find("token login analytics --config").unwrap(), said.find("metrika-gate check").unwrap());
    assert!(login < check, "{said}");
    // The lines that are switched off are right where they are.
    let written = std::fs::read_to_string(&file).unwrap();
    let mut all = String::new();
    for line in written.lines() {
        let key = line.trim_start().strip_prefix("# ").filter(|rest| {
            ["owner:", "client_id:", "client_secret_file:", "refresh_file:", "identity:"]
                .iter()
                .any(|key| rest.starts_with(key))
        });
        let indent = &line[..line.len() - line.trim_start().len()];
        all += &key.map_or_else(|| format!("{line}\n"), |key| format!("{indent}{key}\n"));
    }
    let changed = all.lines().zip(written.lines()).filter(|(all, written)| all != written).count();
    assert_eq!((changed, all.lines().count()), (5, written.lines().count()), "{all}");
    std::fs::write(&file, &all).unwrap();
    let check = program().args(["check", "--without-tokens", "--config"]).arg(&file).output().unwrap();
    assert!(check.status.success(), "{check:?}");
    let config = metrika_gate::config::Config::load(&file).unwrap();
    let origin = &config.tokens[0].origin;
    assert!(origin.owner.is_some() && origin.client_id.is_some() && config.identity.is_some());
    assert!(origin.client_secret_file.is_some() && origin.refresh_file.is_some());
    let end = life.log_in();
    assert!(
        end.out.contains(&format!("next, run: metrika-gate check --config {}", life.file("gate.yaml").display())),
        "{end:?}"
    );
}

#[test]
fn more_rights_than_declared_are_told() {
    let life = Life::new(&RENEWED.replace("[metrika:read]", "[metrika:read, metrika:offline_data]"));
    let end = life.log_in();
    let page = format!("https://oauth.yandex.ru/client/{DEMO_CLIENT_ID}/info");
    let unseen = format!("more rights than declared cannot be seen; compare with the application's rights: {page}");
    assert!(end.code == 0 && end.error.contains(&format!("[ ] rights: {unseen}")), "{end:?}");
    let shown = life.run(&["status"], "").out;
    assert!(shown.contains("crm: metrika:offline_data: declared, but only a write could prove that"), "{shown}");
    assert!(shown.contains(&format!("crm: {unseen}")), "{shown}");
    for (granted, words) in [
        (
            "metrika:read+metrika:offline_data+metrika:write",
            "[!] rights: the token also has metrika:write, which is not declared",
        ),
        ("metrika:read+metrika:offline_data", "[+] rights: Yandex has granted no more than declared"),
    ] {
        assert_eq!(life.run(&["revoke", "crm"], "").code, 0);
        let (dialog, address) = life.ask(&["login", "crm", "--flow", "code"]);
        let result = life.click(&format!("{address}&scope={granted}"), "demo-owner", "allow");
        let end = dialog.end(&format!("{result}\n"));
        assert!(end.code == 0 && end.error.contains(words), "{end:?}");
        let is_more = words.starts_with("[!]");
        for _ in 0..2 {
            let shown = life.run(&["status"], "");
            assert_eq!((shown.code, shown.out.contains("the token also has metrika:write")), (0, is_more), "{shown:?}");
            assert!(!shown.out.contains("cannot be seen"), "{shown:?}");
            assert_eq!(life.run(&["refresh"], "").code, 0, "a renewal keeps them");
        }
    }
}

#[test]
fn a_proof_names_no_option_that_the_command_lacks() {
    let life = Life::new(RENEWED);
    let end = life.log_in();
    assert!(end.error.contains("[ ] counters: checked 2 of the 2 that the owner can see"), "{end:?}");
    assert!(!end.error.contains("--counter") && !end.error.contains("no counter is configured"), "{end:?}");
}

#[test]
fn a_bare_token_is_printed_for_other_stores_and_the_name_has_its_form() {
    let life = Life::new(RENEWED);
    let (dialog, address) = life.ask(&["login", "crm", "--flow", "code", "--print=raw"]);
    let end = dialog.end(&format!("{}\n", life.click(&address, "demo-owner", "allow")));
    assert!(end.code == 0 && end.out.starts_with("test-") && !end.out.contains('\n'), "{end:?}");
    assert!(!end.error.contains("warning: the token"), "{end:?}");
    assert!(life.accepts(&end.out) && !life.file("crm").exists());
    let end = life.run(&["login", "crm", "--print", "shop"], "");
    assert!(end.code == 2 && end.error.contains("--print=shop"), "{end:?}");
    let end = life.run(&["login", "crm", "shop"], "");
    assert!(end.code == 2 && end.error.contains("unexpected 'shop'"), "{end:?}");
    let end = life.run(&["login", "crm", "--print=a: b"], "");
    assert!(end.code == 2 && end.error.contains("expected the name of a Secret"), "{end:?}");
    let command = life.command(&["login", "crm", "--flow", "code", "--print=raw"]);
    let Some(mut terminal) = Terminal::start(&command, "") else { return };
    let address = terminal.until("  https://").trim().to_owned();
    terminal.until_prompt();
    terminal.type_in(&format!("{}\n", life.click(&address, "demo-owner", "allow")));
    let (shown, _) = terminal.end();
    let (warning, token) = (shown.find("warning: the token follows").unwrap(), shown.rfind("test-").unwrap());
    assert!(warning < token && shown.ends_with("\r\n"), "{shown}");
}

#[test]
fn an_interrupted_proof_keeps_the_token_and_the_next_login_finishes() {
    let life = Life::new(RENEWED);
    life.fake.turn("slow?path=/management&ms=60000").unwrap();
    let (mut dialog, address) = life.ask(&["login", "crm", "--flow", "code"]);
    dialog.say(&format!("{}\n", life.click(&address, "demo-owner", "allow")));
    until("the token is kept", || life.file("crm.refresh.pending").exists());
    std::thread::sleep(std::time::Duration::from_millis(500));
    dialog.signal("INT");
    let end = dialog.end("");
    assert_eq!(end.code, 130, "{end:?}");
    assert!(
        end.error.contains("interrupted; the received token is kept, and `metrika-gate token login crm` proves it"),
        "{end:?}"
    );
    life.fake.turn("slow?ms=0").unwrap();
    let status = life.run(&["status", "--offline"], "").out;
    assert!(status.contains("crm.refresh.pending has a received token"), "{status}");
    let check = life.check();
    assert!(check.out.contains("note: ") && check.out.contains("token login crm`, which proves it"), "{check:?}");
    let end = life.run(&["login", "crm"], "");
    assert!(end.code == 0 && end.error.contains("finishing the interrupted login"), "{end:?}");
    assert!(end.error.contains("no new one is needed") && end.out.contains("next, run"), "{end:?}");
    assert!(life.works() && !life.check().out.contains("note: "));
}

#[test]
fn the_countdown_ends_its_line_and_can_be_interrupted() {
    let life = Life::new(RENEWED);
    let command = life.command(&["login", "crm"]);
    for is_interrupted in [false, true] {
        let Some(mut terminal) = Terminal::start(&command, "; echo code $?") else { return };
        let code = terminal.until("  ").trim().to_owned();
        terminal.until("The code is valid");
        if is_interrupted {
            terminal.until_byte(b'w');
            terminal.type_in("\x03");
        } else {
            life.enter(&code, "demo-owner", "allow");
        }
        let (shown, _) = terminal.end();
        let last = if is_interrupted { "interrupted; nothing was changed" } else { "[+] owner" };
        let line = shown.lines().find(|line| line.contains(last)).unwrap_or_else(|| panic!("{shown:?}"));
        assert!(!line.contains("left") && !line.contains('\r'), "{shown:?}");
        assert!(shown.contains(if is_interrupted { "code 130" } else { "code 0" }), "{shown:?}");
    }
}

#[test]
fn what_follows_a_pasted_line_does_not_reach_the_shell() {
    let life = Life::new(RENEWED);
    assert_eq!(life.log_in().code, 0);
    let command = life.command(&["import", "crm"]);
    let Some(mut terminal) = Terminal::start(&command, "; timeout --foreground 1 cat") else { return };
    terminal.until_prompt();
    terminal.type_in(&format!("{}\nleft-over\nof a code\n", life.read("crm")));
    let (shown, _) = terminal.end();
    assert!(
        shown.contains("token 'crm' is in") && !shown.contains("left-over") && !shown.contains("of a code"),
        "{shown}"
    );
}

/// The account of other users, for commands that root runs.
const NOBODY: u32 = 65534;

fn give(path: &std::path::Path) {
    std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
}

fn is_root(life: &Life) -> bool {
    life.folder.path().metadata().unwrap().uid() == 0
}

#[test]
fn an_open_folder_above_a_token_is_named() {
    let life = Life::new(RENEWED);
    let temporary = std::env::temp_dir();
    if !is_root(&life) || temporary.metadata().unwrap().mode() & 0o1002 != 0o1002 {
        return;
    }
    assert_eq!(life.log_in().code, 0);
    for path in [life.folder.path(), &life.file("crm")] {
        give(path);
    }
    let end = life.check();
    let folder = format!("the folder {} is writable by everyone", temporary.display());
    assert!(end.code == 77 && end.out.contains(&folder), "{end:?}");
    assert!(
        end.out.contains("if the gate runs as user 65534, run the command as that user; otherwise chown 0 it"),
        "{end:?}"
    );
}

#[test]
fn a_lock_of_another_user_names_its_owner() {
    let life = Life::new(RENEWED);
    if !is_root(&life) {
        return;
    }
    write_private(&life.file("crm.refresh.lock"), "");
    for path in [life.folder.path(), &life.file("secret")] {
        give(path);
    }
    let mut command = life.command(&["import", "crm"]);
    command.uid(NOBODY);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // The program may be in a folder that only root reads.
    let Ok(child) = command.spawn() else { return };
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(77) && said.contains("crm.refresh.lock: cannot be written"), "{said}");
    assert!(said.contains("it belongs to user 0") && said.contains("run the command as that user"), "{said}");
}

#[test]
fn links_lead_to_the_site_of_the_login() {
    let life = Life::new(RENEWED);
    let written = life.read("gate.yaml").replace("oauth: {", "oauth: {url: 'https://oauth.yandex.com', ");
    std::fs::write(life.file("gate.yaml"), written).unwrap();
    let mut dialog = Dialog::start(life.command(&["login", "crm"]));
    let shown = dialog.until("Open ");
    assert!(shown.starts_with("Open https://oauth.yandex.com/device, signed in"), "{shown}");
    life.fake.turn("oauth_fail?path=/token&error=invalid_client").unwrap();
    let end = dialog.end("");
    assert!(end.error.contains("at https://oauth.yandex.com") && !end.error.contains("yandex.ru"), "{end:?}");
}

#[test]
fn mistakes_name_their_remedy() {
    let life = Life::new(RENEWED);
    let (dialog, address) = life.ask(&["login", "crm", "--flow", "implicit"]);
    let result = life.click(&address, "demo-owner", "allow");
    let end = dialog.end(&format!("{result}{result}\n{address}\n{result}\n"));
    assert!(end.code == 0 && end.error.contains("the text was pasted twice"), "{end:?}");
    assert!(end.error.contains("after you click Allow, with the part behind '#'"), "{end:?}");
    let (dialog, address) = life.ask(&["login", "crm", "--flow", "code"]);
    let end = dialog.end(&format!("{address}\n"));
    assert!(end.error.contains("after you click Allow\n") && !end.error.contains("'#'"), "{end:?}");
    let end = life.run(&["import", "crm"], "test-0000000000000000000000unknown");
    assert!(end.error.contains("issue a new token with `metrika-gate token login`"), "{end:?}");
    std::fs::remove_file(life.file("secret")).unwrap();
    let end = life.run(&["revoke", "crm"], "");
    assert!(end.code == 78 && end.error.contains("write the secret of the application to it"), "{end:?}");
    assert!(end.error.contains("--client-secret-file -"), "{end:?}");
    write_private(&life.file("secret"), fake_metrica::DEMO_CLIENT_SECRET);
    let end = life.run(&["refresh"], "");
    assert!(end.code == 78 && end.error.contains("run `metrika-gate token login crm`, which writes it"), "{end:?}");
    let etc = RENEWED.replace("{at}/secret", "{at}/below/secret");
    std::fs::create_dir(life.file("below")).unwrap();
    write_private(&life.file("below/secret"), fake_metrica::DEMO_CLIENT_SECRET);
    life.configure(&etc);
    let said = life.check().out;
    assert!(said.contains("not in or below the folder of the configuration"), "{said}");
}
