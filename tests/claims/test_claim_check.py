"""`digitlab claims check FILE`: a claim of the user's own is run, judged, and made a badge of."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from conftest import rest_at_night

CLAIM = """\
# @package _global_
# A blog post.
defaults:
  - base/any
  - override /model: mlp
  - override /optim: adam
  - override /data: mnist5k
  - override /trainer: smoke
  - _self_
model: {{hidden: [{{units: 16}}]}}
data: {{test_fraction: 0.8}}
claim:
  document: my blog post
  data: mnist5k
  {claimed}
"""


def check(harness, capsys, file, *arguments: str) -> tuple[int, str]:
    code = harness.main("claims", "check", str(file), *arguments, entry_point="digitlab")
    captured = capsys.readouterr()
    return code or 0, captured.out + captured.err


@pytest.mark.slow
def test_a_claim_is_run_and_judged_wherever_its_file_is(harness, tmp_path, capsys):
    file, badge = tmp_path / "my claim.yaml", tmp_path / "badge.svg"
    file.write_text(CLAIM.format(claimed="accuracy: 1.0"))
    code, said = check(harness, capsys, file, "--badge", str(badge))
    assert code == 1, said
    assert "my claim (document my blog post, mlp with adam): WORSE." in said
    runs = [run.data.metrics["test/acc"] for run in harness.runs()]
    assert len(runs) == 5
    shown = "".join(ElementTree.parse(badge).getroot().itertext())
    assert "worse" in shown
    assert f"{sum(runs) / 5:.4f}" in shown
    file.write_text(CLAIM.format(claimed=f"accuracy: {sum(runs) / 5:.4f}"))
    code, said = check(harness, capsys, file)
    assert len(harness.runs()) == 5  # what is claimed is not what is trained
    assert code == (0 if "REPRODUCED" in said else 3)
    code, said = check(harness, capsys, file, "--seeds", "2")
    assert (code, "TOO FEW" in said) == (3, True)


@pytest.mark.parametrize(
    ("claimed", "words"),
    [
        ("akuracy: 1.0", "claim.akuracy: unknown key; allowed: claim.accuracy"),
        ("accuracy: 2.0", "claim.accuracy=2.0: must be"),
        ("accuracy: [", "mine.yaml"),
        ("loss: 0.1", "claims no accuracy, so there is nothing to judge"),
        (
            "accuracy: 0.9\nevaluate_on: none",
            "evaluate_on=none: a claim is judged by the test; allowed here: best, last",
        ),
    ],
)
def test_a_file_that_is_no_claim_is_a_mistake_and_nothing_is_run(
    harness, tmp_path, monkeypatch, capsys, claimed, words
):
    monkeypatch.chdir(tmp_path)  # of a long path the line would be cut
    file = Path("mine.yaml")
    file.write_text(CLAIM.format(claimed=claimed))
    code, said = check(harness, capsys, file)
    assert code == 2
    assert said.startswith("error: claims check: ")
    assert words in said
    assert said.count("\n") == 1
    assert not harness.folder.exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("claim: null", "claim.document: must be given"),
        ("seed: 0", "claim.document: must be given"),
        ("", "claim.document: must be given"),
        ("claim: {accuracy: 0.9}", "claim.document: must be given"),
        ("defaults: [base/any, _self_]", "claim.document: must be given"),
        ("claim: [1, 2]", "claim=[1, 2]: must be a mapping, such as claim: {document: NAME, accuracy: 0.98}"),
        ("[1, 2]", "must be a mapping of keys, claim among them"),
        ("only text", "claim.document: must be given"),
        ("seed: 0\nclaim: {}\nseed: 1", "line 4: seed: is given twice"),
        ("claim: {accuracy: [", "line 3, column 1: expected the node content, but found '<stream end>'"),
        (
            "defaults: [base/kearas]",
            "defaults: base/kearas: not found; allowed: base/any, base/keras, base/nielsen, or a "
            "claim of conf/claim; did you mean: base/keras",
        ),
    ],
)
def test_a_file_that_says_nothing_of_a_claim_is_a_mistake(harness, tmp_path, capsys, text, words):
    file = tmp_path / "mine.yaml"
    file.write_text(f"# @package _global_\n{text}\n")
    code, said = check(harness, capsys, file)
    assert (code, said.startswith(f"error: claims check: {file}: {words}"), said.count("\n")) == (2, True, 1)
    assert not harness.folder.exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("claim: {document: mine, accuracy: 0.9}", "its first line must be # @package _global_"),
        ("# My blog.\n# @package _global_\nclaim: {document: mine}", "its first line must be # @package _global_"),
        ("\n", "is empty; docs/your-claim.md has an example"),
    ],
)
def test_a_file_that_hydra_would_take_for_another_thing_is_a_mistake(harness, tmp_path, capsys, text, words):
    file = tmp_path / "mine.yml"
    file.write_text(text)
    assert check(harness, capsys, file) == (2, f"error: claims check: {file}: {words}\n")


def test_a_claim_of_other_data_is_told_the_key_of_its_file(harness, tmp_path, capsys):
    file = tmp_path / "mine.yaml"
    file.write_text(BARE.replace("data: mnist5k, accuracy", "accuracy"))
    code, said = check(harness, capsys, file)
    assert code == 2
    assert f"{file}: claim.data=mnist: must be mnist5k, the data of the run; to train all the same, its file" in said


def test_seeds_and_a_badge_are_checked_before_anything_is_run(harness, tmp_path, capsys):
    file = tmp_path / "mine.yaml"
    file.write_text(CLAIM.format(claimed="accuracy: 0.5"))
    assert "'abc' must be a whole number from 1 to 1000" in check(harness, capsys, file, "--seeds", "abc")[1]
    for badge, words in (("b.png", "must end in .svg"), ("/proc/b.svg", "")):
        code, said = check(harness, capsys, file, "--badge", badge)
        assert (code, said.startswith(f"error: claims check: --badge={badge}: {words}")) == (2, True)
    assert not harness.folder.exists()


BARE = """\
# @package _global_
defaults:
  [{override /model: mlp}, {override /optim: adam}, {override /data: mnist5k}, {override /trainer: smoke}, _self_]
model: {hidden: [{units: 16}]}
data: {split: test, test_fraction: 0.8}
trainer: {max_epochs: 1}
tracking: {uri: sqlite:///elsewhere.db}
claim: {document: my blog post, data: mnist5k, accuracy: 0.9, decimals: 3}
"""


@pytest.mark.lean
@pytest.mark.parametrize(
    "name", ["simple_004", *rest_at_night(["it's (1)", "größe", "a,b=${c}", "2024", "null", "-", "x" * 240])]
)
def test_a_file_may_have_any_name_and_lie_anywhere(harness, tmp_path, monkeypatch, capsys, name):
    """Its runs are kept where those of this command are, whatever it says, and no shipped claim is judged for it."""
    folder = tmp_path / "Prüfung, 'neu'"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    monkeypatch.chdir(folder)
    file, badge = folder / f"{name}.yaml", folder / "badge.svg"
    file.write_text(BARE)
    code, said = check(harness, capsys, file, "--seeds", "1", "--badge", str(badge))
    assert code == 3, said
    assert f"{name} (document my blog post, mlp with adam): TOO FEW" in said.replace("\n", " ")
    assert len(harness.runs()) == 1
    assert sorted(each.name for each in folder.iterdir()) == sorted([file.name, badge.name])
    assert f"{name} 0.900" in "".join(ElementTree.parse(badge).getroot().itertext())


@pytest.mark.parametrize(
    "arguments",
    [
        ["mine.yaml", "--badge", "."],
        ["mine.yaml", "--badge", "folder.svg"],
        ["nowhere.yaml"],
        ["."],
        [__file__],
        ["mine.yaml", "--badge", "/nowhere/badge.svg"],
    ],
)
def test_a_file_or_a_place_that_is_not_there_is_a_mistake(harness, tmp_path, monkeypatch, capsys, arguments):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(CLAIM.format(claimed="accuracy: 0.5"))
    (tmp_path / "folder.svg").mkdir()
    code, said = check(harness, capsys, *arguments)
    assert code == 2
    assert said.startswith("error: claims check: ")
    assert not harness.folder.exists()
