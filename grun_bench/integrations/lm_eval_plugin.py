"""Makes `grun_bench` a model of lm-eval: `lm_eval --model grun_bench --model_args adapter=DIR`.

lm-eval 0.4.13 has no entry points for models: one is known once something has registered it. So the wheel brings
`grun_bench_lm_eval.pth`, a line that Python runs at its start and that imports this module in lm-eval's own command and
nowhere else. A script of your own, which calls `lm_eval.simple_evaluate`, imports it itself. It loads no torch.
"""

from __future__ import annotations

import lm_eval.models  # noqa: F401  (lm-eval's own models, which it registers only while there are none)
from lm_eval.api.registry import model_registry

model_registry.register("grun_bench", target="grun_bench.integrations.lm_eval:HarnessLM")
