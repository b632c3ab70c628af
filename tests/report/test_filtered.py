"""The report of a filter stands beside that of the whole sweep."""

import pytest

from digitlab.report import report


@pytest.mark.slow
def test_a_filtered_report_leaves_the_full_one_as_it_is(fake_store, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "REPOSITORY", tmp_path)
    ids = [fake_store.record("cnn", "adam", seed, 0.9) for seed in range(3)]
    parent = fake_store.sweep("one", *ids)
    main = fake_store.harness.main
    assert main("report.sweep=one", entry_point="report") is None
    full = (tmp_path / "reports" / "one" / "report.md").read_text()
    for filter_string in ("params.seed = '0'", "params.seed != '0'"):
        assert main("report.sweep=one", f"report.filter={filter_string}", entry_point="report") is None
    assert (tmp_path / "reports" / "one" / "report.md").read_text() == full
    folders = sorted(folder.name for folder in (tmp_path / "reports").iterdir())
    assert len(folders) == 3
    assert all(folder.startswith("one") for folder in folders)
    kept = {each.path for each in fake_store.harness.client.list_artifacts(parent) if each.is_dir}
    assert kept >= {folder.replace("one", "report", 1) for folder in folders}
