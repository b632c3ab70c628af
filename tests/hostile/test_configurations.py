# ruff: noqa: E501
"""Configurations that nobody would write: each is accepted, or ends in one line and leaves nothing.

They are drawn over every key of the schema and every group, with a fixed seed. HOSTILE_EXAMPLES=2000 draws that many.
"""

import os
import sys
import time
import unicodedata

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from digitlab.config.describe import Description
from digitlab.config.schema import Claim, Report, ReportJob, Run
from digitlab.data import download
from digitlab.report import report as reporting
from digitlab.training import run as training

EXAMPLES = int(os.environ.get("HOSTILE_EXAMPLES", "100"))
LINES, CHARACTERS, SECONDS = 3, 300, 5

GROUPS = ("model", "optim", "data", "scheduler", "trainer", "sweep", "claim", "counterpart")
ESCAPES = (
    "\x1b[31mred\x1b[0m",
    "\x1b]0;title\x07",
    "a\rb",
    "a\nb",
    "a\tb",
    "\x7f",
    "\x9b31m",
    "\u202eabc",
)
VALUES = {
    "null": ("null", "NULL", "none", "None", "~", ""),
    "list": ("[]", "[null]", "[1,2]", "[[[]]]", "[" * 60 + "]" * 60, "[" * 3000, "[{}]", "[a,b"),
    "map": ("{}", "{a: 1}", "{a: {b: {c: null}}}", "{_target_: os.system}", "{1: 2, null: 3, true: 4}", "{a: 1",
            "{" + "a: {" * 300 + "}" * 301),
    "huge": ("9" * 400, "9" * 5000, "1" + "0" * 40, "1e400", "1e308", "18446744073709551616", "4294967296", "1" * 40 + ".5"),
    "negative": ("-1", "-0", "-0.0", "-1e400", "-" + "9" * 30),
    "zero": ("0", "0.0", "00", "0x0", "0b1", "1_000"),
    "not finite": ("nan", "inf", "-inf", "NaN", ".inf", ".nan"),
    "boolean": ("true", "false", "yes", "on", "True"),
    "control": ESCAPES,
    "unicode": ("é", "数字", "🙂", "a\u0301", "\u200b", "\udcff", "ｎａｎ", "١٢", "²"),
    "path": ("/tmp/a=b", "/tmp/my pics (1)", "/tmp/a,b", "/tmp/it's", '/tmp/say "x"', "/tmp/a#b", "/tmp/a%20b", "~/x",
             "C:\\x y", "../..", "/dev/null", "/proc/self/mem", "//", "a" * 300, "/tmp/[x]", "/tmp/{x}", "/tmp/$x"),
    "text": ("abc", "12abc", "a b", "a:b", "a: b", "'", '"', "'a", "`x`", "#", "*", "&a", "!x", "%", "@", "|", "a" * 20_000,
             "(", ")", "f(", "range(3)", "choice(1,2)", "glob(*)", "shuffle(1)", "int(x)", "str(1)", "interval(0,1)", "a,b", ","),
    "interpolation": ("${optim}", "${seed}", "${data}", "${nothing}", "${.lr}", "${..}", "${", "${}", "${oc.env:NOT_THERE}",
                      "${oc.eval:1}", "${optim.lr}${optim.lr}", "${trainer.callbacks}", "${oc.create:{a: 1}}", "${now:%Y}",
                      "${oc.decode:x}", "${oc.select:optim}", "${hydra:job.name}", "${repository:x}", "${a:b:c}", "$" * 50,
                      "${" * 200),
}  # fmt: skip
# Without --info, which leaves Hydra's log of itself, raw, on for the rest of the process.
FLAGS = ("--resolve", "=1", "=", "+", "~", "+=1", "--cfg", "--cfg=job", "--cfg=all", "--cfg=x", "--nope", "-c", "--package=optim",
         "-p", "--config-name=nope", "--config-name=report", "--config-path=nope", "--config-dir=/nowhere", "--config-dir", "--run",
         "-m", "-m -m", "-", "--", "", " ", "model", "model=", "model==mlp", "optim.lr", "@", "a@b=c", "model@x=mlp", "/model=mlp", "model/=mlp",
         "optim@_global_=adam", "optim@=adam", "+optim@a.b=sgd", "~trainer.max_epochs", "~optim._target_", "++a=1", "+++a=1", "~~a", "~a=1",
         "+trainer.callbacks.x={}", "trainer.callbacks=null", "seed={a: 1}", "seed=${optim}", "sweep=null", "data=null", "scheduler=null",
         "--version", "--hydra-help", "--shell-completion", "--cfg=job --resolve", "optim.betas.0=1", "optim.betas[0]=1", "a.b.c=1",
         "optim.=1", ".lr=1", "optim..lr=1", "a b=c", "é=1", "+é=1", "+a!b=1", "+'a'=1", "+1=1", "+true=1", "+null=1", "+optim.1=1", "+_target_=x",
         "+optim.a-b=1", "+names.x=1", "names=null", "+names=3")  # fmt: skip


def keys_of(model, above: str = "") -> list[str]:
    """Return every key of the schema, inner nodes and what is built included."""
    found, description = [], Description(model.model_json_schema())

    def visit(node, key: str) -> None:
        for name, child in description.properties(node).items():
            inner = f"{key}.{name}" if key else name
            found.append(inner)
            visit(child, inner)

    visit(description.root, above)
    return found


RUN_KEYS, CLAIM_KEYS = keys_of(Run), keys_of(Claim, "claim")
REPORT_KEYS = keys_of(ReportJob)
assert {"trainer.callbacks", "optim.lr", "data.augment.shift", "sweep.seeds"} <= {*RUN_KEYS}
assert {f"report.{name}" for name in Report.model_fields} <= {*REPORT_KEYS}

values = st.one_of([st.sampled_from(each) for each in VALUES.values()])


def overrides(keys: list[str]):
    """Draw one override: a value by kind for a key of the schema or beside it, or the key taken away."""
    any_key = st.sampled_from(keys)
    new_key = st.builds(
        "{}.{}".format, any_key, st.sampled_from(("x", "a-b", "_target_", "_args_", "_recursive_", "0", "é"))
    )
    signs = st.sampled_from(("", "", "+", "++", "++"))
    return st.one_of(
        st.builds("{}{}={}".format, signs, any_key, values),
        st.builds("{}{}={}".format, signs, any_key, values),
        st.builds("+{}={}".format, new_key, values),
        st.builds("~{}".format, any_key),
        st.builds("{}={}".format, st.sampled_from(GROUPS), values),
        st.sampled_from(FLAGS),
    )


class AcceptedError(BaseException):
    """Everything was checked that is checked before a run exists."""


@pytest.fixture
def front_door(harness, tmp_path, monkeypatch, capsys):
    """Run the front door up to where a run would begin; return what is wrong with how it ended, "" for nothing."""

    def accept(*_, **__):
        raise AcceptedError

    def no_network(*_):
        raise OSError("no network here")

    monkeypatch.setattr(training.Store, "open", accept)
    monkeypatch.setattr(reporting.Store, "open", accept)
    monkeypatch.setattr(download, "_download", no_network)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", None)

    def fault(*arguments: str, entry_point: str = "train") -> str:
        began = time.process_time(), time.monotonic()
        try:
            end = harness.main(*arguments, entry_point=entry_point)
        except AcceptedError:
            end = None
        except Exception as error:
            return f"traceback: {type(error).__name__}: {str(error)[:100]}"
        finally:
            took = time.process_time() - began[0], time.monotonic() - began[1]
            said = "".join(capsys.readouterr())
        if took[0] > SECONDS or took[1] > 10 * SECONDS:  # other programs run at the same time
            return f"slow: {took[0]:.0f} s of {took[1]:.0f}"
        if left := [each.name for each in tmp_path.iterdir()]:
            for each in tmp_path.iterdir():
                each.rmdir() if each.is_dir() else each.unlink()
            return f"left behind: {left}"
        if is_raw(str(end)) or is_raw(said):
            return "raw control character"
        if end in (None, 0):
            return ""
        if isinstance(end, int):
            return (
                "" if end == 2 and "error: " in said and len(said) < 3 * CHARACTERS else f"code {end}: {said[-100:]!r}"
            )
        if not end.startswith("error: ") or "Traceback" in said:
            return f"no error line: {end[:80]!r}"
        lines = end.splitlines()
        if len(lines) > LINES or max(map(len, lines)) > CHARACTERS:
            return f"long: {len(lines)} lines of {max(map(len, lines))} characters"
        return ""

    return fault


def is_raw(text: str) -> bool:
    """Say whether text has a character that a terminal may act on, besides the ends of lines."""
    return any(unicodedata.category(each) in ("Cc", "Cf", "Cs") for each in text if each not in "\n\t")


def failures(front_door, arguments_of, **options) -> list[str]:
    """Draw configurations and return the faults."""
    found = []

    @settings(
        max_examples=EXAMPLES, derandomize=True, database=None, deadline=None, suppress_health_check=[*HealthCheck]
    )
    @given(arguments_of)
    def draw(arguments: list[str]) -> None:
        if fault := front_door(*arguments, **options):
            shown = " ".join(each if len(each) < 80 else f"{each[:60]}...{len(each)}" for each in arguments)
            found.append(f"{fault}  <-  {shown!r}")

    draw()
    print(f"{len(found)} of {EXAMPLES} failed")
    return found


BASE = ("model=mlp", "model.hidden=[]", "data=mnist5k", "trainer=smoke", "optim=adam")


@pytest.mark.slow
@pytest.mark.drawn
@pytest.mark.filterwarnings("ignore")
def test_a_run_is_accepted_or_refused_in_a_line(front_door):
    drawn = st.lists(overrides(RUN_KEYS), min_size=1, max_size=2)
    found = failures(front_door, drawn.map(lambda each: [*BASE, *each]))
    assert not found, "\n".join(found)


@pytest.mark.slow
@pytest.mark.drawn
@pytest.mark.filterwarnings("ignore")
def test_a_sweep_is_accepted_or_refused_in_a_line(front_door):
    drawn = st.lists(overrides([*RUN_KEYS, *CLAIM_KEYS]), min_size=1, max_size=2)
    found = failures(front_door, drawn.map(lambda each: ["-m", *BASE, "seed=0,1", "claim=simple_004", *each]))
    assert not found, "\n".join(found)


@pytest.mark.slow
@pytest.mark.drawn
@pytest.mark.filterwarnings("ignore")
def test_a_report_is_accepted_or_refused_in_a_line(front_door):
    drawn = st.lists(overrides(REPORT_KEYS), min_size=1, max_size=2)
    found = failures(front_door, drawn, entry_point="report")
    assert not found, "\n".join(found)
