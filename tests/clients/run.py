#!/usr/bin/env python3
"""Published clients, unmodified, through a gate and in front of the stand-in for Metrica.

Each client sends what it always sends. A check looks at what the client was given and at what reached the stand-in: between
the two stands a recorder, which keeps each request as the gate sent it.

METRIKA_GATE_BIN names the program (target/release/metrika-gate).
"""

import asyncio
import contextlib
import http.client
import http.server
import json
import os
import pathlib
import re
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time

import aiohttp
import httpx
import pandas
import requests
import tapi_yandex_metrika
import yametrikapy.core

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PROGRAM = os.environ.get("METRIKA_GATE_BIN") or ROOT / "target/release/metrika-gate"
TOKEN = "test-0123456789abcdef"
CLIENT_TOKEN = "y0_theclientsowntoken000000"
COUNTERS = [101, 102]
GOALS = f"/management/v1/counter/{COUNTERS[0]}/goals"
GOAL = {"name": "Paid", "type": "action", "conditions": [{"type": "exact", "url": "paid"}]}
JSON_GOAL = json.dumps({"goal": GOAL})

CONFIGURATION = """
listeners:
  - {{name: app, address: '127.0.0.1:0'}}
  - {{name: strict, address: '127.0.0.1:0'}}
  - {{name: proxy, address: '127.0.0.1:0', proxy: true, tls: {{authority: '{folder}/ca'}}}}
admin: {{address: '127.0.0.1:0'}}
upstream: {{ca_file: '{folder}/recorder.pem', connect_to: '127.0.0.1:{port}'}}
tokens:
  shop: {{file: '{folder}/token', scopes: [metrika:read, metrika:write]}}
callers:
  - {{id: app, match: {{listener: app}}, scopes: [metrika:read, metrika:write], tokens: [shop], callback: deny}}
  - {{id: strict, match: {{listener: strict}}, scopes: [metrika:read], tokens: [shop], strict: true}}
  - {{id: proxied, match: {{listener: proxy}}, scopes: [metrika:read, metrika:write], tokens: [shop]}}
"""

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


class Recorder(http.server.BaseHTTPRequestHandler):
    """Keeps each request, and asks the stand-in."""

    protocol_version = "HTTP/1.1"
    requests = []
    upstream = None

    def relay(self):
        length = int(self.headers.get("Content-Length", 0))
        assert "Transfer-Encoding" not in self.headers, "the recorder reads bodies of a known length only"
        body = self.rfile.read(length)
        # `path` has lost a second slash at its beginning; the request line has not.
        method, target, _ = self.raw_requestline.decode().split(" ")
        self.requests.append((f"{method} {target}", self.headers, body.decode(errors="replace")))
        address, tls = self.upstream
        upstream = http.client.HTTPSConnection(address, context=tls, timeout=30)
        upstream.request(method, target, body, dict(self.headers))
        answer = upstream.getresponse()
        content = answer.read()
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        upstream.close()

    do_GET = do_POST = relay

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
        clean = {name: value for name, value in os.environ.items() if not name.startswith("METRIKA_GATE_")}
        program = subprocess.Popen([PROGRAM, *command], stdout=out, stderr=out, env=clean)
    for _ in range(300):
        text = log.read_text()
        found = [re.search(pattern, text) for pattern in patterns]
        if all(found):
            return program, [match[1] for match in found]
        if program.poll() is not None:
            break
        time.sleep(0.1)
    program.kill()
    sys.exit(f"{' '.join(command)} does not serve:\n{log.read_text()}")


def last():
    """The request that reached the stand-in last, which had the gate's token and no other."""
    line, fields, body = Recorder.requests[-1]
    assert fields.get_all("Authorization") == [f"OAuth {TOKEN}"], fields
    assert CLIENT_TOKEN not in f"{line}{fields}{body}", line
    return line, fields, body


def sees(expected):
    line, _, _ = last()
    assert line == expected, f"reached the stand-in as {line}, not as {expected}"


def sees_goal(body=JSON_GOAL, content_type="application/json"):
    line, fields, seen = last()
    assert line == f"POST {GOALS}", line
    assert fields["Content-Type"] == content_type, fields["Content-Type"]
    assert json.loads(seen) == json.loads(body), seen


def curl(*arguments):
    """What `curl` prints, and the status behind it."""
    done = subprocess.run(["curl", "-sS", "-w", "\n%{http_code}", *arguments], capture_output=True, text=True, check=True)
    text, _, status = done.stdout.rpartition("\n")
    return int(status), text


def exchanged(base, request):
    """Sends the bytes of a client that is not at hand, and returns status and body of the answer."""
    with socket.create_connection(base.removeprefix("http://").split(":"), timeout=30) as connection:
        connection.sendall(request.encode())
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        return answer.status, answer.read().decode()


# --- clients ----------------------------------------------------------------------------------------------------------
# Each gets the URL of a caller with `callback: deny`, and of one with `strict: true`.


def yametrikapy_lists_and_creates(base, strict):
    client = yametrikapy.core.Metrika("client", token=CLIENT_TOKEN)
    client.HOST = f"{base}/"
    assert [counter["id"] for counter in client.counters().counters] == COUNTERS
    sees(
        "GET /management/v1/counters.json?favorite=0&field=&label_id=None&offset=1&per_page=1000&permission=&reverse=1"
        "&search_string=&sort=Default&status=Active&type="
    )
    goals = client.goals(COUNTERS[0]).goals
    sees(f"GET /management/v1/counter/{COUNTERS[0]}/goals.json?sorted=0&useDeleted=0")
    made = client.add_goal(COUNTERS[0], "Bought", "action", conditions=[{"type": "exact", "url": "bought"}]).goal
    line, fields, body = last()
    assert line == f"POST {GOALS}.json" and fields["Content-Type"] == "application/x-yametrika+json", (line, fields)
    assert json.loads(body)["goal"]["name"] == "Bought", body
    assert [goal["id"] for goal in client.goals(COUNTERS[0]).goals] == [goal["id"] for goal in goals] + [made["id"]]
    client.HOST = f"{strict}/"
    try:
        client.counters()
    except yametrikapy.core.BadRequestError:
        return
    raise AssertionError("a strict caller may not send an empty callback")


def requests_makes_parameters_of_lists(base, strict):
    lists = {"ids": COUNTERS, "metrics": ["ym:s:visits", "ym:s:users"]}
    answer = requests.get(f"{base}/stat/v1/data", lists)
    assert answer.status_code == 200, answer.text
    assert answer.json()["query"]["ids"] == COUNTERS, answer.text
    assert answer.json()["query"]["metrics"] == lists["metrics"], answer.text
    sees("GET /stat/v1/data?ids=101,102&metrics=ym%3As%3Avisits,ym%3As%3Ausers")
    refused = requests.get(f"{strict}/stat/v1/data", lists)
    assert (refused.status_code, refused.headers["X-Gate-Error"]) == (400, "bad_target"), refused.text


def requests_posts_json_without_a_type(base, strict):
    answer = requests.post(base + GOALS, data=JSON_GOAL)
    assert answer.json()["goal"]["name"] == GOAL["name"], answer.text
    sees_goal()


def requests_that_posts_a_form_is_told_better(base, strict):
    before = len(Recorder.requests)
    answer = requests.post(base + GOALS, data=GOAL)
    assert (answer.status_code, answer.headers["X-Gate-Error"]) == (415, "form_body"), answer.text
    assert "requests" in answer.text and "json=" in answer.text, answer.text
    assert len(Recorder.requests) == before, "a form reached the stand-in"


def php_curl_posts_json_as_a_form(base, strict):
    # CURLOPT_POSTFIELDS with a text is the same as -d: a form's type. A long one is waited with.
    long = json.dumps({"goal": {**GOAL, "name": "Long" * 1000}})
    for body, fields in [(JSON_GOAL, []), (long, ["-H", "Expect: 100-continue"])]:
        status, text = curl("-H", f"Authorization: OAuth {CLIENT_TOKEN}", *fields, "-d", body, base + GOALS)
        assert status == 200 and json.loads(text)["goal"]["type"] == "action", (status, text)
        sees_goal(body)


def php_streams_post_json_as_a_form(base, strict):
    # file_get_contents with a context.
    request = (
        f"POST {GOALS} HTTP/1.0\r\nHost: {base.removeprefix('http://')}\r\nConnection: close\r\n"
        f"Authorization: OAuth {CLIENT_TOKEN}\r\nContent-Type: application/x-www-form-urlencoded\r\n"
        f"Content-Length: {len(JSON_GOAL)}\r\n\r\n{JSON_GOAL}"
    )
    status, text = exchanged(base, request)
    assert status == 200 and json.loads(text)["goal"]["name"] == GOAL["name"], (status, text)
    sees_goal()


def pandas_reads_the_documented_url(base, strict):
    attributed = "dimensions=ym:s:<attribution>TrafficSource&attribution=lastsign"
    table = pandas.read_csv(f"{base}/stat/v1/data.csv?ids=101&metrics=ym:s:visits&{attributed}")
    assert table.shape[1] == 2 and len(table) > 1, table
    sees(f"GET /stat/v1/data.csv?ids=101&metrics=ym:s:visits&{attributed.replace('<', '%3C').replace('>', '%3E')}")


def go_joins_a_base_with_a_slash(base, strict):
    # url.Values.Encode sorts by name and encodes colons; a base with a final slash makes one too many of two.
    query = "ids=101&ids=102&metrics=ym%3As%3Avisits"
    for path in ["/stat/v1/data/", "//stat/v1/data", "//stat/v1/data/"]:
        request = (
            f"GET {path}?{query} HTTP/1.1\r\nHost: {base.removeprefix('http://')}\r\nUser-Agent: Go-http-client/1.1\r\n"
            f"Authorization: OAuth {CLIENT_TOKEN}\r\nConnection: close\r\n\r\n"
        )
        status, text = exchanged(base, request)
        assert status == 200 and json.loads(text)["query"]["ids"] == COUNTERS, (path, status, text)
        sees("GET /stat/v1/data?ids=101,102&metrics=ym%3As%3Avisits")


def curl_sends_a_query_as_it_is_typed(base, strict):
    query = "ids=101&metrics=ym:s:visits&dimensions=ym:s:regionCity&filters=ym:s:regionCityName=="
    status, text = curl(f"{base}/stat/v1/data?{query}'Москва'")
    assert status == 200 and json.loads(text)["query"]["filters"].endswith("'Москва'"), (status, text)
    sees(f"GET /stat/v1/data?{query}'%D0%9C%D0%BE%D1%81%D0%BA%D0%B2%D0%B0'")


# --- clients with Metrica's host in their URL -------------------------------------------------------------------------
# They get environment variables and nothing else.
HOST = "https://api-metrika.yandex.net"


@contextlib.contextmanager
def through(proxy, certificates):
    """Sets the variables of a proxy, and the one of the client for certificate authorities."""
    given = {"HTTPS_PROXY": proxy, "HTTP_PROXY": proxy, **certificates}
    os.environ.update(given)
    try:
        yield
    finally:
        for name in given:
            os.environ.pop(name)


def tapi_reads_through_the_proxy(base, strict, proxy, ca):
    with through(proxy, {"REQUESTS_CA_BUNDLE": ca}):
        client = tapi_yandex_metrika.YandexMetrikaManagement(access_token=CLIENT_TOKEN)
        counters = client.counters().get().data["counters"]
    assert [counter["id"] for counter in counters] == COUNTERS, counters
    assert last()[0].startswith("GET /management/v1/counters")


def requests_reads_writes_and_uploads_through_the_proxy(base, strict, proxy, ca):
    with through(proxy, {"REQUESTS_CA_BUNDLE": ca}), requests.Session() as session:
        session.headers["Authorization"] = f"OAuth {CLIENT_TOKEN}"
        answer = session.get(f"{HOST}/stat/v1/data", params={"ids": COUNTERS[0], "metrics": "ym:s:visits"})
        assert answer.status_code == 200, answer.text
        assert session.post(HOST + GOALS, json={"goal": GOAL}).json()["goal"]["name"] == GOAL["name"]
        sees_goal()
        upload = f"/management/v1/counter/{COUNTERS[0]}/offline_conversions/upload"
        file = "ClientId,Target,DateTime\n" + "133591247640966458,GOAL1,1481718166\n" * 20000
        answer = session.post(f"{HOST}{upload}?client_id_type=CLIENT_ID", files={"file": ("data.csv", file)})
        assert answer.status_code == 200, answer.text
        assert file.splitlines()[-1] in last()[2]
        other = requests.get("http://example.com/")
        assert (other.status_code, other.headers["X-Gate-Error"]) == (403, "destination_denied"), other.text


def httpx_reads_through_the_proxy(base, strict, proxy, ca):
    with through(proxy, {"SSL_CERT_FILE": ca}), httpx.Client() as client:
        answer = client.get(f"{HOST}/management/v1/counters")
    assert answer.status_code == 200, answer.text
    sees("GET /management/v1/counters")


def aiohttp_reads_through_the_proxy(base, strict, proxy, ca):
    async def read():
        tls = ssl.create_default_context(cafile=ca)
        async with aiohttp.ClientSession(trust_env=True) as session:
            async with session.get(f"{HOST}/management/v1/counters", ssl=tls) as answer:
                return answer.status, await answer.text()

    with through(proxy, {}):
        status, text = asyncio.run(read())
    assert status == 200, text
    sees("GET /management/v1/counters")


def pandas_reads_through_the_proxy(base, strict, proxy, ca):
    url = f"{HOST}/stat/v1/data.csv?ids=101&metrics=ym:s:visits&dimensions=ym:s:browser"
    program = f"import pandas; print(pandas.read_csv({url!r}).shape[1])"
    # urllib keeps the proxy of its first request for the lifetime of a process.
    with through(proxy, {"SSL_CERT_FILE": ca}):
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "2", done
    assert last()[0].startswith("GET /stat/v1/data.csv?ids=101")


PROXIED = [
    tapi_reads_through_the_proxy,
    requests_reads_writes_and_uploads_through_the_proxy,
    httpx_reads_through_the_proxy,
    aiohttp_reads_through_the_proxy,
    pandas_reads_through_the_proxy,
]

CHECKS = [
    yametrikapy_lists_and_creates,
    requests_makes_parameters_of_lists,
    requests_posts_json_without_a_type,
    requests_that_posts_a_form_is_told_better,
    php_curl_posts_json_as_a_form,
    php_streams_post_json_as_a_form,
    pandas_reads_the_documented_url,
    go_joins_a_base_with_a_slash,
    curl_sends_a_query_as_it_is_typed,
]


def main(folder):
    ca = folder / "fake.pem"
    counters = ",".join(map(str, COUNTERS))
    command = ["fake", "--address", "127.0.0.1:0", "--ca-out", str(ca), "--token", f"{TOKEN}=shop:read,write:{counters}"]
    fake, [address] = started(command, folder / "fake.log", [r"listens on https://(\S+);"])
    programs = [fake]
    try:
        port = record(folder, address, ca)
        (folder / "gate.yaml").write_text(CONFIGURATION.format(folder=folder, port=port))
        (folder / "token").write_text(TOKEN)
        (folder / "token").chmod(0o600)
        subprocess.run([PROGRAM, "ca", "init", folder / "ca"], check=True, capture_output=True)
        listening = [rf'"listening".*"listener":"{name}".*"place":"(http://[^"]+)"' for name in ("app", "strict", "proxy")]
        command = ["run", "--config", str(folder / "gate.yaml"), "--log-format", "json"]
        gate, places = started(command, folder / "gate.log", [*listening, '"(started)"'])
        programs.append(gate)
        failed = 0
        proxied = (*places[:3], str(folder / "ca/ca.pem"))
        for check, given in [*((check, places[:2]) for check in CHECKS), *((check, proxied) for check in PROXIED)]:
            try:
                check(*given)
                print(f"ok      {check.__name__}")
            except Exception as error:
                failed += 1
                print(f"FAILED  {check.__name__}: {type(error).__name__}: {error}")
        if failed:
            print(*(folder / "gate.log").read_text().splitlines()[-20:], sep="\n")
        print(f"{len(CHECKS) + len(PROXIED)} clients, {failed} failed")
        return 1 if failed else 0
    finally:
        for program in programs:
            program.kill()
            program.wait()


if __name__ == "__main__":
    # Nothing of the system's may come between a client and the gate.
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        os.environ.pop(name, None), os.environ.pop(name.upper(), None)
    with tempfile.TemporaryDirectory(prefix="metrika-gate-clients-") as folder:
        sys.exit(main(pathlib.Path(folder)))
