"""lm-eval's command line by way of ours."""

from __future__ import annotations

import typer


def lm_eval(context: typer.Context) -> None:
    """Run lm-eval's command with the model `grun_bench`: --model_args adapter=DIR is what `run --save` wrote."""
    from grun_bench.integrations.lm_eval.command import lm_eval_command

    lm_eval_command(context.args)
