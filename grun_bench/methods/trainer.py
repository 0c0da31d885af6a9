"""adapter x objective -> an unlearned model, and the unlearners that are not such a pair."""

from __future__ import annotations

import inspect
import math
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from grun_bench.core import registry
from grun_bench.core.errors import UsageError, unknown
from grun_bench.methods.adapters import Adapter, layer_index
from grun_bench.methods.alternates import sample_alternates
from grun_bench.methods.checkpoints import Checkpoint, Stateful
from grun_bench.methods.frozen import Trunk, frozen_trunk
from grun_bench.methods.loop import Schedule, optimise
from grun_bench.methods.monitor import Monitor
from grun_bench.methods.refusals import REFUSALS
from grun_bench.models.batch import IGNORED, Batch, Encoded, collate
from grun_bench.models.forward import Forward, Frozen, checkpointing, evaluating, forward
from grun_bench.models.head import frozen_head, token_losses
from grun_bench.models.lm import LM
from grun_bench.tasks.world import World


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
    #: gradient checkpointing: less memory, for a second forward pass of what is trained
    checkpointing: bool = False
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
    #: what makes `model` the target model again; None where the objective does not ask for that
    adapter: Adapter | None = None
    #: decoder blocks whose outputs `hidden` can give
    layers: Sequence[int] = ()
    #: what is frozen, which then need not run
    trunk: Trunk | None = None
    #: the vocabulary head where it is frozen and all that comes after the last block, which then can be put off
    head: nn.Linear | None = None

    @cached_property
    def _frozen(self) -> Frozen | None:
        return None if self.trunk is None else self.trunk.frozen(self.batch)

    @cached_property
    def _forward(self) -> Forward:
        return forward(self.model, self.batch, self.layers, self._frozen, head=self.head is None)

    @property
    def ran(self) -> bool:
        return "_forward" in self.__dict__

    @cached_property
    def logits(self) -> Tensor:
        """(tokens, vocabulary) of the answers' positions, in fp32."""
        logits = self._forward.logits if self.head is None else self.head(self._forward.states)
        return logits.float()

    @property
    def gates(self) -> dict[int, Tensor]:
        """Layer -> gate logits (batch,)."""
        return self._forward.gates

    @cached_property
    def token_nll(self) -> Tensor:
        """(tokens,) negative log-likelihood of each answer token."""
        if self.head is not None:
            return token_losses(self._forward.states, self.batch.targets, self.head)
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
    def lengths(self) -> Tensor:
        """(batch,) answer tokens, the end of sequence included."""
        return self.batch.scored.sum(1)

    @property
    def places(self) -> Tensor:
        """(tokens,) place of each answer token in its answer, from 0."""
        return (self.batch.scored.cumsum(1) - 1)[self.batch.scored]

    def hidden(self, layer: float, positions: str) -> Tensor:
        """(tokens, hidden) outputs of the decoder block at a depth, in fp32.

        `positions`: `predicting` an answer token (the last prompt token is the first) or of the `answer` tokens.
        """
        index = layer_index(layer, self.model.config.get_text_config().num_hidden_layers)
        batch = self._forward.batch
        mask = batch.scored if positions == "predicting" else batch.labels != IGNORED
        return self._forward.hidden[index][mask].float()

    @cached_property
    def target(self) -> Side:
        """The same batch under the target model, without gradients or dropout."""
        if self.adapter is None:
            raise TypeError("this objective must declare needs=('target',) to read what the target model says")
        target = Side(self.model, self.batch, layers=self.layers, head=self.head)
        target._frozen = self._frozen
        with torch.no_grad(), evaluating(self.model), self.adapter.disabled():
            _ = target._forward
        return target

    @property
    def reference_nll(self) -> Tensor:
        """(batch,) `nll` under the target model: computed before training where `reference` was declared."""
        if self.reference is None and self.adapter is None:
            raise TypeError("this objective must declare needs=('reference',) to read reference_nll")
        return self.target.nll if self.reference is None else self.reference


@dataclass
class UnlearningBatch:
    """What an objective sees: forget and retain answers, and other answers to the forget questions; run when read."""

    forget: Side
    retain: Side
    idk: Side | None = None
    alternate: Side | None = None
    #: a text as the answer's tokens, without the end of sequence
    tokens: Callable[[str], list[int]] = field(default=lambda text: [])
    seed: int = 0

    @property
    def forget_gates(self) -> dict[int, Tensor]:
        """Gate logits on the forget prompts, from a pass that was run anyway (all answers have the same prompt)."""
        ran = (side for side in (self.forget, self.idk, self.alternate) if side is not None and side.ran)
        return next(ran, self.forget).gates


@dataclass(frozen=True)
class RetainTerm:
    """A loss on a retain batch, with what it needs (as objectives declare it); keyword parameters are settings."""

    loss: Callable[..., Tensor]
    needs: tuple[str, ...] = ()


def retain_kl(retain: Side) -> Tensor:
    """KL(p0 || p) from the target model, in nats, mean over answer tokens."""
    log_p, log_p0 = retain.logits.log_softmax(-1), retain.target.logits.log_softmax(-1)
    return nn.functional.kl_div(log_p, log_p0, reduction="batchmean", log_target=True)


def retain_js(retain: Side) -> Tensor:
    """Jensen-Shannon divergence from the target model, in nats, mean over answer tokens (JensUn, arXiv 2509.02820)."""
    log_p, log_p0 = retain.logits.log_softmax(-1), retain.target.logits.log_softmax(-1)
    middle = torch.logaddexp(log_p, log_p0) - math.log(2)
    sides = [nn.functional.kl_div(middle, each, reduction="batchmean", log_target=True) for each in (log_p, log_p0)]
    return (sides[0] + sides[1]) / 2


def retain_hidden(retain: Side, *, layer: float = 1.0, positions: str = "predicting") -> Tensor:
    """Mean squared distance of hidden states from the target model's (RMU, arXiv 2403.03218, sec. 4)."""
    return nn.functional.mse_loss(retain.hidden(layer, positions), retain.target.hidden(layer, positions))


#: the retain terms that the setting `retain` names, each weighted by `retain_weight`
RETAIN_TERMS = {
    "ce": RetainTerm(lambda retain: retain.cross_entropy),
    "kl": RetainTerm(retain_kl, needs=("target",)),
    "js": RetainTerm(retain_js, needs=("target",)),
    "hidden": RetainTerm(retain_hidden, needs=("target", "hidden")),
}


@dataclass
class FitContext:
    """What an unlearner may use: the training rows, the models and the seed.

    A row is a pair of question and answer; of a plain text the question is empty.

    Where requests come one after another, `forget` is the `stage`-th (from 0) of `stages`, `load_target` gives the
    model that the request before left, and `previous` is all that it left; None at the first.
    """

    forget: Sequence[tuple[str, str]]
    retain: Sequence[tuple[str, str]]
    load_target: Callable[[], LM]
    load_retain_model: Callable[[], LM]
    seed: int
    stage: int = 0
    stages: int = 1
    previous: Fitted | None = None
    #: whether what frozen first layers give is computed once and kept
    trunk_cache: bool = True
    #: where a killed training goes on from; one training's
    checkpoint: Checkpoint | None = None
    #: evaluation during training
    monitor: Monitor | None = None


@dataclass
class Fitted:
    """An unlearned model and what it took.

    `adapter` (with its name and options) is what was trained beside the model; None when the model itself was changed.
    `trainable` counts what any request so far trained. `state` is what the unlearner goes on with at the next one.
    """

    lm: LM
    trainable: int = 0
    seconds: float = 0.0
    #: of what frozen first layers gave
    trunk_bytes: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    adapter: Adapter | None = None
    adapter_name: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    state: Any = None


class Unlearner(ABC):
    """The contract of methods that are not adapter x objective. Options are keyword parameters of the constructor."""

    #: False when seeds do not change the result
    seeded = True
    #: False for models that are what they are, whatever is asked to be forgotten in which order
    sequential = True

    @property
    def settings(self) -> dict[str, Any]:
        """All settings in force, for the result file."""
        return {}

    @abstractmethod
    def fit(self, context: FitContext) -> Fitted:
        """Make the unlearned model. Raises Diverged when a loss is not finite."""


class Pair(Unlearner):
    """adapter + objective: trains what the adapter offers on what the objective asks for."""

    def __init__(self, adapter: str, objective: str, settings: dict[str, Any]) -> None:
        self._settings = settings
        self._adapter = registry.get("adapter", adapter)
        self._objective = registry.get("objective", objective)
        self.label = f"{adapter}+{objective}"
        self.recipe = Recipe(**{name: settings[name] for name in _recipe_defaults()})
        self._retain = retain_term(self.recipe.retain) if self.recipe.retain_weight else None
        self._needs = {*self._objective.options.get("needs", ()), *(self._retain.needs if self._retain else ())}
        if "retain" in self._needs and self._retain is None:
            raise UsageError(
                f"{self.label} constrains the retain loss, so it needs a retain term: set retain to one of "
                f"{', '.join(RETAIN_TERMS)} and retain_weight above 0."
            )
        if settings.get("positions", "answer") not in ("answer", "predicting"):
            raise UsageError(f"positions={settings['positions']}: choose predicting or answer.")

    @property
    def settings(self) -> dict[str, Any]:
        return self._settings

    def _options(self, target: Callable[..., Any]) -> dict[str, Any]:
        return {name: self._settings[name] for name in options_of(target)}

    def fit(self, context: FitContext) -> Fitted:
        recipe, needs = self.recipe, self._needs
        self._check_data(context)
        lm = context.load_target()
        start = time.perf_counter()
        torch.manual_seed(context.seed + context.stage)
        adapter, earlier = self._attached(lm, context)
        layers = self._hidden_layers(lm, adapter)
        objective = bound(self._objective.target, self._options(self._objective.target))
        retain_loss = partial(self._retain.loss, **self._options(self._retain.loss)) if self._retain else None
        forget, retain = (encode_rows(lm, rows, recipe) for rows in (context.forget, context.retain))
        if context.stage == 0 and ("target" in needs or (context.stages > 1 and needs & {"reference", "alternate"})):
            adapter.keep_target()
        alternates: list[Encoded] = []
        if "alternate" in needs:
            with adapter.disabled():
                alternates = self._alternates(lm, context)
        draws = self._draws(lm, forget, len(retain), alternates, context.seed)

        def losses(draw: Draw) -> dict[str, Tensor]:
            batch = UnlearningBatch(
                forget=side(
                    [forget[row] for row in draw.forget], None if reference is None else reference[draw.forget]
                ),
                retain=side([retain[row] for row in draw.retain]),
                tokens=lambda text: lm.prompts.answer(text)[:-1],
                seed=context.seed,
            )
            if draw.idk:
                batch.idk = side(draw.idk)
            if draw.alternate:
                sampled = [alternates[row] for row in draw.alternate]
                batch.alternate = side(sampled, None if others is None else others[draw.alternate])
            terms = {"forget": recipe.forget_weight * objective(batch)}
            if retain_loss is not None:
                weigh = getattr(objective, "weigh_retain", _constant)
                terms["retain"] = weigh(retain_loss(batch.retain), recipe.retain_weight, draw.progress)
            if adapter.needs_retain:
                terms |= adapter.aux_loss(batch.forget_gates, batch.retain.gates)
            return terms

        def side(sequences: Sequence[Encoded], references: Tensor | None = None) -> Side:
            batch = collate(sequences, lm.pad_id).to(lm.device)
            before = None if references is None else references.to(lm.device)
            return Side(lm.model, batch, before, adapter if "target" in needs else None, layers, trunk, head)

        head = frozen_head(lm.model)
        # blocks whose outputs are read must run
        frozen = min([adapter.frozen_blocks, *(layer + 1 for layer in layers)]) if context.trunk_cache else 0
        uses = self._uses(forget, retain, alternates, draws)
        with (
            frozen_trunk(lm, frozen, uses, recipe.batch_size, adapter.edits_prompt_end) as trunk,
            checkpointing(lm.model, recipe.checkpointing),
        ):
            reference = others = None
            if "reference" in needs:
                with adapter.disabled():
                    reference = reference_nll(lm, forget, recipe.batch_size, trunk)
                    others = reference_nll(lm, alternates, recipe.batch_size, trunk) if alternates else None
            lm.model.train()
            history = self._optimise(lm, adapter, objective, draws, losses, context)
            lm.model.eval()
        seconds = time.perf_counter() - start + (context.checkpoint.seconds if context.checkpoint else 0.0)
        trained = sum(each.numel() for each in adapter.trainable_parameters() if each not in earlier)
        trained += context.previous.trainable if context.previous else 0
        fitted = Fitted(lm, trained, seconds, trunk.size if trunk else 0, history, state=adapter)
        if not adapter.changes_model:
            fitted.adapter, fitted.adapter_name = adapter, self._adapter.name
            fitted.options = self._options(self._adapter.target)
        return fitted

    def _optimise(
        self,
        lm: LM,
        adapter: Adapter,
        objective: Any,
        draws: Sequence[Draw],
        losses: Callable[[Draw], dict[str, Tensor]],
        context: FitContext,
    ) -> list[dict[str, float]]:
        recipe, monitor = self.recipe, context.monitor
        schedule = Schedule(
            recipe.lr,
            weight_decay=recipe.weight_decay,
            warmup=recipe.warmup,
            clip=recipe.clip,
            accumulate=recipe.accumulate,
        )
        beside: dict[str, Stateful] = {"objective": objective} if isinstance(objective, nn.Module) else {}
        if monitor is not None:
            beside["monitor"] = monitor
            with adapter.disabled():
                monitor.look(lm, 0, len(draws))
        return optimise(
            adapter.trainable_parameters(),
            draws,
            losses,
            schedule,
            f"unlearning {self.label}",
            checkpoint=context.checkpoint,
            beside=beside,
            after_step=partial(monitor.look, lm) if monitor else None,
        )

    def _draws(
        self, lm: LM, forget: Sequence[Encoded], retain: int, alternates: Sequence[Encoded], seed: int
    ) -> list[Draw]:
        """All batches of the training, with the answers that are drawn for them."""
        rows = pair_batches(len(forget), retain, self.recipe.epochs, self.recipe.batch_size, seed)
        rng, count = random.Random(seed), len(alternates) // len(forget)
        refusals = {text: lm.prompts.answer(text) for text in REFUSALS} if "idk" in self._needs else {}
        draws = []
        for number, (forget_rows, retain_rows) in enumerate(rows):
            draw = Draw(number / len(rows), forget_rows, retain_rows)
            if refusals:
                draw.idk = [Encoded(forget[row].prompt, refusals[rng.choice(REFUSALS)]) for row in forget_rows]
            if count:
                draw.alternate = [row * count + rng.choice(range(count)) for row in forget_rows]
            draws.append(draw)
        return draws

    def _uses(
        self, forget: list[Encoded], retain: list[Encoded], alternates: list[Encoded], draws: Sequence[Draw]
    ) -> Iterator[Encoded]:
        """The sequences that the training runs, as often as it does."""
        if "reference" in self._needs:
            yield from (*forget, *alternates)
        reads_retain = self._retain is not None or self._adapter.target.needs_retain
        for draw in draws:
            yield from (forget[row] for row in draw.forget)
            yield from (retain[row] for row in draw.retain if reads_retain)
            yield from draw.idk
            yield from (alternates[row] for row in draw.alternate)

    def _attached(self, lm: LM, context: FitContext) -> tuple[Adapter, set[nn.Parameter]]:
        """The adapter on the model, ready for this request, and the parameters that earlier requests trained.

        It goes on from where the request before left it; the target model p0 of objectives and retain terms is the
        model before any request at every stage, as NPO (arXiv 2404.05868) and GRUN (its official code at b59fd78) have
        it for one: what a later request may not lose is measured from there, not from what earlier ones left of it.
        """
        if context.previous:
            adapter, earlier = context.previous.state, set(context.previous.state.trainable_parameters())
        else:
            adapter, earlier = self._adapter.target(**self._options(self._adapter.target)), set()
            adapter.attach(lm.model)
        if context.stages > 1:
            adapter.next_stage()
        return adapter, earlier

    def _check_data(self, context: FitContext) -> None:
        """Raises UsageError where the data cannot give what the pair needs."""
        if not context.retain and (self._retain is not None or self._adapter.target.needs_retain):
            what = "a retain term" if self._retain is not None else "a gate that stays shut on retain prompts"
            raise UsageError(f"{self.label} has {what}, and this task has no retain set.")
        if {"idk", "alternate"} & self._needs and not all(question for question, _ in context.forget):
            raise UsageError(
                f"{self.label} trains other answers to the forget questions, and this forget set is of plain texts: "
                "there is no question to refuse or to answer otherwise."
            )

    def _hidden_layers(self, lm: LM, adapter: Adapter) -> tuple[int, ...]:
        """The decoder block whose output is read, if any. Raises UsageError where nothing trained can change it."""
        if "hidden" not in self._needs:
            return ()
        count, positions = lm.model.config.get_text_config().num_hidden_layers, self._settings["positions"]
        layer = layer_index(self._settings["layer"], count)
        first = adapter.first_layer + (adapter.edits_prompt_end and positions == "answer")
        if layer < first:
            where = f"{first} or more, or 1.0 for the last" if first < count else "any with positions=predicting"
            raise UsageError(
                f"{self.label} reads hidden states of layer {layer} (positions: {positions}), which nothing that it "
                f"trains can change: set layer to {where}."
            )
        return (layer,)

    def _alternates(self, lm: LM, context: FitContext) -> list[Encoded]:
        """Other answers to the forget questions by the target model: so many of the first question, then the next."""
        count, temperature = self._settings["alternates"], self._settings["temperature"]
        texts = sample_alternates(lm, context.forget, count, temperature, self.recipe.batch_size)
        pairs = zip(context.forget, texts, strict=True)
        return [lm.prompts.encode(question, text) for (question, _), each in pairs for text in each]


@dataclass
class Draw:
    """One batch: row numbers of the forget set, the retain set and the alternates, and refusals.

    `progress` is the share of the training that lies behind it.
    """

    progress: float
    forget: list[int]
    retain: list[int]
    idk: list[Encoded] = field(default_factory=list)
    alternate: list[int] = field(default_factory=list)


def encode_rows(lm: LM, rows: Sequence[tuple[str, str]], recipe: Recipe) -> list[Encoded]:
    """Training rows as token sequences: questions as prompt and answer, texts cut and split as the recipe says."""
    return [
        lm.prompts.encode(question, answer)
        if question
        else lm.prompts.encode_text(answer, recipe.text_prompt, recipe.text_length)
        for question, answer in rows
    ]


def _constant(loss: Tensor, weight: float, progress: float) -> Tensor:
    return weight * loss


def bound(target: Callable[..., Any], options: dict[str, Any]) -> Callable[..., Any]:
    """An objective with its options set: a function, or a new instance of a class."""
    return target(**options) if isinstance(target, type) else partial(target, **options)


def retain_term(name: str | None) -> RetainTerm | None:
    """The retain term of this name. Raises UsageError with the near names."""
    if name is not None and name not in RETAIN_TERMS:
        raise unknown("retain term", name, RETAIN_TERMS)
    return None if name is None else RETAIN_TERMS[name]


@torch.no_grad()
def reference_nll(lm: LM, sequences: Sequence[Encoded], batch_size: int, trunk: Trunk | None = None) -> Tensor:
    """(sequences,) summed negative log-likelihood of each answer under the model as it is now, in nats."""
    lm.model.eval()
    starts = range(0, len(sequences), batch_size)
    groups = [collate(sequences[start : start + batch_size], lm.pad_id) for start in starts]
    return torch.cat([Side(lm.model, group.to(lm.device), trunk=trunk).nll.cpu() for group in groups])


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


def make_unlearner(name: str, overrides: Mapping[str, Any], world: World) -> Unlearner:
    """The unlearner of this name with its settings: code defaults, then recipes.yaml, then `overrides`.

    Raises UsageError for an unknown name, an unknown setting, or a setting of the wrong type.
    """
    parsed = registry.parse_unlearner(name)
    sections = recipes(world)
    if isinstance(parsed, str):
        plugin = registry.get("unlearner", parsed)
        defaults = options_of(plugin.target)
        for section in sections:
            defaults |= section.get(parsed, {})
        return plugin.target(**override(defaults, overrides, name))
    adapter, objective = (registry.get("adapter", parsed[0]), registry.get("objective", parsed[1]))
    defaults = _recipe_defaults() | {"retain": objective.options.get("retain")}
    defaults |= options_of(adapter.target) | options_of(objective.target)
    for section in sections:
        for key in (parsed[0], parsed[1], f"{parsed[0]}+{parsed[1]}"):
            defaults |= section.get(key, {})
    term = retain_term(overrides.get("retain", defaults["retain"]))
    return Pair(*parsed, override((options_of(term.loss) if term else {}) | defaults, overrides, name))


def recipes(world: World) -> list[dict[str, dict[str, Any]]]:
    """The sections of recipes.yaml in force in a world, by the names of plugins and pairs; a later one wins."""
    known = yaml.safe_load(Path(__file__).with_name("recipes.yaml").read_text(encoding="utf-8"))
    return [known[section] for section in world.sections]


def override(defaults: dict[str, Any], overrides: Mapping[str, Any], plugin: str) -> dict[str, Any]:
    """Settings with the user's in place of the defaults. Raises UsageError for an unknown one or a wrong type."""
    settings = dict(defaults)
    for key, value in overrides.items():
        if key not in settings:
            raise unknown(f"setting of {plugin}", key, settings)
        settings[key] = _coerce(key, value, settings[key])
    return settings


def _coerce(key: str, value: Any, default: Any) -> Any:
    # of layers a whole number is a block, a float a share of them
    if isinstance(default, float) and isinstance(value, int) and key == "layer":
        return value
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
