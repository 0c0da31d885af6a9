"""grun-bench: train, score and attack unlearning methods for language models.

In Python: `run` and `evaluate` give an `Outcome`, `load_results` the filed rows of a folder as a table, `load` and
`push_to_hub` take a saved model. Expected errors are `GrunBenchError`. Each is loaded on first use: importing the
package loads nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from grun_bench.core.errors import DataError as DataError
    from grun_bench.core.errors import GrunBenchError as GrunBenchError
    from grun_bench.core.errors import ModelError as ModelError
    from grun_bench.core.errors import UsageError as UsageError
    from grun_bench.methods.saving import load as load
    from grun_bench.methods.saving import push_to_hub as push_to_hub
    from grun_bench.results.frame import load_results as load_results
    from grun_bench.runs.front import evaluate as evaluate
    from grun_bench.runs.front import run as run
    from grun_bench.runs.outcome import Outcome as Outcome

__version__ = "0.2.0"

#: what the package offers -> the module that has it
_PLACES = {
    "run": "runs.front",
    "evaluate": "runs.front",
    "Outcome": "runs.outcome",
    "load_results": "results.frame",
    "load": "methods.saving",
    "push_to_hub": "methods.saving",
    "GrunBenchError": "core.errors",
    "UsageError": "core.errors",
    "DataError": "core.errors",
    "ModelError": "core.errors",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'grun_bench' has no attribute '{name}'")
    return getattr(importlib.import_module(f"grun_bench.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PLACES])
