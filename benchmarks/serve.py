"""Load digitlab's server and MLflow's own beside it: 64 clients, one image a request, 300 requests a second in all.

PYTHONPATH=src python benchmarks/serve.py [seconds] [rounds]
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import suppress
from itertools import count
from pathlib import Path

import numpy as np
from measure import python, show
from mlflow import MlflowClient

from digitlab.data.sources import mnist5k

CLIENTS, RATE = 64, 300  # requests a second
SECONDS = int(sys.argv[1]) if len(sys.argv) > 1 else 60
ROUNDS = int(sys.argv[2]) if len(sys.argv) > 2 else 2
PORTS = {"digitlab serve": 18101, "mlflow models serve": 18102}


def requests() -> list[bytes]:
    images = mnist5k().train[0][::50].numpy()
    bodies = [json.dumps({"instances": [image.tolist()]}).encode() for image in images]
    head = "POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n"
    return [head.format(len(body)).encode() + body for body in bodies]


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> bool:
    """Send a request and read its answer; say whether it was answered."""
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    await reader.readexactly(length)
    return b" 200 " in head[:20]


async def load(port: int, rate: float | None) -> tuple[list[float], int, float]:
    """Return the seconds that each request took, from when it was due, how many failed, and the seconds of all.

    `rate` is how many are due a second; None is as many as they can.
    """
    sent, took, failed = requests(), [], 0
    began = time.perf_counter()

    async def client(number: int) -> None:
        nonlocal failed
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        due = began + number / RATE
        for turn in count():
            if rate:
                due += 0 if turn == 0 else CLIENTS / rate
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
            else:
                due = time.perf_counter()
            if due - began > SECONDS or time.perf_counter() - began > 2 * SECONDS:
                break
            failed += not await ask(reader, writer, sent[(number + turn) % len(sent)])
            took.append(time.perf_counter() - due)
        writer.close()

    await asyncio.gather(*(client(number) for number in range(CLIENTS)))
    return took, failed, time.perf_counter() - began


def start(name: str) -> subprocess.Popen:
    port = str(PORTS[name])
    if name == "digitlab serve":
        command = ["-m", "digitlab", "serve", "latest", "--port", port]
    else:
        client = MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
        (model,) = client.search_logged_models([client.get_experiment_by_name("digitlab").experiment_id])
        command = ["-m", "mlflow", "models", "serve", "--env-manager", "local", "--port", port, "-m", model.model_uri]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    program = subprocess.Popen(
        [sys.executable, *command],
        env=os.environ | {"PATH": path},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    for _ in range(600):
        with suppress(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5)
            return program
        time.sleep(0.2)
    raise SystemExit(f"{name} does not come up")


def main() -> None:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
        python("src/train.py", "model=cnn_pool", "data=mnist5k", "trainer.max_epochs=1")
        programs = {name: start(name) for name in PORTS}
        try:
            for turn in range(ROUNDS):
                for name, port in PORTS.items():
                    for rate in (RATE, None):
                        took, failed, seconds = asyncio.run(load(port, rate))
                        middle, late = (1000 * np.quantile(took, share) for share in (0.5, 0.99))
                        asked = f"{rate}/s" if rate else "all they can"
                        answered = f"{len(took) / seconds:.0f}"
                        rows.append([name, str(turn + 1), asked, answered, str(failed), f"{middle:.1f}", f"{late:.1f}"])
        finally:
            for program in programs.values():
                os.killpg(program.pid, 9)
    show(
        f"One image a request, cnn_pool, {CLIENTS} clients, {SECONDS} s each, in turn",
        ["server", "round", "asked", "answered a second", "failed", "median ms", "99 of 100 within ms"],
        rows,
    )


if __name__ == "__main__":
    main()
