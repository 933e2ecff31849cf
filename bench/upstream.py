"""The stand-in for Metrica: an nginx with certificates and answers that are made at the start."""

import json
import os
import re
import subprocess
import sys

from machine import Problem, free_ports

HERE = os.path.dirname(os.path.abspath(__file__))
HOST = "api-metrika.yandex.net"
# Addresses of loopback that stand for callers: with all rights, with reading only, and known to nobody.
WRITER, READER, STRANGER = "127.0.0.1", "127.0.0.2", "127.0.0.9"
TOKENS = {"writer": "bench-writer-0001", "reader": "bench-reader-0001"}
COUNTERS = "/management/v1/counters"
COUNTER = "/management/v1/counter/1"
REPORT = "/stat/v1/data"
DOWNLOAD = "/management/v1/counter/1/logrequest/1/part/0/download"
UPLOAD = "/management/v1/counter/1/offline_conversions/upload"

OPENSSL = """\
[req]
distinguished_name = subject
[subject]
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
"""


# The same cipher suite with every proxy: their own orders differ.
CALLERS = """\
openssl_conf = settings
[settings]
ssl_conf = ssl
[ssl]
system_default = callers
[callers]
Ciphersuites = TLS_AES_128_GCM_SHA256
MinProtocol = TLSv1.3
"""


def render(name, values):
    """The text of a file of configs/ with every {{ name }} replaced; a name that has no value is an error."""
    with open(os.path.join(HERE, "configs", name)) as file:
        return render_text(file.read(), values)


def render_text(text, values):
    return re.sub(r"\{\{ (\w+) \}\}", lambda match: str(values[match.group(1)]), text)


def write(path, content, mode=0o644):
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
        file.write(content if isinstance(content, bytes) else content.encode())


# --- certificates -----------------------------------------------------------------------------------------------------
def openssl(folder, arguments):
    done = subprocess.run(
        ["openssl", *arguments.split()], cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if done.returncode:
        raise Problem(f"openssl {arguments} failed: {done.stderr.strip()}")


# A request for a certificate with a key of its own.
REQUEST = "req -config openssl.cnf -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"


def authority(folder, name):
    openssl(
        folder, f"{REQUEST} -x509 -extensions authority -days 30 -subj /CN={name} -keyout {name}.key -out {name}.pem"
    )


def certificate(folder, name, host, signer):
    write(f"{folder}/{name}.cnf", f"{OPENSSL}subjectAltName = DNS:{host}\n")
    openssl(folder, f"{REQUEST} -new -subj /CN={host} -keyout {name}.key -out {name}.csr")
    openssl(
        folder,
        f"x509 -req -in {name}.csr -CA {signer}.pem -CAkey {signer}.key -CAcreateserial -days 30 -sha256"
        f" -extfile {name}.cnf -extensions server -out {name}.pem",
    )


def certificates(folder):
    """What the proxies trust, what the upstream shows, two that no proxy may accept, and what the proxies show to callers."""
    write(f"{folder}/openssl.cnf", OPENSSL)
    authority(folder, "authority")
    authority(folder, "stranger")
    certificate(folder, "upstream", HOST, "authority")
    certificate(folder, "unsigned", HOST, "stranger")
    certificate(folder, "misnamed", "other.example", "authority")
    certificate(folder, "callers", "localhost", "authority")
    with open(f"{folder}/callers.pem") as chain, open(f"{folder}/callers.key") as key:
        write(f"{folder}/callers.both.pem", chain.read() + key.read(), 0o600)
    write(f"{folder}/callers.cnf", CALLERS)


# --- answers ----------------------------------------------------------------------------------------------------------
def counters():
    """About 1.2 KB, as a list of counters is."""
    rows = [
        {
            "id": 44000000 + number,
            "status": "Active",
            "name": f"Shop {number}",
            "site": f"shop{number}.example",
            "code_status": "CS_OK",
            "type": "simple",
            "permission": "own",
            "owner_login": f"owner-{number}",
        }
        for number in range(8)
    ]
    return json.dumps({"rows": len(rows), "counters": rows}, separators=(",", ":")).encode()


def report(size=64 * 1024):
    """A report of 64 KiB to the byte; the rest behind the last row is blank."""
    rows, left = [], size - 200
    while left > 0:
        number = len(rows)
        rows.append(
            {
                "dimensions": [{"name": f"/page/{number * 7919 % 99991}"}, {"name": f"2026-01-{number % 28 + 1:02}"}],
                "metrics": [number * 104729 % 99991, number * 31 % 97 / 7],
            }
        )
        left -= len(json.dumps(rows[-1])) + 2
    body = json.dumps({"query": {"ids": [44000000]}, "data": rows[:-1]}).encode()
    return body.ljust(size)


def log(size):
    """Lines of a log in TSV, cut at `size`."""
    lines = b"".join(
        b"%d\t2026-01-02 03:04:05\t/page/%d\t%d\n" % (number, number * 7919 % 99991, number * 104729 % 999983)
        for number in range(20000)
    )
    return (lines * (size // len(lines) + 1))[:size]


# --- the server -------------------------------------------------------------------------------------------------------
class Upstream:
    """The server, its files, and the values that the configurations of the proxies are filled with."""

    def __init__(self, folder, log_size):
        self.folder, self.log_size = folder, log_size
        self.ports = dict(zip(("upstream_port", "unsigned_port", "misnamed_port", "sink_port"), free_ports(4)))
        self.values = {
            "folder": folder,
            "host": HOST,
            "writer": WRITER,
            "reader": READER,
            "writer_token": TOKENS["writer"],
            "reader_token": TOKENS["reader"],
            # As root, nginx would give its workers to a user that cannot read the folder.
            "user": "user root;" if os.geteuid() == 0 else "",
            **self.ports,
        }
        self.children = []
        self.bodies = {COUNTERS: counters(), REPORT: report()}

    def prepare(self):
        certificates(self.folder)
        for name, token in TOKENS.items():
            write(f"{self.folder}/{name}.token", token, 0o600)
        os.mkdir(f"{self.folder}/answers")
        write(f"{self.folder}/answers/counters.json", self.bodies[COUNTERS])
        write(f"{self.folder}/answers/report.json", self.bodies[REPORT])
        write(f"{self.folder}/answers/log.tsv", log(self.log_size))
        for name in ("answers.conf", "upstream.conf"):
            write(f"{self.folder}/{name}", render(name, self.values))

    def start(self, children, nginx, core):
        sink = children.start(
            "the sink of uploads",
            [sys.executable, os.path.join(HERE, "sink.py"), str(self.ports["sink_port"])],
            core,
            f"{self.folder}/sink.log",
        )
        server = children.start(
            "the upstream",
            [nginx, "-e", "stderr", "-p", self.folder, "-c", f"{self.folder}/upstream.conf"],
            core,
            f"{self.folder}/upstream.log",
        )
        sink.wait_for_port(self.ports["sink_port"])
        server.wait_for_port(self.ports["upstream_port"])
        self.children = [sink, server]

    def family(self):
        return [pid for child in self.children for pid in child.family()]
