"""`digitlab serve`, asked as MLflow's own server is; how it starts and ends."""

import json
import os
import re
import signal
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mlflow
import numpy as np
import pytest
import requests
import tracked
from mlflow.pyfunc.scoring_server.client import ScoringServerClient
from prometheus_client.parser import text_string_to_metric_families
from servers import Server, serving
from tracked import command

from digitlab.data.sources import mnist5k

IMAGES = mnist5k().train[0].numpy()[::500]


pytestmark = pytest.mark.slow  # a server takes ten seconds to start


@pytest.fixture(scope="module")
def server():
    with serving(tracked.digits().uri, "latest") as server:
        yield server


@pytest.fixture(scope="module")
def expected() -> np.ndarray:
    """What MLflow's own loader says of IMAGES."""
    harness = tracked.digits()
    mlflow.set_tracking_uri(harness.uri)
    (logged,) = harness.client.search_logged_models([harness.runs()[0].info.experiment_id])
    return mlflow.pyfunc.load_model(logged.model_uri).predict(IMAGES)


def ask(server: Server, content: object, kind: str = "application/json") -> requests.Response:
    body = content if isinstance(content, bytes) else json.dumps(content)
    return requests.post(f"{server.uri}/invocations", data=body, headers={"Content-Type": kind}, timeout=60)


@pytest.mark.parametrize("key", ["instances", "inputs"])
def test_programs_get_the_models_probabilities(server, expected, key):
    answer = ask(server, {key: IMAGES.tolist()})
    assert answer.headers["content-type"] == "application/json"
    np.testing.assert_allclose(answer.json()["predictions"], expected, atol=1e-5)
    whole_floats = ask(server, {key: IMAGES.astype(float).tolist()}, "application/json; charset=utf-8")
    assert whole_floats.json() == answer.json()


def test_mlflows_own_client_works_unchanged(server, expected):
    client = ScoringServerClient("127.0.0.1", server.uri.rpartition(":")[2])
    client.wait_server_ready()
    assert client.get_version() == mlflow.__version__
    np.testing.assert_allclose(client.invoke(IMAGES).get_predictions("ndarray"), expected, atol=1e-5)


def test_many_at_once_each_get_their_own_answer(server, expected):
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda n: ask(server, {"inputs": IMAGES[n % 10 :][:2].tolist()}), range(200)))
    for number, answer in enumerate(answers):
        np.testing.assert_allclose(answer.json()["predictions"], expected[number % 10 :][:2], atol=1e-5)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"inputs": (IMAGES / 255).tolist()}, "would be black; multiply them by 255"),
        ({"inputs": (IMAGES / 2).tolist()}, "whole numbers"),
        ({"inputs": (IMAGES.astype(int) - 1).tolist()}, "from 0 to 255"),
        ({"inputs": (IMAGES.astype(int) * 2).tolist()}, "from 0 to 255"),
        ({"inputs": [[[float("nan")] * 28] * 28]}, "from 0 to 255"),
        ({"inputs": IMAGES[0].tolist()}, "shape (N, 28, 28), and is (28, 28)"),
        ({"inputs": IMAGES[:, 1:].tolist()}, "shape (N, 28, 28), and is (10, 27, 28)"),
        ({"inputs": [[[True] * 28] * 28]}, "than numbers"),
        ({"inputs": [[["0"] * 28] * 28]}, "than numbers"),
        ({"inputs": [[[0] * 28] * 27 + [[0]]]}, "of unlike length"),
        ({"inputs": [[[10**30] * 28] * 28]}, "than numbers"),
        ({"inputs": [], "instances": []}, "one of instances and inputs"),
        ({"inputs": [], "x": 1}, "'x': unknown key"),
        ({"inputs": IMAGES.tolist(), "params": {"top": 3}}, "params: this model takes none"),
        ({"dataframe_split": {}}, "one of instances and inputs"),
        (b"[" * 100_000, "is no JSON"),
        (b"\xff", "is no JSON"),
        (b"", "is no JSON"),
    ],
)
def test_a_mistake_is_explained(server, content, words):
    answer = ask(server, content)
    assert answer.status_code == 400
    assert words in answer.json()["message"]


def test_other_content_is_refused(server):
    answer = ask(server, b"1,2", "text/csv")
    assert answer.status_code == 400
    assert "must be application/json" in answer.json()["message"]


def test_mlflows_own_server_answers_the_same_client_alike(server):
    harness = tracked.digits()
    (logged,) = harness.client.search_logged_models([harness.runs()[0].info.experiment_id])
    command = f"-m mlflow models serve --env-manager local --port {{port}} -m {logged.model_uri}"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # where it looks for uvicorn
    environment = os.environ | {"MLFLOW_TRACKING_URI": harness.uri, "PATH": path}
    stock = Server([sys.executable, *command.split()], environment=environment)
    with stock:
        for key in ("instances", "inputs"):
            ours, theirs = (ask(each, {key: IMAGES.tolist()}) for each in (server, stock))
            assert ours.json().keys() == theirs.json().keys()
            np.testing.assert_allclose(ours.json()["predictions"], theirs.json()["predictions"], atol=1e-5)
        for path in ("/ping", "/health", "/version"):
            ours, theirs = (requests.get(each.uri + path, timeout=60) for each in (server, stock))
            assert (ours.status_code, ours.text) == (theirs.status_code, theirs.text)
        refused = [ask(each, {"inputs": IMAGES[0].tolist()}).status_code for each in (server, stock)]
        assert refused == [400, 400]


def test_metrics_and_the_description_are_there(server):
    ask(server, {"inputs": IMAGES.tolist()})
    text = requests.get(f"{server.uri}/metrics", timeout=5).text
    samples = {(each.name, *sorted(each.labels.values())): each.value
               for family in text_string_to_metric_families(text) for each in family.samples}  # fmt: skip
    assert samples["digitlab_requests_total", "/invocations", "200"] >= 1
    assert samples["digitlab_request_seconds_count", "/invocations"] >= 1
    description = requests.get(f"{server.uri}/openapi.json", timeout=5).json()
    assert {"/", "/health", "/invocations", "/look", "/models", "/version", "/metrics"} <= description["paths"].keys()
    assert "requestBody" in description["paths"]["/invocations"]["post"]


def test_who_hangs_up_in_the_middle_is_no_error_of_the_server(server):
    with socket.create_connection(("127.0.0.1", int(server.uri.rpartition(":")[2])), timeout=60) as client:
        client.sendall(b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
        time.sleep(0.5)
    deadline, counted = time.monotonic() + 20, {}
    while "400" not in counted and time.monotonic() < deadline:
        text = requests.get(f"{server.uri}/metrics", timeout=5).text
        counted = {each.labels["status"]: each.value for family in text_string_to_metric_families(text)
                   for each in family.samples if each.name == "digitlab_requests_total"
                   and each.labels["path"] == "/invocations"}  # fmt: skip
    assert counted.get("400")
    assert "500" not in counted


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_answers_what_is_under_way_and_ends(number):
    body = json.dumps({"inputs": IMAGES.tolist()}).encode()
    head = f"POST /invocations HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with serving(tracked.digits().uri, "latest") as server:
        with socket.create_connection(("127.0.0.1", int(server.uri.rpartition(":")[2])), timeout=60) as client:
            client.sendall(head + body[:100])
            time.sleep(0.5)  # until it has read that much
            os.kill(server.process.pid, number)
            time.sleep(0.5)
            with pytest.raises(requests.ConnectionError):
                requests.get(f"{server.uri}/health", timeout=5)
            client.sendall(body[100:])
            answer = b"".join(iter(lambda: client.recv(65536), b""))
        assert b" 200 OK" in answer
        assert len(json.loads(answer.partition(b"\r\n\r\n")[2])["predictions"]) == len(IMAGES)
        assert server.process.wait(timeout=30) == 0


def test_mistakes_end_in_one_line(tmp_path):
    harness = tracked.digits()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = command(harness, "serve", "latest", "--port", str(port))
        assert said == f"error: --host=127.0.0.1 --port={port}: cannot be listened to: Address already in use"
    assert command(harness, "serve", "nobody").startswith("error: run: nobody: no such run")
    assert re.fullmatch(
        "error: --host=nope.invalid --port=0: .*",
        command(harness, "serve", "latest", "--host", "nope.invalid", "--port", "0"),
    )


def test_an_extra_that_is_missing_is_named(monkeypatch):
    monkeypatch.setattr("digitlab.config.errors.find_spec", lambda name: None if name == "prometheus_client" else name)
    said = command(tracked.digits(), "serve", "latest")
    assert (
        said == "error: serve: needs prometheus_client, of the extra serve: pip install '.[serve]' in digitlab's folder"
    )
