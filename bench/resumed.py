"""A connection for each request, in TLS sessions that are resumed; prints its result as wrk's script does.

A program of its own, because OpenSSL reads its settings once for a process.
"""

import json
import socket
import ssl
import sys
import time

from load import COUNTERS, head, read_head


def main(port, seconds, authority):
    context = ssl.create_default_context(cafile=authority)
    request = head("GET", COUNTERS, ["Connection: close"])
    start, times, resumed, session = time.monotonic(), [], 0, None
    while time.monotonic() - start < seconds:
        began = time.monotonic()
        plain = socket.create_connection(("127.0.0.1", port), 10)
        with context.wrap_socket(plain, server_hostname="localhost", session=session) as connection:
            connection.sendall(request)
            answer = connection.makefile("rb")
            answer.read(read_head(answer))
            resumed += connection.session_reused
            session = connection.session
        times.append(time.monotonic() - began)
    taken = time.monotonic() - start
    times.sort()
    quantile = {f"p{share}": times[len(times) * share // 100] * 1e6 for share in (50, 99)}
    refused = len(times) - 1 - resumed
    print("RESULT", json.dumps({"requests": len(times), "refused": 0, "failed": refused, "seconds": taken, **quantile}))


main(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3])
