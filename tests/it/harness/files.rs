//! Files: of the repository, and of a test.

use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Compares a file of the repository with its generated text; `UPDATE=1` writes it.
#[track_caller]
#[expect(clippy::disallowed_methods, reason = "a switch of whoever runs the tests, not a setting of the program")]
pub fn same_as_file(path: &str, text: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, text).unwrap();
    }
    let there = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(there == text, "{path} is not what it should be (UPDATE=1 writes it):\n{text}");
}

/// Writes a file that only its owner may read.
pub fn write_private(file: &Path, content: &str) {
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(file).unwrap();
    std::io::Write::write_all(&mut file, content.as_bytes()).unwrap();
}
