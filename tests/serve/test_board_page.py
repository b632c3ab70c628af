"""`digitlab board --serve`: a class enters at once, entries are made again, and nothing else is given away."""

import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from html import unescape

import pytest
import requests
from axe_playwright_python.sync_playwright import Axe
from conftest import Harness
from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from playwright.sync_api import sync_playwright
from servers import Server, tracking_server

CHROMIUM = shutil.which("chromium")
TINY = ("model=mlp", "model.hidden=[{units: 16}]", "trainer=smoke", "trainer.accelerator=cpu", "data=mnist5k")
PEOPLE = 40
EVIL = "<script>alert(1)</script>"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Iterator[Server]:
    """MLflow's server, to which a teacher has trained one run of two seeds."""
    folder = tmp_path_factory.mktemp("board")
    pool = {"MLFLOW_SQLALCHEMYSTORE_POOL_SIZE": str(PEOPLE)}  # of connections, which are 15 else
    with tracking_server(folder / "mlflow.db", folder / "artifacts", **pool) as server:
        harness = Harness(folder / "harness")
        for seed in (0, 1):
            done = harness.cli(*TINY, f"seed={seed}", MLFLOW_TRACKING_URI=server.uri, LOGNAME="teacher")
            assert done.returncode == 0, done.stderr
        yield server


@pytest.fixture(scope="module")
def board(store) -> Iterator[Server]:
    command = [sys.executable, "-m", "digitlab", "board", "--serve", "--again", "2", "--port", "{port}"]
    with Server(command, environment=os.environ | {"MLFLOW_TRACKING_URI": store.uri, "PYTHONPATH": "src"}) as server:
        yield server


def rows(board: Server) -> list[list[str]]:
    """Return the rows of the tables of the page, as text."""
    page = requests.get(f"{board.uri}/", timeout=60)
    assert page.status_code == 200
    found = re.findall(r"<tr>(.*?)</tr>", page.text, re.DOTALL)
    return [[unescape(re.sub(r"<[^>]+>|\n", "", cell)) for cell in re.findall(r"<td.*?>(.*?)</td>", row, re.DOTALL)]
            for row in found if "<td" in row]  # fmt: skip


def wait_for(board: Server, text: str, seconds: int = 120) -> list[list[str]]:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = rows(board)
        if any(text in cell for row in found for cell in row):
            return found
        time.sleep(1)
    raise AssertionError(f"{text} is not on the board: {found}")


def copy(client: MlflowClient, run_id: str, number: int) -> None:
    """Enter a run as a person would: what the teacher's recorded, with another rate and accuracy."""
    there, now = client.get_run(run_id), int(time.time() * 1000)
    tags = {k: v for k, v in there.data.tags.items() if not k.startswith("mlflow.") and k != "done"}
    person = EVIL if number == 7 else f"person{number:02}"
    run = client.create_run(there.info.experiment_id, now, tags | {"mlflow.user": person, "fingerprint": f"f{number}"})
    params = there.data.params | {"optim.lr": f"0.{number + 10}"}
    values = {"val/acc": 0.5, "val/loss": 0.5, "test/loss": 0.5, "train/acc": 0.5, "test/acc": 0.5 + number / 100}
    metrics = [Metric(key, value, now, 1) for key, value in values.items()]
    client.log_batch(run.info.run_id, metrics, [Param(*each) for each in params.items()])
    client.log_inputs(run.info.run_id, there.inputs.dataset_inputs)
    client.set_terminated(run.info.run_id, "FINISHED")
    client.set_tag(run.info.run_id, "done", "true")


def test_nothing_is_given_away_and_nobody_else_may_ask(board):
    page = requests.get(f"{board.uri}/", timeout=60)
    assert "predictions" not in page.text
    assert page.headers["content-security-policy"].startswith("default-src 'none'")
    (link,) = re.findall(r'href="(again/[0-9a-f]{32})"', page.text)
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "none"}, {"Origin": "http://other.example"}):
        assert requests.post(f"{board.uri}/{link}", headers=headers, timeout=60).status_code == 403
    run_id = link.partition("/")[2]
    others = "again/..%2f..%2fetc%2fpasswd", "again/0000", "docs", "openapi.json"
    for path in (f"artifacts/{run_id}/predictions.npz", *others):
        assert requests.get(f"{board.uri}/{path}", timeout=60).status_code == 404
    assert "make it again" in str(rows(board)), "asked by others, nothing began"


@pytest.mark.skipif(not CHROMIUM, reason="there is no chromium on the PATH")
def test_an_entry_is_made_again_with_seeds_of_the_boards_own(board, store):
    with sync_playwright() as playwright:
        page = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"]).new_page()
        page.goto(board.uri)
        page.get_by_role("link", name="make it again").click()
        assert "2 runs more" in page.content()
        page.get_by_role("button", name="Make it again").click()
        page.get_by_text("made again").last.wait_for()
    (row,) = wait_for(board, "(n = 2)")
    client = MlflowClient(store.uri)
    (own,) = [each for each in client.search_experiments() if each.name == "digitlab-board"]
    made = client.search_runs([own.experiment_id])
    assert len({run.data.params["seed"] for run in made} - {"0", "1"}) == 2
    assert all(run.data.tags["done"] == "true" for run in made)
    accuracies = sorted(run.data.metrics["test/acc"] for run in made)
    assert f"{sum(accuracies) / 2:.4f}" in row[-1]
    assert row[1] == "teacher", "what the board made is no entry"


def test_forty_people_enter_at_once(board, store):
    client = MlflowClient(store.uri)
    experiment = client.get_experiment_by_name("digitlab").experiment_id
    (first, *_) = client.search_runs([experiment], "params.seed = '0'")
    assert rows(board), "it has been read once"
    with ThreadPoolExecutor(PEOPLE + 10) as pool:
        entering = [pool.submit(copy, client, first.info.run_id, number) for number in range(PEOPLE)]
        reading = [pool.submit(requests.get, f"{board.uri}/", timeout=120) for _ in range(200)]
        assert {each.result().status_code for each in reading} == {200}
        for each in entering:
            each.result()
    found = wait_for(board, "0.8900")
    people = [f"person{n:02}" for n in range(PEOPLE) if n != 7]
    assert sorted(row[1] for row in found) == sorted([EVIL, "teacher", *people])
    assert "<script" not in requests.get(f"{board.uri}/", timeout=60).text


@pytest.mark.skipif(not CHROMIUM, reason="there is no chromium on the PATH")
@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1440, "light")])
def test_the_page_reads_on_a_phone_and_passes_axes_checks(board, width, scheme):
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme, bypass_csp=True)
        page.goto(board.uri)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.locator("td.words").nth(2).bounding_box()["width"] > 60, "words stay words"
        faults = Axe().run(page).response["violations"]
        assert [(fault["id"], [node["html"] for node in fault["nodes"]]) for fault in faults] == []


def test_a_board_that_ends_leaves_no_run_under_way(store, tmp_path):
    command = [sys.executable, "-m", "digitlab", "board", "--serve", "--again", "1", "--port", "{port}"]
    client = MlflowClient(store.uri)
    with Server(command, environment=os.environ | {"MLFLOW_TRACKING_URI": store.uri, "PYTHONPATH": "src"}) as board:
        link = re.findall(r'href="(again/[0-9a-f]{32})"', requests.get(f"{board.uri}/", timeout=60).text)[-1]
        assert requests.post(f"{board.uri}/{link}", timeout=60, allow_redirects=False).status_code == 303
        wait_for(board, "is being made again")
        time.sleep(4)
        board.process.send_signal(signal.SIGINT)
        assert board.process.wait(60) in (0, 130, -signal.SIGINT)
    everywhere = [each.experiment_id for each in client.search_experiments()]
    assert not client.search_runs(everywhere, "attributes.status = 'RUNNING'")
