"""The command of the package, which is the same code as its MCP server."""

import json
import os
import pathlib
import subprocess
import sys

from driver import COUNTER, FIELDS, GOAL, PERIOD, TOKEN, drive

COMMAND = pathlib.Path(sys.executable).parent / "mcp-server-yandex-metrika"


class Failed(Exception):
    pass


def run(*arguments):
    environment = {**os.environ, "YANDEX_METRIKA_TOKEN": TOKEN}
    done = subprocess.run([COMMAND, *arguments], capture_output=True, text=True, env=environment)
    if done.returncode:
        name, _, text = done.stderr.strip().splitlines()[-1].partition(": ")
        raise type(name, (Failed,), {})(f"{text} (exit status {done.returncode})")
    return json.loads(done.stdout)


def execute(action, **parameters):
    return run("execute", action, "--params", json.dumps({"counter_id": COUNTER, **parameters}))


def execute_file(action, file, **parameters):
    return run("execute-file", action, file, "--params", json.dumps({"counter_id": COUNTER, **parameters}))


def read():
    return [counter["id"] for counter in run("counters")["counters"]]


def write():
    conditions = json.dumps(GOAL["conditions"])
    return execute("goal_create", name=GOAL["name"], goal_type=GOAL["type"], conditions_json=conditions)["goal"]["id"]


def upload():
    return execute_file("offline_conversions_upload", str(pathlib.Path("upload.csv").resolve()))["uploading"]["id"]


def logs():
    created = execute("log_request_create", **PERIOD, fields=",".join(FIELDS), source="visits")
    request = created["log_request"]["request_id"]
    part = pathlib.Path("part.tsv").resolve()
    execute_file("log_request_download", str(part), request_id=request, part_number=0)
    execute("log_request_clean", request_id=request)
    return len(part.read_text().splitlines()) - 1


def missing():
    return execute("log_request", request_id=999999)


drive(read=read, write=write, upload=upload, logs=logs, missing=missing)
