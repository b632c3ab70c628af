"""The server: MLflow's scoring protocol for programs, pictures and a page to draw on for people."""

import asyncio
import base64
import hashlib
import io
import os
import re
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus
from importlib.metadata import version
from typing import Annotated, Any

import numpy as np
import torch
from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from PIL import Image
from starlette.exceptions import HTTPException as StarletteHTTPException

from digitlab.data.picture_file import TooLargeError
from digitlab.inference import web
from digitlab.inference.look import Picture
from digitlab.inference.model import TrackedModel, tracked_model
from digitlab.inference.occlusion import importance
from digitlab.platform import console
from digitlab.serve.batching import Batching
from digitlab.serve.limits import read_body
from digitlab.serve.listen import answer, listen, warn_of_others
from digitlab.serve.metrics import Metrics
from digitlab.serve.scoring import read_images, write_probabilities
from digitlab.tracking.store import Store

PAGE = web.PAGE.read_text("utf-8")
MOST_IMAGES = 20_000  # that wait to be predicted
MOST_PICTURES = 16  # that are read, or wait for it: each is decoded in memory
MOST_DIGITS = 50  # of a picture
MEGAPIXELS = 64  # of a picture: more than a telephone's
SHORT = 100_000  # bytes
IMAGES_AS_JSON = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {
            "type": "object",
            "properties": {"instances": {"type": "array", "items": {"type": "array"},
                                         "description": "Images, each as rows of pixels from 0 to 255."}},
            "required": ["instances"],
        }}},
    }
}  # fmt: skip
PICTURE = {
    "requestBody": {
        "required": True,
        "content": {"image/*": {"schema": {"type": "string", "format": "binary"}}},
    }
}


@dataclass(frozen=True)
class Served:
    """A model under the name that it is asked for."""

    name: str
    model: TrackedModel
    batching: Batching

    def describe(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "run": self.model.run_id,
            "classes": self.model.classes,
            "height": self.model.shape[0],
            "width": self.model.shape[1],
            "color": self.model.has_color,
            "finds_digits": self.model.is_framed_like_mnist,
        }


def serve(store: Store, references: Sequence[str], host: str, port: int) -> int:
    """Serve the models of runs until a signal ends it; return the exit code. Raises UserError."""
    warnings.filterwarnings("ignore", module=r"PIL\.")  # of pictures that others sent
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // 2))  # the others read requests meanwhile
    models = {each: tracked_model(store, each) for each in dict.fromkeys(references)}
    listening, address = listen(host, port)
    for reference, model in models.items():
        console.say(f"{reference}: {model.name} (run {model.run_id[:8]}), {len(model.classes)} classes")
    console.say(f"{address}  a page to draw on; {address}/invocations for programs. Ctrl-C stops it.")
    warn_of_others(host)
    answer(
        make_app([Served(name, model, Batching(model.predict, MOST_IMAGES)) for name, model in models.items()]),
        listening,
    )
    return 0


def make_app(served: Sequence[Served]) -> FastAPI:
    """Return the application for some models, of which the first answers programs."""
    app = FastAPI(title="digitlab", docs_url=None, redoc_url=None)  # whose pages load scripts
    app.add_exception_handler(StarletteHTTPException, _say_why)  # FastAPI's are of this kind too
    app.add_exception_handler(RequestValidationError, _say_which)
    app.add_exception_handler(Exception, _say_failure)
    metrics = Metrics()
    app.add_middleware(metrics.middleware)
    first = served[0]
    pictures, readers = asyncio.Semaphore(MOST_PICTURES), ThreadPoolExecutor(2)

    @app.get("/", response_class=HTMLResponse)
    async def page() -> HTMLResponse:
        """The page to draw on."""
        return HTMLResponse(PAGE, headers={"Content-Security-Policy": POLICY, "Referrer-Policy": "no-referrer"})

    @app.get("/ping")
    @app.get("/health")
    async def health() -> Response:
        """Say that models are loaded and answered for."""
        return Response("\n", media_type="application/json")

    @app.get("/version")
    async def mlflow_version() -> Response:
        """MLflow's version, as its own server says it."""
        return Response(version("mlflow"), media_type="application/json")

    @app.get("/metrics")
    async def measured() -> Response:
        """Numbers for Prometheus."""
        return Response(metrics.text(), media_type=metrics.content_type)

    @app.get("/models")
    async def models() -> list[dict[str, Any]]:
        """What is served."""
        return [each.describe() for each in served]

    @app.post("/invocations", openapi_extra=IMAGES_AS_JSON)
    async def invocations(request: Request) -> Response:
        """Return the probabilities of images, as `mlflow models serve` does."""
        body = await read_body(request)
        asked = body, request.headers.get("content-type", ""), first.model.examples.shape[1:]
        try:  # many images take a while to read, and others wait meanwhile
            images = read_images(*asked) if len(body) < SHORT else await asyncio.to_thread(read_images, *asked)
        except ValueError as error:
            raise HTTPException(400, str(error)) from None
        return Response(write_probabilities(await _predict(first, images)), media_type="application/json")

    @app.post("/look", openapi_extra=PICTURE)
    async def look_at(
        request: Request,
        many: Annotated[bool, Query(description="All digits, not the largest alone.")] = False,
        explain: Annotated[bool, Query(description="Also what each answer hangs on.")] = False,
    ) -> list[dict[str, Any]]:
        """Say what a picture shows, an image file of any kind: the answer of each model."""
        body = await read_body(request)
        if pictures.locked():
            raise HTTPException(503, "too many pictures at once; try again")
        async with pictures:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(readers, _look, served, body, many, explain)

    return app


async def _predict(served: Served, images: np.ndarray) -> np.ndarray:
    try:
        return await served.batching(images)
    except OverflowError:
        raise HTTPException(503, "too many images at once; try again") from None


def _look(served: Sequence[Served], body: bytes, many: bool, explain: bool) -> list[dict[str, Any]]:
    """Return what each model says of the bytes of a picture; HTTPException where it cannot be read."""
    picture = Picture(io.BytesIO(body))
    try:
        width, height = picture.size
        if width * height > MEGAPIXELS * 1e6:
            raise HTTPException(413, f"the picture has {width:,} x {height:,} pixels; allowed: {MEGAPIXELS} million")
        return [_see(each, picture, many, explain) for each in served]
    except TooLargeError:
        raise HTTPException(413, f"the picture has too many pixels; allowed: {MEGAPIXELS} million") from None
    except OSError as error:
        raise HTTPException(400, f"this {error}") from None


def _see(served: Served, picture: Picture, many: bool, explain: bool) -> dict[str, Any]:
    model = served.model
    try:
        seen = picture.see(model, many)
    except ValueError as error:
        return {"name": served.name, "found": [], "left_out": 0, "reason": str(error)}
    images = seen.images[:MOST_DIGITS]
    found = []
    for image, box, row in zip(images, seen.boxes, model.predict(torch.from_numpy(images)), strict=False):
        label = int(row.argmax())
        each = {"class": model.classes[label], "probabilities": row.tolist(), "box": box, "seen": _png(image)}
        if explain:
            each["importance"] = importance(model, image, label).round(5).tolist()
        found.append(each)
    return {"name": served.name, "found": found, "left_out": seen.left_out + len(seen.images) - len(images)}


def _png(image: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "png")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


async def _say_why(request: Request, error: Any) -> JSONResponse:
    """Answer a mistake as MLflow's server does."""
    content = {"error_code": HTTPStatus(error.status_code).name, "message": error.detail}
    return JSONResponse(content, error.status_code, error.headers)


async def _say_failure(request: Request, error: Exception) -> JSONResponse:
    """Answer what nobody foresaw as any mistake; the server's terminal has the traceback."""
    return await _say_why(request, HTTPException(500, "the server failed; its terminal says how"))


async def _say_which(request: Request, error: Any) -> JSONResponse:
    """Answer a wrong key of an address as any mistake."""
    reasons = "; ".join(f"{'.'.join(map(str, each['loc'][1:]))}: {each['msg']}" for each in error.errors())
    return await _say_why(request, HTTPException(400, reasons))


def _hash(tag: str) -> str:
    (text,) = re.findall(f"<{tag}>(.*?)</{tag}>", PAGE, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


POLICY = (
    f"default-src 'none'; script-src {_hash('script')}; style-src {_hash('style')}; img-src data: blob:; "
    "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
