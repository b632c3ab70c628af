"""What Prometheus reads: requests by path and status, how long they took."""

import time
from collections.abc import Callable
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest

PATHS = ("/", "/health", "/ping", "/version", "/models", "/metrics", "/invocations", "/look", "/openapi.json")


class Metrics:
    """Count and time the requests of one application."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self):
        self.registry = CollectorRegistry()
        self.requests = Counter("digitlab_requests", "Requests.", ["path", "status"], registry=self.registry)
        self.seconds = Histogram("digitlab_request_seconds", "How long they took.", ["path"], registry=self.registry)

    def text(self) -> bytes:
        return generate_latest(self.registry)

    def middleware(self, app: Callable) -> Callable:
        """Return the ASGI application `app` with its requests counted."""

        async def measured(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] != "http":
                await app(scope, receive, send)
                return
            path = scope["path"] if scope["path"] in PATHS else "other"
            began = time.perf_counter()
            status = "500"

            async def note(message: Any) -> None:
                nonlocal status
                if message["type"] == "http.response.start":
                    status = str(message["status"])
                await send(message)

            try:
                await app(scope, receive, note)
            finally:
                self.requests.labels(path, status).inc()
                self.seconds.labels(path).observe(time.perf_counter() - began)

        return measured
