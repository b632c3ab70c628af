"""Many cells on four workers of Ray, of which two are killed and one is added late; DIGITLAB_CELLS says how many."""

import os
import time
from collections import Counter
from importlib.util import find_spec

import pytest
from clusters import ray_cluster, wait_for_cells
from program import Program

pytestmark = [
    pytest.mark.slow,
    pytest.mark.services,
    pytest.mark.skipif(find_spec("ray") is None, reason="make test-services installs what it needs: ray"),
]
CELLS = int(os.environ.get("DIGITLAB_CELLS", "20"))
EPOCHS = 3


def test_every_cell_is_run_once_though_workers_are_killed_and_one_comes_late(harness, monkeypatch):
    with ray_cluster("--num-cpus=2") as cluster:
        head, lost, _ = cluster.machines[0], *(cluster.start("--num-cpus=1") for _ in range(2))
        for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
            monkeypatch.setenv(name, cluster.environment[name])
        began = time.monotonic()
        program = Program(
            harness,
            *("-m", "model=mlp", "model.hidden=[{units: 16}]", "data.test_fraction=0.8", f"seed=range({CELLS})"),
            *(f"trainer.max_epochs={EPOCHS}", "hydra/launcher=ray", f"hydra.launcher.address={cluster.address}"),
        )
        assert program.wait_for(f"epoch 1/{EPOCHS}")
        wait_for_cells(4, *(each.pid for each in cluster.machines), program=program)
        assert program.wait_for("2 of ")
        wait_for_cells(1, head.pid, program=program)[0].kill()
        wait_for_cells(1, lost.pid, program=program)
        cluster.kill(lost)  # the whole machine
        late = cluster.start("--num-cpus=1")
        wait_for_cells(1, late.pid, program=program)
        assert program.wait(60 * CELLS) == 0, program.output()
        seconds = time.monotonic() - began
    said = program.output()
    assert said.count("another one goes on with it") == 2
    assert "Traceback" not in said
    runs = harness.cells()
    assert sorted(int(run.data.tags["seed"]) for run in runs) == list(range(CELLS))
    assert Counter((run.info.status, run.data.tags["done"]) for run in runs) == {("FINISHED", "true"): CELLS}
    for run in runs:
        for key in ("train/loss", "train/acc", "val/loss", "val/acc"):
            steps = [step for step, _ in harness.history(run, key)]
            assert steps == list(range(int(key.startswith("train")), EPOCHS + 1)), (key, steps)
        assert len(harness.history(run, "test/acc")) == 1
    print(f"\n{CELLS} cells on 4 workers, two killed, one late: {seconds:.0f} s, with the start of the command")
