"""Mistakes in the grammar of the command line and of files: one line, at once, and nothing left."""

import re
import time

import pytest
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from digitlab.config.arguments import TEXTS
from digitlab.config.check import check
from digitlab.config.errors import UserError, one_line
from digitlab.config.schema import Report, Run
from digitlab.config.ungiven import UNGIVEN
from digitlab.platform.text import printable

LONG = "9" * 5000
BASE = ("model=mlp", "optim=adam", "data=image_folder", "data.root=/nowhere")


@pytest.mark.table
@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("data=null", "data=null: not found; allowed: "),
        (f"scheduler={'a' * 310}", "scheduler=aaaa"),
        ("claim=on", "claim=on: not found; allowed: "),
        ("model=5", "model=5: not found; allowed: "),
        ("=1", "=1: has no key"),
        ("--resolve", "--resolve: "),
        ("~optim._target_", "optim._target_: has no default"),
        ("+trainer.callbacks.x={}", "trainer.callbacks.x._target_: has no default"),
        ("trainer.callbacks=null", "trainer.callbacks=null: must be a mapping"),
        ("seed={a: 1}", 'seed={"a": 1}: must be a whole number'),
        ("seed=${optim}", 'seed={"_target_": '),
        (f"optim.lr={LONG}", "Exceeds the limit"),
        (f"trainer.max_epochs=1{'0' * 40}", f"trainer.max_epochs=1{'0' * 40}: must be a whole number from 1 to "),
        ("~trainer.max_epochs", "trainer.max_epochs: is missing; give it as trainer.max_epochs=VALUE, 12 by default"),
        ("~loss", "loss: is missing"),
        ("~seed", "seed: is missing, and data.seed takes its value; give it as seed=VALUE"),
        ("optim.lr=${no.such}", "no.such: is missing, and optim.lr takes its value"),
        ("~trainer.precision", "trainer.precision: is missing; give it as trainer.precision=VALUE, 32-true by default"),
        ("--foo", "--foo: unknown flag; allowed: --help, "),
        ("--cfg=all,job", "--cfg/-c: invalid choice: 'all,job'"),
        ("--cf", "--cfg/-c: expected one argument"),
        ("loss=\x1b[31mred", "LexerNoViableAltException: loss=\\x1b[31mred"),
        ("model=\u202emlp", "LexerNoViableAltException: model=\\u202emlp"),
        (f"model={'a' * 20_000}", "model=aaaa"),
        ("data.root=/tmp/a=b", "data: root=/tmp/a=b: there is no such folder"),
        ("data.root=/tmp/my pics (1)", "data: root=/tmp/my pics (1): there is no such folder"),
        ("data.root=/tmp/a,b {c} [d] #e", "data: root=/tmp/a,b {c} [d] #e: there is no such folder"),
        ("data.root=C:\\x y\\", "data: root=C:\\x y\\: there is no such folder"),
        ("data.root=it's", "data: root=it's: there is no such folder"),
        ("scheduler=null", "data: root=/nowhere: there is no such folder"),  # is as without it
        ("sweep=null", "data: root=/nowhere: there is no such folder"),
    ],
)
def test_an_argument_ends_in_one_line(harness, capsys, argument, words):
    end = harness.main(*BASE, argument)
    assert end.startswith(f"error: {words}")
    assert len(end) <= 300
    assert end.count("\n") == 0
    assert end.isprintable()
    assert capsys.readouterr() == ("", "")
    assert not harness.folder.exists()


@pytest.mark.parametrize(
    ("entry_point", "arguments", "words"),
    [
        ("train", "-m --cfg=job", "--multirun --cfg: each asks for something else"),
        ("train", "--info --run", "--run --info: each asks for something else"),
        ("train", "-sc", "--shell-completion: needs install=SHELL"),
        ("train", "-sc install=bash query=bash", "--shell-completion: needs install=SHELL"),
        ("train", "-sc query=fish", "--shell-completion: needs install=SHELL"),
        ("report", "-m", "--multirun: is for runs; reports are written one at a time"),
        ("report", "report.margin=0,01", "report.margin=0,01: has a comma; a decimal point: report.margin=0.01"),
        ("report", "hydra.mode=MULTIRUN", "hydra.mode: not to be changed from here; allowed of Hydra's: hydra.verbose"),
    ],
)  # fmt: skip
def test_flags_that_cannot_be_followed_are_named(harness, tmp_path, monkeypatch, capsys, entry_point, arguments, words):
    monkeypatch.chdir(tmp_path)
    end = harness.main(*arguments.split(), entry_point=entry_point)
    assert end.startswith(f"error: {words}")
    assert end.count("\n") == 0
    assert capsys.readouterr() == ("", "")
    assert not [*tmp_path.iterdir()]


@pytest.mark.slow
def test_a_key_that_is_taken_away_is_named(harness):
    cfg = OmegaConf.to_container(harness.compose())
    keys = [key for key in cfg if key not in ("names", "tracking")]  # the harness gives the latter
    keys += [f"{key}.{name}" for key in keys if isinstance(cfg[key], dict) for name in cfg[key] if name[0] != "_"]
    said = {}
    for key in keys:
        try:
            check(harness.compose(f"~{key}"))
        except (UserError, OmegaConfBaseException, HydraException) as error:
            said[key] = one_line(error)
    assert {"seed", "model", "trainer.precision", "data.source"} <= said.keys()
    assert [key for key, line in said.items() if key not in line] == []


@pytest.mark.parametrize("cells", ["seed=range(1000000000)", "optim.lr=range(0.001,1,0.001) seed=range(100)"])
def test_a_sweep_of_too_many_cells_is_refused_at_once(harness, cells):
    began = time.monotonic()
    end = harness.main("-m", *BASE, *cells.split())
    assert re.fullmatch(r"error: [\d,]+ cells: allowed: 10,000 in one sweep", end)
    assert time.monotonic() - began < 10
    assert not harness.folder.exists()


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        (["~data.seed", "++data.seed=glob(*)"], "++data.seed=glob(*): has no value, so there is no run"),
        (["data.root=/tmp/my pics (1)/x=y,/tmp/{z}"], "data: root=/tmp/my pics (1)/x=y: there is no such folder"),
        (["+report.margin.x=1", "seed=0,1"], 'report.margin={"x": 1}: limits how many seeds are run'),
    ],
)
def test_a_sweep_of_nothing_or_of_odd_values_is_refused_in_a_line(harness, cells, words):
    assert harness.main("-m", *BASE, *cells).startswith(f"error: {words}")
    assert not harness.folder.exists()


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_flag_may_stand_anywhere(harness, capsys, place):
    arguments = ["model=mlp", "optim=sgd", "seed=7"]
    arguments.insert(place, "--cfg=job")
    harness.main(*arguments)
    assert "seed: 7\n" in capsys.readouterr().out


BOMB = "a0: &a0 [1,1,1,1,1,1,1,1,1]\n" + "\n".join(
    f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)
)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (BOMB.encode(), "has more than 20,000 values"),
        (b"a: &a {b: *a}", "line 1 refers to itself"),
        (b"[" * 200 + b"]" * 200, "has more than 50 levels"),
        (b"[" * 20_000, "has more than 50 levels"),
        (b"lr: \xff\xfe", "is no text in UTF-8 (byte 4)"),
        (b"lr: 0.1\n  b: [", "mapping values are not allowed here"),
        (b"x: " + b"a" * 1_000_001, "has more than 1,000,000 bytes"),
        (b"lr: " + LONG.encode(), "Exceeds the limit"),
    ],
    ids=["bomb", "itself", "200 levels", "20,000 levels", "bytes", "syntax", "size", "digits"],
)
def test_a_file_ends_in_one_line_within_a_second(harness, tmp_path, content, words):
    (tmp_path / "optim").mkdir()
    (tmp_path / "optim" / "mine.yaml").write_bytes(content)
    harness.main(*BASE)  # what loads once has loaded
    began = time.process_time()
    end = harness.main(*BASE, "optim=mine", f"--config-dir={tmp_path}")
    assert time.process_time() - began < 2  # of which composing takes half a second
    assert end.startswith("error: ")
    assert words in end
    assert len(end) <= 300
    assert end.count("\n") == 0
    assert not harness.folder.exists()


def test_keys_of_free_text_are_those_of_the_schema():
    for key in TEXTS:
        group, _, name = key.rpartition(".")
        model = {"report": Report, "": Run}.get(group) or Run.model_fields[group].annotation
        assert name in model.model_fields


def test_every_key_of_the_schema_can_be_given_without_a_plus(harness):
    cfg = harness.compose("model=mlp", "scheduler=cosine", "claim=mlp_000")
    optional = {"scheduler", "report", "claim", "sweep.parent"}  # groups, and what sweeps and races are told
    ungiven = {
        f"{group}.{name}"
        for group, fields in {key: field.annotation for key, field in Run.model_fields.items()}.items()
        if group in cfg and group not in optional and hasattr(fields, "model_fields")
        for name, field in fields.model_fields.items()
        if (field.alias or name) not in cfg[group] and not name.startswith("_") and (field.alias or name)[0] != "_"
    }
    given = ("data.shuffle=false", "data.drop_last=true", "model.output.activation=tanh", "monitor=val/acc",
             "optim.bias.lr=0.1", "data.fold=3", "metrics=[top5]", "averaging.kind=ema", "data.augment.flip=0.5",
             "data.augment.crop=2", "data.augment.erase=0.1", "data.augment.shift=1",
             "data.augment.fill=nearest", "trainer.devices=2", "trainer.num_nodes=1")  # fmt: skip
    inner = {key for key in UNGIVEN if key.startswith("data.augment.")}
    assert ungiven | inner | {"model.output", "monitor", "metrics", "averaging"} == set(UNGIVEN)
    argued = [f"{key}=null" for key in UNGIVEN if not any(each.startswith(key) for each in given)]
    end = harness.main(*given, *argued, "--cfg", "job")
    assert end in (None, 0)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("a\rb\x07", r"a\rb\x07"),
        ("\u202eabc", r"\u202eabc"),
        ("é数🙂\n\t", "é数🙂\n\t"),
    ],
)
def test_what_a_terminal_would_act_on_is_shown_escaped(text, shown):
    assert printable(text) == shown


@pytest.mark.lean
def test_escapes_in_a_value_reach_neither_screen_nor_store(harness, capsys):
    harness.main("model=mlp", "optim=adam", "data=mnist5k", "data.test_fraction=0.6", "data.val_fraction=0.3",
                 "trainer=smoke", "model.hidden=[]", "data.root='\x1b[31mred'", "+optim.foreach=null")  # fmt: skip
    (run,) = harness.runs()
    everything = "".join([*capsys.readouterr(), run.info.run_name, *run.data.params.values(), *run.data.tags.values()])
    assert "\x1b" not in everything
