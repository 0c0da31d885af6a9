"""grun-bench: train, score and attack unlearning methods for language models."""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """`load` and `push_to_hub`, on first use: importing the package loads nothing."""
    if name in ("load", "push_to_hub"):
        from grun_bench.methods import saving

        return getattr(saving, name)
    raise AttributeError(f"module 'grun_bench' has no attribute '{name}'")
