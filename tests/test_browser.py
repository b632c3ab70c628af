"""MLflow's own UI in a real browser: whoever opens it finds there what the runs recorded, number by number."""

import http.client
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from conftest import Lab
from playwright.sync_api import Page, expect, sync_playwright

CHROMIUM = shutil.which("chromium")
QUIET = ("--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update")

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on the PATH")]
expect.set_options(timeout=20_000)


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Lab:
    """A store with two runs that differ in their optimizer."""
    lab = Lab(tmp_path_factory.mktemp("browser") / "lab")
    for optim in ("adam", "adadelta"):
        lab.train("data=mnist5k", "trainer=cpu", "model=cnn_simple", "trainer.max_epochs=3", f"optim={optim}")
    return lab


@pytest.fixture(scope="module")
def runs(lab) -> list:
    return lab.runs()


@pytest.fixture(scope="module")
def address(lab, repository) -> str:
    """The UI as `make ui` serves it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = lab.folder / "ui.log"
    with log.open("w") as file:
        server = subprocess.Popen(
            ["make", "ui", f"PORT={port}"],
            cwd=repository,
            env=os.environ | {"MLFLOW_TRACKING_URI": lab.uri},
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 60
        while not healthy(port):
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, signal.SIGKILL)  # make, mlflow and its worker: none of them may stay
        server.wait()


def healthy(port: int) -> bool:
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("GET", "/health")
        return connection.getresponse().read() == b"OK"
    except OSError:
        return False
    finally:
        connection.close()


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        args = ["--no-sandbox", "--disable-gpu", "--disable-sync", *QUIET]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=args)
        yield browser
        browser.close()


@pytest.fixture
def page(browser, address) -> Page:
    """The list of runs, reached as a user does; no page may throw, or ask for anything outside this machine."""
    errors, outside = [], []
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    context.on("weberror", lambda error: errors.append(str(error.error)))
    context.route(
        lambda url: not url.startswith(f"{address}/"),
        lambda route: (outside.append(route.request.url), route.abort()),
    )
    page = context.new_page()
    page.goto(address)
    page.get_by_role("button", name="Model training", exact=True).click()  # MLflow opens in its GenAI mode
    page.get_by_role("button", name="Close", exact=True).click()  # its assistant takes a quarter of the window
    page.get_by_role("link", name="digitlab", exact=True).click()
    yield page
    context.close()
    assert (errors, outside) == ([], [])


@pytest.fixture(scope="module")
def shots(tmp_path_factory) -> Path:
    folder = Path(os.environ.get("DIGITLAB_SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def same_lines(lab: Lab, page: Page, runs: list, metric: str) -> None:
    """The chart of `metric` is drawn, its legend names the runs, and every point of it is what they recorded."""
    page.get_by_placeholder("Search metric charts").fill(metric)
    card = page.get_by_test_id("experiment-view-compare-runs-card").filter(has_text=f"({metric})")  # as in its legend
    recorded = {run.info.run_name: lab.client.get_metric_history(run.info.run_id, metric) for run in runs}
    for name in recorded:
        expect(card.get_by_text(f"{name} ({metric})", exact=True)).to_be_visible()
    expect(card.locator("path.point")).to_have_count(sum(map(len, recorded.values())))
    drawn = card.locator(".js-plotly-plot").evaluate("plot => plot.data.map(line => [line.name, line.x, line.y])")
    assert {name: list(zip(x, y, strict=True)) for name, x, y in drawn} == {
        name: [(point.step, point.value) for point in points] for name, points in recorded.items()
    }


def row(page: Page, key: str):
    """The row of a table that begins with `key`."""
    return page.get_by_role("row").filter(has=page.get_by_role("cell", name=key, exact=True))


def test_the_list_shows_every_run_with_its_data_set_and_its_numbers(page, runs, shots):
    columns = ("test/acc", "val/acc", "val/loss")
    for run in runs:
        expect(page.get_by_role("link", name=run.info.run_name, exact=True)).to_be_visible()
        expect(page.locator(f"[row-id='{run.info.run_id}']").get_by_role("button", name="mnist5k")).to_be_visible()
    page.get_by_role("button", name="Columns").click()
    for column in ("Dataset", "Source", *columns):  # takes two away, for the others to fit in
        page.get_by_title(column, exact=True).click()
    page.keyboard.press("Escape")
    for run in runs:
        cells = page.locator(f"[row-id='{run.info.run_id}']")
        for column in columns:
            expect(page.get_by_role("columnheader", name=column, exact=True).first).to_be_visible()
            value = str(run.data.metrics[column])
            expect(cells.get_by_role("gridcell", name=value, exact=True)).to_be_visible()
    page.screenshot(path=shots / "runs.png")


def test_the_page_of_a_run_shows_all_it_recorded(page, lab, runs, shots):
    run = runs[0]
    page.get_by_role("link", name=run.info.run_name, exact=True).click()
    expect(page.get_by_role("heading", name=run.info.run_name)).to_be_visible()
    for key, value in run.data.params.items() if False else (("optim.lr", run.data.params["optim.lr"]),):
        expect(row(page, key).get_by_role("cell", name=value, exact=True)).to_be_visible()
