"""What came from the environment, or is a password in an address, is used but never printed or recorded."""

import os
import subprocess
import sys
import time
import traceback

import pytest
from conftest import REPOSITORY
from omegaconf import OmegaConf
from proxy import Proxy
from servers import tracking_server

from digitlab.config import environment  # noqa: F401  it registers the resolvers
from digitlab.config.environment import from_environment
from digitlab.platform import secrets
from digitlab.sweep import execute
from digitlab.tracking import notes
from digitlab.tracking.store import Store

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


@pytest.mark.slow
def test_a_traceback_of_any_command_holds_no_password(harness):
    harness.uri = f"http://me:{CANARY}@127.0.0.1:9"
    for arguments in (["evaluate", "latest"], ["explain", "latest"], ["store", "sync"]):
        result = subprocess.run(
            [sys.executable, "-m", "digitlab", *arguments],
            env=os.environ | harness.places | {"HYDRA_FULL_ERROR": "1", "PYTHONPATH": str(REPOSITORY / "src")},
            capture_output=True, text=True, timeout=100, check=False,
        )  # fmt: skip
        assert result.returncode in (1, 2)
        assert "127.0.0.1:9" in result.stderr
        assert CANARY not in result.stderr + result.stdout


def test_the_description_of_a_sweep_holds_no_secret(harness):
    harness.folder.mkdir()
    cells = [{"name": f"mlp-adam-s0-data.root=https://host/?token={CANARY}", "status": "done"}]
    store = Store(harness.uri, "digitlab")
    store.open()
    run = store.client.create_run(store.experiment_id)
    notes.write(store, run.info.run_id, notes.of_sweep(store, "s", cells))
    assert CANARY not in harness.client.get_run(run.info.run_id).data.tags["mlflow.note.content"]


PLACES = ("password", "token", "query", "environment", "map", "command", "claim", "root", "auth", "key", "name", "git")
CANARIES = {place: f"c4nary-{place}-{index}x" for index, place in enumerate(PLACES)}


@pytest.mark.slow
def test_nothing_that_is_kept_or_printed_holds_one_of_twelve_secrets(tmp_path):
    """A sweep of jobs through a server that asks for a password, and a run that is killed and waits for that server."""
    folder, log, canary = tmp_path / "kept", tmp_path / "log", CANARIES
    jobs = ("hydra/launcher=submitit_local", f"hydra.launcher.submitit_folder={folder}/jobs/%j")
    with tracking_server(folder / "db.sqlite", folder / "artifacts") as server, Proxy(server.uri) as proxy:
        environment = os.environ | {
            "MLFLOW_TRACKING_URI": proxy.uri.replace("://", f"://me:{canary['password']}@"),
            "MLFLOW_TRACKING_TOKEN": canary["token"],
            "AWS_SECRET_ACCESS_KEY": canary["key"],
            "PYTHONPATH": str(REPOSITORY / "src"),
            "DIGITLAB_JOURNAL": str(folder / "journal"),
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "remote.other.url",
            "GIT_CONFIG_VALUE_0": f"https://me:{canary['git']}@host/project.git",
            "CANARY_LOSS": canary["environment"],
            "CANARY_MAP": canary["map"],
        }
        urls = {
            "command": "token",
            "root": "access_token",
            "auth": "auth",
            "name": "X-Amz-Signature",
            "claim": "api_key",
        }
        named = {place: f"https://host/{place}?{key}={canary[place]}" for place, key in urls.items()}
        told = (
            f"+claim={{data: mnist5k, document: 'of ${{oc.env:CANARY_MAP}}', caveat: '{named['claim']}', "
            f"unstated: '${{oc.env:CANARY_LOSS}} {named['command']} {named['auth']} {named['name']}'}}"
        )
        words = (told, f"data.root='{named['root']}&password={canary['query']}'")
        by_name = "+claim={data: mnist5k, document: 'of ${oc.env:CANARY_MAP}', caveat: '${oc.env:CANARY_LOSS}'}"

        def start(*more: str) -> subprocess.Popen:
            command = [sys.executable, REPOSITORY / "src" / "train.py", *RUN, *more]
            with log.open("a") as output:
                return subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)

        assert start("-m", by_name, "sweep.name=two", "seed=0,1", *jobs).wait(300) == 0, log.read_text()
        killed = start(*words, "seed=2", "trainer.max_epochs=1000")
        while "2/1000" not in log.read_text():
            assert killed.poll() is None, log.read_text()
            time.sleep(0.1)
        proxy.way = "gone"
        time.sleep(3)
        killed.kill()
        killed.wait()
    files = [file for file in (*folder.rglob("*"), log) if file.is_file()]
    kinds = ("db.sqlite", "sweep.json", ".pkl", "journal.db", "config.yaml", "MLmodel", "log")
    assert {kind for kind in kinds if not any(str(file).endswith(kind) for file in files)} == set()
    contents = {file: file.read_bytes() for file in files}
    assert {
        (place, str(file.relative_to(tmp_path)))
        for file, content in contents.items()
        for place, secret in canary.items()
        if secret.encode() in content
    } == set()


@pytest.mark.parametrize("key", ["data.root", "sweep.name", "+claim.caveat"])
def test_a_sweep_is_told_no_secret_but_by_the_name_of_a_variable(harness, key):
    end = harness.main("-m", "model=mlp", "data=mnist5k", "seed=0,1", f"{key}='https://host/x?token={CANARY}'")
    assert end.startswith(f"error: {key.lstrip('+')}: a sweep's files would hold ")
    assert CANARY not in end
    assert "\n" not in end
    assert not harness.folder.exists()


def test_a_sweep_takes_an_address_with_a_secret_by_the_name_of_a_variable(harness, capsys, monkeypatch):
    monkeypatch.setenv("CANARY_ROOT", f"https://host/x?token={CANARY}")
    by_name = "data.root=${oc.env:CANARY_ROOT}"
    assert harness.main("-m", "model=mlp", "data=mnist5k", "seed=0,1", by_name, "sweep.dry_run=true") is None
    assert CANARY not in said("", capsys)


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
