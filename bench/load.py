"""The workloads: what the callers do while the proxy's time is taken."""

import json
import re
import socket
import subprocess
import time

from machine import Problem
from upstream import COUNTERS, DOWNLOAD, REPORT, UPLOAD

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
    """Many short requests over a number of connections, by wrk."""

    unit = "request"

    def __init__(self, name, title, connections, path):
        self.name, self.title, self.connections, self.path = name, title, connections, path

    def run(self, bench, port, seconds):
        script = f"{bench.folder}/summary.lua"
        with open(script, "w") as file:
            file.write(SUMMARY)
        command = ["wrk", "-t1", f"-c{self.connections}", f"-d{seconds}s", "--timeout", "10s", "-s", script]
        for field in FIELDS:
            command += ["-H", field]
        # A child like the others, so that Ctrl-C ends it as well.
        child = bench.children.start(
            "wrk", command + [f"http://127.0.0.1:{port}{self.path}"], bench.load_core, f"{bench.folder}/wrk.log"
        )
        try:
            child.process.wait(seconds + 30)
        except subprocess.TimeoutExpired:
            raise Problem("wrk did not end in time") from None
        bench.children.stop(child)
        with open(child.log) as file:
            match = re.search(r"^RESULT (.*)$", file.read(), re.MULTILINE)
        if not match:
            raise Problem(f"wrk failed: {child.last_words()}")
        result = json.loads(match.group(1))
        return {
            "answers": result["requests"] - result["refused"],
            "errors": result["refused"] + result["failed"],
            "seconds": result["seconds"],
            "p50_us": result["p50"],
            "p99_us": result["p99"],
        }


class Transfers:
    """Whole files, one after the other on one connection, until the time is over."""

    unit = "file"

    def __init__(self, name, title, upload):
        self.name, self.title, self.upload = name, title, upload

    def run(self, bench, port, seconds):
        try:
            return self.transfer(bench, port, seconds)
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
