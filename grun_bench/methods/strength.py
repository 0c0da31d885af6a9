"""An unlearned model weaker or stronger than it was trained, from the one training.

At strength 0 it is the target model, at 1 itself, in between and beyond what an adapter changes is changed so many
times. Where weights were changed it is theta0 + s (theta - theta0), theta0 the target's: for s in (0, 1) the mix of two
models of WiSE-FT (Wortsman et al. 2022, arXiv 2109.01903, eq. 1), beyond 1 the task vector scaled up (Ilharco et al.
2023, arXiv 2212.04089, sec. 2).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from grun_bench.core.errors import Refused
from grun_bench.methods.adapters.base import swapped
from grun_bench.methods.base import Fitted
from grun_bench.models.lm import LM


class Strength:
    """Sets the strength of an unlearned model. Raises Refused where its weights are not those of the target, changed.

    What was changed of the weights is kept of the target, and there once more within `at`.
    """

    def __init__(self, fitted: Fitted, load_target: Callable[[], LM]) -> None:
        self._adapter = fitted.adapter
        self._changed = [] if self._adapter else _changed(fitted.lm.model, load_target().model)

    def at(self, strength: float) -> AbstractContextManager[None]:
        """Within this block the model has this strength."""
        if self._adapter is not None:
            return self._adapter.at_strength(strength)
        values = [mixed(target, weight.detach(), strength) for weight, target in self._changed]
        return swapped([weight for weight, _ in self._changed], values)


def mixed(target: Tensor, unlearned: Tensor, strength: float) -> Tensor:
    """target + strength (unlearned - target), in float32 and then in their dtype; exactly either at 0 and at 1."""
    return torch.lerp(target.float(), unlearned.float(), strength).to(unlearned.dtype)


def _changed(model: nn.Module, target: nn.Module) -> list[tuple[nn.Parameter, Tensor]]:
    """The weights that differ from the target's, with these. Raises Refused where the two have others."""
    own, theirs = dict(model.named_parameters()), dict(target.named_parameters())
    odd = next((name for name in own.keys() | theirs.keys() if _shape(own, name) != _shape(theirs, name)), None)
    if odd is not None:
        raise Refused(
            f"--strengths: the unlearned model has other weights than the target ({odd}), so they do not mix."
        )
    pairs = ((weight, theirs[name].detach().to(weight.device)) for name, weight in own.items())
    return [(weight, before) for weight, before in pairs if not torch.equal(weight, before)]


def _shape(weights: dict[str, nn.Parameter], name: str) -> tuple[int, ...] | None:
    return tuple(weights[name].shape) if name in weights else None
