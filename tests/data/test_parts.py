"""Folders that hold train, val and test: which are taken as the split, which are refused, which are classes."""

import re

import pytest
from glyphs import as_png, draw, save_glyphs

from digitlab.data.folders import image_folder


@pytest.mark.parametrize("names", [("training", "testing"), ("Train", "Test"), ("TRAINING", "validation")])
def test_parts_have_other_names_too_and_what_is_beside_them_is_counted(tmp_path, capsys, names):
    for part in (*names, "extra", "__MACOSX"):
        save_glyphs(tmp_path / part, as_png)
    (tmp_path / "labels.csv").write_text("no image")
    found = image_folder(tmp_path)
    assert found.classes == ("a", "b")
    assert found.train[0].equal((found.test or found.val)[0])
    assert "left out: 1 .csv, 8 in __MACOSX, 8 in extra" in capsys.readouterr().out


def test_train_alone_is_a_split_of_which_the_others_are_drawn(tmp_path, capsys):
    save_glyphs(tmp_path / "train", as_png)
    alone = image_folder(tmp_path)
    assert (alone.classes, alone.test, alone.val) == (("a", "b"), None, None)
    for number in range(3):
        draw(tmp_path / "unlabeled" / f"{number}.png", 0)
    (tmp_path / "csv").mkdir()
    (tmp_path / "csv" / "labels.csv").write_text("no image")
    assert image_folder(tmp_path).train[0].equal(alone.train[0])
    assert f"in {tmp_path} (train), " in (said := capsys.readouterr().out)
    assert said.strip().endswith("left out: 1 in csv, 3 in unlabeled")


@pytest.mark.parametrize("name", ["dev", "eval"])
def test_what_stands_for_val_is_said(tmp_path, capsys, name):
    for part in ("train", name, "holdout"):
        save_glyphs(tmp_path / part, as_png)
    found = image_folder(tmp_path)
    assert (found.classes, found.test, len(found.val[1])) == (("a", "b"), None, 8)
    said = capsys.readouterr().out
    assert f"(train, {name} as val), " in said
    assert said.strip().endswith("left out: 8 in holdout")


@pytest.mark.parametrize(
    ("folders", "error"),
    [
        (("train", "val", "valid"), "val and valid are folders of one part; must be one folder"),
        (("train", "Train", "test"), "Train and train are folders of one part; must be one folder"),
    ],
)
def test_two_folders_of_one_part_are_refused(tmp_path, folders, error):
    for name in folders:
        save_glyphs(tmp_path / name, as_png)
    with pytest.raises(ValueError, match=error):
        image_folder(tmp_path)


def test_a_part_without_class_folders_is_refused_by_name(tmp_path):
    save_glyphs(tmp_path / "train", as_png)
    draw(tmp_path / "test" / "1.png", 0)
    with pytest.raises(ValueError, match=r"test has no class folders; must have those of .*train, or another name"):
        image_folder(tmp_path)


@pytest.mark.parametrize(
    ("folders", "error"),
    [
        (("test/a", "test/b", "val/a", "val/b"), "{root}: test and val would be its classes; must have a folder of "),
        (("train", "test"), "{root}: test and train would be its classes; must have a folder of images for each "),
        (("training_set/a", "training_set/b", "test_set/a", "test_set/b"), "{root}: test_set and training_set would "),
        (("seg_train/seg_train/a", "seg_test/seg_test/a"), "{root}: seg_test and seg_train would be its classes; "),
        (("train/train/a", "train/train/b", "train/test/a", "train/test/b"), ", or give root={root}/train"),
        (("train/train/a", "train/train/b"), "{root}/train: train would be its classes; must have a folder of "),
        (("pack/train/a", "pack/train/b", "pack/test/a"), "{root} has 1 class folder; must have 2 or more, one a "),
        (("pack/train/a", "pack/train/b", "pack/test/a"), "; did you mean: root={root}/pack"),
        (("train/a", "test/a", "test/b"), "{root}/train has 1 class folder; must have 2 or more, one a class"),
        (("train", "train/far", "train/near", "bus"), "{root}/train has class folders and images beside them, so it "),
    ],
)
def test_what_may_be_meant_as_a_split_and_is_none_is_refused(tmp_path, folders, error):
    for folder in folders:
        draw(tmp_path / folder / "1.png", 0)
    with pytest.raises(ValueError, match=re.escape(error.format(root=tmp_path))):
        image_folder(tmp_path)


def test_a_refused_folder_ends_a_run_in_one_line(harness, tmp_path):
    for folder in ("photos/train", "photos/test"):
        draw(tmp_path / folder / "1.png", 0)
    said = harness.main("model=mlp", "data=image_folder", f"data.root={tmp_path / 'photos'}")
    assert said.startswith("error: data: ")
    assert said.endswith("photos: test and train would be its classes; must have a folder of images for each class, or "
                         "folders train, test and val (train at least) with those in it")  # fmt: skip
    assert not harness.folder.exists()


@pytest.mark.parametrize(
    "classes", [("cars", "planes", "train"), ("bus", "test", "train"), ("test_negative", "test_positive")]
)
def test_a_class_may_be_called_as_a_part(tmp_path, classes):
    for name in classes:
        draw(tmp_path / name / "1.png", 0)
    draw(tmp_path / classes[0] / "further" / "2.png", 0)
    assert image_folder(tmp_path).classes == classes
