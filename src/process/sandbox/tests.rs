//! Tests of the kernel's refusals for a confined thread, one for each rule. A kernel without full Landlock support refuses
//! less; the tests then check only that the support is missing.

use std::io::ErrorKind;
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

use super::*;

fn needs(read: &Path, remove: &Path, port: u16) -> Needs {
    let one = |folder: &Path| BTreeSet::from([folder.canonicalize().unwrap()]);
    Needs { read: one(read), remove: one(remove), write: BTreeSet::new(), connect: BTreeSet::from([DNS, port]) }
}

/// Whether the kernel supports all rules. Tested on a separate thread, because the rules cannot be left.
fn kernel_has_all() -> bool {
    let ask = || {
        let rules = Ruleset::default().handle_access(AccessFs::Execute).and_then(Ruleset::create);
        rules.and_then(landlock::RulesetCreated::restrict_self).map(|status| status.landlock)
    };
    let found = std::thread::spawn(ask).join().unwrap();
    matches!(found, Ok(LandlockStatus::Available { effective_abi, .. }) if effective_abi >= ABI::V6)
}

/// Runs `probe` on a thread that is confined to `needs`.
fn confined(needs: &Needs, probe: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let confined = scope.spawn(|| match Sandbox::enter(needs).confinement() {
            Confinement::Full => probe(),
            // Weaker confinement is allowed only on a kernel with less support.
            Confinement::Partial | Confinement::None | Confinement::Off => assert!(!kernel_has_all()),
        });
        confined.join().unwrap();
    });
}

fn kind<T>(result: std::io::Result<T>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

const DENIED: Option<ErrorKind> = Some(ErrorKind::PermissionDenied);

#[test]
fn rule_1_files() {
    let (inside, outside, sockets) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for folder in [&inside, &outside, &sockets] {
        std::fs::write(folder.path().join("file"), "x").unwrap();
    }
    let file = |folder: &tempfile::TempDir| folder.path().join("file");
    confined(&needs(inside.path(), sockets.path(), 1), || {
        assert_eq!(std::fs::read(file(&inside)).unwrap(), b"x");
        assert_eq!(kind(std::fs::read(file(&outside))), DENIED);
        assert_eq!(kind(std::fs::read_dir(outside.path())), DENIED);
        assert_eq!(kind(std::fs::write(file(&inside), "y")), DENIED);
        assert_eq!(kind(std::fs::write(inside.path().join("new"), "y")), DENIED);
        assert_eq!(kind(std::fs::remove_file(file(&inside))), DENIED);
        assert_eq!(kind(std::fs::read(file(&sockets))), DENIED, "it may be removed, not read");
        assert_eq!(kind(std::fs::remove_file(file(&sockets))), None);
        assert_eq!(kind(UnixListener::bind(file(&sockets))), None, "a socket is made again");
        assert_eq!(kind(UnixListener::bind(inside.path().join("socket"))), DENIED, "and only there");
        assert_eq!(kind(std::fs::write(sockets.path().join("new"), "y")), DENIED, "and nothing else");
        assert_eq!(kind(std::process::Command::new("/bin/sh").arg("-c").arg(":").status()), DENIED);
        assert!(std::fs::read_to_string("/proc/self/stat").is_ok());
        assert!(("localhost", 80).to_socket_addrs().is_ok(), "names are looked up");
    });
    assert!(file(&outside).exists());
}

#[test]
fn rule_1_files_of_the_state() {
    let (state, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = |folder: &tempfile::TempDir| folder.path().join("quota.json");
    let write = BTreeSet::from([state.path().canonicalize().unwrap()]);
    let needs = Needs { write, ..needs(outside.path(), outside.path(), 1) };
    let row = |folder| crate::files::ExternalFile::new(crate::files::Purpose::State, &file(folder));
    confined(&needs, || {
        assert_eq!(kind(row(&state).replace(b"first")), None);
        assert_eq!(kind(row(&state).replace(b"second")), None);
        assert_eq!(std::fs::read(file(&state)).unwrap(), b"second");
        assert_eq!(kind(row(&outside).replace(b"x")), DENIED);
        assert_eq!(kind(UnixListener::bind(state.path().join("socket"))), DENIED, "files and nothing else");
        assert_eq!(kind(std::fs::create_dir(state.path().join("folder"))), DENIED);
    });
}

#[test]
fn rule_2_network() {
    let (wanted, other) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let folder = tempfile::tempdir().unwrap();
    let port = wanted.local_addr().unwrap().port();
    confined(&needs(folder.path(), folder.path(), port), || {
        assert_eq!(kind(TcpStream::connect(wanted.local_addr().unwrap())), None);
        assert_eq!(kind(TcpStream::connect(other.local_addr().unwrap())), DENIED);
        assert_eq!(kind(TcpListener::bind("127.0.0.1:0")), DENIED);
        assert_eq!(kind(wanted.accept()), None, "what was open goes on");
    });
}

#[test]
fn rule_3_neighbours() {
    let name = format!("metrika-gate-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(name).unwrap();
    let _neighbour = UnixListener::bind_addr(&address).unwrap();
    let folder = tempfile::tempdir().unwrap();
    confined(&needs(folder.path(), folder.path(), 1), || {
        assert_eq!(kind(UnixStream::connect_addr(&address)), DENIED);
        let parent = rustix::process::getppid().unwrap();
        assert_eq!(rustix::process::test_kill_process(parent), Err(rustix::io::Errno::PERM));
    });
}

#[test]
fn rule_4_later_threads() {
    let (inside, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    confined(&needs(inside.path(), inside.path(), 1), || {
        let path = outside.path();
        std::thread::scope(|scope| {
            assert_eq!(scope.spawn(|| kind(std::fs::read_dir(path))).join().unwrap(), DENIED);
        });
    });
    assert_eq!(kind(std::fs::read_dir(outside.path())), None, "other threads are not confined");
}

#[test]
fn rule_6_needs_beyond_the_sandbox_are_refused() {
    let set = |folders: &[&str]| folders.iter().map(PathBuf::from).collect::<BTreeSet<_>>();
    let needs = |read: &[&str], port| Needs {
        read: set(read),
        remove: set(&[]),
        write: set(&[]),
        connect: BTreeSet::from([DNS, port]),
    };
    let allowed = needs(&["/a", "/b/c"], 443);
    let sandbox =
        Sandbox { confinement: Confinement::Full, files: Some(allowed.read.clone()), ports: Some(allowed.connect) };
    for fine in [needs(&["/a"], 443), needs(&["/a/x/y", "/b/c"], 443), needs(&[], 53)] {
        assert!(sandbox.permits(&fine).is_ok(), "{fine:?}");
    }
    for (more, said) in [
        (needs(&["/b"], 443), "/b is outside"),
        (needs(&["/a", "/ab"], 443), "/ab is outside"),
        (needs(&["/a"], 8443), "port 8443"),
    ] {
        let error = sandbox.permits(&more).unwrap_err().to_string();
        assert!(error.starts_with(said) && error.contains("restart the gate"), "{error}");
        assert!(Sandbox::none(Confinement::Off).permits(&more).is_ok());
    }
}

/// Files of Kubernetes volumes are links to links, and folders may be created later.
#[test]
fn the_folders_of_a_file() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path().canonicalize().unwrap();
    std::fs::create_dir_all(root.join("volume/..1")).unwrap();
    std::fs::create_dir_all(root.join("else")).unwrap();
    std::fs::write(root.join("volume/..1/token"), "x").unwrap();
    std::os::unix::fs::symlink("..1", root.join("volume/..data")).unwrap();
    std::os::unix::fs::symlink("..data/token", root.join("volume/token")).unwrap();
    std::os::unix::fs::symlink(root.join("volume/token"), root.join("else/link")).unwrap();
    let of = |file: &str| folders(&root.join(file)).into_iter().collect::<Vec<_>>();
    assert_eq!(of("volume/token"), [root.join("volume"), root.join("volume/..1")]);
    assert_eq!(of("else/link"), [root.join("else"), root.join("volume"), root.join("volume/..1")]);
    assert_eq!(of("else/later/and/later/token"), [root.join("else")]);
}
