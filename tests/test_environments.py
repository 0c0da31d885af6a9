"""The two environments: what the README says to type is what CI types, and what is pinned is within the bounds."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import grun_bench

ROOT = Path(__file__).parent.parent
#: what the README says to type, and CI types
COMMANDS = [
    "pip install -c constraints.txt -e .",
    "grun-bench run --unlearner grun+npo --task tofu_forget10 --output",
    'pip install -c constraints.txt -e ".[dev]"',
    'pip install -c constraints-pyreft.txt -e ".[dev,pyreft]"',
]


@pytest.mark.parametrize("command", COMMANDS)
def test_ci_types_what_the_readme_says(command: str) -> None:
    readme, script = (ROOT / "README.md").read_text(), (ROOT / ".ci" / "run").read_text()
    lines = [line.replace(" -q ", " ").replace('"$work/pyreft/bin/pip"', "pip") for line in script.splitlines()]
    assert command in readme and any(line.startswith(command) for line in lines)


@pytest.mark.parametrize("environment", ["", "-pyreft"])
def test_pins_are_within_what_the_package_asks_for(environment: str) -> None:
    """Every dependency and every extra's is pinned where the tests run, by a version that is not below its bound."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    chosen = project["dependencies"] + [
        each for name in extras if name != "pyreft" or environment for each in extras[name]
    ]
    lines = (ROOT / f"constraints{environment}.txt").read_text().splitlines()
    pins = {canonicalize_name(pin.name): pin for pin in map(Requirement, (x for x in lines if not x.startswith("#")))}
    for asked in map(Requirement, chosen):
        if asked.name != project["name"]:
            (pin,) = pins[canonicalize_name(asked.name)].specifier
            assert asked.specifier.contains(pin.version), f"{asked}: {pin}"


def workflow(name: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / ".github" / "workflows" / f"{name}.yml").read_text())["jobs"]


def test_workflows_check_what_ci_does() -> None:
    """Every check of .ci/run is a step of some job, on each Python that the package says it runs on."""
    jobs = workflow("checks")
    steps = " \n".join(step["run"] for job in jobs.values() for step in job["steps"] if "run" in step)
    script = re.sub(r"\\\n\s*", "", (ROOT / ".ci" / "run").read_text()).replace(" -q ", " ")
    checks = re.findall(r"^(?:ruff|mypy|pytest|grun-bench leaderboard|pip install -c).*$", script, flags=re.MULTILINE)
    assert len(checks) >= 10
    for check in checks:
        assert check in steps, check
    classifiers = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["classifiers"]
    named = [each.rpartition(" ")[2] for each in classifiers if re.search(r":: 3\.\d+$", each)]
    assert jobs["tests"]["strategy"]["matrix"]["python"] == named


def test_a_release_has_its_part_of_the_changelog() -> None:
    """Under the heading that the workflow takes it by; the citation names the same version."""
    assert f"\n## {grun_bench.__version__}\n" in (ROOT / "CHANGELOG.md").read_text()
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == grun_bench.__version__
    (take,) = (step["run"] for step in workflow("release")["build"]["steps"] if step.get("run", "").startswith("awk"))
    script = take.partition(" > ")[0].replace("${GITHUB_REF_NAME#v}", grun_bench.__version__)
    note = subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert note.startswith(f"## {grun_bench.__version__}\n") and note.count("\n## ") == 0 and len(note) > 500
