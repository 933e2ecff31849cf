"""The command of the connector."""

import json
import os
import pathlib
import subprocess
import sys

from driver import COUNTER, PERIOD, TOKEN, drive

COMMAND = pathlib.Path(sys.executable).parent / "source-yandex-metrica"


class Failed(Exception):
    pass


def run(*arguments):
    period = {"start_date": PERIOD["date1"], "end_date": PERIOD["date2"]}
    pathlib.Path("config.json").write_text(json.dumps({"auth_token": TOKEN, "counter_id": str(COUNTER), **period}))
    done = subprocess.run([COMMAND, *arguments, "--config", "config.json"], capture_output=True, text=True)
    messages = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode:
        raise type(f"exit status {done.returncode}", (Failed,), {})((done.stdout + done.stderr)[-300:])
    return messages


def check():
    [status] = [message["connectionStatus"] for message in run("check") if message["type"] == "CONNECTION_STATUS"]
    if status["status"] != "SUCCEEDED":
        raise type(f"check {status['status']}", (Failed,), {})(status["message"])
    return status["status"]


def logs():
    stream = {"name": "sessions", "json_schema": {}, "supported_sync_modes": ["full_refresh", "incremental"]}
    selected = {"stream": stream, "sync_mode": "full_refresh", "destination_sync_mode": "overwrite"}
    pathlib.Path("catalog.json").write_text(json.dumps({"streams": [selected]}))
    return sum(message["type"] == "RECORD" for message in run("read", "--catalog", "catalog.json"))


drive(read=check, logs=logs)
