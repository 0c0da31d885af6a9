"""adapter x objective -> an unlearned model, and the unlearners that are not such a pair."""

from __future__ import annotations

import inspect
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from grun_bench import registry
from grun_bench.adapters import Adapter
from grun_bench.data import Batch, Encoded, collate
from grun_bench.errors import UsageError, unknown
from grun_bench.models import LM, forward
from grun_bench.refusals import REFUSALS
from grun_bench.training import Schedule, optimise

#: retain term -> its loss on a retain batch
RETAIN_TERMS: dict[str, Callable[[Side], Tensor]] = {"ce": lambda retain: retain.cross_entropy}


@dataclass(frozen=True)
class Recipe:
    """How a pair is trained. `forget_weight` and `retain_weight` scale the terms; `retain` names the retain term."""

    lr: float = 1e-5
    epochs: int = 10
    batch_size: int = 32
    weight_decay: float = 0.0
    warmup: float = 0.0
    clip: float = 1.0
    accumulate: int = 1
    forget_weight: float = 1.0
    retain_weight: float = 1.0
    retain: str | None = None
    #: of plain texts: tokens kept, and the share of them that is the prompt, at whose last token edits sit
    text_length: int = 512
    text_prompt: float = 0.0


@dataclass
class Side:
    """One batch run through the model, lazily: token-level values are flat over the answer tokens of the batch."""

    model: nn.Module
    batch: Batch
    #: (batch,) negative log-likelihood of each answer under the target model, in nats, summed over tokens
    reference: Tensor | None = None

    @cached_property
    def _forward(self) -> Any:
        return forward(self.model, self.batch)

    @property
    def ran(self) -> bool:
        return "_forward" in self.__dict__

    @property
    def logits(self) -> Tensor:
        """(tokens, vocabulary) of the answers' positions, in fp32."""
        return self._forward.logits.float()

    @property
    def gates(self) -> dict[int, Tensor]:
        """Layer -> gate logits (batch,)."""
        return self._forward.gates

    @cached_property
    def token_nll(self) -> Tensor:
        """(tokens,) negative log-likelihood of each answer token."""
        return nn.functional.cross_entropy(self.logits, self.batch.targets, reduction="none")

    @property
    def cross_entropy(self) -> Tensor:
        """Mean over the tokens of the batch."""
        return self.token_nll.mean()

    @cached_property
    def nll(self) -> Tensor:
        """(batch,) sum over each answer's tokens."""
        rows = self.batch.scored.nonzero()[:, 0]
        return self.token_nll.new_zeros(len(self.batch.labels)).index_add(0, rows, self.token_nll)

    @property
    def reference_nll(self) -> Tensor:
        if self.reference is None:
            raise TypeError("this objective must declare needs=('reference',) to read reference_nll")
        return self.reference


@dataclass
class UnlearningBatch:
    """What an objective sees: forget and retain answers, and refusals to the forget questions; run only when read."""

    forget: Side
    retain: Side
    idk: Side | None

    @property
    def forget_gates(self) -> dict[int, Tensor]:
        """Gate logits on the forget prompts, from a pass that was run anyway (the prompt of a refusal is the same)."""
        return self.idk.gates if self.idk is not None and self.idk.ran else self.forget.gates


@dataclass
class FitContext:
    """What an unlearner may use: the training rows, the models and the seed.

    A row is a pair of question and answer; of a plain text the question is empty.
    """

    forget: Sequence[tuple[str, str]]
    retain: Sequence[tuple[str, str]]
    load_target: Callable[[], LM]
    load_retain_model: Callable[[], LM]
    seed: int


@dataclass
class Fitted:
    """An unlearned model and what it took."""

    lm: LM
    trainable: int = 0
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)


class Unlearner(ABC):
    """The contract of methods that are not adapter x objective. Options are keyword parameters of the constructor."""

    #: False when seeds do not change the result
    seeded = True

    @property
    def settings(self) -> dict[str, Any]:
        """All settings in force, for the result file."""
        return {}

    @abstractmethod
    def fit(self, context: FitContext) -> Fitted:
        """Make the unlearned model. Raises Diverged when a loss is not finite."""


@registry.unlearner("none")
class Target(Unlearner):
    """The target model as it is: the row to improve on."""

    seeded = False

    def fit(self, context: FitContext) -> Fitted:
        return Fitted(context.load_target())


@registry.unlearner("retain")
class RetainModel(Unlearner):
    """The oracle: a model that was trained without the forget set."""

    seeded = False

    def fit(self, context: FitContext) -> Fitted:
        return Fitted(context.load_retain_model())


class Pair(Unlearner):
    """adapter + objective: trains what the adapter offers on what the objective asks for."""

    def __init__(self, adapter: str, objective: str, settings: dict[str, Any]) -> None:
        self._settings = settings
        self._adapter = registry.get("adapter", adapter)
        self._objective = registry.get("objective", objective)
        self.label = f"{adapter}+{objective}"
        self.recipe = Recipe(**{name: settings[name] for name in _recipe_defaults()})
        if self.recipe.retain is not None and self.recipe.retain not in RETAIN_TERMS:
            raise unknown("retain term", self.recipe.retain, RETAIN_TERMS)

    @property
    def settings(self) -> dict[str, Any]:
        return self._settings

    def _options(self, plugin: registry.Plugin) -> dict[str, Any]:
        return {name: self._settings[name] for name in options_of(plugin.target)}

    def fit(self, context: FitContext) -> Fitted:
        recipe, lm = self.recipe, context.load_target()
        needs = self._objective.options.get("needs", ())
        start = time.perf_counter()
        torch.manual_seed(context.seed)
        adapter: Adapter = self._adapter.target(**self._options(self._adapter))
        adapter.attach(lm.model)
        options = self._options(self._objective)
        rng = random.Random(context.seed)
        forget, retain = (encode_rows(lm, rows, recipe) for rows in (context.forget, context.retain))
        reference = None
        if "reference" in needs:
            with adapter.disabled():
                reference = reference_nll(lm, forget, recipe.batch_size)

        def losses(rows: tuple[list[int], list[int]]) -> dict[str, Tensor]:
            forget_rows, retain_rows = rows
            batch = UnlearningBatch(
                forget=_side(lm, [forget[row] for row in forget_rows]),
                retain=_side(lm, [retain[row] for row in retain_rows]),
                idk=None,
            )
            if reference is not None:
                batch.forget.reference = reference[forget_rows].to(lm.device)
            if "idk" in needs:
                refusals = [lm.prompts.encode(context.forget[row][0], rng.choice(REFUSALS)) for row in forget_rows]
                batch.idk = _side(lm, refusals)
            terms = {"forget": recipe.forget_weight * self._objective.target(batch, **options)}
            if recipe.retain is not None and recipe.retain_weight:
                terms["retain"] = recipe.retain_weight * RETAIN_TERMS[recipe.retain](batch.retain)
            if adapter.needs_retain:
                terms |= adapter.aux_loss(batch.forget_gates, batch.retain.gates)
            return terms

        schedule = Schedule(
            recipe.lr,
            weight_decay=recipe.weight_decay,
            warmup=recipe.warmup,
            clip=recipe.clip,
            accumulate=recipe.accumulate,
        )
        parameters = adapter.trainable_parameters()
        batches = pair_batches(len(forget), len(retain), recipe.epochs, recipe.batch_size, context.seed)
        lm.model.train()
        history = optimise(parameters, batches, losses, schedule, f"unlearning {self.label}")
        lm.model.eval()
        return Fitted(lm, sum(parameter.numel() for parameter in parameters), time.perf_counter() - start, history)


def encode_rows(lm: LM, rows: Sequence[tuple[str, str]], recipe: Recipe) -> list[Encoded]:
    """Training rows as token sequences: questions as prompt and answer, texts cut and split as the recipe says."""
    return [
        lm.prompts.encode(question, answer)
        if question
        else lm.prompts.encode_text(answer, recipe.text_prompt, recipe.text_length)
        for question, answer in rows
    ]


def _side(lm: LM, sequences: Sequence[Encoded]) -> Side:
    return Side(lm.model, collate(sequences, lm.pad_id).to(lm.device))


@torch.no_grad()
def reference_nll(lm: LM, sequences: Sequence[Encoded], batch_size: int) -> Tensor:
    """(sequences,) summed negative log-likelihood of each answer under the model as it is now, in nats."""
    lm.model.eval()
    starts = range(0, len(sequences), batch_size)
    return torch.cat([_side(lm, sequences[start : start + batch_size]).nll.cpu() for start in starts])


def pair_batches(forget: int, retain: int, epochs: int, size: int, seed: int) -> list[tuple[list[int], list[int]]]:
    """Row numbers of all epochs: each forget row once an epoch in random order, with as many retain rows beside it.

    Retain rows come from one shuffled pass after another over the retain set, so none is drawn twice before all were.
    """
    rng = random.Random(seed)
    pool: list[int] = []
    batches = []
    for _ in range(epochs):
        order = rng.sample(range(forget), forget)
        for start in range(0, forget, size):
            rows = order[start : start + size]
            while len(pool) < len(rows):
                pool += rng.sample(range(retain), retain)
            batches.append((rows, [pool.pop(0) for _ in rows]))
    return batches


def options_of(target: Callable[..., Any]) -> dict[str, Any]:
    """The keyword-only parameters of a plugin with their defaults: what `--set` can override."""
    parameters = inspect.signature(target).parameters.values()
    return {parameter.name: parameter.default for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY}


def _recipe_defaults() -> dict[str, Any]:
    return {item.name: item.default for item in fields(Recipe)}


def make_unlearner(name: str, overrides: Mapping[str, Any], embedded: bool) -> Unlearner:
    """The unlearner of this name with its settings: code defaults, then recipes.yaml, then `overrides`.

    Raises UsageError for an unknown name, an unknown setting, or a setting of the wrong type.
    """
    parsed = registry.parse_unlearner(name)
    if isinstance(parsed, str):
        plugin = registry.get("unlearner", parsed)
        return plugin.target(**_override(options_of(plugin.target), overrides, name))
    adapter, objective = (registry.get("adapter", parsed[0]), registry.get("objective", parsed[1]))
    defaults = _recipe_defaults() | {"retain": objective.options.get("retain")}
    defaults |= options_of(adapter.target) | options_of(objective.target)
    text = Path(__file__).with_name("recipes.yaml").read_text(encoding="utf-8")
    for section in ("paper", "embedded") if embedded else ("paper",):
        recipes = yaml.safe_load(text)[section]
        for key in (parsed[0], parsed[1], f"{parsed[0]}+{parsed[1]}"):
            defaults |= recipes.get(key, {})
    return Pair(*parsed, _override(defaults, overrides, name))


def _override(defaults: dict[str, Any], overrides: Mapping[str, Any], unlearner: str) -> dict[str, Any]:
    settings = dict(defaults)
    for key, value in overrides.items():
        if key not in settings:
            raise unknown(f"setting of {unlearner}", key, settings)
        settings[key] = _coerce(key, value, settings[key])
    return settings


def _coerce(key: str, value: Any, default: Any) -> Any:
    if isinstance(default, float) and isinstance(value, (int, str)) and not isinstance(value, bool):
        try:
            return float(value)
        except ValueError:
            pass
    if isinstance(default, tuple | list) and isinstance(value, list):
        return value
    if default is None or (type(value) is type(default)):
        return value
    raise UsageError(f"--set {key}={value}: expected {type(default).__name__}, as in {key}={default}.")
