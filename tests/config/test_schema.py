"""What the schema says of every key: the defaults of conf/, the pages made of it, the files of users."""

import json

import jsonschema
import pytest
import yaml
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf
from PIL import Image

from digitlab.config import build, reference
from digitlab.config.check import check
from digitlab.config.describe import Description
from digitlab.config.leaves import flatten
from digitlab.config.schema import ReportJob, Run
from digitlab.data.sources import mnist5k
from digitlab.models.networks import ConvNet
from digitlab.training.progress import Progress

# What a choice settles that is made here because one has to be.
CHOSEN = {"model.blocks", "data.fallback", "trainer.callbacks", "tracking.uri"}


def test_the_defaults_of_the_files_are_those_of_the_schema(harness, repository, monkeypatch):
    monkeypatch.delenv("DIGITLAB_DATA", raising=False)
    cfg = harness.compose("data=base", "scheduler=cosine", "claim=base/any")
    report = OmegaConf.load(repository / "conf" / "report.yaml")
    compared = 0
    for model, composed in ((Run, cfg), (ReportJob, report)):
        description = Description(model.model_json_schema())
        for key, node in description.leaves(description.root):
            if "default" in node and key not in CHOSEN and OmegaConf.select(composed, key) is not None:
                content = OmegaConf.to_container(composed, resolve=True)
                for name in key.split("."):
                    content = content[name]
                assert content == node["default"], key
                compared += 1
    assert compared > 25


def test_what_is_made_from_the_schema_is_up_to_date():
    for file, content in reference.files().items():
        assert file.read_text() == content, f"{file.name}: run make reference"


def test_help_says_every_key_and_every_choice(harness, repository, capsys):
    assert not harness.main("--help")
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 100
    nodes = (
        "names.",
        "model.",
        "optim.",
        "data.source.",
        "data.fallback.",
        "trainer.callbacks.",
        "trainer._",
        "data._",
    )
    keys = {key for key in flatten(harness.compose()) if not key.startswith(nodes)}
    keys |= {"model.blocks", "model.init", "optim.lr", "data.source", "data.fallback", "trainer.callbacks"}
    assert not {key for key in keys if f"\n  {key}=" not in said}
    choices = HydraConfig.get().runtime.choices
    for group in ("model", "optim", "data", "scheduler", "trainer", "sweep", "claim", "counterpart"):
        files = {file.stem for file in (repository / "conf" / group).glob("*.yaml")} - {"base"}
        assert files <= set(said.split()), group
        assert f"\n{group}={choices[group] or 'null'} " in said
    assert not harness.folder.exists()


def test_help_of_a_report_says_its_keys(harness, capsys):
    assert not harness.main("-h", entry_point="report")
    said = capsys.readouterr().out
    for key in ("report.sweep=null", "report.filter=null", "report.dir=null", "tracking.experiment=digitlab"):
        assert f"\n  {key} " in said
    assert "optim.lr" not in said.replace("params.`optim.lr`", "")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("+report.swep=grid", "report.swep: unknown key; allowed: report.arm, report.counterparts, report.dir, "),
        ("report.margin=2", "report.margin=2: must be "),
        ("+seed=1", "seed: unknown key; allowed: report, tracking"),
    ],
)
def test_a_mistake_in_a_report_gets_one_line(harness, override, words):
    assert harness.main(override, entry_point="report").startswith(f"error: {words}")


@pytest.fixture(scope="module")
def validator(repository=reference.REPOSITORY):
    schema = json.loads((repository / "conf" / "train.schema.json").read_text())
    jsonschema.Draft7Validator.check_schema(schema)
    return jsonschema.Draft7Validator(schema)


def test_editors_accept_the_files_of_the_project(repository, validator):
    pointed = [file for file in (repository / "conf").rglob("*.yaml") if "yaml-language-server" in file.read_text()]
    assert len(pointed) > 20
    for file in pointed:
        (line,) = (line for line in file.read_text().splitlines() if "yaml-language-server" in line)
        schema = file.parent / line.partition("$schema=")[2]
        if schema.name == "train.schema.json":
            validator.validate(OmegaConf.to_container(OmegaConf.load(file)))  # 1e-3 is a number, as in YAML 1.2
        assert schema.is_file()


@pytest.mark.parametrize(
    "content",
    [
        "claim: {acuracy: 0.99}",
        "claim: {accuracy: 99}",
        "sed: 1",
        "seed: -1",
        "trainer: {max_epochs: many}",
        "loss: hinge",
        "data: {augment: {zoom: 1}}",
    ],
)
def test_editors_mark_a_mistake(validator, content):
    with pytest.raises(jsonschema.ValidationError):
        validator.validate(yaml.safe_load(content))


def test_names_of_0_1_in_a_users_file_go_on_working(harness):
    old = {
        "model._target_": "digitlab.networks.ConvNet",
        "data._target_": "digitlab.data.ImageData",
        "data.source._target_": "digitlab.sources.mnist5k",
        "trainer.callbacks.progress._target_": "digitlab.progress.Progress",
    }
    cfg = check(harness.compose("data=mnist5k", *(f"{key}={value}" for key, value in old.items())))
    assert isinstance(build.build(cfg, "model"), ConvNet)
    assert build.build(cfg, "data").source.func is mnist5k
    assert isinstance(build.build(cfg, "trainer.callbacks.progress"), Progress)
    today = check(harness.compose("data=mnist5k"))
    assert {**cfg, "names": None} == {**today, "names": None}


def test_a_strangers_network_may_mean_something_else_by_the_same_key(harness):
    check(harness.compose("model._target_=torch.nn.LSTM", "model.dropout=0.3", "model.init=mine"))


def test_a_number_is_a_name_where_names_are_free(harness):
    assert check(harness.compose("sweep.name=2024")).sweep.name == 2024


@pytest.fixture
def own(tmp_path):
    """Write claim files of a user's own; return the arguments that find them."""

    def write(name: str, content: str) -> tuple[str, str]:
        folder = tmp_path / "mine" / "claim"
        folder.mkdir(parents=True, exist_ok=True)
        begin = "# @package _global_\ndefaults: [base/any, override /data: image_folder, _self_]\n"
        (folder / f"{name}.yaml").write_text(begin + content)
        return f"--config-dir={folder.parent}", f"claim={name}"

    return write


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("claim: {document: mine, acuracy: 0.9}", "claim.acuracy: unknown key; allowed: claim.accuracy, "),
        ("claim: {document: mine, accuracy: 99 %}", "claim.accuracy=99 %: must be null or a number from 0 to 1"),
        ("claim: {document: mine}", "claim.data=mnist: must be faces, the data of the run; to train all the same, "),
    ],
)
def test_a_claim_file_is_checked_before_a_run_exists(harness, own, faces, content, words):
    end = harness.main(*own("mine", f"{content}\ndata: {{root: {faces}}}\n"))
    assert end.startswith(f"error: {words}"), end
    assert "\n" not in end
    assert not harness.folder.exists()


@pytest.fixture
def faces(tmp_path):
    """A folder of images of two classes."""
    for name in ("happy", "sad"):
        (tmp_path / "faces" / name).mkdir(parents=True)
        for number in range(10):
            Image.new("L", (28, 28), 10 * number).save(tmp_path / "faces" / name / f"{number}.png")
    return tmp_path / "faces"


@pytest.mark.slow
@pytest.mark.lean
def test_a_claim_of_an_image_folder_trains(harness, own, faces):
    arguments = own("mine", f"claim: {{document: mine, data: faces, accuracy: 0.5}}\ndata: {{root: {faces}}}\n")
    small = ("model=mlp", "trainer=smoke", "data.test_fraction=0.2", "data.val_fraction=0.2", "trainer.max_epochs=1")
    assert harness.main(*arguments, *small) is None
    assert harness.runs()[0].data.params["claim.data"] == "faces"


def test_a_claim_of_other_data_gets_its_verdict(fake_store, own, tmp_path):
    arguments = own("faces", f"claim: {{document: mine, data: faces, accuracy: 0.991}}\ndata: {{root: {tmp_path}}}\n")
    runs = {}
    for seed, accuracy in enumerate((0.99, 0.991, 0.992, 0.991, 0.993)):
        run = fake_store.record("cnn_pool", "adam", seed, accuracy, data="faces")
        runs[run] = ["sweep=faces", f"seed={seed}", "claim=faces"]
    fake_store.sweep("faces", *runs, overrides=runs)
    assert fake_store.report(arguments[0]) is None
    assert "REPRODUCED" in (fake_store.folder / "report.csv").read_text()
