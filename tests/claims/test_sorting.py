"""The index of claims in a browser: columns are sorted by click and keyboard, and it is whole without scripts."""

import re
import shutil
from collections.abc import Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

from digitlab.documents.document import Section, Table, to_html

CHROMIUM = shutil.which("chromium")
NUMBERS = ["0.98", "5 of 5 failed", "−0.0021", "1,234", "+0.0021", "0.9907 ± 0.0009", "12"]
ASCENDING = ["−0.0021", "+0.0021", "0.98", "0.9907 ± 0.0009", "12", "1,234", "5 of 5 failed"]


def written() -> str:
    rows = [[f"claim {letter}", number] for letter, number in zip("cabgfed", NUMBERS, strict=True)]
    sortable = Table(["name", "number"], rows, "Sortable", is_sortable=True)
    fixed = Table(["name", "number"], rows, "Fixed")
    return to_html("Two tables", "A page.", [Section("One", [sortable, fixed])])


def test_a_page_runs_its_own_script_and_no_other():
    page = written()
    assert re.search(r"default-src 'none'; [^\"]*; script-src 'sha256-[\w+/]+='\">", page)
    assert page.count("<script>") == 1
    plain = to_html("A page", "None.", [Section("One", [Table(["name"], [["x"]])])])
    assert "script" not in plain


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not CHROMIUM:
        pytest.skip("there is no chromium on the PATH")
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])


def column(page: Page, number: int) -> list[str]:
    return [cell.inner_text().strip() for cell in page.locator(f".sortable tbody td:nth-child({number})").all()]


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1440])
def test_columns_are_sorted_by_click_and_by_keyboard(browser, tmp_path, width):
    said, file = [], tmp_path / "page.html"
    file.write_text(written())
    page = browser.new_page(viewport={"width": width, "height": 844})
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(file.as_uri())
    assert page.get_by_role("button").count() == 2  # of the sortable table
    page.get_by_role("button", name="number").click()
    assert column(page, 2) == ASCENDING
    assert page.get_by_role("columnheader", name="number").first.get_attribute("aria-sort") == "ascending"
    page.keyboard.press("Space")
    assert column(page, 2) == [*ASCENDING[-2::-1], "5 of 5 failed"]
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    assert column(page, 1) == [f"claim {letter}" for letter in "abcdefg"]
    assert [each.get_attribute("aria-sort") for each in page.locator(".sortable th").all()] == ["ascending", None]
    assert [cell.inner_text() for cell in page.locator("table:not(.sortable) td:nth-child(2)").all()] == NUMBERS
    page.evaluate("document.body.append(Object.assign(document.createElement('script'), {text: 'window.ran = 1'}))")
    assert page.evaluate("window.ran") is None
    assert [each for each in said if "Content Security Policy" not in each] == []
    page.close()


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1440])
def test_the_published_index_is_whole_without_scripts_and_without_fault(browser, repository, width):
    file = repository / "docs" / "claims" / "index.html"
    listed = (file.with_suffix(".md")).read_text()
    context = browser.new_context(viewport={"width": width, "height": 844}, java_script_enabled=False)
    page = context.new_page()
    page.goto(file.as_uri())
    assert [f"[{name}]({name}.md)" in listed for name in column(page, 1)] == [True] * listed.count(".md) |")
    assert page.get_by_role("button").count() == 0
    context.close()
    context = browser.new_context(viewport={"width": width, "height": 844}, bypass_csp=True)  # axe is a script
    page = context.new_page()
    page.goto(file.as_uri())
    page.get_by_role("button", name="ours").click()
    assert column(page, 5) == sorted(column(page, 5), key=lambda text: float(text.split()[0]))
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    faults = Axe().run(page).response["violations"]
    assert [(fault["id"], [node["html"] for node in fault["nodes"]]) for fault in faults] == []
    context.close()
