#!/usr/bin/env python3
"""Runs the texts of `client-env` that are marked as run, as they are printed, through a gate and in front of the stand-in.

Each text prints the list of counters. A text that is marked and cannot be run here (a language is missing) fails, unless
--available is given: then it is skipped, and named.
"""

import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PROGRAM = os.environ.get("METRIKA_GATE_BIN") or ROOT / "target/release/metrika-gate"
# The folder whose node_modules has axios, undici and got.
MODULES = pathlib.Path(os.environ.get("METRIKA_GATE_NODE_MODULES") or ROOT / ".tools/node/node_modules")
TOKEN = "test-0123456789abcdef"
COUNTER = 101

CONFIGURATION = """
listeners:
  - {{name: base, address: '127.0.0.1:{port}'}}
  - {{name: socket, unix: {{path: '{folder}/app.sock'}}}}
admin: {{address: '127.0.0.1:0'}}
upstream: {{ca_file: '{folder}/fake.pem', connect_to: '{fake}'}}
tokens:
  shop: {{file: '{folder}/token', scopes: [metrika:read]}}
callers:
  - {{id: base, match: {{listener: base}}, scopes: [metrika:read], tokens: [shop]}}
  - {{id: socket, match: {{listener: socket}}, scopes: [metrika:read], tokens: [shop]}}
"""

# Language: the file's name, and the command that runs it.
LANGUAGES = {
    "sh": ("client.sh", ["sh"]),
    "python": ("client.py", [sys.executable]),
    "js": ("client.mjs", ["node"]),
    "java": ("Counters.java", ["java"]),
    "go": ("client.go", ["go", "run"]),
    "php": ("client.php", ["php"]),
}


def marked():
    """The client, the kind of listener and the language of each text that is marked as run."""
    texts = (ROOT / "src/cli/client_texts.txt").read_text()
    return re.findall(r"^=== (\S+) (\S+) (\S+) run$", texts, re.MULTILINE)


def started(command, log, pattern):
    """Starts the program, and returns it with what the pattern finds in its output."""
    with open(log, "w") as out:
        program = subprocess.Popen([PROGRAM, *command], stdout=out, stderr=out)
    for _ in range(300):
        if found := re.search(pattern, log.read_text()):
            return program, found[1]
        if program.poll() is not None:
            break
        time.sleep(0.1)
    program.kill()
    sys.exit(f"{' '.join(command)} does not serve:\n{log.read_text()}")


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def is_missing(client, language):
    """Whether the language, or the client's own package, is missing."""
    _, command = LANGUAGES[language]
    package = MODULES / client if client in ("axios", "undici", "got") else None
    return not shutil.which(command[0]) or client == "wget" and not shutil.which("wget") or package and not package.exists()


def ran(folder, client, mode, language):
    """Runs a text as it is printed. Returns why it did not work, or nothing."""
    command = [PROGRAM, "client-env", client, "--config", folder / "gate.yaml", "--listener", mode]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "ran this text." not in text:
        return f"it does not tell that it is run:\n{text}"
    name, interpreter = LANGUAGES[language]
    place = folder / f"{client}-{mode}"
    place.mkdir()
    (place / name).write_text(text)
    if MODULES.exists():
        (place / "node_modules").symlink_to(MODULES)
    before = lines(folder, mode)
    done = subprocess.run([*interpreter, name], cwd=place, capture_output=True, text=True, timeout=120)
    if done.returncode or str(COUNTER) not in done.stdout:
        return f"status {done.returncode}\n{done.stdout}{done.stderr}\n{text}"
    # The log is written when the worker is idle.
    for _ in range(50):
        if lines(folder, mode) > before:
            return None
        time.sleep(0.1)
    return "the gate did not see it"


def lines(folder, caller):
    """The number of requests of a caller that Metrica answered with 200."""
    log = (folder / "gate.log").read_text().splitlines()
    return sum('"target":"access"' in line and f'"caller":"{caller}"' in line and '"status":200' in line for line in log)


def main(folder, only_available):
    fake, address = started(
        ["fake", "--address", "127.0.0.1:0", "--ca-out", f"{folder}/fake.pem", "--token", f"{TOKEN}=shop:read:{COUNTER}"],
        folder / "fake.log",
        r"listens on https://(\S+);",
    )
    programs = [fake]
    try:
        (folder / "gate.yaml").write_text(CONFIGURATION.format(folder=folder, port=free_port(), fake=address))
        (folder / "token").write_text(TOKEN)
        (folder / "token").chmod(0o600)
        command = ["run", "--config", f"{folder}/gate.yaml", "--log-format", "json"]
        gate, _ = started(command, folder / "gate.log", '"(started)"')
        programs.append(gate)
        texts, failed = marked(), 0
        assert len(texts) > 15, texts
        for client, mode, language in texts:
            if is_missing(client, language):
                print(f"{'skipped' if only_available else 'FAILED'}  {client} ({mode}): it is not installed")
                failed += not only_available
                continue
            why = ran(folder, client, mode, language)
            failed += bool(why)
            print(f"FAILED  {client} ({mode}): {why}" if why else f"ok      {client} ({mode})")
        print(f"{len(texts)} texts, {failed} failed")
        return 1 if failed else 0
    finally:
        for program in programs:
            program.kill()
            program.wait()


if __name__ == "__main__":
    # Nothing of the system's may come between a client and the gate.
    for name in list(os.environ):
        if name.lower() in ("http_proxy", "https_proxy", "all_proxy") or name.startswith("METRIKA_GATE_"):
            os.environ.pop(name)
    with tempfile.TemporaryDirectory(prefix="metrika-gate-attach-") as temporary:
        sys.exit(main(pathlib.Path(temporary), "--available" in sys.argv[1:]))
