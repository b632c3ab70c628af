"""The page to draw on, in a browser: by mouse, by keyboard, with a photograph, on a phone and a desktop."""

import os
import shutil
from collections.abc import Iterator

import numpy as np
import pytest
import tracked
from axe_playwright_python.sync_playwright import Axe
from conftest import Harness
from drawn import SEVEN, draw, photograph
from playwright.sync_api import Browser, Page, expect, sync_playwright
from servers import Server, serving

from digitlab.data.sources import mnist5k

CHROMIUM = shutil.which("chromium")

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not CHROMIUM, reason="there is no chromium on the PATH")]


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    """Two models: one that can read, and one of two epochs and 16 units."""
    harness = Harness(tmp_path_factory.mktemp("drawing") / "harness")
    harness.train(*tracked.TINY)
    harness.train("model=cnn_pool", "data=mnist5k", "trainer.max_epochs=3")
    with serving(harness.uri, "best:model=cnn_pool", "best:model=mlp") as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])


@pytest.fixture(params=[(1280, "light"), (390, "dark")], ids=str)
def page(browser, server, request) -> Iterator[Page]:
    """The page: it loads nothing from elsewhere, and says nothing in the console."""
    width, scheme = request.param
    said, loaded = [], []
    context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme, has_touch=width < 400)
    page = context.new_page()
    page.on("request", lambda sent: loaded.append(sent.url))
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(server.uri)
    page.get_by_text("answer while you draw").wait_for()
    yield page
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    context.close()
    assert [each for each in said if "status of 400" not in each] == []  # which the browser says by itself
    assert {url.partition(":")[0] for url in loaded if not url.startswith(server.uri)} <= {"data", "blob"}


def reads(page: Page, answer: str) -> None:
    """Expect that the first model, which can read, gives this answer."""
    expect(page.locator("#models section").first.locator("li.first b")).to_have_text([*answer])


def test_a_digit_is_drawn_and_read(page, browser, server):
    draw(page, SEVEN)
    reads(page, "7")
    assert page.locator("#models section").count() == 2
    percents = page.locator("#models section").first.locator("li i").all_inner_texts()
    assert sum(float(each.split()[0]) for each in percents) == pytest.approx(100, abs=1)
    said = page.locator("#says").inner_text()
    assert said.startswith(("It reads 7, ", "They disagree: best:model=cnn_pool reads 7, best:model=mlp reads "))

    page.get_by_label("what mattered").check()
    seen = page.get_by_label("What best:model=cnn_pool sees; orange where the answer 7 hangs on it")
    expect(seen).to_have_count(1)
    pixels = seen.evaluate("each => [...each.getContext('2d').getImageData(0, 0, 28, 28).data]")
    red, green, blue = (np.array(pixels).reshape(28, 28, 4)[..., each].astype(int) for each in range(3))
    assert (red - blue).max() > 60  # orange over the gray of the digit
    assert (np.minimum(red, green) > 200).any()

    page.get_by_role("button", name="Clear").click()
    expect(page.locator("#models section")).to_have_count(0)


def test_a_real_digit_is_drawn_stroke_by_stroke_and_read(page):
    """One of MNIST's images, each row of its ink a stroke."""
    image = mnist5k().train[0][1000].numpy()  # a 2
    for row in range(28):
        (columns,) = np.nonzero(image[row] > 140)
        for run in np.split(columns, np.flatnonzero(np.diff(columns) > 1) + 1) if len(columns) else ():
            draw(page, [((run[0] + 4) / 36, (row + 4) / 36), ((run[-1] + 4) / 36, (row + 4) / 36)])
    reads(page, "2")


def test_the_keyboard_is_enough(page):
    page.locator("#paper").focus()
    for key in (*["ArrowUp"] * 10, " ", *["ArrowDown"] * 20, " "):
        page.keyboard.press(key)
    reads(page, "1")
    page.keyboard.press("Delete")
    expect(page.locator("#models section")).to_have_count(0)
    reached = set()
    for _ in range(8):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id"))
    assert {"clear", "file", "many", "explain"} <= reached


def test_a_photograph_of_several_digits_is_read(page, tmp_path):
    photograph(501, 1000, 3500).save(tmp_path / "photograph.jpg")
    page.set_input_files("#file", tmp_path / "photograph.jpg")
    expect(page.locator("#models section").first.get_by_text("2 more found")).to_be_visible()
    page.get_by_label("several digits").check()
    reads(page, "127")
    (tmp_path / "torn.jpg").write_bytes((tmp_path / "photograph.jpg").read_bytes()[:300])
    page.set_input_files("#file", tmp_path / "torn.jpg")
    expect(page.locator("#says")).to_have_text("this is not a readable image")
    draw(page, SEVEN)  # on a new sheet
    reads(page, "7")
    assert page.locator("#file").input_value() == ""


def test_a_page_that_did_not_learn_of_the_models_asks_again(browser, server):
    page = browser.new_page()
    page.route("**/models", lambda route: route.abort())
    page.goto(server.uri)
    page.get_by_text("The server does not answer.").wait_for()
    page.unroute("**/models")
    draw(page, SEVEN)
    reads(page, "7")
    page.close()


def test_it_is_accessible(page, browser, server):
    viewport = page.viewport_size
    context = browser.new_context(viewport=viewport, bypass_csp=True)  # its policy allows no script, and axe is one
    page = context.new_page()
    page.goto(server.uri)
    page.get_by_text("answer while you draw").wait_for()
    draw(page, SEVEN)
    reads(page, "7")
    faults = Axe().run(page).response["violations"]
    assert [(fault["id"], [node["html"] for node in fault["nodes"]]) for fault in faults] == []
    if folder := os.environ.get("DIGITLAB_SCREENSHOTS"):
        page.screenshot(path=f"{folder}/draw-{viewport['width']}.png", full_page=True)
    context.close()
