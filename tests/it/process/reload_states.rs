//! The reported state of the configuration is the current one: after a mistake, after its fix, and in whatever order files
//! come and go.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::harness::files::write_private;
use crate::harness::gate::until;
use crate::harness::{Gate, READ_TOKEN, TWO_CALLERS, Upstream};

const GAUGE: [&str; 1] = ["metrika_gate_config_last_reload_successful"];
const IN_USE: &str = "[+] the configuration is in use";

fn set_mode(file: &Path, mode: u32) {
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// The gate reports that its configuration is not in use, and why.
fn is_refused(gate: &Gate, why: &str) {
    gate.until_metric(&GAUGE, 0.0);
    gate.until_log(&["the configuration was not reloaded", why]);
    let page = gate.admin("/readyz?verbose");
    let text = page.text();
    assert!(page.status == 200 && text.contains("[!] the configuration was rejected") && text.contains(why), "{text}");
}

fn is_in_use(gate: &Gate) {
    gate.until_metric(&GAUGE, 1.0);
    assert!(gate.admin("/readyz?verbose").text().contains(IN_USE));
}

#[test]
fn a_refused_configuration_is_applied_when_another_file_is_fixed() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TWO_CALLERS);
    is_in_use(&gate);
    // A token of the new configuration that others can read.
    write_private(&gate.file("third"), READ_TOKEN);
    set_mode(&gate.file("third"), 0o644);
    let third = format!("  third: {{file: '{}', scopes: [metrika:read]}}\n", gate.file("third").display());
    let with_third = gate.config() + &third;
    gate.replace_config(&with_third);
    is_refused(&gate, "chmod 0600");
    set_mode(&gate.file("third"), 0o600);
    is_in_use(&gate);
    assert_eq!(gate.metric(&["metrika_gate_token_loaded{", "third"]), 1.0);
    // An authority that is not there yet.
    let new_authority = with_third.replace("/ca.pem", "/new.pem");
    gate.replace_config(&new_authority);
    is_refused(&gate, "new.pem");
    std::fs::copy(gate.file("ca.pem"), gate.file("new.pem")).unwrap();
    is_in_use(&gate);
    assert_eq!(gate.get("app", "/management/v1/counters").summary(), "200");
    // A refusal is logged once, however often it is judged.
    std::fs::remove_file(gate.file("new.pem")).unwrap();
    is_refused(&gate, "new.pem");
    std::thread::sleep(Duration::from_millis(2500));
    let said = gate.log().iter().filter(|line| line.contains("not reloaded") && line.contains("new.pem")).count();
    assert_eq!(said, 2, "one for each time");
}

#[test]
fn a_missing_configuration_and_its_return_are_reported() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let (file, away) = (gate.file("gate.yaml"), gate.file("away"));
    std::fs::rename(&file, &away).unwrap();
    is_refused(&gate, "cannot read the configuration");
    assert_eq!(gate.get("app", "/management/v1/counters").summary(), "200", "the old one serves");
    std::fs::rename(&away, &file).unwrap();
    is_in_use(&gate);
    gate.until_log(&["the configuration is valid again"]);
    // A signal while it is away is answered at once, and forgotten when it is back.
    std::fs::rename(&file, &away).unwrap();
    gate.signal("HUP");
    gate.until_metric(&GAUGE, 0.0);
    std::fs::rename(&away, &file).unwrap();
    is_in_use(&gate);
    // The same goes for a file that everyone can write.
    set_mode(&file, 0o666);
    is_refused(&gate, "is writable by everyone");
    set_mode(&file, 0o600);
    is_in_use(&gate);
    // The reported reason is the current one.
    std::fs::rename(&file, &away).unwrap();
    is_refused(&gate, "cannot read the configuration");
    set_mode(&away, 0o666);
    std::fs::rename(&away, &file).unwrap();
    until("the reason is the one of now", || gate.admin("/readyz?verbose").text().contains("is writable by everyone"));
}

/// Remarks on an acceptable configuration are logged when it is loaded.
#[test]
fn remarks_are_not_repeated_while_it_is_refused() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TWO_CALLERS);
    write_private(&gate.file("third"), READ_TOKEN);
    set_mode(&gate.file("third"), 0o644);
    let third = format!(
        "  third: {{file: '{}', scopes: [metrika:read]}}\nlog: {{level: debug}}\n",
        gate.file("third").display()
    );
    gate.replace_config(&(gate.config() + &third));
    is_refused(&gate, "chmod 0600");
    std::thread::sleep(Duration::from_millis(2500));
    let remarks = || gate.log().iter().filter(|line| line.contains("log.format or log.level changed")).count();
    assert_eq!(remarks(), 0, "nothing of it is taken");
    set_mode(&gate.file("third"), 0o600);
    is_in_use(&gate);
    gate.until_log(&["log.format or log.level changed"]);
    assert_eq!(remarks(), 1);
}

/// The usual fix of a wrong token takes two steps.
#[test]
fn a_wrong_token_that_is_replaced_in_two_steps_loses_nothing() {
    let upstream = Upstream::plain();
    let gate = Gate::start(&upstream, TWO_CALLERS);
    let token = gate.file("analytics");
    set_mode(&token, 0o644);
    gate.until_log(&["the token was not reloaded", "chmod 0600"]);
    std::thread::sleep(Duration::from_millis(1200));
    std::fs::remove_file(&token).unwrap();
    std::thread::sleep(Duration::from_millis(400));
    write_private(&token, READ_TOKEN);
    std::thread::sleep(Duration::from_millis(1200));
    assert!(!gate.log().iter().any(|line| line.contains("the token file was removed")));
    assert_eq!(gate.get("app", "/management/v1/counters").summary(), "200");
}

/// A file that is mounted by itself stays what it was, and that is logged.
#[test]
fn a_file_that_was_replaced_behind_its_mount_is_reported() {
    let upstream = Upstream::plain();
    let Some(plan) = Gate::plan(&upstream, TWO_CALLERS).mounted_alone("analytics") else { return };
    let gate = plan.start();
    assert!(!gate.admin("/readyz?verbose").text().contains("was replaced"));
    write_private(&gate.file("new"), "y0_canaryNEWcanary0123456789abcdefg");
    std::fs::rename(gate.file("new"), gate.file("analytics.outside")).unwrap();
    gate.until_log(&["replaced outside of its mount", "token analytics", "no subPath"]);
    let page = gate.admin("/readyz?verbose");
    assert!(
        page.status == 200 && page.text().contains("[!]") && page.text().contains("was replaced"),
        "{}",
        page.text()
    );
}

/// An authority decides whom the token is sent to: nobody else may write it.
#[test]
fn an_authority_that_everyone_can_write_is_refused() {
    let upstream = Upstream::plain();
    let plan = Gate::plan(&upstream, TWO_CALLERS);
    set_mode(&plan.folder().join("ca.pem"), 0o666);
    let (code, said) = plan.fails();
    assert!(code == 78 && said.contains("ca_file") && said.contains("is writable by everyone"), "{code}: {said}");
}

/// An event that happens to files.
#[derive(Debug, Clone, Copy)]
enum Happening {
    Token(Content),
    Authority(Content),
    Configuration(Content),
    Folder(u32),
    Hangup,
    Pause(u16),
}

/// The new content of a file.
#[derive(Debug, Clone, Copy)]
enum Content {
    Gone,
    Wrong,
    First,
    Second,
    Rewritten,
    Mode(u32),
}

fn content() -> impl Strategy<Value = Content> {
    prop_oneof![
        Just(Content::Gone),
        Just(Content::Wrong),
        Just(Content::First),
        Just(Content::Second),
        Just(Content::Rewritten),
        prop_oneof![Just(0o600), Just(0o644), Just(0o666)].prop_map(Content::Mode),
    ]
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        2 => content().prop_map(Happening::Token),
        2 => content().prop_map(Happening::Authority),
        3 => content().prop_map(Happening::Configuration),
        1 => prop_oneof![Just(0o755), Just(0o777)].prop_map(Happening::Folder),
        1 => Just(Happening::Hangup),
        2 => (0_u16..1500).prop_map(Happening::Pause),
    ]
}

/// The possible contents of a file: something wrong, and two things that are right.
struct Contents {
    wrong: String,
    right: [String; 2],
}

fn apply(gate: &Gate, file: &Path, contents: &Contents, to: Content) {
    let renamed = |text: &str| {
        let new = gate.file("new.of.it");
        write_private(&new, text);
        std::fs::rename(&new, file).unwrap();
    };
    match to {
        Content::Gone => drop(std::fs::remove_file(file)),
        Content::Wrong => renamed(&contents.wrong),
        Content::First => renamed(&contents.right[0]),
        Content::Second => renamed(&contents.right[1]),
        Content::Rewritten => write_private(file, &contents.right[1]),
        Content::Mode(mode) if file.exists() => set_mode(file, mode),
        Content::Mode(_) => {}
    }
}

/// The visible state of a gate's files: whether its configuration is in use; then also the status of a response, which its
/// authority decides, and the token that went out with the last request that reached Metrica.
type State = (bool, Option<(u16, Option<String>)>);

fn state_of(gate: &Gate, upstream: &Upstream) -> State {
    let in_use = gate.admin("/readyz?verbose").text().contains(IN_USE);
    let answered = gate.get("app", "/management/v1/counters").status;
    let sent = upstream.requests().pop().filter(|_| answered == 200);
    let token = sent.and_then(|head| head.lines().find(|line| line.starts_with("authorization")).map(str::to_owned));
    (in_use, in_use.then_some((answered, token)))
}

#[test]
fn at_rest_the_state_is_that_of_a_fresh_start() {
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let sequences = prop::collection::vec(happening(), 4..14);
    let all: Vec<_> = (0..24).map(|_| sequences.new_tree(&mut runner).unwrap().current()).collect();
    std::thread::scope(|scope| {
        for some in all.chunks(4) {
            scope.spawn(move || some.iter().for_each(|sequence| run(sequence)));
        }
    });
}

fn run(sequence: &[Happening]) {
    let (upstream, stranger) = (Upstream::plain(), Upstream::plain());
    let gate = Gate::plan(&upstream, TWO_CALLERS).start();
    let text = gate.config();
    let configuration = Contents {
        wrong: format!("{text}nothing: true\n"),
        right: [text.clone(), text.replace("ca_file", "connections: 100, ca_file")],
    };
    let token =
        Contents { wrong: "two words".to_owned(), right: [READ_TOKEN.to_owned(), READ_TOKEN.replace('0', "1")] };
    let authority = Contents {
        wrong: "no certificate".to_owned(),
        right: [upstream.ca_pem().to_owned(), stranger.ca_pem().to_owned()],
    };
    for happening in sequence {
        match *happening {
            Happening::Token(to) => apply(&gate, &gate.file("analytics"), &token, to),
            Happening::Authority(to) => apply(&gate, &gate.file("ca.pem"), &authority, to),
            Happening::Configuration(to) => apply(&gate, &gate.file("gate.yaml"), &configuration, to),
            Happening::Folder(mode) => set_mode(&gate.file("."), mode),
            Happening::Hangup => gate.signal("HUP"),
            Happening::Pause(time) => std::thread::sleep(Duration::from_millis(time.into())),
        }
    }
    // A failing start has a wrong configuration, or a wrong token.
    let expected = gate.again().map(|fresh| state_of(&fresh, &upstream));
    let start = Instant::now();
    let is_so = || match (&expected, state_of(&gate, &upstream)) {
        (Ok(expected), state) => *expected == state,
        // A start fails for a present but wrong token, too; a running gate keeps the one that it has.
        (Err(said), (in_use, _)) => in_use == said.contains("token 'analytics'"),
    };
    while !is_so() {
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "{sequence:?}: {:?}, and a fresh start is {expected:?}\n{}",
            state_of(&gate, &upstream),
            gate.admin("/readyz?verbose").text()
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    // And it stays so.
    std::thread::sleep(Duration::from_millis(1500));
    until("the state is that of a fresh start", is_so);
}
