"""A gate in front of the stand-in for Metrica, with callers, tokens and quotas, and traffic of every kind.

The tests of the status page and of the dashboard look at this gate. METRIKA_GATE_BIN names the program
(target/release/metrika-gate).
"""

import contextlib
import http.client
import itertools
import json
import os
import pathlib
import random
import socket
import ssl
import subprocess
import tempfile
import threading
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = pathlib.Path(os.environ.get("METRIKA_GATE_BIN", ROOT / "target/release/metrika-gate")).resolve()

# None of these may be seen anywhere.
SECRETS = {
    "analytics": "test-analytics-0123456789abcdef",
    "analytics-spare": "test-spare-0123456789abcdef0",
    "crm": "test-crm-0123456789abcdef01234",
    "export": "test-export-0123456789abcdef0123",
    "campaigns": "test-campaigns-0123456789abcdef",
}
SECRET_FIELD = "field-value-that-nobody-may-see"

TOKENS = [
    f"{SECRETS['analytics']}=shop:read:101,102",
    f"{SECRETS['analytics-spare']}=shop:read:101,102",
    f"{SECRETS['crm']}=shop:read,write:101,102",
    f"{SECRETS['export']}=media:read:201,202",
    f"{SECRETS['campaigns']}=agency:read,write,expenses:301",
]

CONFIG = """
listeners:
  - {{name: reports, address: "127.0.0.1:0"}}
  - {{name: crm, address: "127.0.0.1:0", require_header: "X-Pass: {field}"}}
  - {{name: batch, unix: {{path: "{folder}/batch.sock", mode: "0600"}}}}
  - {{name: tls, address: "127.0.0.1:0", tls: {{authority: "{folder}/ca", renew: true}}}}
admin: {{address: "127.0.0.1:{admin}"}}
upstream:
  ca_file: "{folder}/fake-ca.pem"
  connect_to: "127.0.0.1:{fake}"
  connections: 2
  timeouts: {{connect: 60s}}
tokens:
  analytics: {{file: "{folder}/analytics", scopes: [metrika:read], owner: shop, standby: analytics-spare, expires: {soon}}}
  analytics-spare: {{file: "{folder}/analytics-spare", scopes: [metrika:read], owner: shop}}
  crm: {{file: "{folder}/crm", scopes: [metrika:write], owner: shop}}
  export: {{file: "{folder}/export", scopes: [metrika:read], owner: media, expires: 2099-01-31}}
  campaigns: {{file: "{folder}/campaigns", scopes: [metrika:read, metrika:write, metrika:expenses], owner: agency}}
callers:
  - id: night-reports
    match: {{listener: reports, source: [127.0.0.1/32]}}
    scopes: [metrika:read]
    tokens: [analytics]
    counters: [101, 102]
    list: filter
    quota: {{per_day: 2000}}
  - id: tableau
    match: {{listener: reports, source: [127.0.0.0/8]}}
    scopes: [metrika:read]
    tokens: [analytics, export]
    quota: {{weight: 2}}
  - id: crm-sync
    match: {{listener: crm}}
    scopes: [metrika:read, metrika:write]
    tokens: [analytics, crm]
  - id: export
    match: {{listener: batch, uid: [{uid}]}}
    scopes: [metrika:read, metrika:write]
    tokens: [export]
    destructive: deny
    sharing: deny
  - id: campaign-upload
    match: {{listener: tls}}
    scopes: [metrika:read, metrika:write, metrika:expenses]
    tokens: [campaigns]
    counters: [301]
    enforce: false
counter_groups: {{shop: [101, 102], media: [201, 202]}}
quota: {{limits: {{parallel: 3, day: {{limit: 4900, mode: enforce}}}}, queue: {{per_caller: 3}}}}
token_health: {{probe_after: 5s, probe_at_most: 5m}}
sandbox: {sandbox}
"""


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Unix(http.client.HTTPConnection):
    """A connection to a unix socket."""

    def __init__(self, path):
        super().__init__("localhost", timeout=20)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)


class World:
    """The stand-in and the gate. `clock` are variables of the gate's environment that give it another clock."""

    def __init__(self, clock=None):
        self.clock = clock or {}
        self.stop = threading.Event()
        self.threads = []
        self.children = contextlib.ExitStack()

    def __enter__(self):
        self.folder = pathlib.Path(self.children.enter_context(tempfile.TemporaryDirectory(prefix="metrika-gate-observe-")))
        self.admin, self.fake = free_port(), free_port()
        try:
            self.start()
        except BaseException:
            self.children.close()
            raise
        return self

    def __exit__(self, *_):
        self.stop.set()
        for thread in self.threads:
            thread.join(30)
        self.children.close()

    def run(self, *command, **settings):
        child = subprocess.Popen(command, **settings)

        def end():
            child.terminate()
            try:
                child.wait(40)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()

        self.children.callback(end)
        return child

    def start(self):
        folder = self.folder
        for name, secret in SECRETS.items():
            (folder / name).write_text(secret)
            (folder / name).chmod(0o600)
        # The stand-in, which keeps the clock of the machine.
        tokens = [flag for token in TOKENS for flag in ("--token", token)]
        fake_log = open(folder / "fake.log", "w")
        self.run(PROGRAM, "fake", "--address", f"127.0.0.1:{self.fake}", "--ca-out", folder / "fake-ca.pem", *tokens,
                 stdout=fake_log, stderr=fake_log)
        subprocess.run([PROGRAM, "ca", "init", folder / "ca"], check=True, stdout=subprocess.DEVNULL)
        soon = time.strftime("%Y-%m-%d", time.gmtime(time.time() + 12 * 86400))
        config = CONFIG.format(folder=folder, admin=self.admin, fake=self.fake, soon=soon, uid=os.getuid(), field=SECRET_FIELD,
                               sandbox="false" if self.clock else "true")
        (folder / "gate.yaml").write_text(config)
        self.wait_for(lambda: self.knob("state"), "the stand-in", folder / "fake.log")
        self.knob("quota?parallel=3")
        self.log = folder / "gate.log"
        self.gate = self.run(PROGRAM, "run", "--config", folder / "gate.yaml", "--workers", "2", "--log-format", "json",
                             stdout=subprocess.DEVNULL, stderr=open(self.log, "w"), env={**os.environ, **self.clock})
        self.wait_for(self.has_started, "the gate", self.log)
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if '"listening"' in line]
        self.places = {line["listener"]: line["place"] for line in lines}

    def has_started(self):
        self.page("/readyz")
        # The log is written a moment later.
        if '"started"' not in self.log.read_text():
            raise OSError("its log has no line about the start")

    def wait_for(self, probe, what, log):
        end = time.time() + 20
        while True:
            try:
                return probe()
            except OSError as error:
                if time.time() > end:
                    raise SystemExit(f"{what} does not start: {error}\n{log.read_text()[-2000:]}") from error
                time.sleep(0.1)

    def page(self, path):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}{path}", timeout=20) as response:
            return response.read().decode()

    def knob(self, knob):
        """Turns a knob of the stand-in."""
        context = ssl.create_default_context(cafile=self.folder / "fake-ca.pem")
        context.check_hostname = False
        with urllib.request.urlopen(f"https://127.0.0.1:{self.fake}/_fake/{knob}", timeout=10, context=context) as response:
            return response.read()

    def connection(self, listener):
        place = self.places[listener]
        if place.startswith("unix:"):
            return Unix(place.removeprefix("unix:"))
        host = place.split("//")[1]
        if place.startswith("https:"):
            context = ssl.create_default_context(cafile=self.folder / "ca/ca.pem")
            context.check_hostname = False
            return http.client.HTTPSConnection(host, timeout=20, context=context)
        return http.client.HTTPConnection(host, timeout=20)

    def ask(self, listener, method, path, body=None, source=None, fields=(), whole=False):
        """Sends a request of a caller. Returns the status, or the JSON of the response if that is wanted whole."""
        connection = self.connection(listener)
        if source:
            connection.source_address = (source, 0)
        fields = {"Host": "localhost", **dict(fields)}
        if listener == "crm":
            fields["X-Pass"] = SECRET_FIELD
        if body is not None:
            body = json.dumps(body)
            fields["Content-Type"] = "application/json"
        try:
            connection.request(method, path, body=body, headers=fields)
            response = connection.getresponse()
            text = response.read()
            return json.loads(text) if whole else response.status
        except (OSError, ValueError, http.client.HTTPException):
            return 0
        finally:
            connection.close()

    def traffic(self, pause=0.02):
        """Begins traffic that lasts until the end."""
        goal = {"goal": {"name": "a", "type": "action", "conditions": [{"type": "exact", "url": "a"}]}}
        goals = "/management/v1/counter/101/goals"
        numbers = itertools.count()

        def granted():
            login = f"partner-{next(numbers)}"
            self.ask("crm", "POST", "/management/v1/counter/101/grants", {"grant": {"user_login": login, "perm": "view"}})

        def deleted():
            made = self.ask("crm", "POST", goals, goal, whole=True)
            if isinstance(made, dict) and "goal" in made:
                self.ask("crm", "DELETE", goals.removesuffix("s") + f"/{made['goal']['id']}")

        report = "/stat/v1/data?metrics=ym:s:visits&ids="
        kinds = [
            (30, lambda: self.ask("reports", "GET", report + "101")),
            (14, lambda: self.ask("reports", "GET", "/management/v1/counters")),
            (20, lambda: self.ask("reports", "GET", report + "102", source="127.0.0.2")),
            (10, lambda: self.ask("batch", "GET", report + "201")),
            (6, lambda: self.ask("batch", "GET", "/management/v1/counter/201/logrequests")),
            (8, lambda: self.ask("crm", "POST", goals, goal)),
            (4, granted),
            (4, deleted),
            (6, lambda: self.ask("tls", "GET", "/management/v1/counter/301/goals")),
            # Refused by the gate.
            (5, lambda: self.ask("reports", "GET", report + "201")),
            (3, lambda: self.ask("reports", "DELETE", "/management/v1/counter/101")),
            (2, lambda: self.ask("batch", "DELETE", "/management/v1/counter/201")),
            (2, lambda: self.ask("reports", "GET", "/no/such/path", source="127.0.0.2")),
            (2, lambda: self.ask("tls", "GET", report + "999")),
            (1, lambda: self.ask("reports", "GET", report + "101", fields={"Authorization": "OAuth of-a-caller", "Cookie": "a=b"})),
            # Refused by Metrica.
            (4, lambda: self.ask("crm", "POST", "/management/v1/counter/201/goals", goal)),
            (2, lambda: self.ask("reports", "GET", report + "777", source="127.0.0.2")),
        ]
        weights = [weight for weight, _ in kinds]

        def callers(seed):
            dice = random.Random(seed)
            while not self.stop.is_set():
                dice.choices([kind for _, kind in kinds], weights)[0]()
                self.stop.wait(dice.uniform(0, 2 * pause * (1.6 if int(time.time() / 4) % 3 else 0.5)))

        def trouble():
            turn = 0
            while not self.stop.wait(1.5):
                knobs = [
                    "slow?ms=60&path=/stat",
                    "fail?error_type=backend_error&status=503&times=2",
                    "outsider?owner=shop&slots=2&ms=1200",
                    "break?times=2",
                    "slow?ms=15",
                    "outsider?owner=media&slots=3&ms=900",
                ]
                with contextlib.suppress(OSError):
                    self.knob(knobs[turn % len(knobs)])
                turn += 1

        def burst():
            """Many at once: they wait for a slot, and for a place in the pool."""
            while not self.stop.wait(2):
                many = [threading.Thread(target=self.ask, args=("reports", "GET", report + "101")) for _ in range(9)]
                for thread in many:
                    thread.start()
                for thread in many:
                    thread.join()

        self.threads = [threading.Thread(target=callers, args=(seed,)) for seed in range(3)]
        self.threads += [threading.Thread(target=trouble), threading.Thread(target=burst)]
        for thread in self.threads:
            thread.start()

    def revoke(self, name):
        self.knob("revoke?token=" + SECRETS[name])
