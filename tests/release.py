"""Checks the files of a release that release/build has made: release.py dist/TARGET"""

import hashlib
import json
import pathlib
import re
import subprocess
import sys
import tarfile
import tempfile
import tomllib

import image

ROOT = pathlib.Path(__file__).resolve().parent.parent
VERSION = re.search(r'^version = "(.*)"', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)[1]
OURS = {"metrika-gate", "metrica", "fake-metrica", "strict-http"}


def checksums(folder):
    """SHA256SUMS has every file, with its checksum."""
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    listed = {name: digest for digest, name in (line.split("  ") for line in lines)}
    files = {p.name for p in folder.iterdir()} - {"SHA256SUMS"}
    assert set(listed) == files, f"SHA256SUMS lists {sorted(listed)}, the folder has {sorted(files)}"
    for name, digest in listed.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest, f"the checksum of {name} is wrong"


def archive(folder, name, runs):
    """The archive has one folder with everything, the same for everybody who builds it, and the program in it has the version."""
    with tarfile.open(folder / f"{name}.tar.gz") as tar, tempfile.TemporaryDirectory() as work:
        members = tar.getmembers()
        names = {m.name.removeprefix(f"{name}/") for m in members}
        assert all(m.name == name or m.name.startswith(f"{name}/") for m in members), "the archive has more than one folder"
        assert {(m.uid, m.gid, m.mtime) for m in members} == {(0, 0, members[0].mtime)}, "owners or times differ"
        assert [m.name for m in members] == sorted((m.name for m in members), key=lambda n: n.split("/")), "the order is not fixed"
        for needed in ("metrika-gate", "LICENSE", "licences.txt", "CHANGELOG.md", "schema.json", "config/reference.yaml", "docs/stability.md",
                       "deploy/systemd/metrika-gate.service", "completions/bash", "completions/fish", "completions/zsh", "man/metrika-gate.1"):
            assert needed in names, f"the archive lacks {needed}"
        assert len([n for n in names if n.startswith("man/")]) > 20, "the archive lacks manual pages"
        assert not [n for n in names if "secrets" in n or n.endswith(".token")], "the archive has secrets"
        tar.extractall(work, filter="data")
        program = pathlib.Path(work) / name / "metrika-gate"
        if runs:
            said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
            assert said.startswith(f"metrika-gate {VERSION}"), f"--version says {said}"
        json.loads((program.parent / "schema.json").read_text())
        packages = image.listed(program)
        licences = (program.parent / "licences.txt").read_text()
    return {(p["name"], p["version"]) for p in packages if p.get("kind", "runtime") == "runtime"}, licences


def sbom(folder, name, linked):
    """The SBOM has every crate that the program lists, with a licence."""
    bom = json.loads((folder / f"{name}.cdx.json").read_text())
    assert (bom["bomFormat"], bom["specVersion"]) == ("CycloneDX", "1.5"), "the SBOM is not CycloneDX 1.5"
    component = bom["metadata"]["component"]
    assert (component["name"], component["version"]) == ("metrika-gate", VERSION), f"the SBOM is about {component['name']}"
    found = {(c["name"], c["version"]): c for c in bom["components"]} | {(component["name"], component["version"]): component}
    missing = sorted(linked - set(found))
    assert not missing, f"the SBOM lacks {missing}"
    unlicensed = sorted(k for k, c in found.items() if not c.get("licenses"))
    assert not unlicensed, f"the SBOM has no licence of {unlicensed}"
    text = json.dumps(bom)
    assert str(ROOT) not in text, "the SBOM names the folder in which it was made"


def main(folder):
    folder = pathlib.Path(folder).resolve()
    host = subprocess.run(["rustc", "-vV"], capture_output=True, text=True, check=True).stdout
    name = f"metrika-gate-{VERSION}-{folder.name}"
    checksums(folder)
    linked, licences = archive(folder, name, f"host: {folder.name}" in host)
    assert len(linked) > 100, f"the program lists {len(linked)} crates: this check is broken"
    # The list in the program also has the crates of macros, which are not linked.
    licensed = set(re.findall(r"^(\S+) (\d\S*): ", licences, re.MULTILINE))
    assert licensed <= linked, f"licences.txt has {sorted(licensed - linked)}, which the program does not list"
    direct = set(tomllib.loads((ROOT / "Cargo.toml").read_text())["dependencies"]) - OURS
    missing = sorted(direct - {crate for crate, _ in licensed})
    assert not missing, f"licences.txt lacks {missing}"
    sbom(folder, name, linked)
    packages = list(folder.glob("*.deb"))
    assert [p.name.split("_")[:2] for p in packages] == [["metrika-gate", f"{VERSION}-1"]], f"packages {packages}"
    print(f"release: {len(linked)} crates in the program and the SBOM, {len(licensed)} of them linked, with their licences")


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except (AssertionError, subprocess.CalledProcessError) as problem:
        sys.exit(str(problem))
