"""The world of the published clients: the stand-in for Metrica, a recorder before it, and a gate with a listener for each mode.

Each client connects to the gate only. The recorder keeps each request as the gate sent it, so a check sees both what the client
was given and what reached Metrica.
"""

import fcntl
import http.client
import http.server
import json
import os
import pathlib
import re
import shutil
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PROGRAM = pathlib.Path(os.environ.get("METRIKA_GATE_BIN") or ROOT / "target/release/metrika-gate").resolve()
TOKEN = "test-0123456789abcdef"
COUNTERS = [101, 102]
# Clients have one of these in their code.
NAMES = [
    "api-metrika.yandex.net", "api-metrika.yandex.ru", "api-metrika.yandex.com", "api-metrica.yandex.com", "api-metrica.yandex.net",
]  # fmt: skip
MODES = ["base", "socket", "tls", "proxy", "h2c"]
# A listener for each class of errors: the status, and the keys of its caller.
ERRORS = {
    401: "match: {{listener: {name}, source: [192.0.2.0/24]}}, scopes: [metrika:read], tokens: [shop]",
    403: "match: {{listener: {name}}}, scopes: [metrika:expenses], tokens: [shop]",
    429: "match: {{listener: {name}}}, scopes: [metrika:read], tokens: [shop], quota: {{per_day: 1}}",
    503: "match: {{listener: {name}}}, scopes: [metrika:read], tokens: [absent]",
}

CERTIFICATE = """
[req]
distinguished_name = name
x509_extensions = leaf
prompt = no
[name]
CN = recorder
[leaf]
basicConstraints = critical, CA:FALSE
subjectAltName = DNS:api-metrika.yandex.net
"""


def clean_environment():
    """Takes away what could come between a client and the gate."""
    for name in list(os.environ):
        if re.fullmatch(r"(?i)(https?|all|no)_proxy|(ssl_cert|node_|requests_ca|curl_ca|pip_|npm_config).*", name):
            os.environ.pop(name)
        elif name.startswith("METRIKA_GATE_") and name not in ("METRIKA_GATE_BIN", "METRIKA_GATE_NAMESPACE"):
            os.environ.pop(name)


def enter_namespace():
    """Runs this program again with an own hosts file and an own loopback network; returns why that is impossible.

    Clients with Metrica's host in their code then reach the gate on port 443, and nothing leaves the machine.
    """
    if "METRIKA_GATE_NAMESPACE" in os.environ:
        with socket.socket() as one:
            # SIOCSIFFLAGS: the loopback interface is up and running.
            fcntl.ioctl(one, 0x8914, struct.pack("16sh14x", b"lo", 0x41))
        return None
    command = ["unshare", "--mount", "--net", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    try:
        subprocess.run([*command, "mount", "--bind", "/dev/null", "/etc/hosts"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        text = getattr(error, "stderr", b"").decode().strip() or str(error)
        return f"no mount and network namespaces here ({text})"
    os.environ["METRIKA_GATE_NAMESPACE"] = "1"
    os.execvp("unshare", [*command, sys.executable, *sys.argv])


class Recorder(http.server.BaseHTTPRequestHandler):
    """Keeps each request, and asks the stand-in."""

    protocol_version = "HTTP/1.1"
    requests = []
    upstream = None

    def body(self):
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def relay(self):
        body = self.body()
        # `path` has lost a second slash at its beginning; the request line has not.
        method, target, _ = self.raw_requestline.decode().split(" ")
        fields = {name: value for name, value in self.headers.items() if name.lower() != "transfer-encoding"}
        address, tls = self.upstream
        upstream = http.client.HTTPSConnection(address, context=tls, timeout=30)
        upstream.request(method, target, body, fields)
        answer = upstream.getresponse()
        content = answer.read()
        self.requests.append((f"{method} {target}", self.headers, body.decode(errors="replace")))
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if method != "HEAD":
            self.wfile.write(content)
        upstream.close()

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = relay

    def log_message(self, *_):
        pass


def record(folder, fake, fake_ca):
    """Starts the recorder, and returns its port."""
    (folder / "recorder.cnf").write_text(CERTIFICATE)
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-config", "recorder.cnf", "-keyout", "recorder.key", "-out", "recorder.pem"],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    Recorder.upstream = (fake, ssl.create_default_context(cafile=fake_ca))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(folder / "recorder.pem", folder / "recorder.key")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Recorder)
    server.daemon_threads = True
    server.socket = tls.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]


def started(command, log, patterns):
    """Starts the program, and returns it with what each of the patterns finds in its output."""
    with open(log, "w") as out:
        program = subprocess.Popen([PROGRAM, *command], stdout=out, stderr=out)
    for _ in range(600):
        text = log.read_text()
        found = [re.search(pattern, text) for pattern in patterns]
        if all(found):
            return program, [match[1] for match in found]
        if program.poll() is not None:
            break
        time.sleep(0.05)
    program.kill()
    sys.exit(f"{' '.join(map(str, command))} does not serve:\n{log.read_text()}")


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def new_key(caller):
    """A key of the gate with its hash, or None where this gate has no keys."""
    done = subprocess.run([PROGRAM, "key", "new", caller], capture_output=True, text=True)
    key, digest = re.search(r"mgk_\w+", done.stdout), re.search(r"\b[0-9a-f]{64}\b", done.stdout)
    return (key[0], digest[0]) if done.returncode == 0 and key and digest else None


class World:
    """The programs, and where clients reach them."""

    def __init__(self, folder, namespace, keys):
        self.folder, self.namespace, self.programs = folder, namespace, []
        self.key = new_key("by-key") if keys else None
        self.identities = ["listener", "key"] if self.key else ["listener"]

    def __enter__(self):
        folder = self.folder
        ca = folder / "fake.pem"
        counters = ",".join(map(str, COUNTERS))
        command = ["fake", "--address", "127.0.0.1:0", "--ca-out", str(ca), "--knob", "logs?instant=1"]
        command += ["--token", f"{TOKEN}=shop:read,write,expenses:{counters}"]
        fake, [address] = started(command, folder / "fake.log", [r"listens on https://(\S+);"])
        self.programs.append(fake)
        port = record(folder, address, ca)
        (folder / "token").write_text(TOKEN)
        (folder / "token").chmod(0o600)
        subprocess.run([PROGRAM, "ca", "init", folder / "ca"], check=True, capture_output=True)
        self.ca = folder / "ca/ca.pem"
        (folder / "gate.yaml").write_text(self.configuration(port))
        command = ["run", "--config", str(folder / "gate.yaml"), "--log-format", "json"]
        gate, _ = started(command, folder / "gate.log", [r'"(started)"'])
        self.programs.append(gate)
        for name in self.places:
            if name.endswith("429"):
                self.spend(name)
        return self

    def __exit__(self, *_):
        for program in self.programs:
            program.kill()
            program.wait()

    def configuration(self, recorder):
        """The configuration, from `places`: the address or path of each listener."""
        authority = f"tls: {{authority: '{self.folder}/ca'}}"
        kinds = {"base": "", "socket": "", "tls": f", http2: true, {authority}", "proxy": f", proxy: true, {authority}", "h2c": ", http2: true"}
        names = [f"{mode}-{identity}" for mode in MODES for identity in self.identities]
        names += [f"{mode}-{status}" for mode in ("base", "tls") for status in ERRORS]
        self.places, listeners, callers = {}, [], []
        for number, name in enumerate(names, 2):
            mode, part = name.split("-")
            if mode == "tls" and not self.namespace:
                continue
            if mode == "socket":
                self.places[name] = f"{self.folder}/{name}.sock"
                listeners.append(f"{{name: {name}, unix: {{path: '{self.places[name]}'}}}}")
            else:
                self.places[name] = f"127.0.0.{number}:443" if mode == "tls" else f"127.0.0.1:{free_port()}"
                listeners.append(f"{{name: {name}, address: '{self.places[name]}'{kinds[mode]}}}")
            if part.isdigit():
                callers.append(f"{{id: {name}, {ERRORS[int(part)].format(name=name)}}}")
            else:
                key = f", key_sha256: ['{self.key[1]}']" if part == "key" else ""
                rights = "scopes: [metrika:read, metrika:write], tokens: [shop], callback: deny"
                callers.append(f"{{id: {name}, match: {{listener: {name}{key}}}, {rights}}}")
        scopes = "scopes: [metrika:read, metrika:write, metrika:expenses], owner: shop"
        lines = [
            "listeners:", *(f"  - {listener}" for listener in listeners),
            "  - {name: strict, address: '127.0.0.1:0'}",
            "callers:", *(f"  - {caller}" for caller in callers),
            "  - {id: strict, match: {listener: strict}, scopes: [metrika:read], tokens: [shop], strict: true}",
            "admin: {address: '127.0.0.1:0'}",
            f"upstream: {{ca_file: '{self.folder}/recorder.pem', connect_to: '127.0.0.1:{recorder}'}}",
            f"tokens: {{shop: {{file: '{self.folder}/token', {scopes}}}, absent: {{file: '{self.folder}/absent', {scopes}}}}}",
            "quota: {limits: {by_ip: {mode: observe}, logs_by_ip: {mode: observe}, reports_5m: {mode: observe}}}", "",
        ]  # fmt: skip
        return "\n".join(lines)

    def spend(self, name):
        """Spends the budget of a caller with one request."""
        url, given = f"http://{self.places[name]}", []
        if name.startswith("tls"):
            given = ["--cacert", self.ca, "--connect-to", f"{NAMES[0]}:443:{self.places[name]}"]
            url = f"https://{NAMES[0]}"
        subprocess.run(["curl", "-sS", "-f", "-o", "/dev/null", *given, f"{url}/management/v1/counters"], check=True)

    def log(self):
        return (self.folder / "gate.log").read_text().splitlines()

    def seen(self, caller, since, least):
        """The access lines of a caller after line `since`, of which there are at least so many."""
        # The gate writes lines when a worker is idle.
        for _ in range(100):
            lines = [json.loads(line) for line in self.log()[since:] if '"target":"access"' in line]
            found = [line for line in lines if line.get("caller") == caller]
            if len(found) >= least:
                break
            time.sleep(0.05)
        return found

    def answered(self, status, since):
        """Whether the gate answered with a status after line `since`."""
        for _ in range(100):
            if any('"target":"access"' in line and json.loads(line)["status"] == status for line in self.log()[since:]):
                return True
            time.sleep(0.05)
        return False

    def client_env(self, client, listener):
        """What `client-env` prints."""
        command = [PROGRAM, "client-env", client, "--config", self.folder / "gate.yaml", "--listener", listener]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def hosts(self, listener):
        """A hosts file that leads Metrica's names to a listener."""
        file = self.folder / f"hosts-{listener}"
        file.write_text(f"127.0.0.1 localhost\n{self.places[listener].split(':')[0]} {' '.join(NAMES)}\n")
        return file


def has(program):
    return shutil.which(program) is not None
