//! External changes are seen soon, in whatever way they are made: to the configuration, a token and an authority.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::harness::files::write_private;
use crate::harness::{Gate, READ_TOKEN, Upstream};

const NEW_TOKEN: &str = "y0_canaryNEWcanary0123456789abcdefg";
const COUNTERS: &str = "/management/v1/counters";

/// The file that changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Thing {
    Configuration,
    Token,
    Authority,
}

/// By which way it changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Another file takes its name.
    Rename,
    /// It is written in place.
    Rewrite,
    /// It is away for a moment, and then another takes its name.
    Return,
    /// The same, with a path that is relative.
    ReturnByARelativePath,
    /// The same, in a folder that a link leads to.
    ReturnBehindALink,
    /// The way of a Kubernetes volume.
    Swap,
    /// A link on the way to it leads elsewhere.
    LinkMoved,
    /// Another folder takes the name of its own.
    FolderReplaced,
    /// The same, with a moment without one.
    FolderMadeAgain,
}

const WAYS: [Way; 9] = [
    Way::Rename,
    Way::Rewrite,
    Way::Return,
    Way::ReturnByARelativePath,
    Way::ReturnBehindALink,
    Way::Swap,
    Way::LinkMoved,
    Way::FolderReplaced,
    Way::FolderMadeAgain,
];

/// Puts a file where it is at first.
fn put(root: &Path, way: Way, content: &str) {
    let folder = match way {
        Way::Swap => {
            symlink("..data/file", root.join("file")).unwrap();
            symlink("..one", root.join("..data")).unwrap();
            root.join("..one")
        }
        Way::LinkMoved => {
            symlink("one", root.join("current")).unwrap();
            root.join("one")
        }
        Way::ReturnBehindALink => {
            symlink("real", root.join("link")).unwrap();
            root.join("real")
        }
        Way::FolderReplaced | Way::FolderMadeAgain => root.join("folder"),
        Way::Rename | Way::Rewrite | Way::Return | Way::ReturnByARelativePath => root.to_owned(),
    };
    std::fs::create_dir_all(&folder).unwrap();
    write_private(&folder.join("file"), content);
}

/// The path that the gate is told.
fn path(root: &Path, name: &str, way: Way) -> String {
    let root = if way == Way::ReturnByARelativePath { PathBuf::from(name) } else { root.join(name) };
    let inner = match way {
        Way::LinkMoved => "current/file",
        Way::ReturnBehindALink => "link/file",
        Way::FolderReplaced | Way::FolderMadeAgain => "folder/file",
        Way::Rename | Way::Rewrite | Way::Return | Way::ReturnByARelativePath | Way::Swap => "file",
    };
    root.join(inner).display().to_string()
}

/// Changes it.
fn change(root: &Path, way: Way, content: &str) {
    let renamed = |folder: PathBuf| {
        write_private(&folder.join("new"), content);
        std::fs::rename(folder.join("new"), folder.join("file")).unwrap();
    };
    // Its watch has to be there still when it is back.
    let returned = |folder: PathBuf| {
        std::fs::rename(folder.join("file"), folder.join("away")).unwrap();
        std::thread::sleep(Duration::from_millis(200));
        std::fs::rename(folder.join("away"), folder.join("file")).unwrap();
        std::thread::sleep(Duration::from_millis(500));
        renamed(folder);
    };
    let second = |folder: &str| {
        std::fs::create_dir(root.join(folder)).unwrap();
        write_private(&root.join(folder).join("file"), content);
    };
    let moved = |name: &str, to: &str| {
        symlink(to, root.join("link.new")).unwrap();
        std::fs::rename(root.join("link.new"), root.join(name)).unwrap();
    };
    match way {
        Way::Rename => renamed(root.to_owned()),
        Way::Rewrite => write_private(&root.join("file"), content),
        Way::Return | Way::ReturnByARelativePath => returned(root.to_owned()),
        Way::ReturnBehindALink => returned(root.join("real")),
        Way::Swap => {
            second("..two");
            moved("..data", "..two");
            std::fs::remove_dir_all(root.join("..one")).unwrap();
        }
        Way::LinkMoved => {
            second("two");
            moved("current", "two");
        }
        Way::FolderReplaced => {
            second("other");
            std::fs::rename(root.join("folder"), root.join("old")).unwrap();
            std::fs::rename(root.join("other"), root.join("folder")).unwrap();
        }
        Way::FolderMadeAgain => {
            std::fs::remove_dir_all(root.join("folder")).unwrap();
            std::thread::sleep(Duration::from_millis(50));
            second("folder");
        }
    }
}

const CONFIG: &str = "
listeners: [{name: app, address: '127.0.0.1:0'}]
callers: [{id: app, match: {listener: app}, scopes: [SCOPE], tokens: [analytics]}]
";

/// The time until the gate used the new file.
fn time_to_use(thing: Thing, way: Way) -> Duration {
    let upstream = Upstream::plain();
    let stranger = Upstream::plain();
    // The sandbox reads only in the folders of the start.
    let sandbox = !matches!(way, Way::LinkMoved | Way::FolderReplaced | Way::FolderMadeAgain);
    let plan = Gate::plan(&upstream, &format!("{CONFIG}sandbox: {sandbox}\n"));
    let folder = plan.folder().to_owned();
    let root = |thing: Thing| folder.join(format!("{thing:?}"));
    let told = |of: Thing| path(&folder, &format!("{of:?}"), if of == thing { way } else { Way::Rename });
    let own = folder.display();
    let text = plan.text().replace(&format!("{own}/analytics"), &told(Thing::Token));
    let text = text.replace(&format!("{own}/ca.pem"), &told(Thing::Authority));
    let (able, unable) = (text.replace("SCOPE", "metrika:read"), text.replace("SCOPE", "metrika:write"));
    let trusted = [stranger.ca_pem(), upstream.ca_pem()].concat();
    for (of, old, right) in [
        (Thing::Configuration, unable.as_str(), able.as_str()),
        (Thing::Token, READ_TOKEN, READ_TOKEN),
        (Thing::Authority, stranger.ca_pem(), trusted.as_str()),
    ] {
        std::fs::create_dir(root(of)).unwrap();
        put(&root(of), if of == thing { way } else { Way::Rename }, if of == thing { old } else { right });
    }
    let gate = plan.configured_at(&told(Thing::Configuration)).start();
    let (new, before) = match thing {
        Thing::Configuration => (able.as_str(), "403 scope_denied"),
        Thing::Token => (NEW_TOKEN, "200"),
        Thing::Authority => (trusted.as_str(), "502 upstream_tls"),
    };
    assert_eq!(gate.get("app", COUNTERS).summary(), before, "{thing:?} {way:?}");
    let is_new = || match thing {
        Thing::Configuration | Thing::Authority => gate.get("app", COUNTERS).summary() == "200",
        Thing::Token => {
            gate.get("app", COUNTERS);
            upstream.requests().pop().is_some_and(|head| head.contains(NEW_TOKEN))
        }
    };
    change(&root(thing), way, new);
    let start = Instant::now();
    while !is_new() && start.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(20));
    }
    start.elapsed()
}

/// Two seconds are promised; files are read every ten in any case, and a busy machine is given some of those.
#[test]
fn a_change_made_in_any_way_is_soon_in_use() {
    let cases: Vec<_> = [Thing::Configuration, Thing::Token, Thing::Authority]
        .into_iter()
        .flat_map(|thing| WAYS.map(|way| (thing, way)))
        .collect();
    let slow: Vec<_> = std::thread::scope(|scope| {
        let all: Vec<_> = cases
            .chunks(4)
            .map(|some| {
                scope.spawn(|| {
                    some.iter().map(|(thing, way)| (*thing, *way, time_to_use(*thing, *way))).collect::<Vec<_>>()
                })
            })
            .collect();
        all.into_iter()
            .flat_map(|some| some.join().unwrap())
            .filter(|(.., time)| *time > Duration::from_secs(7))
            .collect()
    });
    assert!(slow.is_empty(), "{slow:?}");
}
