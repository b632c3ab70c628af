"""Files for forges, hooks and citation tools: they follow the rules of each and agree with the project."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).parents[1]
GITHUB = REPOSITORY / ".github"
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
CHANGELOG = (REPOSITORY / "CHANGELOG.md").read_text()
# [version, date]
RELEASES = re.findall(r"^## \[(\d+\.\d+\.\d+)\] - (Unreleased|\d{4}-\d{2}-\d{2})$", CHANGELOG, re.MULTILINE)


def load(file: str | Path) -> dict:
    return yaml.safe_load((REPOSITORY / file).read_text())


def version(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(".")))


def test_the_workflow_does_what_ci_run_does():
    workflow = load(".github/workflows/ci.yml")
    assert {"push", "pull_request"} <= set(workflow[True])  # to YAML 1.1 `on` is a boolean
    (job,) = workflow["jobs"].values()
    *before, last = job["steps"]
    assert last == {"run": "bash .ci/run"}  # and no `if`, no continue-on-error
    assert any(step.get("uses", "").startswith("actions/checkout@") for step in before)
    assert "if" not in job
    assert 0 < job["timeout-minutes"] <= 120
    image, _, python = job["container"]["image"].partition(":")
    assert image == "python"  # Debian, with make and git, as root: .ci/run calls apt-get
    assert version(python) >= version(PROJECT["requires-python"].removeprefix(">="))


@pytest.mark.parametrize(
    ("content", "is_refused"), [("a\n", False), ("a\n\nb\n", False), ("", False), ("a", True), ("a\nb\n\n", True)]
)
def test_the_hook_finds_a_file_that_does_not_end_in_one_newline(content, is_refused):
    (hook,) = (each for each in hooks() if each["id"] == "end-of-file")
    assert (hook["language"], hook["args"]) == ("pygrep", ["--multiline"])  # which is re with these flags
    assert bool(re.search(hook["entry"], content, re.MULTILINE | re.DOTALL)) is is_refused


def test_hooks_use_the_projects_own_tools():
    lint = subprocess.run(["make", "-n", "-o", "setup", "lint"], cwd=REPOSITORY, capture_output=True, text=True)
    for tool in re.findall(r"^\.venv/bin/\S+(?: (?!-)\w+)?", lint.stdout, re.MULTILINE):
        assert any(hook["entry"].startswith(tool) for hook in hooks()), tool
    assert "ruff" in lint.stdout
    assert {repo["repo"] for repo in load(".pre-commit-config.yaml")["repos"]} == {"local"}


def hooks() -> list[dict]:
    return [hook for repo in load(".pre-commit-config.yaml")["repos"] for hook in repo["hooks"]]


def test_the_changelog_has_the_form_of_keep_a_changelog_and_this_version():
    assert len(RELEASES) == len(re.findall(r"^## ", CHANGELOG, re.MULTILINE)) > 1
    versions = [version(number) for number, _ in RELEASES]
    assert versions == sorted(versions, reverse=True)
    assert PROJECT["version"] in dict(RELEASES)
    assert "Unreleased" not in [date for _, date in RELEASES[1:]]
    kinds = set(re.findall(r"^### (.*)$", CHANGELOG, re.MULTILINE))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_the_citation_is_of_the_newest_release():
    citation = load("CITATION.cff")
    assert {"cff-version", "message", "title", "authors"} <= set(citation)  # that format 1.2.0 asks for
    assert citation["cff-version"] == "1.2.0"
    newest = next((number, date) for number, date in RELEASES if date != "Unreleased")
    assert (citation["version"], citation["date-released"]) == newest
    assert (citation["title"], citation["license"]) == (PROJECT["name"], PROJECT["license"])


@pytest.mark.parametrize("file", sorted((GITHUB / "ISSUE_TEMPLATE").glob("*.yml")), ids=lambda file: file.stem)
def test_issue_forms_follow_githubs_rules(file):
    form = load(file)
    assert all(isinstance(form[key], str) for key in ("name", "description"))
    assert set(form) <= {"name", "description", "labels", "body"}
    ids = [field["id"] for field in form["body"]]
    assert len(set(ids)) == len(ids)
    for field in form["body"]:
        assert field["type"] in ("input", "textarea", "dropdown", "checkboxes")
        assert field["attributes"]["label"]
        assert set(field.get("validations", ())) <= {"required"}
    assert any(field.get("validations", {}).get("required") for field in form["body"])


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", ".github/pull_request_template.md"])
def test_files_that_a_page_names_exist(page):
    named = re.findall(
        r"`((?:src|tests|conf|docs|\.github|\.ci)/[\w./-]*|[\w.-]+\.(?:md|ya?ml|lock))`",
        (REPOSITORY / page).read_text(),
    )
    missing = {name for name in named if "NAME" not in name and not (REPOSITORY / name).exists()}
    assert not missing
