"""Our models under the name `grun_bench` in lm-eval's registry: importing this file puts them there.

lm-eval 0.4.13 looks for models of no other package. What it does import before it looks for a model's name are the
functions (`!function`) of task files that are named by their path; docs/benchmarks.md has one. Versions after it find
the entry point of pyproject.toml.
"""

from __future__ import annotations

import lm_eval.models  # noqa: F401  (its own models, which it registers only while there are none)
from lm_eval.api.registry import model_registry

NAME, TARGET = "grun_bench", "grun_bench.integrations.lm_eval.model:HarnessLM"

if NAME not in model_registry:
    model_registry.register(NAME, target=TARGET)
