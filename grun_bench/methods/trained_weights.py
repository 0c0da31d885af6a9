"""What weights are kept in while they are trained, whatever the dtype that the model computes in.

Rounding to bfloat16, which has eight bits, swallows small steps: one of 1e-5 leaves 98 of 100 weights of a small model
where they were. So a weight in fewer bits than float32 is trained in one of these ways, all with AdamW; in bytes for
each weight, with its gradient and AdamW's two means (a weight in float32 takes 16, and is trained as it is):

- `float32` (18 = weight 2, copy 4, gradient 4, means 8): a float32 copy is trained, and the model has that copy,
  rounded, after every step.
- `compensated` (12 = weight 2, rest 2, gradient 2, means 2 and 4): the weight stays as it is, and what rounding takes
  off it is kept beside it, in the same dtype, and added before the next step; the two have twice the bits.
- `own` (8): all stays in the model's dtype, and what rounding takes is lost. GRUN's official code (renjie3/GRUN @
  b59fd78) does so for W, b and the gate, whose steps are large (4e-3): there it ends within a tenth of float32's way.

The model that is trained, scored and saved is in the dtype that was asked for. Its weights were numbers of that dtype
before, so rounding to the nearest one would put them all back where they began until they had come half of the way to
the next. They are rounded up or down in proportion instead (`rounded`): some move, and so the model does.

In float16 the loss is scaled besides, so that small gradients are not rounded to zero (see `loop`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from grun_bench.core import processes
from grun_bench.methods.optimisers import USUAL, adamw, check_optimiser
from grun_bench.methods.parts import Part, part_of
from grun_bench.results.result import with_base

#: the ways, the usual one first
WAYS = ("float32", "compensated", "own")
#: steps without overflow after which a loss in float16 is scaled by twice as much, as torch.amp does
GROWS_AFTER = 2000
#: numbers that are drawn to round a weight by, used for its places in turn: to draw one for each takes as long as all
#: else of a step on a CPU. A prime, so that no two rows of a matrix have the same ones in the same columns
_DRAWN = 1_048_573
#: dtypes of models that leave no choice, and why
ONE_WAY = {
    "float32": "the model is in float32, and its weights are trained as they are",
    "float16": "in float16 weights are trained as float32, for their gradients are scaled",
}


def training_dtype(dtype: str, quantise: str = "") -> str:
    """What names the numbers of a training in this dtype: another one where the usual way is another than it was, or
    where the base is rounded to fewer bits."""
    named = dtype if dtype == "float32" else f"{dtype}, trained in {WAYS[0]}"
    return with_base(named, quantise)


def rounded(values: Tensor, dtype: torch.dtype, seed: int, part: Part | None = None) -> Tensor:
    """float32 values as numbers of a dtype of fewer bits: up or down, each as likely as it is near.

    So sums over many are right where each number is wrong (stochastic rounding, Gupta et al. 2015, arXiv 1502.02551).
    Chance is drawn by the seed, the same for a place at every step: a weight that moves on does not jump back, and a
    training that is resumed ends the same. What is a number of the dtype stays as it is. A `part` of a weight is
    rounded as it is in the whole.
    """
    if dtype == torch.float32:
        return values
    # a random part of the last bit kept is added, and what is below it cut off: float32 has 23 bits of a fraction
    below = 23 + round(math.log2(torch.finfo(dtype).eps))
    generator = torch.Generator(values.device).manual_seed(seed)
    shape = values.shape if part is None else part.shape
    count = math.prod(shape)
    drawn = torch.randint(2**below, (min(_DRAWN, count),), generator=generator, dtype=torch.int32, device=values.device)
    if part is not None:
        drawn = part.of(drawn.repeat(-(-count // _DRAWN))[:count].view(shape)).flatten()
    found = torch.empty(values.shape, dtype=dtype, device=values.device)
    # a piece at a time stays in a processor's cache; those of a part have numbers of their own, others the same
    pieces = zip(
        values.contiguous().view(torch.int32).view(-1).split(_DRAWN),
        found.view(-1).split(_DRAWN),
        cycle(drawn.split(_DRAWN)),
        strict=False,
    )
    for bits, place, numbers in pieces:
        place.copy_((bits + numbers[: len(bits)]).bitwise_and_(-1 << below).view(torch.float32))
    return found


class TrainedWeights:
    """The parameters that may change, and `values`, what an optimiser changes in their place, one for each.

    Of parameters that are divided among processes (see `divided`) the values are this process's part; of others all
    processes have all, and add their gradients up.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], way: str = WAYS[0]) -> None:
        self.parameters, self._way = [each for each in parameters if each.requires_grad], way
        self._parts = [part_of(each) for each in self.parameters]
        pairs = zip(self.parameters, self._parts, strict=True)
        #: what lies in this process of the parameters
        self._held = [each if part is None else part.held for each, part in pairs]
        self.values = [self._value(each, way == "float32") for each in self._held]

    def adamw(self, lr: float, betas: tuple[float, float], weight_decay: float, optimiser: str = USUAL) -> Optimizer:
        """AdamW (arXiv 1711.05101) of the values. Raises Refused for an `optimiser` that there is not for them."""
        options: dict[str, Any] = {"lr": lr, "betas": betas, "weight_decay": weight_decay}
        divides = any(part is not None for part in self._parts)
        device = self.values[0].device.type if self.values else "cpu"
        check_optimiser(optimiser, device, self._way, divides)
        if self._way == "compensated":
            return CompensatedAdamW(self.values, **options, parts=self._parts)
        return adamw(optimiser, self.values, **options)

    @staticmethod
    def _value(held: Tensor, copied: bool) -> nn.Parameter:
        """What is trained in place of a parameter, or of what is held of it."""
        if copied and torch.finfo(held.dtype).bits < 32:
            return nn.Parameter(held.detach().float())
        return held if isinstance(held, nn.Parameter) else nn.Parameter(held)

    @contextmanager
    def gathering(self) -> Iterator[None]:
        """Within this block gradients of parameters go to their values, and are summed in the dtype of these."""
        pairs = zip(self.parameters, self._parts, self.values, strict=True)
        handles = [
            parameter.register_post_accumulate_grad_hook(_hand_on(value))
            for parameter, part, value in pairs
            if part is None and parameter is not value
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @torch.no_grad()
    def write(self) -> None:
        """The model has the values from now on, in its dtype."""
        copies = [
            (held, value, part)
            for held, value, part in zip(self._held, self.values, self._parts, strict=True)
            if held.dtype != value.dtype
        ]
        for place, (held, value, part) in enumerate(copies):
            held.copy_(rounded(value, held.dtype, place, part))

    def are_finite(self) -> bool:
        """Whether every weight is a finite number."""
        return _everywhere(all(bool(value.isfinite().all()) for value in (*self.values, *self._held)))

    def collect(self) -> None:
        """After a backward pass: the gradients of divided parameters, which have no hooks, go to the values."""
        for parameter, part, value in zip(self.parameters, self._parts, self.values, strict=True):
            if part is not None and parameter.grad is not None:
                _add(value, part.held_of(parameter.grad))
                parameter.grad = None

    def add_up(self) -> None:
        """Gradients of what is not divided are summed over the processes, each of which ran its own rows."""
        whole = [value for value, part in zip(self.values, self._parts, strict=True) if part is None]
        if processes.count() == 1 or not whole:
            return
        # what no process ran has no gradient anywhere, and stays as it is
        used = processes.most(*(int(value.grad is not None) for value in whole))
        for value in (each for each, ran in zip(whole, used, strict=True) if ran):
            total = torch.zeros_like(value, dtype=torch.float32) if value.grad is None else value.grad.float()
            torch.distributed.all_reduce(total)
            value.grad = total.to(value.dtype)

    def clip(self, most: float) -> None:
        """Bound the norm of the gradient, over all parts."""
        if all(part is None for part in self._parts):
            nn.utils.clip_grad_norm_(self.values, most)
            return
        norm = nn.utils.get_total_norm([value.grad for value in self.values if value.grad is not None])
        squared = norm.float() ** 2
        torch.distributed.all_reduce(squared)
        nn.utils.clip_grads_with_norm_(self.values, most, squared.sqrt())

    @property
    def shapes(self) -> list[list[Any]]:
        """The shape of each weight, and the dtype of its value."""
        return [[*each.shape, str(value.dtype)] for each, value in zip(self.parameters, self.values, strict=True)]

    def state_dict(self) -> list[Tensor]:
        """The values whole, however they are divided; empty ones in processes that do not write."""
        return [_whole(value.detach(), part) for value, part in zip(self.values, self._parts, strict=True)]

    def load_state_dict(self, values: Sequence[Tensor]) -> None:
        for value, part, was in zip(self.values, self._parts, values, strict=True):
            value.data.copy_(was if part is None else part.of(was))
        self.write()

    def optimiser_state(self, optimiser: Optimizer) -> Optimizer | OptimiserState:
        """The optimiser for checkpoints, which have its state whole."""
        divided = any(part is not None for part in self._parts)
        return OptimiserState(optimiser, self.values, self._parts) if divided else optimiser


class OptimiserState:
    """The state of an optimiser of parts, as one process would have it."""

    def __init__(self, optimiser: Optimizer, values: Sequence[Tensor], parts: Sequence[Part | None]) -> None:
        self._optimiser, self._values, self._parts = optimiser, values, parts

    def state_dict(self) -> dict[str, Any]:
        state = self._optimiser.state_dict()
        kept: dict[int, dict[str, Any]] = {}
        for number, own in sorted(state["state"].items()):
            value, part = self._values[number], self._parts[number]
            kept[number] = {
                name: _whole(each, part) if torch.is_tensor(each) and each.shape == value.shape else each
                for name, each in own.items()
            }
        return state | {"state": kept}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        kept: dict[int, dict[str, Any]] = {}
        for number, whole in state["state"].items():
            part = self._parts[number]
            kept[number] = {
                name: part.of(each) if part and torch.is_tensor(each) and each.shape == part.shape else each
                for name, each in whole.items()
            }
        self._optimiser.load_state_dict(state | {"state": kept})


def _whole(own: Tensor, part: Part | None) -> Tensor:
    if part is None:
        return own
    whole = part.whole(own)
    return whole.cpu() if processes.first() else whole[:0]


def _everywhere(holds: bool) -> bool:
    """Whether something holds in all processes."""
    return not processes.most(int(not holds))[0]


def _add(value: nn.Parameter, gradient: Tensor) -> None:
    gradient = gradient.to(value.dtype)
    value.grad = gradient if value.grad is None else value.grad + gradient


def _hand_on(value: nn.Parameter) -> Any:
    def hook(parameter: Tensor) -> None:
        if parameter.grad is not None:
            _add(value, parameter.grad)
            parameter.grad = None

    return hook


class CompensatedAdamW(Optimizer):
    """AdamW whose weights are a sum of two numbers of their dtype, the second what rounding took off the first.

    The mean of the gradients has that dtype; the mean of their squares is in float32, for there a step of 0.1 % would
    be rounded away. Parameters in float32 are trained as by torch's AdamW.
    """

    def __init__(
        self,
        params: Sequence[nn.Parameter],
        lr: float,
        betas: tuple[float, float],
        weight_decay: float,
        eps: float = 1e-8,
        parts: Sequence[Part | None] = (),
    ) -> None:
        self._parts = [*parts] or [None] * len(params)
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay, "eps": eps})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for place, parameter in enumerate(group["params"]):
                if parameter.grad is not None:
                    gradient, state, part = parameter.grad.float(), self.state[parameter], self._parts[place]
                    _step(parameter, gradient, state, place, part, **group)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch's, but the state keeps its dtype, which torch changes to that of the weights."""
        super().load_state_dict(state_dict)
        for group in self.param_groups:
            for number, parameter in enumerate(group["params"]):
                for name, value in state_dict["state"].get(number, {}).items():
                    self.state[parameter][name] = value.to(parameter.device) if torch.is_tensor(value) else value


def _step(
    parameter: Tensor,
    gradient: Tensor,
    state: dict[str, Any],
    place: int,
    part: Part | None,
    lr: float,
    betas: tuple[float, float],
    weight_decay: float,
    eps: float,
    **_: Any,
) -> None:
    """One step of AdamW (arXiv 1711.05101, algorithm 2) in float32, and what is kept of it."""
    if not state:
        state |= {"step": 0, "rest": torch.zeros_like(parameter), "mean": torch.zeros_like(parameter)}
        state["squares"] = torch.zeros_like(parameter, dtype=torch.float32)
    state["step"] += 1
    value = parameter.float() + state["rest"]
    mean = state["mean"].float().lerp(gradient, 1 - betas[0])
    squares = state["squares"].lerp_(gradient.square(), 1 - betas[1])
    unbiased, unbiased_squares = (1 - beta ** state["step"] for beta in betas)
    value = value * (1 - lr * weight_decay)
    value -= lr / unbiased * mean / ((squares / unbiased_squares).sqrt() + eps)
    state["mean"].copy_(mean)
    parameter.copy_(rounded(value, parameter.dtype, place, part))
    state["rest"].copy_(value - parameter.float())


class LossScale:
    """What a loss in float16 is multiplied by before its backward pass, and gradients divided by after it.

    It begins at 65,536 and is halved, and the batch run again, as long as a gradient is not finite (Micikevicius et al.
    2018, arXiv 1710.03740, sec. 3.2, which leaves such batches out instead); it is doubled after GROWS_AFTER steps
    without that, as there. 1 in other dtypes.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        self._scales = dtype == torch.float16
        self.factor = 2.0**16 if self._scales else 1.0
        #: steps in a row whose gradients were finite
        self._good = 0

    def fits(self, values: Iterable[nn.Parameter]) -> bool:
        """Divide gradients. False, with a smaller factor and no gradient left, where one is not finite.

        At a factor of 1 such a gradient is the loss's own, and stays.
        """
        if not self._scales:
            return True
        gradients = [value.grad for value in values if value.grad is not None]
        finite = _everywhere(all(bool(gradient.isfinite().all()) for gradient in gradients))
        self._good = self._good + 1 if finite else 0
        if not finite and self.factor > 1:
            self.factor /= 2
            for value in values:
                value.grad = None
            return False
        for gradient in gradients:
            gradient /= self.factor
        if self._good == GROWS_AFTER:
            self.factor, self._good = 2 * self.factor, 0
        return True

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"factor": self.factor, "good": self._good}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.factor, self._good = state["factor"], state["good"]
