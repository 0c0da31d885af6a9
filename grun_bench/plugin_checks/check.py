"""All checks of a plugin: what each is, and what is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from grun_bench.core import registry
from grun_bench.core.calls import ended_at
from grun_bench.core.errors import PluginError
from grun_bench.core.plugins import Kind
from grun_bench.core.raised import with_place
from grun_bench.plugin_checks import adapters, attacks, metrics, objectives, unlearners
from grun_bench.plugin_checks.contract import Check

#: plugin kind -> its contract
CONTRACTS: dict[Kind, tuple[Check, ...]] = {
    "adapter": adapters.CONTRACT,
    "objective": objectives.CONTRACT,
    "metric": metrics.CONTRACT,
    "unlearner": unlearners.CONTRACT,
    "attack": attacks.CONTRACT,
}


@dataclass(frozen=True)
class Checked:
    """One check of a plugin; `problem` is None where the contract holds."""

    what: str
    problem: str | None


def check(kind: Kind, name: str) -> Iterator[Checked]:
    """Run the contract of a plugin's kind on it. Raises UsageError where it is unknown or does not import."""
    registry.get(kind, name)
    for contract in CONTRACTS[kind]:
        problem = None
        try:
            contract(name)
        except PluginError as error:
            problem = str(error)
        except SystemExit as ended:
            problem = f"{ended_at(ended)}."
        except Exception as error:  # whatever a plugin raises is what its author has to read
            problem = with_place(error)
        what = contract.__doc__ or contract.__name__.replace("_", " ")  # flags of Python may take the docstrings out
        yield Checked(what.split("\n")[0], problem)
