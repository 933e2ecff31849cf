"""The start-up check: every proxy really does the work that is compared."""

import http.client
import json
import socket
import ssl

from machine import Problem
from upstream import COUNTER, COUNTERS, READER, STRANGER, UPLOAD, WRITER

CLOSED = "closed"
REFUSALS = {401, 403, 404, 405}


def ask(port, method, path, source, body=None, tls=None):
    """The status and the body of an answer; a connection that is closed without one counts as an answer too."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10, source_address=(source, 0))
    try:
        if tls:
            plain = socket.create_connection(("127.0.0.1", port), 10, (source, 0))
            connection.sock = tls.wrap_socket(plain, server_hostname="localhost")
        # Whoever forwards this token is refused by the upstream, and so fails the check.
        fields = {"Authorization": "OAuth of-the-caller", "Accept": "*/*", **({"Host": "localhost"} if tls else {})}
        connection.request(method, path, body, fields)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
        return CLOSED, b""
    except (OSError, http.client.HTTPException) as error:
        return str(error), b""
    finally:
        connection.close()


def check_work(peer, bodies):
    """What is allowed is done, with the caller's own token replaced; what is not is refused."""
    for path, whole in bodies.items():
        for source in (WRITER, READER):
            status, body = ask(peer.port, "GET", path, source)
            expect(peer, f"GET {path} of a known caller", status == 200 and body == whole, status)
    for name, source in (("writer", WRITER), ("reader", READER)):
        status, body = ask(peer.port, "GET", COUNTER, source)
        counter = json.loads(body)["counter"] if status == 200 else {}
        expect(peer, f"the token of the {name}", counter.get("owner_login") == name, f"{status} {body[:100]}")
        expect(peer, "the protocol towards the upstream", counter["site"] == peer.protocol, counter["site"])
        # The caller's connections were all new, and those to the upstream are not.
        expect(peer, "the use of a kept connection", counter["goals"] > 1, f"{counter['goals']} requests on it")
    upload = b"x" * 1_000_000
    status, body = ask(peer.port, "POST", UPLOAD, WRITER, upload)
    whole = (status, body) == (200, b'{"uploading": {"source_quantity": %d}}' % len(upload))
    expect(peer, "an upload of the writer", whole, f"{status} {body[:100]}")
    for what, method, path, source in (
        ("an unknown caller", "GET", COUNTERS, STRANGER),
        ("a method that nobody may use", "PATCH", COUNTER, WRITER),
        ("a path outside the API", "GET", "/other", WRITER),
        ("a write of the reader", "POST", UPLOAD, READER),
    ):
        status, _ = ask(peer.port, method, path, source)
        closed = status == CLOSED and source == STRANGER
        expect(peer, f"the refusal of {what}", closed or status in REFUSALS, status)


def check_tls(peer, bodies, folder):
    """The same caller over TLS gets the same answer, and a stranger none."""
    context = ssl.create_default_context(cafile=f"{folder}/authority.pem")
    status, body = ask(peer.tls_port, "GET", COUNTERS, READER, tls=context)
    expect(peer, "a GET over TLS", status == 200 and body == bodies[COUNTERS], status)
    status, _ = ask(peer.tls_port, "POST", UPLOAD, READER, tls=context)
    expect(peer, "the refusal of a write of the reader over TLS", status in REFUSALS, status)


def check_certificate(peer, what):
    """Started against an upstream that shows a wrong certificate, it forwards nothing."""
    status, _ = ask(peer.port, "GET", COUNTERS, WRITER)
    expect(peer, f"the refusal of an upstream whose certificate {what}", status in (502, 503), status)


def verify(peer, children, upstream, core):
    """The whole check; the proxy runs afterwards."""
    for port, what in (("unsigned_port", "is signed by a stranger"), ("misnamed_port", "names another host")):
        peer.start(children, upstream, core, port)
        check_certificate(peer, what)
        peer.stop(children)
    peer.start(children, upstream, core)
    check_work(peer, upstream.bodies)
    check_tls(peer, upstream.bodies, upstream.folder)


def expect(peer, what, right, got):
    if not right:
        raise Problem(f"{peer.title} does not do the work: {what} gave {got} ({peer.child.last_words()})")
