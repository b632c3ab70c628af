"""`digitlab export --format web`: a folder that a browser opens as it lies there, without a server or a network."""

import json
import shutil

import mlflow
import numpy as np
import pytest
import tracked
from drawn import SEVEN, draw, photograph
from playwright.sync_api import expect, sync_playwright
from tracked import command

from digitlab.data.sources import mnist5k
from digitlab.inference import web

CHROMIUM = shutil.which("chromium")
IMAGES = mnist5k().train[0].numpy()[::500]


@pytest.mark.slow
@pytest.mark.skipif(not (CHROMIUM and shutil.which("npm")), reason="there is no chromium, or no npm, on the PATH")
def test_the_page_reads_in_the_browser_what_the_model_reads(harness, tmp_path, capsys):
    harness.train("model=cnn_pool", "data=mnist5k", "trainer.max_epochs=2")
    if (end := command(harness, "export", "latest", "--format", "web", "--output", str(tmp_path / "page"))) is not None:
        assert str(end).startswith("error: --format=web: npm pack ")
        pytest.skip("npm's registry cannot be reached")
    (logged,) = harness.client.search_logged_models([harness.runs()[0].info.experiment_id])
    mlflow.set_tracking_uri(harness.uri)
    expected = mlflow.pyfunc.load_model(logged.model_uri).predict(IMAGES)
    loaded, said = [], []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        context = browser.new_context(viewport={"width": 390, "height": 844}, offline=True)
        page = context.new_page()
        page.on("request", lambda sent: loaded.append(sent.url))
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto((tmp_path / "page" / "index.html").as_uri())
        found = [page.evaluate(f"reader.predict({json.dumps(image.ravel().tolist())})") for image in IMAGES]
        np.testing.assert_allclose(found, expected, atol=1e-4)

        draw(page, SEVEN)
        expect(page.locator("#models li.first b")).to_have_text("7")
        expect(page.get_by_label("what mattered")).to_be_hidden()
        page.get_by_role("button", name="Clear").click()
        for kind, row in (("png", 1000), ("jpg", 2503)):  # photographs of a 2 and a 5
            photograph(row).save(tmp_path / f"one.{kind}")
            page.set_input_files("#file", tmp_path / f"one.{kind}")
            expect(page.locator("#models li.first b")).to_have_text(str(row // 500))
        photograph(501, 1000, 3500, side=520).save(tmp_path / "many.jpg")
        page.set_input_files("#file", tmp_path / "many.jpg")
        expect(page.get_by_text("2 more found")).to_be_visible()
        page.get_by_label("several digits").check()
        expect(page.locator("#models li.first b")).to_have_text(["1", "2", "7"])
        (tmp_path / "none.png").write_bytes(b"none")
        page.set_input_files("#file", tmp_path / "none.png")
        expect(page.locator("#says")).to_have_text("this is not a readable image")
        browser.close()
    assert said == []
    assert {url.partition(":")[0] for url in loaded} <= {"file", "blob", "data"}
    end = command(harness, "export", "latest", "--format", "web", "--output", str(tmp_path / "page"))
    assert end == f"error: --output={tmp_path / 'page'}: must be a new folder in a folder that exists"


@pytest.mark.slow
def test_a_runtime_that_is_not_there_or_not_the_same_is_refused(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("digitlab.inference.web.shutil.which", lambda name: None)
    end = command(tracked.digits(), "export", "latest", "--format", "web")
    assert end == "error: --format=web: needs npm, which brings onnxruntime-web@1.22.0"
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\necho no such registry >&2\nexit 1\n")
    npm.chmod(0o755)
    monkeypatch.setattr("digitlab.inference.web.shutil.which", lambda name: str(npm))
    end = command(tracked.digits(), "export", "latest", "--format", "web")
    assert end == "error: --format=web: npm pack onnxruntime-web@1.22.0 failed: no such registry"
    files = " ".join(f"package/dist/{name}" for name in web.DIGESTS)
    npm.write_text(f"#!/bin/sh\nmkdir -p package/dist && touch {files} && tar czf other.tgz package\n")
    end = command(tracked.digits(), "export", "latest", "--format", "web")
    assert end.startswith("error: --format=web: ort.wasm.min.js of onnxruntime-web@1.22.0 is not what it was")
    assert [each.name for each in tmp_path.iterdir()] == ["npm"]
