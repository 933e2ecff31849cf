"""What a Python client is told to do, and how its driver reports it.

CLIENT_BASE is where the client connects to: a URL, unix:PATH, or h2c:HOST:PORT. CLIENT_TOKEN is the credential that it holds.
CLIENT_ACTIONS are the actions, in order. Each prints a line: the action, `ok` and what the client was given, or the action,
`error`, the name of the exception and its text. goal.json and upload.csv are in the working folder.
"""

import json
import os

BASE = os.environ["CLIENT_BASE"]
TOKEN = os.environ["CLIENT_TOKEN"]
COUNTER = 101
GOAL = json.load(open("goal.json"))
PATH = f"/management/v1/counter/{COUNTER}"
UPLOAD = f"{PATH}/offline_conversions/upload"
# With this address a client is left as it is published.
HARD_CODED = "https://api-metrika.yandex.net"
PERIOD = {"date1": "2026-11-01", "date2": "2026-11-02"}
FIELDS = ["ym:s:visitID", "ym:s:date"]


def drive(**actions):
    """Runs the actions, each a function that returns what the client was given."""
    for name in os.environ["CLIENT_ACTIONS"].split():
        try:
            print(name, "ok", actions[name](), sep="\t", flush=True)
        except Exception as error:
            kind, text = type(error), " ".join(str(error).split())
            # An exception that is called `error` says nothing without its module.
            shown = f"{kind.__module__}.{kind.__name__}" if kind.__name__ == "error" else kind.__name__
            print(name, "error", shown, text[:300], sep="\t", flush=True)


def drive_http(ask):
    """Runs the actions with a client that sends any request.

    `ask(method, path, query, document, file)` sends a JSON document, or a file as multipart/form-data, and returns the text of
    the response; it raises what the client raises.
    """

    def read():
        return [counter["id"] for counter in json.loads(ask("GET", "/management/v1/counters"))["counters"]]

    def write():
        return json.loads(ask("POST", f"{PATH}/goals", document={"goal": GOAL}))["goal"]["id"]

    def upload():
        answer = ask("POST", UPLOAD, {"client_id_type": "CLIENT_ID"}, file="upload.csv")
        return json.loads(answer)["uploading"]["id"]

    def logs():
        query = {**PERIOD, "fields": ",".join(FIELDS), "source": "visits"}
        request = json.loads(ask("POST", f"{PATH}/logrequests", query))["log_request"]["request_id"]
        state = json.loads(ask("GET", f"{PATH}/logrequest/{request}"))["log_request"]
        assert state["status"] == "processed", state
        table = ask("GET", f"{PATH}/logrequest/{request}/part/0/download")
        ask("POST", f"{PATH}/logrequest/{request}/clean")
        return len(table.splitlines()) - 1

    drive(read=read, write=write, upload=upload, logs=logs, missing=lambda: ask("GET", "/management/v1/nothing"))
