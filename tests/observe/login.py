#!/usr/bin/env python3
"""A person gets a token: `metrika-gate token login` on one side, a headless Chromium that signs in and clicks on the other.

From an empty folder to the first report, against the stand-in, by each flow; then a person who denies access, one who is signed in
to another account, and one who pastes a code twice. Each line has the seconds that it took; no secret may be shown to the person.
"""

import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import browser  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
GATE = os.environ.get("METRIKA_GATE_BIN", str(ROOT / "target/release/metrika-gate"))
CLIENT = "0123456789abcdef0123456789abcdef"
# Everything that a person waits for is done by then.
PATIENCE = 30

failures = []


def check(name, holds, detail=""):
    print(f"{'ok     ' if holds else 'FAILED '} {name}{'' if holds else ': ' + str(detail)[:600]}", flush=True)
    if not holds:
        failures.append(name)


class Program:
    """A command whose output is read line by line."""

    def __init__(self, folder, *arguments):
        self.child = subprocess.Popen([GATE, *arguments], cwd=folder, text=True, bufsize=1, stdin=subprocess.PIPE,
                                      stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.shown = ""

    def until(self, pattern):
        """Reads until a line has the pattern; returns its first group."""
        for line in self.child.stdout:
            self.shown += line
            if found := re.search(pattern, line):
                return found[1]
        raise EOFError(f"no line has {pattern}:\n{self.shown}")

    def end(self, typed=""):
        """Types the rest of what the person has to say, and returns the status."""
        rest, _ = self.child.communicate(typed, timeout=PATIENCE)
        self.shown += rest
        return self.child.returncode

    def stop(self):
        self.child.terminate()
        self.child.wait(PATIENCE)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class World:
    """The stand-in, an empty folder, and what a person writes into it."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.fake = Program(folder, "fake", "--address", "127.0.0.1:0", "--ca-out", "ca.pem")
        self.place = self.fake.until(r"listens on https://(\S+);")
        self.secret = self.fake.until(r"the secret is (\S+)")
        self.port = free_port()

    def configure(self):
        """Extends what `init` writes, as docs/tokens.md tells."""
        made = Program(self.folder, "init", "--out", "gate.yaml")
        assert made.end() == 0, made.shown
        text = (self.folder / "gate.yaml").read_text()
        there = f"ca_file: ca.pem, connect_to: '{self.place}'"
        edits = {
            "127.0.0.1:8080\"}": f"127.0.0.1:{self.port}\"}}",
            "file: /var/run/secrets/metrika/analytics ": "file: tokens/analytics ",
            "# owner: shop-metrika ": "owner: demo-owner ",
            "# client_id: 0123456789abcdef0123456789abcdef ": f"client_id: {CLIENT} ",
            "# client_secret_file: /var/lib/metrika-gate/oauth/secret ": "client_secret_file: secret ",
        }
        for before, after in edits.items():
            assert text.count(before) == 1, f"{before} in\n{text}"
            text = text.replace(before, after)
        text += f"\nadmin: {{address: '127.0.0.1:{free_port()}'}}\n"
        text += f"upstream: {{{there}}}\noauth: {{{there}}}\nidentity: {{url: 'https://login.yandex.ru/info', {there}}}\n"
        (self.folder / "gate.yaml").write_text(text)
        (self.folder / "tokens").mkdir(mode=0o700)
        with open(os.open(self.folder / "secret", os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
            file.write(self.secret)

    def login(self, flow):
        return Program(self.folder, "token", "login", "analytics", "--flow", flow, "--config", "gate.yaml")

    def token(self):
        file = self.folder / "tokens/analytics"
        return file.read_text().strip() if file.exists() else None

    def forget(self):
        for file in (self.folder / "tokens").iterdir():
            file.unlink()


class Person:
    def __init__(self, page):
        self.page = page

    def sign_in(self, login, decision):
        self.page.evaluate(f"document.querySelector('input[name=login][value={login}]').click()")
        self.press(decision)

    def press(self, button):
        self.page.events = [one for one in self.page.events if one["method"] != "Page.loadEventFired"]
        self.page.evaluate(f"document.querySelector('#{button}').click()")
        self.page.wait("Page.loadEventFired")

    def address(self):
        return self.page.evaluate("location.href")

    def code(self):
        return self.page.evaluate("document.querySelector('#code').textContent")

    def authorize(self, program, login="demo-owner", decision="allow"):
        self.page.open(program.until(r"^ +(https://oauth\.yandex\.ru/authorize\S+)"))
        self.sign_in(login, decision)


def by_code(person, world):
    program = world.login("code")
    person.authorize(program)
    code = person.code()
    return program, program.end(code + "\n"), [code]


def by_address(person, world):
    program = world.login("implicit")
    person.authorize(program)
    address = person.address()
    return program, program.end(address + "\n"), [re.search("access_token=([^&]+)", address)[1]]


def by_device(person, world):
    program = world.login("device")
    page = program.until(r"(https://oauth\.yandex\.ru/device\S*)")
    code = program.until(r"^ +([A-Za-z0-9-]{4,})\s*$")
    person.page.open(page)
    person.page.evaluate(f"document.querySelector('input[name=user_code]').value = '{code}'")
    person.sign_in("demo-owner", "allow")
    return program, program.end(), []


def ask(url):
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE) as response:
            return json.load(response)
    except OSError as error:
        return {"error": str(error)}


def first_report(world):
    checked = Program(world.folder, "check", "--config", "gate.yaml")
    if checked.end() != 0:
        return checked.shown
    gate = Program(world.folder, "run", "--config", "gate.yaml", "--log-format", "human")
    try:
        gate.until("(started)")
        return ask(f"http://127.0.0.1:{world.port}/stat/v1/data?ids=12345678&metrics=ym:s:visits")
    finally:
        gate.stop()


def flows(person, world):
    for name, follow in (("code", by_code), ("implicit", by_address), ("device", by_device)):
        began = time.monotonic()
        program, status, secrets = follow(person, world)
        token = world.token()
        check(f"a token by the flow '{name}' ({time.monotonic() - began:.1f} s)", status == 0 and token, program.shown)
        shown = [secret for secret in [token, world.secret, *secrets] if secret and secret in program.shown]
        check(f"no secret is shown by the flow '{name}'", not shown, shown)
        report = first_report(world)
        check(f"a report with it ({time.monotonic() - began:.1f} s)", "data" in report, report)
        world.forget()


def wrong_turns(person, world):
    program = world.login("code")
    person.authorize(program, decision="deny")
    status = program.end(person.address() + "\n")
    check("a person who denies access is told so", status != 0 and "denied" in program.shown and world.token() is None, program.shown)

    program = world.login("code")
    person.authorize(program, login="demo-other")
    status = program.end(person.code() + "\n")
    check("a token of another account is not installed",
          status != 0 and "demo-other" in program.shown and world.token() is None, program.shown)

    program, status, [code] = by_code(person, world)
    token = world.token()
    again = world.login("code")
    again.until(r"^ +(https://oauth\.yandex\.ru/authorize\S+)")
    refused = again.end(code + "\n")
    check("a code that is pasted twice changes nothing", status == 0 and refused != 0 and world.token() == token, again.shown)


def main():
    with tempfile.TemporaryDirectory(prefix="metrika-gate-login-") as folder:
        began = time.monotonic()
        world = World(folder)
        try:
            world.configure()
            flags = [f"--host-resolver-rules=MAP oauth.yandex.ru {world.place}", "--ignore-certificate-errors"]
            with browser.Browser(*flags) as page:
                person = Person(page)
                flows(person, world)
                wrong_turns(person, world)
        finally:
            world.fake.stop()
        print(f"{time.monotonic() - began:.1f} s, {len(failures)} failed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
