"""Reads an image and a program for tests/image.sh and the release: sizes and lists of crates.

    image.py size FOLDER    the compressed size of an image that was pushed to `dir:FOLDER`, in units of 1000 bytes
    image.py crates FILE    the number of crates that cargo-auditable has listed in a program; metrika-gate must be one
"""

import json
import pathlib
import platform
import subprocess
import sys
import tempfile
import zlib


def size(folder):
    folder = pathlib.Path(folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    layers = [folder / layer["digest"].removeprefix("sha256:") for layer in manifest["layers"]]
    assert layers, "the image has no layers"
    for layer in layers:
        assert layer.read_bytes()[:2] == b"\x1f\x8b", f"{layer.name} is not compressed"
    print(sum(layer.stat().st_size for layer in layers) // 1000)


def listed(file):
    """The crates that are listed in the section .dep-v0 of a program."""
    # The objcopy of one architecture reads no program of another.
    is_arm64 = pathlib.Path(file).read_bytes()[18:20] == (183).to_bytes(2, "little")
    objcopy = "aarch64-linux-gnu-objcopy" if is_arm64 and platform.machine() != "aarch64" else "objcopy"
    with tempfile.NamedTemporaryFile() as section:
        subprocess.run([objcopy, "--dump-section", f".dep-v0={section.name}", file, "/dev/null"], check=True, capture_output=True)
        content = pathlib.Path(section.name).read_bytes()
    return json.loads(zlib.decompress(content))["packages"]


def crates(file):
    names = {package["name"] for package in listed(file)}
    assert {"metrika-gate", "rustls", "aws-lc-sys"} <= names, f"the list lacks crates: {sorted(names)}"
    print(f"{len(names)} crates are listed in the program")


if __name__ == "__main__":
    try:
        {"size": size, "crates": crates}[sys.argv[1]](sys.argv[2])
    except (AssertionError, subprocess.CalledProcessError) as problem:
        sys.exit(str(problem))
