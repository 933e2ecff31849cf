"""How published clients spell their requests, and what the gate makes of it: the line that reaches Metrica for each.

Each gets the URL of a caller with `callback: deny`, and of one with `strict: true`.
"""

import http.client
import json
import re
import socket
import subprocess

import pandas
import requests
import yametrikapy.core
from world import COUNTERS, TOKEN, Recorder

CLIENT_TOKEN = "y0_theclientsowntoken000000"
GOALS = f"/management/v1/counter/{COUNTERS[0]}/goals"
GOAL = {"name": "Paid", "type": "action", "conditions": [{"type": "exact", "url": "paid"}]}
JSON_GOAL = json.dumps({"goal": GOAL})


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


def a_proxy_serves_metrica_alone(base, strict):
    address = PLACES["proxy-listener"]
    other = requests.get("http://example.com/", proxies={"http": f"http://{address}"})
    assert (other.status_code, other.headers["X-Gate-Error"]) == (403, "destination_denied"), other.text


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
    a_proxy_serves_metrica_alone,
]
PLACES = {}


def check(here):
    """Runs the checks, and returns those that failed."""
    PLACES.update(here.places)
    base = f"http://{here.places['base-listener']}"
    strict = re.search(r'"listener":"strict".*?"place":"(http://[^"]+)"', "\n".join(here.log()))[1]
    failures = []
    for one in CHECKS:
        try:
            one(base, strict)
            print(f"ok      {one.__name__}")
        except Exception as error:
            failures.append(one.__name__)
            print(f"FAILED  {one.__name__}: {type(error).__name__}: {error}")
    return failures
