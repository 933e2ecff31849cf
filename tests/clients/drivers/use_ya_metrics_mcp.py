"""The MCP server of the package, over its standard streams."""

import json
import os
import pathlib
import subprocess
import sys

from driver import COUNTER, TOKEN, drive

COMMAND = pathlib.Path(sys.executable).parent / "ya-metrics-mcp"
environment = {**os.environ, "YANDEX_API_KEY": TOKEN, "YANDEX_RETRIES": "1"}
server = subprocess.Popen(
    [COMMAND], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
)


class ToolError(Exception):
    pass


def send(message):
    server.stdin.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    server.stdin.flush()


def call(method, **parameters):
    send({"id": 1, "method": method, "params": parameters})
    while True:
        answer = json.loads(server.stdout.readline())
        if answer.get("id") == 1:
            return answer["result"]


def tool(name, **arguments):
    result = call("tools/call", name=name, arguments=arguments)
    text = result["content"][0]["text"]
    if result.get("isError"):
        raise ToolError(text)
    return text


call("initialize", protocolVersion="2025-06-18", capabilities={}, clientInfo={"name": "tests", "version": "1"})
send({"method": "notifications/initialized"})
drive(
    read=lambda: tool("list_counters"),
    report=lambda: len(tool("get_visits", counter_id=str(COUNTER))),
)
server.stdin.close()
server.wait(timeout=10)
