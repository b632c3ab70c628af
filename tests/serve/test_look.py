"""`digitlab serve`, shown pictures of every kind, and sent what nobody should send."""

import asyncio
import base64
import io
import json
import os
import socket
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import requests
import tracked
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from photographs import alike
from PIL import Image
from servers import Server, serving
from tracked import command

from digitlab.data.sources import mnist5k
from digitlab.serve.app import Served, make_app
from digitlab.serve.batching import Batching

BODIES = int(os.environ.get("HOSTILE_BODIES", "300"))
SEVEN = mnist5k().train[0][3500].numpy()


pytestmark = pytest.mark.slow  # a server takes ten seconds to start


@pytest.fixture(scope="module")
def server():
    with serving(tracked.digits().uri, "latest") as server:
        yield server


def encoded(image: Image.Image, form: str, **settings: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **settings)
    return file.getvalue()


def pictures() -> dict[str, bytes]:
    """The same digit, a 7, in files of every kind."""
    gray = Image.fromarray(255 - np.kron(SEVEN, np.ones((6, 6), np.uint8)))
    clear = Image.merge("LA", (Image.new("L", gray.size), Image.fromarray(255 - np.asarray(gray))))
    turned = Image.Exif()
    turned[0x0112] = 6  # to be turned by 90 degrees when it is shown
    deep = Image.fromarray(np.asarray(gray).astype(np.uint16) * 257)
    return {
        "png": encoded(gray, "png"),
        "inverted": encoded(Image.fromarray(255 - np.asarray(gray)), "png"),
        "palette": encoded(gray.convert("P"), "gif"),
        "cmyk": encoded(gray.convert("CMYK"), "jpeg"),
        "16 bits": encoded(deep, "png"),
        "float": encoded(Image.fromarray(np.asarray(gray) / np.float32(255)), "tiff"),
        "transparent": encoded(clear, "png"),
        "animated": encoded(gray, "gif", save_all=True, append_images=[Image.new("L", gray.size, 255)]),
        "turned": encoded(gray.transpose(Image.Transpose.ROTATE_90), "jpeg", exif=turned),
        "webp": encoded(gray.convert("RGB"), "webp"),
    }


def look(server: Server, body: bytes, **asked: object) -> requests.Response:
    return requests.post(f"{server.uri}/look", data=body, params=asked, timeout=60)


def opened(address: str) -> np.ndarray:
    """The pixels of a data: address."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))))


@pytest.mark.parametrize("kind", pictures())
def test_a_picture_of_any_kind_is_read_as_predict_reads_it(server, kind, tmp_path, capsys):
    file = tmp_path / "picture"
    file.write_bytes(pictures()[kind])
    capsys.readouterr()
    assert command(tracked.digits(), "predict", str(file), "--run", "latest", "--format", "jsonl") is None
    (told,) = json.loads(capsys.readouterr().out)["found"]
    (answer,) = look(server, file.read_bytes()).json()
    (found,) = answer["found"]
    assert found["class"] == told["class"]
    assert alike(opened(found["seen"]), SEVEN) > 0.9
    assert max(found["probabilities"]) == pytest.approx(told["probability"], abs=1e-5)
    assert found["box"] == told["box"]


def test_what_mattered_is_where_the_digit_is(server):
    (answer,) = look(server, pictures()["png"], explain=True).json()
    (found,) = answer["found"]
    importance = np.array(found["importance"])
    assert importance.shape == (28, 28)
    lit = opened(found["seen"]) > 128
    assert 30 < lit.sum() < 200
    assert np.abs(importance[lit]).mean() > 2 * np.abs(importance[~lit]).mean()


def test_what_nobody_foresaw_is_answered_as_any_mistake():
    def fail(images):
        raise RuntimeError("unforeseen")

    model: Any = SimpleNamespace(examples=np.zeros((2, 1, 1), np.uint8))
    app, sent = make_app([Served("latest", model, Batching(fail, 9))]), []

    async def receive():
        return {"type": "http.request", "body": b'{"instances": [[[0]]]}', "more_body": False}

    async def send(message):
        sent.append(message)

    asked = {"type": "http", "method": "POST", "path": "/invocations", "headers": [], "query_string": b""}
    with pytest.raises(RuntimeError, match="unforeseen"):  # for the server's terminal
        asyncio.run(app(asked, receive, send))
    start, body = sent
    assert (start["status"], json.loads(body["body"])["error_code"]) == (500, "INTERNAL_SERVER_ERROR")


def test_pictures_that_are_none_are_refused(server):
    whole = pictures()["png"]
    bomb = encoded(Image.new("1", (30_000, 30_000)), "png")
    for body, code, words in (
        (b"", 400, "is not a readable image"),
        (b"abc", 400, "is not a readable image"),
        (whole[: len(whole) // 2], 400, "is not a readable image"),
        (bomb, 413, "too many pixels; allowed: 64 million"),  # Pillow sees it for what it is
        (encoded(Image.new("1", (9_000, 9_000)), "png"), 413, "9,000 x 9,000 pixels; allowed: 64 million"),
    ):
        answer = look(server, body)
        assert answer.status_code == code, words
        assert words in answer.json()["message"]
    with socket.create_connection(("127.0.0.1", int(server.uri.rpartition(":")[2])), timeout=60) as client:
        # Without the body: the server closes at once, and what is still sent then takes the answer with it.
        client.sendall(f"POST /look HTTP/1.1\r\nHost: x\r\nContent-Length: {21 * 2**20}\r\n\r\n".encode())
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    assert b" 413 " in answer
    assert "at most 20 MiB" in json.loads(answer.partition(b"\r\n\r\n")[2])["message"]
    (blank,) = look(server, encoded(Image.new("L", (40, 40), 200), "png")).json()
    assert (blank["found"], blank["reason"]) == ([], "shows nothing that differs from its ground")


def test_a_body_without_end_and_one_that_stops_are_cut_off(server):
    def endless():
        while True:
            yield bytes(2**20)

    with pytest.raises(requests.RequestException) as cut:
        requests.post(f"{server.uri}/look", data=endless(), timeout=60).raise_for_status()
    assert cut.value.response is None or cut.value.response.status_code == 413
    with socket.create_connection(("127.0.0.1", int(server.uri.rpartition(":")[2])), timeout=60) as slow:
        slow.sendall(b"POST /look HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc")
        assert b" 408 " in slow.recv(1000)


@pytest.mark.drawn
@pytest.mark.filterwarnings("ignore")
def test_hostile_requests_never_break_the_server(server):
    """HOSTILE_BODIES=10000 sends that many."""
    numbers = st.one_of(st.integers(), st.floats(), st.booleans(), st.none(), st.text(max_size=3))
    trees = st.recursive(
        numbers, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=3)
    )
    images = st.builds(
        lambda value, rows, columns: [[[value] * columns] * rows],
        numbers,
        st.sampled_from((1, 27, 28)),
        st.sampled_from((0, 28)),
    )
    keyed = st.dictionaries(st.sampled_from(("inputs", "instances", "params", "x")), images | trees, max_size=2)
    torn = st.builds(
        lambda whole, cut, byte: whole[:cut] + bytes([byte]) + whole[cut + 1 :],
        st.sampled_from([*pictures().values()]),
        st.integers(0, 400),
        st.integers(0, 255),
    )
    bodies = st.one_of(
        st.binary(max_size=200), keyed.map(json.dumps).map(str.encode), trees.map(json.dumps).map(str.encode), torn
    )
    kinds = st.sampled_from(
        ("application/json", "", "image/png", "text/csv", "multipart/form-data", "é".encode("latin-1"))
    )
    paths = st.sampled_from(
        (
            "/invocations",
            "/invocations",
            "/look",
            "/look?many=true",
            "/look?many=x",
            "/look?explain=1",
            "/models",
            "/nope",
        )
    )
    session, codes = requests.Session(), []

    @settings(max_examples=BODIES, derandomize=True, database=None, deadline=None, suppress_health_check=[*HealthCheck])
    @given(bodies, kinds, paths)
    def send(body, kind, path):
        answer = session.post(server.uri + path, data=body, headers={"Content-Type": kind}, timeout=60)
        codes.append(answer.status_code)
        assert answer.status_code < 500

    send()
    assert {200, 400} <= {*codes}
    assert requests.get(f"{server.uri}/health", timeout=5).ok
