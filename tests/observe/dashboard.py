#!/usr/bin/env python3
"""Every panel of the dashboard has data: its query is run on a real Prometheus that scrapes a real gate under traffic.

    tests/observe/dashboard.py                    the check
    tests/observe/dashboard.py --without-traffic  the same without traffic, which has to fail

A panel needs a value other than zero in each of its queries, unless a healthy gate shows nothing else than zero. Before the
traffic begins, most panels must be empty: otherwise the check could not fail. The recording rules of the dashboard are loaded
with shorter windows.
"""

import contextlib
import json
import math
import pathlib
import re
import subprocess
import sys
import time
import urllib.parse
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from world import ROOT, World, free_port  # noqa: E402

sys.path.insert(0, str(ROOT / "deploy/grafana"))
import dashboard  # noqa: E402

# The time that Prometheus scrapes the gate under traffic, in seconds, and the windows of all rates.
SECONDS = 40
WINDOW = "15s"


def without_variables(expression):
    """A query as Grafana sends it with all gates selected."""
    return expression.replace("$job", ".*").replace("$instance", ".*").replace("$__rate_interval", WINDOW)


def prometheus(world, port):
    folder = world.folder / "prometheus"
    folder.mkdir()
    rules = (ROOT / "deploy/prometheus/recording.yaml").read_text()
    (folder / "recording.yaml").write_text(re.sub(r"interval: \w+", "interval: 1s", rules).replace("[5m]", f"[{WINDOW}]"))
    (folder / "prometheus.yml").write_text(f"""
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: [recording.yaml]
scrape_configs:
  - {{job_name: metrika-gate, static_configs: [{{targets: ["127.0.0.1:{world.admin}"]}}]}}
""")
    log = folder / "log"
    world.run("prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
              f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn", stdout=subprocess.DEVNULL, stderr=open(log, "w"))
    world.wait_for(lambda: urllib.request.urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=5).read(), "Prometheus", log)


def values(port, expression):
    address = f"http://127.0.0.1:{port}/api/v1/query?" + urllib.parse.urlencode({"query": without_variables(expression)})
    with urllib.request.urlopen(address, timeout=10) as response:
        result = json.load(response)["data"]["result"]
    return [float(sample["value"][1]) for sample in result]


def is_filled(panel, found):
    real = [value for value in found if not math.isnan(value)]
    return bool(real) and (panel.may_be_zero or any(value != 0 for value in real))


def empty(port):
    """The panels without data, with the query."""
    return [
        (panel, expression)
        for panel in dashboard.panels()
        for expression in panel.expressions()
        if not is_filled(panel, values(port, expression))
    ]


def main():
    has_traffic = "--without-traffic" not in sys.argv[1:]
    with World() as world:
        port = free_port()
        prometheus(world, port)
        time.sleep(8)
        before = {panel.title for panel, _ in empty(port)}
        expected = {panel.title for panel in dashboard.panels() if not panel.is_constant}
        if has_traffic:
            world.traffic()
            time.sleep(6)
            with contextlib.suppress(OSError):
                world.revoke("analytics")
        # Every panel at some time within the traffic: a queue is not always full.
        missing = empty(port)
        end = time.time() + SECONDS
        while missing and time.time() < end:
            time.sleep(1)
            missing = [one for one in missing if not is_filled(one[0], values(port, one[1]))]
        # A moment between two looks counts too.
        window = f"[{SECONDS}s:1s]"
        missing = [one for one in missing if not is_filled(one[0], values(port, f"max_over_time(({one[1]}){window})"))]
        failed = 0
        for panel in dashboard.panels():
            queries = [expression for of, expression in missing if of is panel]
            failed += bool(queries)
            print(f"{'FAILED ' if queries else 'ok     '} {panel.title}{''.join(chr(10) + '          ' + query for query in queries)}")
        wrong = sorted(expected - before)
        if wrong:
            print(f"FAILED  these have data without traffic, so the check above cannot fail for them: {', '.join(wrong)}")
        print(f"dashboard: {len(dashboard.panels())} panels, {failed} empty; without traffic, {len(before)} were empty")
        return 1 if failed or wrong else 0


if __name__ == "__main__":
    sys.exit(main())
