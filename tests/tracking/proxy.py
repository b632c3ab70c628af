"""A proxy before an MLflow server that fails as networks and servers do, and counts what it is asked."""

import http.client
import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

WAYS = ("gone", "refused", "lost", "silent", "slow", "cut", "wrong", "failing", "endless")
SLOW = 2  # seconds that a slow answer takes


class Proxy:
    """Passes requests on to the server at `uri`, while `way` is "" or the request is not among `where`.

    - "gone": the connection is closed at once; "refused": the server says 503; "failing": 500, and does nothing
    - "lost": the server does what it is asked, and its answer is lost; "cut": half of it arrives
    - "wrong": another program answers; "slow", "silent", "endless": the answer comes late, not, or without an end
    """

    def __init__(self, uri: str):
        self.server, self.way, self.where = urlsplit(uri), "", ""
        self.asked: list[tuple[str, str]] = []  # method and path of each request
        self.faults = 0
        self.when: Callable[[str, str], None] = lambda method, path: None
        handler = type("Handler", (_Handler,), {"proxy": self})
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.http.daemon_threads = True
        self.uri = f"http://127.0.0.1:{self.http.server_port}"
        self.over = threading.Event()

    def __enter__(self) -> "Proxy":
        threading.Thread(target=self.http.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self.over.set()
        self.http.shutdown()
        self.http.server_close()

    def reads(self) -> int:
        return sum(method == "GET" or "search" in path for method, path in self.asked)


class _Handler(BaseHTTPRequestHandler):
    proxy: Proxy
    protocol_version = "HTTP/1.1"

    def log_message(self, *_) -> None:
        """Say nothing."""

    def handle_one_request(self) -> None:
        with suppress(ConnectionError, TimeoutError):
            super().handle_one_request()

    def _answer(self) -> None:
        proxy, path = self.proxy, self.path.partition("?")[0]
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        proxy.asked.append((self.command, path))
        proxy.when(self.command, path)
        way = proxy.way if re.search(proxy.where, f"{self.command} {path}") else ""
        proxy.faults += bool(way)
        self.close_connection = bool(way)
        if way == "gone":
            return
        if way == "silent":
            proxy.over.wait(600)
        elif way in ("refused", "failing"):
            self._send(503 if way == "refused" else 500, b"no")
        elif way == "wrong":
            self._send(200, b"<html>It works!</html>")
        elif way == "endless":
            self.send_response(200)
            self.end_headers()
            while not proxy.over.wait(0.2):
                self.wfile.write(b" ")
        else:
            status, headers, content = self._ask(body)
            if way == "lost":
                return
            if way == "slow":
                time.sleep(SLOW)
            self._send(status, content, headers, half=way == "cut")

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = _answer  # noqa: N815

    def _ask(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        server = http.client.HTTPConnection(self.proxy.server.hostname, self.proxy.server.port, timeout=60)
        kept = {name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection")}
        try:
            server.request(self.command, self.path, body, {**kept, "Host": self.proxy.server.netloc})
            answer = server.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            server.close()

    def _send(self, status: int, content: bytes, headers: list[tuple[str, str]] = [], half: bool = False) -> None:  # noqa: B006
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in ("content-length", "transfer-encoding", "connection", "date", "server"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content) + half))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if half else content)
