"""MLflow's UI in a real browser, as `make ui` serves it: it shows everything that the runs recorded."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Harness
from playwright.sync_api import Browser, Page, expect, sync_playwright
from servers import ui

CHROMIUM = shutil.which("chromium")
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not CHROMIUM, reason="there is no chromium on the PATH")]
expect.set_options(timeout=20_000)


@pytest.fixture(scope="module")
def harness(tmp_path_factory) -> Harness:
    """Two runs that differ in the optimizer."""
    harness = Harness(tmp_path_factory.mktemp("browser") / "harness")
    for optim in ("adam", "adadelta"):
        harness.train("data=mnist5k", "trainer=cpu", "model=cnn_simple", "trainer.max_epochs=3", f"optim={optim}")
    return harness


@pytest.fixture(scope="module")
def address(harness, repository) -> Iterator[str]:
    with ui(repository, os.environ | {"MLFLOW_TRACKING_URI": harness.uri}) as server:
        yield server.uri


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS.split())


@pytest.fixture
def page(browser, address) -> Iterator[Page]:
    """The list of runs, as a new user reaches it; no script may fail or request anything from another machine."""
    errors, outside = [], []
    context = browser.new_context(base_url=address, viewport={"width": 1400, "height": 900})
    context.on("weberror", lambda error: errors.append(str(error.error)))
    context.route(
        lambda url: not url.startswith(f"{address}/"),
        lambda route: (outside.append(route.request.url), route.abort()),
    )
    page = context.new_page()
    page.goto("/")
    page.get_by_role("button", name="Model training", exact=True).click()  # MLflow opens in its GenAI mode
    page.get_by_role("button", name="Close", exact=True).click()  # its assistant takes a quarter of the window
    page.get_by_role("link", name="digitlab", exact=True).click()
    yield page
    context.close()
    assert (errors, outside) == ([], [])


@pytest.fixture(scope="module")
def shots(tmp_path_factory) -> Path:
    return Path(os.environ.get("DIGITLAB_SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))


def open_run(page: Page, run) -> None:
    page.get_by_role("link", name=run.info.run_name, exact=True).click()
    expect(page.get_by_role("heading", name=run.info.run_name)).to_be_visible()


def check_rows(page: Page, values: dict, *keys: str) -> None:
    """Find each key in a table, and its value beside it."""
    for key in keys:
        row = page.get_by_role("row").filter(has=page.get_by_role("cell", name=key, exact=True))
        expect(row.get_by_role("cell", name=str(values[key]), exact=True)).to_be_visible()


def check_charts(page: Page, harness: Harness, runs: list, *metrics: str) -> None:
    """Check each metric's chart: a legend that names the runs, and every point that they recorded."""
    for metric in metrics:
        page.get_by_placeholder("Search metric charts").fill(metric)
        card = page.get_by_test_id("experiment-view-compare-runs-card").filter(has_text=f"({metric})")
        recorded = {}
        for run in runs:
            expect(card.get_by_text(f"{run.info.run_name} ({metric})", exact=True)).to_be_visible()
            points = harness.client.get_metric_history(run.info.run_id, metric)
            recorded[run.info.run_name] = [[point.step for point in points], [point.value for point in points]]
        expect(card.locator("path.point")).to_have_count(sum(len(steps) for steps, _ in recorded.values()))
        lines = card.locator(".js-plotly-plot").evaluate("plot => plot.data.map(line => [line.name, line.x, line.y])")
        assert {name: [steps, values] for name, steps, values in lines} == recorded


def test_the_list_shows_every_run_with_its_data_and_results(page, harness, shots):
    metrics = ("test/acc", "val/acc", "val/loss")
    for run in harness.runs():
        expect(page.get_by_role("link", name=run.info.run_name, exact=True)).to_be_visible()
        expect(page.locator(f"[row-id='{run.info.run_id}']").get_by_role("button", name="mnist5k (")).to_be_visible()
    page.get_by_role("button", name="Columns").click()
    for column in ("Dataset", "Source", *metrics):  # the first two go, to make room
        page.get_by_test_id("column-selector-tree").get_by_text(column, exact=True).click()
    page.keyboard.press("Escape")
    for metric in metrics:
        expect(page.get_by_role("columnheader", name=metric, exact=True).first).to_be_visible()
        for run in harness.runs():
            cell = page.locator(f"[row-id='{run.info.run_id}'] [col-id*='{metric}']")
            expect(cell).to_have_text(str(run.data.metrics[metric]))
    page.screenshot(path=shots / "runs.png")


def test_a_run_shows_data_parameters_results_and_curves(page, harness, shots):
    run = harness.runs()[0]
    open_run(page, run)
    expect(page.get_by_role("button", name="mnist5k (")).to_be_visible()
    check_rows(page, run.data.params, "model", "optim", "optim.lr", "data.batch_size", "trainer.max_epochs")
    check_rows(page, run.data.metrics, "test/acc", "test/loss", "val/acc", "val/loss", "train/acc", "train/loss")
    page.get_by_role("tab", name="Model metrics").click()
    check_charts(page, harness, [run], "train/loss", "val/acc", "val/loss")
    page.get_by_placeholder("Search metric charts").fill("(train|val)/(acc|loss)$")
    expect(page.locator(".js-plotly-plot")).to_have_count(4)
    page.screenshot(path=shots / "run.png")


def test_the_artifacts_of_a_run_are_listed_and_shown(page, harness, shots):
    open_run(page, harness.runs()[0])
    page.get_by_role("tab", name="Artifacts").click()
    for name in ("checkpoints", "figures", "config.yaml", "predictions.npz"):
        expect(page.get_by_role("listitem").filter(has_text=name)).to_be_visible()
    page.get_by_text("config.yaml", exact=True).click()
    expect(page.get_by_text("digitlab.models.networks.ConvNet")).to_be_visible()
    page.get_by_text("figures", exact=True).click()
    expect(page.get_by_text("samples.png", exact=True)).to_be_visible()
    page.get_by_text("confusion.png", exact=True).click()
    image = page.get_by_role("img", name="figures/confusion.png")
    expect(image).to_be_visible()
    assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") > 500
    page.screenshot(path=shots / "artifacts.png")


def test_the_model_of_a_run_has_the_results_of_its_weights(page, harness):
    run = harness.runs()[0]
    open_run(page, run)
    page.get_by_role("gridcell").get_by_role(
        "link", name=f"cnn_simple-{run.data.params['optim']}-s0", exact=True
    ).click()
    expect(page.get_by_role("heading", name="Metrics (")).to_be_visible()
    check_rows(page, run.data.params, "optim", "optim.lr")
    check_rows(page, run.data.metrics, "test/acc", "test/loss")


def test_two_runs_are_compared_in_numbers_and_curves(page, harness, shots):
    page.get_by_role("checkbox", name="Select all runs").check()
    page.get_by_role("button", name="Compare", exact=True).click()
    expect(page.get_by_role("heading", name="Comparing 2 Runs from 1 Experiment")).to_be_visible()
    for run in harness.runs():
        expect(page.get_by_role("cell", name=run.info.run_name, exact=True)).to_be_visible()
        expect(page.locator(".js-plotly-plot").get_by_text(run.data.params["optim"], exact=True)).to_be_visible()
    page.get_by_role("link", name="Runs", exact=True).click()
    page.locator("label", has=page.locator("[value=CHART]")).click()
    check_charts(page, harness, harness.runs(), "train/loss", "val/acc", "val/loss")
    page.get_by_placeholder("Search metric charts").fill("val/")
    expect(page.locator(".js-plotly-plot")).to_have_count(2)
    page.screenshot(path=shots / "compare.png")
