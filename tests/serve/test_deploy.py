"""What docs/deploy/ gives for a server of one's own, as far as it can be checked without Docker."""

import re
import shutil
import subprocess
import sys

import pytest
from click.testing import CliRunner

from digitlab.cli_runs import serve


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="there is no systemd-analyze on the PATH")
def test_systemd_finds_no_fault_in_the_unit(repository, tmp_path):
    text = (repository / "docs" / "deploy" / "digitlab.service").read_text()
    (tmp_path / "digitlab.service").write_text(text.replace("/opt/digitlab/bin/digitlab", sys.executable))
    checked = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", tmp_path / "digitlab.service"], capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stderr
    assert "digitlab.service:" not in checked.stderr


def test_the_commands_are_ours_and_the_files_are_there(repository):
    unit, image = ((repository / "docs" / "deploy" / name).read_text() for name in ("digitlab.service", "Dockerfile"))
    given = [
        *re.findall(r"ExecStart=\S+ serve (.*)", unit),
        " ".join(re.findall(r'"([^"]+)"', image.split("CMD [")[-1])[1:]),
    ]
    known = CliRunner().invoke(serve, ["--help"]).output
    assert len(given) == 2
    for arguments in given:
        assert arguments.startswith("champion ")
        assert all(option in known for option in re.findall(r"--[a-z]+", arguments))
    copied = [source for line in re.findall(r"^COPY (.*) \S+$", image, re.M) for source in line.split()]
    assert "pyproject.toml" in copied
    assert all((repository / source).exists() for source in copied)
