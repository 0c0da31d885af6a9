"""lm-eval's own command line, with our models known to it."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from grun_bench.core.patches import replaced

#: what lm-eval calls our models, as pyproject.toml has it for versions that look for plugins
NAME, TARGET = "grun_bench", "grun_bench.integrations.lm_eval.model:HarnessLM"


def lm_eval_command(arguments: Sequence[str]) -> None:
    """Run lm-eval's command with these arguments; `--model grun_bench --model_args adapter=DIR` is one of its models.

    lm-eval 0.4.13 has no way to bring a model along but to register it in its process before its command begins.
    """
    import lm_eval.models  # noqa: F401  (its own models, which it registers only while there are none)
    from lm_eval.__main__ import cli_evaluate
    from lm_eval.api.registry import model_registry

    if NAME not in model_registry:
        model_registry.register(NAME, target=TARGET)
    with replaced(sys, "argv", ["lm-eval", *arguments]):
        cli_evaluate()
