"""Serve the board: a page that follows the store, and makes entries again with seeds of its own when it is asked."""

import asyncio
import html
import secrets
import subprocess
import sys
import time
from collections.abc import Callable
from functools import lru_cache, partial
from queue import Empty, Full, Queue
from threading import Event, Thread

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response

from digitlab.config.errors import UserError, user_errors
from digitlab.documents.document import to_html
from digitlab.platform import console
from digitlab.platform.text import last_line
from digitlab.report.board import AGAIN, Board, Entry, read_board
from digitlab.report.runs import read_predictions
from digitlab.serve.listen import answer, listen, warn_of_others
from digitlab.tracking.store import Store

REFRESH = 30  # seconds, after which a browser asks again
FRESH = 5  # seconds, and three times as long as it takes, for which a page is shown before the store is read again
MOST_WAITING = 200  # entries to be made again
SEEDS = 2**31
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "same-origin",
    "Refresh": str(REFRESH),
}
ASK = """<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">
<title>Make it again</title>
<style>body {{ max-width: 40rem; margin: 3rem auto; padding: 0 1rem; font: 1rem/1.5 system-ui, sans-serif }}</style>
<h1>Make it again</h1>
<p>{what}: {runs} more, with seeds that nobody knows yet. It is done here, one entry after another.</p>
<form method="post"><button>Make it again</button> <a href="../">Back</a></form></html>"""


class Remakes:
    """The entries that are to be made again: a thread makes one after another, each in processes of its own."""

    def __init__(self, store: Store, runs: int):
        self.store, self.runs = store, runs
        self.states: dict[str, str] = {}  # by id of the entry, of those that wait, are made, or failed
        self._waiting: Queue[Entry] = Queue(MOST_WAITING)
        self._is_ending, self._process = Event(), None
        self._thread = Thread(target=self._work, daemon=True)

    def ask(self, entry: Entry) -> None:
        """Have an entry made again, once; raise queue.Full where too many wait."""
        if entry.id not in self.states and not entry.again:
            self._waiting.put_nowait(entry)
            self.states[entry.id] = "waits to be made again"

    def __enter__(self) -> "Remakes":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_ending.set()
        if self._process:
            self._process.terminate()  # closes its run
        self._thread.join()

    def _work(self) -> None:
        while not self._is_ending.is_set():
            try:
                entry = self._waiting.get(timeout=0.2)
            except Empty:
                continue
            self.states[entry.id] = "is being made again"
            said = next(filter(None, (self._make(entry) for _ in range(self.runs))), "")
            if said:
                self.states[entry.id] = f"failed here: {said}"
            else:
                del self.states[entry.id]

    def _make(self, entry: Entry) -> str:
        """Make one run; return why it failed, if it did."""
        if self._is_ending.is_set():
            return "the board ended"
        asked = [
            entry.id,
            "--seed",
            str(secrets.randbelow(SEEDS)),
            "--into",
            AGAIN,
            "--experiment",
            self.store.experiment,
        ]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "digitlab", "rerun", *asked],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace", start_new_session=True,
        )  # fmt: skip
        if self._is_ending.is_set():  # since it was looked at above
            self._process.terminate()
        _, errors = self._process.communicate()
        code = self._process.returncode
        return last_line(errors, f"exit code {code}") if code else ""


class Page:
    """The page as it was when the store was last read; it is read again when somebody asks, one at a time."""

    def __init__(self, read: Callable[[], Board]):
        self.board: Board | None = None
        self._read, self._content, self._until, self._may_be_old = read, "", 0.0, True
        self._reading: asyncio.Task | None = None

    async def content(self) -> str:
        """Return the page; HTTPException 503 where the store has never answered."""
        if time.monotonic() > self._until and (self._reading is None or self._reading.done()):
            self._reading = asyncio.create_task(asyncio.to_thread(self._renew))
        if self._reading and not (self._content and self._may_be_old):
            await self._reading
        if not self._content:
            raise HTTPException(503, "the store does not answer")
        return self._content

    def expire(self) -> None:
        """Have the store read before the page is shown again."""
        self._until, self._may_be_old = 0.0, False

    def _renew(self) -> None:
        began, self._may_be_old = time.monotonic(), True
        try:
            with user_errors("board"):
                self.board = self._read()
            document = self.board.document
            lead = f"{document.lead} As of {time.strftime('%H:%M:%S')}."
            self._content = to_html(document.title, lead, document.sections)
        except UserError as error:
            console.warn(str(error))  # the page stays as it is until the store answers again
        self._until = time.monotonic() + max(FRESH, 3 * (time.monotonic() - began))


def serve_board(store: Store, host: str, port: int, again: int) -> int:
    """Serve the board until a signal ends it, which makes an entry `again` with that many seeds; return the exit code.

    Raises UserError.
    """
    listening, address = listen(host, port)
    predict = lru_cache(1000)(partial(read_predictions, store))
    with Remakes(store, again) as remakes:
        page = Page(lambda: read_board(store, predict, remakes.states if again else None))
        console.say(f"{address}  the board. Ctrl-C stops it.")
        warn_of_others(host)
        answer(make_app(page, remakes), listening)
    return 0


def make_app(page: Page, remakes: Remakes) -> FastAPI:
    """Return the application."""
    app = FastAPI(title="digitlab board", docs_url=None, redoc_url=None, openapi_url=None)

    @app.exception_handler(HTTPException)
    async def say(request: Request, error: HTTPException) -> Response:
        return PlainTextResponse(f"{error.detail}\n", error.status_code)

    @app.get("/", response_class=HTMLResponse)
    async def board() -> Response:
        """The board."""
        return HTMLResponse(await page.content(), headers=HEADERS)

    @app.get("/health")
    async def health() -> Response:
        """Say that it runs."""
        return PlainTextResponse("\n")

    @app.get("/again/{entry}", response_class=HTMLResponse)
    async def ask(entry: str) -> Response:
        """Ask whether the entry is to be made again."""
        found = _find(page, remakes, entry)
        what = html.escape(f"{found.settings['model']}/{found.settings['optim']} of {found.who}")
        runs = f"{remakes.runs} run{'s' if remakes.runs > 1 else ''}"
        return HTMLResponse(ASK.format(what=what, runs=runs), headers={**HEADERS, "Refresh": "3600"})

    @app.post("/again/{entry}")
    async def make(request: Request, entry: str) -> Response:
        """Have the entry made again; only from a page of this server."""
        site, origin = request.headers.get("sec-fetch-site", "same-origin"), request.headers.get("origin")
        if site != "same-origin" or (origin and origin.partition("://")[2] != request.headers.get("host")):
            raise HTTPException(403, "must be asked from the board itself")
        try:
            remakes.ask(_find(page, remakes, entry))
        except Full:
            raise HTTPException(503, f"{MOST_WAITING} entries wait already; try again later") from None
        page.expire()
        return RedirectResponse("../", 303)

    return app


def _find(page: Page, remakes: Remakes, entry: str) -> Entry:
    entries = page.board.entries if page.board else []
    found = next((each for each in entries if each.id == entry), None)
    if found is None or not remakes.runs:
        raise HTTPException(404, "no such entry" if remakes.runs else "no entry is made again here: --again is 0")
    return found
