"""The page of a report in a browser: on a phone, a tablet and a desktop, in light and dark."""

import os
import shutil
from collections.abc import Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from conftest import Harness
from fake_store import FakeStore
from playwright.sync_api import Browser, Page, sync_playwright
from servers import ui

CHROMIUM = shutil.which("chromium")
ARMS = ("adadelta", "adam", "rmsprop", "sgd")

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not CHROMIUM, reason="there is no chromium on the PATH")]


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> FakeStore:
    """A sweep of three networks x four optimizers x three seeds, and its report."""
    store = FakeStore(Harness(tmp_path_factory.mktemp("page") / "fake_store"))
    ids = [
        store.record(model, optim, seed, 0.9 + 0.02 * row + 0.01 * column + 0.003 * seed)
        for row, model in enumerate(("mlp", "cnn_simple", "cnn_with_a_rather_long_name"))
        for column, optim in enumerate(ARMS)
        for seed in range(3)
    ]
    store.parent = store.sweep("page", *ids)
    assert store.report("report.margin=0.01") is None
    return store


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])


@pytest.fixture(params=[(width, scheme) for width in (390, 768, 1440) for scheme in ("light", "dark")], ids=str)
def page(browser, store, tmp_path, request) -> Iterator[Page]:
    """The page alone, away from its figures/: it may load nothing, and say nothing in the console."""
    width, scheme = request.param
    shutil.copy(store.folder / "report.html", tmp_path / "alone.html")
    said, loaded = [], []
    # Its policy allows no script, and axe is one.
    context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme, bypass_csp=True)
    page = context.new_page()
    page.on("request", lambda sent: loaded.append(sent.url))
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto((tmp_path / "alone.html").as_uri())
    yield page
    context.close()
    assert said == []
    assert {url.partition(":")[0] for url in loaded} <= {"file", "data"}
    assert sum(url.startswith("file:") for url in loaded) == 1


def test_the_page_is_whole_and_readable(page, store, request):
    """It has the answer first, what it links to, no sideways scrolling, and no fault that axe finds."""
    width, scheme = page.viewport_size["width"], "dark" if "dark" in request.node.name else "light"
    assert page.locator(".lead").inner_text().startswith("cnn_with_a_rather_long_name/sgd (★) is best at 0.97")
    assert page.locator(".lead").bounding_box()["y"] < 200
    left, right = page.evaluate("(r => [r.left, innerWidth - r.right])(document.body.getBoundingClientRect())")
    assert left == pytest.approx(right, abs=1)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("(m => m.scrollWidth <= m.clientWidth)(document.querySelector('.matrix').parentElement)")
    (red, *_) = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert (red < 64) == (scheme == "dark")
    for optim in ARMS:  # a phone says by each number which optimizer it is of
        shown = page.locator(f".matrix td[data-label={optim}]").first
        assert (optim in shown.evaluate("cell => getComputedStyle(cell, '::before').content")) is (width < 640)

    ids = set(page.evaluate("[...document.querySelectorAll('[id]')].map(each => each.id)"))
    inside = page.evaluate("[...document.querySelectorAll('a[href^=\"#\"]')].map(a => a.getAttribute('href').slice(1))")
    assert len(inside) > 12
    assert set(inside) <= ids
    entry = page.locator(".matrix td").first
    row = page.locator(f"[id='{entry.locator('a').get_attribute('href')[1:]}']")
    linked = {link.get_attribute("href") for link in row.locator("a").all()}
    runs = [run for run in store.harness.runs() if run.data.params]
    expected = {
        f"http://127.0.0.1:5000/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"
        for run in runs
        if row.inner_text().startswith(f"{run.data.params['model']}/{run.data.params['optim']}\t")
    }
    assert linked == expected
    assert len(expected) == 3

    decided = page.locator("section#how-this-was-decided")
    assert not decided.locator("table").first.is_visible()
    decided.locator("summary").first.click()
    assert decided.locator("table").first.is_visible()
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    for image in page.locator("img").all():
        assert image.get_attribute("alt")
        assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") > 300
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    faults = Axe().run(page).response["violations"]
    assert [(fault["id"], [node["html"] for node in fault["nodes"]]) for fault in faults] == []
    if folder := os.environ.get("DIGITLAB_SCREENSHOTS"):
        page.screenshot(path=f"{folder}/page-{width}-{scheme}.png", full_page=True)


def test_mlflow_shows_a_sweeps_answer_and_leads_to_its_report_and_runs(store, browser, repository):
    with ui(repository, os.environ | {"MLFLOW_TRACKING_URI": store.harness.uri}) as server:
        page = browser.new_page()
        page.goto(f"{server.uri}/#/experiments/{store.experiment}/runs/{store.parent}")
        page.get_by_text("cnn_with_a_rather_long_name/sgd (★) is best at").wait_for()
        run = next(run for run in store.harness.runs() if run.info.run_name == "mlp-sgd-s2")
        report, cell = (
            page.get_by_role("link", name=name, exact=True).evaluate("link => link.href")
            for name in ("The whole report", "mlp-sgd-s2")
        )
        page.goto(cell)
        page.get_by_role("heading", name="mlp-sgd-s2").wait_for()
        assert run.info.run_id in page.url
        page.goto(report)
        page.frame_locator("iframe").get_by_role("heading", name="How this was decided").wait_for()
        page.close()
