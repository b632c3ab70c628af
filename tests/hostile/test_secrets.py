"""What came from the environment, or is a password in an address, is used but never printed or recorded."""

import os
import traceback

import pytest
from omegaconf import OmegaConf

from digitlab.config import environment  # noqa: F401  it registers the resolvers
from digitlab.config.environment import from_environment
from digitlab.platform import secrets
from digitlab.sweep import execute

CANARY = "c4nary-Zq8"
RUN = ("data=mnist5k", "data.test_fraction=0.6", "data.val_fraction=0.3", "model=mlp", "trainer=cpu",
       "trainer.max_epochs=1")  # fmt: skip


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    monkeypatch.setattr(secrets, "_hidden", set())
    monkeypatch.setenv("CANARY", CANARY)
    monkeypatch.setenv("CANARY_MAP", f"{{a: {CANARY}, b: [1, {CANARY}]}}")


def said(end, capsys) -> str:
    return f"{end}{''.join(capsys.readouterr())}"


@pytest.mark.table
@pytest.mark.parametrize(
    "override",
    [
        "optim.lr=${oc.env:CANARY}",
        "seed='${oc.env:CANARY}'",
        "optim.lr=${oc.decode:${oc.env:CANARY_MAP}}",
        "loss='x${oc.env:CANARY}y'",
        "loss=${oc.env:NO_SUCH,${oc.env:CANARY}}",
        "+trainer.callbacks.${oc.env:CANARY}.x=1",
        "+trainer.callbacks.x={_target_: '${oc.env:CANARY}'}",
        "data.root='/no/such/${oc.env:CANARY}'",
        "tracking.experiment=${oc.env:CANARY}",
        "sweep.name=${oc.env:CANARY}",
        "tracking.uri=${oc.env:CANARY}",
        "tracking.uri='sqlite:////proc/${oc.env:CANARY}/x.db'",
        f"tracking.uri=ftp://somebody:{CANARY}@host/x",
        f"tracking.uri='http://127.0.0.1:1/?password={CANARY}'",
    ],
)
@pytest.mark.parametrize("full", ["0", "1"])
def test_no_error_line_tells_a_secret(harness, capsys, override, full, monkeypatch):
    from digitlab.config import errors

    monkeypatch.setattr(errors, "WANTS_TRACEBACK", full == "1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        try:
            end = harness.main(*RUN, "data=image_folder" if "root" in override else RUN[0], override)
        except Exception as error:  # with HYDRA_FULL_ERROR=1, for Python to print
            end = full
            traceback.print_exception(error)
    assert end is not None
    assert CANARY not in said(end, capsys)


@pytest.mark.slow
def test_no_run_records_a_secret(harness, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["src/train.py", *RUN, f"tracking.uri=http://me:{CANARY}@host/?token={CANARY}"])
    claim = "document: '${oc.env:CANARY}', caveat: 'in a ${oc.env:CANARY} sentence', unstated: '${claim.document}'"
    harness.train(*RUN, f"+claim={{data: mnist5k, {claim}}}")
    (run,) = harness.runs()
    assert run.data.params["claim.document"] == "${oc.env:CANARY}"
    folder = harness.folder / "artifacts" / run.info.run_id / "artifacts"
    assert OmegaConf.load(folder / "config.yaml").claim.document == CANARY  # it can be run again where that is set
    assert "http://***@host/?token=***" in run.data.tags["command"]
    assert CANARY not in said("", capsys)
    files = [file for file in harness.folder.rglob("*") if file.is_file()]
    assert len(files) > 10
    assert not [file for file in files if CANARY.encode() in file.read_bytes()]


def test_values_of_the_environment_are_known_wherever_they_come_by():
    cfg = OmegaConf.create(
        {
            "plain": 1,
            "direct": "${oc.env:CANARY}",
            "within": "a${oc.env:CANARY}b",
            "again": "${direct}",
            "decoded": "${oc.decode:${oc.env:CANARY_MAP}}",
            "node": {"inner": ["x", "${within}"]},
            "copy": "${node}",
            "public": "${oc.env:DIGITLAB_DATA,null}",
        }
    )
    assert list(from_environment(cfg)) == ["direct", "within", "again", "decoded", "node.inner.1", "copy.inner.1"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://me:pass@host/x", "http://***@host/x"),
        ("http://me:p@ss/w@rd@host/x", "http://***@host/x"),
        ("postgresql://host/db?user=me&password=x1&a=b", "postgresql://host/db?user=me&password=***&a=b"),
        ("sqlite:////home/we@work/mlflow.db", "sqlite:////home/we@work/mlflow.db"),
        ("write to me@host", "write to me@host"),
        (f"a {CANARY}: b", "a ***: b"),
    ],
)
def test_addresses_keep_all_but_what_is_secret(text, shown):
    secrets.hide(os.environ["CANARY"])
    assert secrets.redact(text) == shown


@pytest.mark.parametrize(
    "way",
    [
        f"hydra.sweeper.params={{seed:'0,1',tracking.uri:'http://me:{CANARY}@host'}}",
        f"seed=1,2 tracking.uri=postgresql://host/db?user=me&password={CANARY}",
        f"seed=1,2 tracking.uri='http://me:{CANARY}@host'",
    ],
)
def test_no_cell_of_a_sweep_is_told_a_password(harness, capsys, way, monkeypatch):
    told = []
    monkeypatch.setattr(execute, "sweep", lambda cells, **_: told.extend(cells))
    end = harness.main("-m", *RUN, *way.split(" "))
    assert CANARY not in said(f"{end}{told}", capsys)
    if told:
        assert "tracking.uri='${oc.env:MLFLOW_TRACKING_URI}'" in told[0]
    else:
        assert "give it as MLFLOW_TRACKING_URI" in end


def test_passwords_of_an_address_are_hidden_by_themselves():
    secrets.hide_password("postgresql://me:pass1@host/db?user=me&password=word2&a=b")
    assert secrets.redact("pass1 word2 host") == "*** *** host"
