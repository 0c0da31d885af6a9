"""lm-eval's own command line, with our models known to it."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from grun_bench.core.patches import replaced


def lm_eval_command(arguments: Sequence[str]) -> None:
    """Run lm-eval's command with these arguments: `--model grun_bench --model_args adapter=DIR` is a model of its."""
    from lm_eval.__main__ import cli_evaluate

    import grun_bench.integrations.lm_eval.registered  # noqa: F401

    with replaced(sys, "argv", ["lm-eval", *arguments]):
        cli_evaluate()
