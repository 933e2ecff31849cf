"""What a proxy costs when it does nothing: `bench/run --states`.

1. The first request after the start and after an idle minute, beside the later ones on the same connection.
2. Callers that are connected and idle: memory for each, and how often the proxy wakes up.
3. Memory a minute after 1,000 connections were busy.
"""

import glob
import re
import socket
import statistics
import time

import report
from load import COUNTERS, FIELDS, head, read_head, run_program
from machine import Problem, read, resident_memory

STARTS, LATER, IDLE, STORM, REST = 9, 50, 5000, 1000, 60


def measure(bench, chosen, say):
    """All states of all proxies. The minutes of rest are shared."""
    states = {peer.name: first_requests(bench, peer) for peer in chosen}
    say("first requests: done; an idle minute")
    time.sleep(REST)
    for peer in chosen:
        states[peer.name]["after_idle_ms"] = timed(peer) * 1e3
    for peer in chosen:
        states[peer.name].update(idle_callers(peer))
        say(f"idle callers: {peer.title}")
    for peer in chosen:
        command = ["wrk", "-t1", f"-c{STORM}", "-d5s", "--timeout", "10s"]
        for field in FIELDS:
            command += ["-H", field]
        run_program(bench, [*command, f"http://127.0.0.1:{peer.port}{COUNTERS}"], 5)
        states[peer.name]["storm_peak"] = resident_memory(peer.child.family())
    say("storms: done; a minute of rest")
    time.sleep(REST)
    for peer in chosen:
        states[peer.name]["after_storm"] = resident_memory(peer.child.family())
    return states


def timed(peer):
    """The time of a request on a connection of its own, which is open already."""
    with socket.create_connection(("127.0.0.1", peer.port), 10) as connection:
        return exchange(connection)


def exchange(connection):
    began = time.perf_counter()
    connection.sendall(head("GET", COUNTERS, []))
    with connection.makefile("rb") as answer:
        answer.read(read_head(answer))
    return time.perf_counter() - began


def first_requests(bench, peer):
    """The proxy runs afterwards."""
    first, later = [], []
    for number in range(STARTS):
        if number:
            peer.stop(bench.children)
        peer.start(bench.children, bench.upstream, bench.proxy_core)
        # What a proxy prepares after it listens, it may prepare.
        time.sleep(0.5)
        with socket.create_connection(("127.0.0.1", peer.port), 10) as connection:
            first.append(exchange(connection))
            later += [exchange(connection) for _ in range(LATER)]
    return {"first_ms": statistics.median(first) * 1e3, "later_ms": statistics.median(later) * 1e3}


def wake_ups(family):
    """How often the threads of these processes gave up a core by themselves."""
    texts = [read(path) for pid in family for path in glob.glob(f"/proc/{pid}/task/*/status")]
    return sum(int(re.search(r"^voluntary_ctxt_switches:\s+(\d+)", text, re.MULTILINE).group(1)) for text in texts if text)


def idle_callers(peer):
    family, connections = peer.child.family(), []
    before = resident_memory(family)
    try:
        for _ in range(IDLE):
            connection = socket.create_connection(("127.0.0.1", peer.port), 10)
            connections.append(connection)
            exchange(connection)
        # The timer of a request's header is not stopped but lapses, after ten seconds: it is no cost of an idle caller.
        time.sleep(15)
        memory, woken = resident_memory(family), wake_ups(family)
        time.sleep(10)
        woken = wake_ups(family) - woken
        for connection in connections[:: IDLE // 10]:
            exchange(connection)
    except OSError as error:
        raise Problem(f"{peer.title} does not keep {IDLE} connections: {error}") from error
    finally:
        for connection in connections:
            connection.close()
    return {"idle_bytes": (memory - before) / IDLE, "wake_ups_per_second": woken / 10}


def markdown(states, titles):
    rows = [
        [
            titles[name],
            f"{one['later_ms']:.2f} ms",
            f"{one['first_ms']:.2f} ms ({one['first_ms'] / one['later_ms']:.1f})",
            f"{one['after_idle_ms']:.2f} ms ({one['after_idle_ms'] / one['later_ms']:.1f})",
            f"{one['idle_bytes'] / 1024:.1f} KiB",
            f"{one['wake_ups_per_second']:.1f}",
            f"{one['storm_peak'] / 2**20:.1f} MiB",
            f"{one['after_storm'] / 2**20:.1f} MiB",
        ]
        for name, one in states.items()
    ]
    head_row = [
        "proxy",
        "a later request",
        "the first after the start",
        "after an idle minute",
        f"each of {IDLE:,} idle callers",
        "wake-ups a second then",
        f"memory after {STORM:,} busy connections",
        "a minute later",
    ]
    return report.table(head_row, rows)
