"""The proxies that are compared: how each is found, configured and started."""

import os
import re
import shutil
import subprocess

from machine import Problem, free_ports
from upstream import render, render_text, write

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
# Where --install puts what is no Debian package.
TOOLS = os.path.join(ROOT, "target", "bench", "tools")


class Peer:
    """A proxy: `config` is filled in and handed to `command`. `only` are the workloads that it takes part in; all, if empty."""

    def __init__(self, name, title, program, config, command, version, protocol="HTTP/1.1", only=(), **values):
        self.name, self.title, self.program, self.config, self.only = name, title, program, config, only
        self.command, self.version_flag, self.values = command, version, values
        # What the upstream has to see.
        self.protocol = protocol
        self.path = self.child = self.port = self.tls_port = None

    def takes(self, workload):
        return not self.only or workload.name in self.only

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
        self.port, self.tls_port = free_ports(2)
        values = {
            **upstream.values,
            **self.values,
            "name": self.name,
            "port": self.port,
            "tls_port": self.tls_port,
            "upstream_port": upstream.ports[upstream_port],
        }
        values = {key: render_text(value, values) if isinstance(value, str) else value for key, value in values.items()}
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


# Those of a second configuration of a proxy, in the workloads where it shows.
HTTP2 = ("small-16", "small-64", "small-256")
LOG = ("small-16", "small-64")
# A line of JSON for each request, as operators write it; the fields of the gate's own line that the others know.
HAPROXY_LOG = r"""    log stdout format raw local0
    log-format '{"time":"%tr","method":"%HM","path":"%HP","status":%ST,"bytes":%B,"duration_ms":%Ta,"peer":"%ci","id":%pid}'
"""
NGINX_LOG = """    log_format line escape=json '{"time":"$time_iso8601","method":"$request_method","path":"$uri","status":$status,'
        '"bytes":$body_bytes_sent,"duration_ms":$request_time,"peer":"$remote_addr","id":"$request_id"}';
    access_log {{ folder }}/nginx-log.access line;
"""


def all_peers():
    """In the order of tables and pictures."""
    gate = dict(
        program="metrika-gate", config="gate.yaml", command=["run", "--config", "{config}"], version="--version"
    )
    haproxy = dict(program="haproxy", config="haproxy.cfg", command=["-db", "-f", "{config}"], version="-v")
    nginx = dict(
        program="nginx",
        config="nginx.conf",
        command=["-e", "stderr", "-p", "{folder}", "-c", "{config}"],
        version="-v",
    )
    h2 = dict(protocol="HTTP/2.0", only=HTTP2)
    return [
        Peer("gate", "metrika-gate", http2="false", log="false", **gate),
        Peer("gate-h2", "metrika-gate, HTTP/2 upstream", http2="true", log="false", **h2, **gate),
        Peer("gate-log", "metrika-gate, access log", http2="false", log="true", only=LOG, **gate),
        Peer("haproxy", "HAProxy", alpn="http/1.1", log="", **haproxy),
        Peer("haproxy-h2", "HAProxy, HTTP/2 upstream", alpn="h2", log="", **h2, **haproxy),
        Peer("haproxy-log", "HAProxy, access log", alpn="http/1.1", log=HAPROXY_LOG, only=LOG, **haproxy),
        Peer("nginx", "nginx", log="    access_log off;\n", **nginx),
        Peer("nginx-log", "nginx, access log", log=NGINX_LOG, only=LOG, **nginx),
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
