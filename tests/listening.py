"""HTTP servers for tests, on real ports: a base class, and a proxy that injects faults."""

import json
import socket
import struct
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


def completion(text: Any, reason: str = "stop") -> bytes:
    """The body of a chat completion with this text and finish_reason, in OpenAI's format."""
    message = {"role": "assistant", "content": text}
    return json.dumps({"choices": [{"message": message, "finish_reason": reason}]}).encode()


class FakeServer:
    """A server on a free port that records every request; a subclass defines `respond`."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.keys: set[str | None] = set()  # API keys, from the header Authorization
        self.headers: list[dict[str, str]] = []
        self.open = self.max_open = 0  # number of requests without a response, now and at most
        self.lock = threading.Lock()
        fake_server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                fake_server.list_models(self)

            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers["Content-Length"]))
                with fake_server.lock:
                    number = len(fake_server.bodies)
                    fake_server.bodies.append(json.loads(content))
                    fake_server.keys.add(self.headers["Authorization"])
                    fake_server.headers.append(dict(self.headers))
                    fake_server.open += 1
                    fake_server.max_open = max(fake_server.max_open, fake_server.open)
                try:
                    fake_server.respond(self, number, content)
                finally:
                    with fake_server.lock:
                        fake_server.open -= 1

            def log_message(self, *_: Any) -> None:
                """Log no requests."""

        class QuietServer(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: Any) -> None:
                """Print no traceback if a client has gone."""

        self.server = QuietServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def list_models(self, handler: BaseHTTPRequestHandler) -> None:
        """Respond to GET /models: by default the server has no such list."""
        send(handler, 404, b"{}")

    def respond(self, handler: BaseHTTPRequestHandler, number: int, content: bytes) -> None:
        """Respond to POST request `number`, counted from 0."""
        raise NotImplementedError

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def send(handler: BaseHTTPRequestHandler, status: int, content: bytes, **headers: str) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content)


class FaultyProxy(FakeServer):
    """Forwards requests to another server, except those for which `fault(number)` names a fault."""

    FAULTS = ("429", "500", "503", "dropped", "cut", "slow", "page", "empty")
    """HTTP statuses; "dropped" resets the connection, "slow" does so after `slow_seconds`, "cut"
    after a part of the body; "page" sends a web page, "empty" a completion without text."""

    def __init__(self, upstream: str) -> None:
        super().__init__()
        self.upstream = upstream
        self.fault: Callable[[int], str | None] = lambda number: None
        self.injected: list[str] = []
        self.slow_seconds = 1.5
        self.max_tokens: int | None = None  # replaces max_tokens in forwarded requests

    def respond(self, handler: BaseHTTPRequestHandler, number: int, content: bytes) -> None:
        fault = self.fault(number)
        if fault is None:
            return self.forward(handler, content)
        with self.lock:
            self.injected.append(fault)
        if fault == "429":
            send(handler, 429, b'{"error": {"message": "slow down"}}', Retry_After="0")
        elif fault in ("500", "503"):
            send(handler, int(fault), b"<html>oops</html>")
        elif fault == "page":
            send(handler, 200, b"<html>please sign in</html>")
        elif fault == "empty":
            send(handler, 200, completion(""))
        elif fault == "slow":
            time.sleep(self.slow_seconds)
            self.drop(handler)
        elif fault == "cut":
            handler.send_response(200)
            handler.send_header("Content-Length", "1000")
            handler.end_headers()
            handler.wfile.write(b'{"choices": [{"mess')
            handler.wfile.flush()
            self.drop(handler)
        else:
            self.drop(handler)

    def forward(self, handler: BaseHTTPRequestHandler, content: bytes) -> None:
        if self.max_tokens is not None:
            content = json.dumps(json.loads(content) | {"max_tokens": self.max_tokens}).encode()
        headers = {k: v for k, v in handler.headers.items() if k.lower() != "content-length"}
        request = urllib.request.Request(
            f"{self.upstream}/chat/completions", content, headers, method="POST"
        )
        try:
            with urllib.request.urlopen(request, timeout=120) as response:
                send(handler, response.status, response.read())
        except urllib.error.HTTPError as error:
            send(handler, error.code, error.read())

    @staticmethod
    def drop(handler: BaseHTTPRequestHandler) -> None:
        """Reset the connection, so that the client gets an error."""
        handler.close_connection = True
        linger = struct.pack("ii", 1, 0)  # wait 0 seconds for unsent data, then reset
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        handler.connection.close()
