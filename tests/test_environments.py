"""The two environments: what the README says to type is what CI types, and what is pinned is within the bounds."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

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
    lines = [line.replace(" -q ", " ") for line in script.splitlines()]
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
