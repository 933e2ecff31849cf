"""Takes uploads and says how many bytes came: `sink.py PORT`. It stands behind the upstream."""

import json
import socketserver
import sys


class Upload(socketserver.StreamRequestHandler):
    """One request on one connection."""

    def handle(self):
        length = None
        self.rfile.readline()
        for line in iter(self.rfile.readline, b"\r\n"):
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        if length is None:
            self.answer("411 Length Required", 0)
            return
        received, piece = 0, bytearray(1 << 18)
        view = memoryview(piece)
        while received < length:
            count = self.rfile.readinto1(view[: min(len(piece), length - received)])
            if not count:
                return
            received += count
        self.answer("200 OK", received)

    def answer(self, status, received):
        body = json.dumps({"uploading": {"source_quantity": received}}).encode()
        head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        self.wfile.write(f"{head}Connection: close\r\n\r\n".encode() + body)


class Sink(socketserver.ThreadingTCPServer):
    """Uploads side by side."""

    allow_reuse_address = True
    daemon_threads = True


if __name__ == "__main__":
    Sink(("127.0.0.1", int(sys.argv[1])), Upload).serve_forever()
