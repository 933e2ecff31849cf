"""The proxies that are compared: how each is found, configured and started."""

import os
import re
import shutil
import subprocess

from machine import Problem, free_ports
from upstream import render, write

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
# Where --install puts what is no Debian package.
TOOLS = os.path.join(ROOT, "target", "bench", "tools")


class Peer:
    """A proxy: `config` is filled in and handed to `command`."""

    def __init__(self, name, title, program, config, command, version, protocol="HTTP/1.1", **values):
        self.name, self.title, self.program, self.config = name, title, program, config
        self.command, self.version_flag, self.values = command, version, values
        # What the upstream has to see.
        self.protocol = protocol
        self.path = self.child = self.port = None

    def find(self, gate):
        self.path = gate if self.program == "metrika-gate" else find_program(self.program)
        return self.path if self.path and os.access(self.path, os.X_OK) else None

    def version(self):
        done = subprocess.run(
            [self.path, self.version_flag], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        match = re.search(r"\d+\.\d+\.\d+", done.stdout)
        return match.group(0) if match else "unknown"

    def start(self, children, upstream, core, upstream_port="upstream_port"):
        """Starts it against one of the ports of the upstream; the others are those that it has to refuse."""
        self.port = free_ports(1)[0]
        values = {
            **upstream.values,
            **self.values,
            "name": self.name,
            "port": self.port,
            "upstream_port": upstream.ports[upstream_port],
        }
        path = f"{upstream.folder}/{self.name}{os.path.splitext(self.config)[1]}"
        write(path, render(self.config, values))
        command = [self.path] + [word.format(config=path, folder=upstream.folder) for word in self.command]
        self.child = children.start(self.title, command, core, f"{upstream.folder}/{self.name}.log")
        self.child.wait_for_port(self.port)

    def stop(self, children):
        children.stop(self.child)
        self.child = None


def find_program(name):
    # A user's PATH on Debian has no sbin, where nginx and HAProxy are.
    return shutil.which(name, path=os.pathsep.join([TOOLS, os.environ.get("PATH", ""), "/usr/sbin", "/sbin"]))


def all_peers():
    """In the order of tables and pictures."""
    gate = dict(
        program="metrika-gate", config="gate.yaml", command=["run", "--config", "{config}"], version="--version"
    )
    return [
        Peer("gate", "metrika-gate", http2="false", **gate),
        Peer("gate-h2", "metrika-gate, HTTP/2 upstream", http2="true", protocol="HTTP/2.0", **gate),
        Peer("haproxy", "HAProxy", "haproxy", "haproxy.cfg", ["-db", "-f", "{config}"], "-v"),
        Peer("nginx", "nginx", "nginx", "nginx.conf", ["-e", "stderr", "-p", "{folder}", "-c", "{config}"], "-v"),
        Peer(
            "envoy",
            "Envoy",
            "envoy",
            "envoy.yaml",
            ["-c", "{config}", "--concurrency", "1", "--disable-hot-restart", "-l", "error"],
            "--version",
        ),
    ]


def available_peers(names, gate, say):
    """Those of the named peers that are on this machine; what is missing is said with its remedy."""
    known = {peer.name: peer for peer in all_peers()}
    unknown = [name for name in names or [] if name not in known]
    if unknown:
        raise Problem(f"no peer is called {unknown[0]}; there are {', '.join(known)}")
    found = []
    for peer in known.values():
        if names and peer.name not in names:
            continue
        if peer.find(gate):
            found.append(peer)
        elif peer.program == "metrika-gate":
            raise Problem(f"{gate} is missing: cargo build --release --locked, or --gate PATH")
        else:
            say(f"skipped: {peer.title} is not installed (bench/run --install)")
    return found
