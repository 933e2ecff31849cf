#!/usr/bin/env python3
"""Fifty published clients of one account, unmodified, through a gate with `quota`, in front of the stand-in for Metrica.

Metrica allows three requests of an account at the same time and refuses a fourth; each takes 400 ms. Every client sends its
next request when it has the answer to the last one, so nearly all of them wait at any time. None may see an error, and the
stand-in, which counts, must have answered nearly as much as three slots carry.

    tests/clients/quota.py [SECONDS]    measures for so many seconds (20)

METRIKA_GATE_BIN names the program (target/release/metrika-gate). Node and Go take part where they are installed.
"""

import json
import os
import pathlib
import shutil
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

import requests
import tapi_yandex_metrika.exceptions
import tapi_yandex_metrika.tapi_yandex_metrika as tapi_yandex_metrika_adapters
from tapi2 import generate_wrapper_from_adapter

from world import TOKEN, started

SLOTS = 3
SERVICE = 0.4
CLIENTS = 50
# From the first request until every client waits.
SETTLE = 3
# Of what three slots carry.
LEAST_USE = 0.97
COUNTERS = "/management/v1/counters"
EVALUATE = "/management/v1/counter/101/logrequests/evaluate"

NODE = """
const http = require('http');
const [base, clients, seconds] = process.argv.slice(2);
const until = Date.now() + seconds * 1000;
const agent = new http.Agent({keepAlive: true, maxSockets: Number(clients)});
const errors = [];
let served = 0;
const get = () => new Promise((resolve, reject) => {
  http.get(base + '/management/v1/counters', {agent}, (answer) => {
    let text = '';
    answer.setEncoding('utf8').on('data', (piece) => { text += piece; }).on('error', reject).on('end', () => {
      if (answer.statusCode === 200 && JSON.parse(text).counters.length === 2) resolve();
      else reject(new Error(`${answer.statusCode} ${text}`));
    });
  }).on('error', reject);
});
const client = async () => {
  while (Date.now() < until) {
    try { await get(); served += 1; } catch (error) { errors.push(String(error)); }
  }
};
Promise.all(Array.from({length: Number(clients)}, client)).then(() => {
  console.log(JSON.stringify({served, errors}));
  agent.destroy();
});
"""

GO = """
package main

import (
\t"encoding/json"
\t"fmt"
\t"io"
\t"net/http"
\t"os"
\t"strconv"
\t"sync"
\t"time"
)

func main() {
\tclients, _ := strconv.Atoi(os.Args[2])
\tseconds, _ := strconv.Atoi(os.Args[3])
\tuntil := time.Now().Add(time.Duration(seconds) * time.Second)
\tvar lock sync.Mutex
\tvar group sync.WaitGroup
\tserved, errors := 0, []string{}
\tfor range make([]int, clients) {
\t\tgroup.Add(1)
\t\tgo func() {
\t\t\tdefer group.Done()
\t\t\tfor time.Now().Before(until) {
\t\t\t\tsaid := ""
\t\t\t\tanswer, err := http.Get(os.Args[1] + "/management/v1/counters")
\t\t\t\tif err != nil {
\t\t\t\t\tsaid = err.Error()
\t\t\t\t} else {
\t\t\t\t\tbody, _ := io.ReadAll(answer.Body)
\t\t\t\t\tanswer.Body.Close()
\t\t\t\t\tif answer.StatusCode != 200 {
\t\t\t\t\t\tsaid = answer.Status + " " + string(body)
\t\t\t\t\t}
\t\t\t\t}
\t\t\t\tlock.Lock()
\t\t\t\tif said == "" {
\t\t\t\t\tserved++
\t\t\t\t} else {
\t\t\t\t\terrors = append(errors, said)
\t\t\t\t}
\t\t\t\tlock.Unlock()
\t\t\t}
\t\t}()
\t}
\tgroup.Wait()
\ttext, _ := json.Marshal(map[string]any{"served": served, "errors": errors})
\tfmt.Println(string(text))
}
"""


class Crowd:
    """Clients of one kind."""

    def __init__(self, kind, base, clients, seconds):
        self.kind, self.base, self.clients, self.seconds = kind, base, clients, seconds
        self.served, self.errors = 0, []
        self.lock = threading.Lock()

    def start(self, folder):
        if self.kind in ("node", "go"):
            command = {"node": self.node, "go": self.go}[self.kind](folder)
            self.threads = [threading.Thread(target=self.run, args=(command,))]
        else:
            one = {"requests": self.by_requests, "curl": self.by_curl, "tapi": self.by_tapi, "airbyte": self.by_airbyte}
            self.threads = [threading.Thread(target=self.loop, args=(one[self.kind],)) for _ in range(self.clients)]
        for thread in self.threads:
            thread.start()

    def loop(self, make):
        ask = make()
        until = time.monotonic() + self.seconds
        while time.monotonic() < until:
            try:
                ask()
            except Exception as error:
                with self.lock:
                    self.errors.append(f"{type(error).__name__}: {error}")
                time.sleep(0.1)
            else:
                with self.lock:
                    self.served += 1

    def run(self, command):
        arguments = [self.base, str(self.clients), str(self.seconds)]
        done = subprocess.run([*command, *arguments], capture_output=True, text=True)
        try:
            found = json.loads(done.stdout)
            self.served, self.errors = found["served"], found["errors"]
        except ValueError:
            self.errors.append(f"{done.stdout}{done.stderr}")

    def by_requests(self):
        session = requests.Session()

        def ask():
            answer = session.get(self.base + COUNTERS)
            answer.raise_for_status()
            assert len(answer.json()["counters"]) == 2, answer.text

        return ask

    def by_curl(self):
        def ask():
            command = ["curl", "-sS", "--fail-with-body", self.base + COUNTERS]
            done = subprocess.run(command, capture_output=True, text=True)
            assert done.returncode == 0, f"{done.stdout}{done.stderr}"

        return ask

    def by_tapi(self):
        """The most used client of Python, which raises on every status that is not 2xx."""
        client = tapi_of(self.base)

        def ask():
            assert len(client.counters().get().data["counters"]) == 2

        return ask

    def by_airbyte(self):
        """The call that Airbyte makes before it asks for logs; it takes every other answer for `not possible`."""
        session = requests.Session()
        session.headers["Content-Type"] = "application/x-ymetrika+json"
        fields = ["ym:s:visitID", "ym:s:date"]
        query = {"date1": "2026-11-01", "date2": "2026-11-02", "source": "visits", "fields": fields}

        def ask():
            answer = session.get(self.base + EVALUATE, params=query)
            assert answer.json()["log_request_evaluation"]["possible"] is True, answer.text

        return ask

    def node(self, folder):
        (folder / "client.js").write_text(NODE)
        return ["node", str(folder / "client.js")]

    def go(self, folder):
        (folder / "client.go").write_text(GO)
        subprocess.run(["go", "build", "-o", str(folder / "client"), str(folder / "client.go")], check=True, cwd=folder)
        return [str(folder / "client")]


def tapi_of(base):
    """The client of tapi-yandex-metrika; only where it connects to is changed."""

    class Adapter(tapi_yandex_metrika_adapters.YandexMetrikaManagementClientAdapter):
        def get_api_root(self, *_, **__):
            return f"{base}/"

    return generate_wrapper_from_adapter(Adapter)(access_token="y0_theclientsowntoken000000")


def tapi_takes_a_refusal_for_one(base):
    """The type that Metrica really sends ends this client with a KeyError; those that it documents do not."""
    try:
        tapi_of(base).counters().get()
    except tapi_yandex_metrika.exceptions.YandexMetrikaLimitError:
        return []
    except Exception as error:
        return [f"tapi takes a refusal for {type(error).__name__}: {error}"]
    return ["a caller that does not wait was not refused"]


def main(folder, seconds):
    kinds = {"requests": 10, "curl": 10, "tapi": 10, "airbyte": 4}
    kinds |= {kind: 8 for kind in ("node", "go") if shutil.which(kind)}
    kinds["requests"] += CLIENTS - sum(kinds.values())
    ca = folder / "fake.pem"
    command = ["fake", "--address", "127.0.0.1:0", "--ca-out", str(ca), "--token", f"{TOKEN}=shop:read,write:101,102"]
    knobs = [f"quota?parallel={SLOTS}", f"slow?ms={SERVICE * 1000:.0f}&path=/management/"]
    command += [argument for knob in knobs for argument in ("--knob", knob)]
    fake, [address] = started(command, folder / "fake.log", [r"listens on https://(\S+);"])
    programs = [fake]
    try:
        (folder / "token").write_text(TOKEN)
        (folder / "token").chmod(0o600)
        names = [*kinds, "impatient"]
        listeners = [f"  - {{name: {name}, address: '127.0.0.1:0'}}" for name in names]
        rights = "scopes: [metrika:read, metrika:write], tokens: [shop]"
        callers = [f"  - {{id: {kind}, match: {{listener: {kind}}}, {rights}}}" for kind in kinds]
        callers.append(f"  - {{id: impatient, match: {{listener: impatient}}, {rights}, quota: {{wait: 1ms}}}}")
        lines = [
            "listeners:", *listeners, "callers:", *callers,
            "admin: {address: '127.0.0.1:0'}",
            f"upstream: {{ca_file: '{ca}', connect_to: '{address}'}}",
            f"tokens: {{shop: {{file: '{folder}/token', scopes: [metrika:read, metrika:write], owner: shop}}}}",
            "quota: {}", "",
        ]  # fmt: skip
        (folder / "gate.yaml").write_text("\n".join(lines))
        listening = [rf'"listening".*"listener":"{name}".*"place":"(http://[^"]+)"' for name in names]
        command = ["run", "--config", str(folder / "gate.yaml"), "--log-format", "json"]
        gate, places = started(command, folder / "gate.log", [*listening, '"(started)"'])
        programs.append(gate)
        tls = ssl.create_default_context(cafile=ca)

        def panel(knob):
            with urllib.request.urlopen(f"https://{address}/_fake/{knob}", context=tls, timeout=10) as answer:
                return json.load(answer)

        def answered():
            state = panel("state")
            return state["requests"] - state["in_flight"], time.monotonic()

        crowds = [Crowd(kind, place, kinds[kind], SETTLE + seconds + 1) for kind, place in zip(kinds, places)]
        for crowd in crowds:
            crowd.start(folder)
        time.sleep(SETTLE)
        wrong = tapi_takes_a_refusal_for_one(places[len(kinds)])
        (first, begun), (last, ended) = answered(), time.sleep(seconds) or answered()
        for thread in (thread for crowd in crowds for thread in crowd.threads):
            thread.join()
        carried = SLOTS * (ended - begun) / SERVICE
        use = (last - first) / carried
        usage = panel("quota_use")
        login, refused = usage["logins"]["shop"], usage["refused"]
        errors = [f"{crowd.kind}: {error}" for crowd in crowds for error in crowd.errors]
        served = ", ".join(f"{crowd.clients} {crowd.kind} {crowd.served}" for crowd in crowds)
        print(f"{sum(kinds.values())} clients, {ended - begun:.1f} s: {last - first} of {carried:.0f} requests, {use:.1%}")
        print(f"served in all: {served}; errors: {len(errors)}")
        print(f"at the stand-in: {login['accepted']} accepted, {login['most_in_parallel']} at once; refused: {refused}")
        wrong += errors[:10]
        if refused:
            wrong.append("the stand-in refused a request")
        if use < LEAST_USE:
            wrong.append(f"{use:.1%} of what {SLOTS} slots carry, less than {LEAST_USE:.0%}")
        if any(crowd.served == 0 for crowd in crowds):
            wrong.append("a kind of clients was not served at all")
        for said in wrong:
            print(f"FAILED  {said[:500]}")
        return 1 if wrong else 0
    finally:
        for program in programs:
            program.kill()
            program.wait()


if __name__ == "__main__":
    # Nothing of the system's may come between a client and the gate.
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        os.environ.pop(name, None), os.environ.pop(name.upper(), None)
    with tempfile.TemporaryDirectory(prefix="metrika-gate-quota-") as folder:
        sys.exit(main(pathlib.Path(folder), int(sys.argv[1]) if len(sys.argv) > 1 else 20))
