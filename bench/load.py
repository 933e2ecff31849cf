"""The workloads: what the callers do while the proxy's time is taken."""

import json
import os
import re
import socket
import subprocess
import sys
import time

from machine import Problem
from upstream import COUNTERS, DOWNLOAD, HERE, REPORT, UPLOAD

# The fields a caller of Metrica sends; its token is to be replaced.
FIELDS = ["User-Agent: bench", "Accept: */*", "Accept-Encoding: gzip, deflate", "Authorization: OAuth of-the-caller"]
SUMMARY = """
done = function(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '\\nRESULT {"requests": %d, "refused": %d, "failed": %d, "seconds": %.6f, "p50": %.1f, "p99": %.1f}\\n',
    summary.requests, errors.status, errors.connect + errors.read + errors.write + errors.timeout,
    summary.duration / 1e6, latency:percentile(50), latency:percentile(99)))
end
"""


class Requests:
    """Many short requests over a number of connections, by wrk: `tls` in TLS, `fresh` with a connection for each."""

    unit = "request"

    def __init__(self, name, title, connections, path, tls=False, fresh=False):
        self.name, self.title, self.connections, self.path = name, title, connections, path
        self.tls, self.fresh = tls, fresh

    def run(self, bench, peer, seconds):
        script = f"{bench.folder}/summary.lua"
        with open(script, "w") as file:
            file.write(SUMMARY)
        command = ["wrk", "-t1", f"-c{self.connections}", f"-d{seconds}s", "--timeout", "10s", "-s", script]
        for field in FIELDS + ["Connection: close"] * self.fresh:
            command += ["-H", field]
        where = f"https://localhost:{peer.tls_port}" if self.tls else f"http://127.0.0.1:{peer.port}"
        said = run_program(bench, ["env", settings(bench), *command, f"{where}{self.path}"], seconds)
        return result_of(said)


def result_of(said):
    """The result in the output of a load."""
    match = re.search(r"^RESULT (.*)$", said, re.MULTILINE)
    if not match:
        raise Problem(f"the load failed: {said.strip()[-300:]}")
    result = json.loads(match.group(1))
    return {
        "answers": result["requests"] - result["refused"],
        "errors": result["refused"] + result["failed"],
        "seconds": result["seconds"],
        "p50_us": result["p50"],
        "p99_us": result["p99"],
    }


class Rate:
    """As many requests a second on 16 connections, whatever the proxy does, by h2load."""

    unit = "request"

    def __init__(self, name, title, rate, path):
        self.name, self.title, self.rate, self.path = name, title, rate, path

    def run(self, bench, peer, seconds):
        log = f"{bench.folder}/rate.log"
        command = ["h2load", "--h1", "-t1", "-c16", f"--rps={self.rate / 16}", f"-D{seconds}", f"--log-file={log}"]
        for field in FIELDS:
            command += ["-H", field]
        run_program(bench, [*command, f"http://127.0.0.1:{peer.port}{self.path}"], seconds)
        with open(log) as file:
            rows = [line.split("\t") for line in file]
        os.unlink(log)
        times = sorted(int(took) for _, status, took in rows if status == "200")
        if len(times) < self.rate * seconds * 0.9:
            raise Problem(f"{len(times)} answers came at {self.rate} a second in {seconds} s")
        return {
            "answers": len(times),
            "errors": len(rows) - len(times),
            "seconds": seconds,
            "p50_us": times[len(times) // 2],
            "p99_us": times[len(times) * 99 // 100],
            "p999_us": times[len(times) * 999 // 1000],
        }


class Resumed:
    """A connection for each request, in TLS sessions that are resumed: wrk resumes none. A session that is not is an error."""

    unit = "request"

    def __init__(self, name, title):
        self.name, self.title = name, title

    def run(self, bench, peer, seconds):
        program = [sys.executable, "-B", os.path.join(HERE, "resumed.py")]
        command = [*program, str(peer.tls_port), str(seconds), f"{bench.folder}/authority.pem"]
        return result_of(run_program(bench, ["env", settings(bench), *command], seconds))


def settings(bench):
    """The variable of the environment that gives OpenSSL the settings of the callers."""
    return f"OPENSSL_CONF={bench.folder}/callers.cnf"


def run_program(bench, command, seconds):
    """Runs a program of the load, and returns its output."""
    # A child like the others, so that Ctrl-C ends it as well.
    child = bench.children.start("the load", command, bench.load_core, f"{bench.folder}/load.log")
    try:
        child.process.wait(seconds + 30)
    except subprocess.TimeoutExpired:
        raise Problem(f"{command[0]} did not end in time") from None
    bench.children.stop(child)
    with open(child.log) as file:
        return file.read()


class Transfers:
    """Whole files, one after the other on one connection, until the time is over."""

    unit = "file"

    def __init__(self, name, title, upload):
        self.name, self.title, self.upload = name, title, upload

    def run(self, bench, peer, seconds):
        try:
            return self.transfer(bench, peer.port, seconds)
        except (OSError, ValueError, KeyError) as error:
            raise Problem(f"{self.title}: {error!r}") from error

    def transfer(self, bench, port, seconds):
        start = time.monotonic()
        size, answers = bench.upstream.log_size, 0
        with socket.create_connection(("127.0.0.1", port), 30) as connection:
            while not answers or time.monotonic() - start < seconds:
                if self.upload:
                    self.send(connection, f"{bench.folder}/answers/log.tsv", size)
                else:
                    self.receive(connection, size)
                answers += 1
        took = time.monotonic() - start
        return {"answers": answers, "errors": 0, "seconds": took, "megabytes_per_second": answers * size / took / 1e6}

    def send(self, connection, path, size):
        connection.sendall(head("POST", UPLOAD, [f"Content-Length: {size}", "Content-Type: application/octet-stream"]))
        with open(path, "rb") as file:
            connection.sendfile(file)
        answer = connection.makefile("rb")
        length = read_head(answer)
        if json.loads(answer.read(length))["uploading"]["source_quantity"] != size:
            raise Problem("an upload arrived in part")

    def receive(self, connection, size):
        connection.sendall(head("GET", DOWNLOAD, []))
        answer = connection.makefile("rb", buffering=0)
        left, piece = read_head(answer), memoryview(bytearray(1 << 18))
        if left != size:
            raise Problem(f"a download has {left} bytes instead of {size}")
        while left:
            count = answer.readinto(piece[: min(len(piece), left)])
            if not count:
                raise Problem("a download broke off")
            left -= count


def head(method, path, fields):
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", *FIELDS, *fields]
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode()


def read_head(answer):
    """Reads the head of an answer and gives the length of its body."""
    status, length = answer.readline(), None
    for line in iter(answer.readline, b"\r\n"):
        if not line:
            break
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    if b" 200 " not in status or length is None:
        raise Problem(f"an answer began with {status!r} and had the length {length}")
    return length


def all_workloads():
    """In the order of tables and pictures."""
    small = [
        Requests(f"small-{count}", f"1.2 KB, {count} connection{'s' if count > 1 else ''}", count, COUNTERS)
        for count in (1, 16, 64, 256)
    ]
    return [
        *small,
        Rate("rate", "2,000 a second, 16 connections", 2000, COUNTERS),
        Requests("fresh", "1.2 KB, a connection each", 16, COUNTERS, fresh=True),
        Requests("tls", "TLS, 16 connections", 16, COUNTERS, tls=True),
        Requests("tls-64", "TLS, 64 connections", 64, COUNTERS, tls=True),
        Requests("tls-fresh", "TLS, a handshake each", 16, COUNTERS, tls=True, fresh=True),
        Resumed("tls-resumed", "TLS, a resumed session each"),
        Requests("report", "64 KB, 16 connections", 16, REPORT),
        Transfers("download", "200 MB, download", False),
        Transfers("upload", "200 MB, upload", True),
    ]


def chosen_workloads(names):
    known = {workload.name: workload for workload in all_workloads()}
    unknown = [name for name in names or [] if name not in known]
    if unknown:
        raise Problem(f"no workload is called {unknown[0]}; there are {', '.join(known)}")
    return [workload for workload in known.values() if not names or workload.name in names]
