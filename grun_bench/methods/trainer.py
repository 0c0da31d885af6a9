"""adapter x objective -> an unlearned model: what the adapter offers is trained on what the objective asks for."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from grun_bench.core import processes
from grun_bench.core.errors import Refused
from grun_bench.core.plugins import AdapterPlugin, ObjectivePlugin
from grun_bench.core.progress import say
from grun_bench.core.settings import later, options_of
from grun_bench.methods.adapters.base import Adapter, layer_index
from grun_bench.methods.adapters.outside import hand_over
from grun_bench.methods.alternates import sample_alternates
from grun_bench.methods.base import FitContext, Fitted, Unlearner
from grun_bench.methods.batch import Side, UnlearningBatch
from grun_bench.methods.checkpoints import Stateful
from grun_bench.methods.divided import Divided, check_chance, divided
from grun_bench.methods.draws import Draw, draw_batches, encode, encode_rows, uses
from grun_bench.methods.frozen import frozen_trunk
from grun_bench.methods.loop import Schedule, optimise
from grun_bench.methods.recipes import Recipe
from grun_bench.methods.refusals import REFUSALS
from grun_bench.methods.retain_terms import RETAIN_TERMS, retain_term
from grun_bench.methods.step import Step
from grun_bench.methods.trained_weights import TrainedWeights
from grun_bench.models.batch import Encoded
from grun_bench.models.forward import checkpointing
from grun_bench.models.head import frozen_head
from grun_bench.models.lm import LM


class Pair(Unlearner):
    """adapter + objective.

    Raises Refused for settings that make no sense together.
    """

    def __init__(self, adapter: AdapterPlugin, objective: ObjectivePlugin, settings: dict[str, Any]) -> None:
        self._adapter, self._objective, self._settings = adapter, objective, settings
        self.label = f"{adapter.name}+{objective.name}"
        kind = cast(type[Adapter], adapter.target)
        self.changes_model, self.divides = kind.changes_model, kind.divides
        self.savable = kind.changes_model or kind.save is not Adapter.save
        self.recipe = Recipe(**self._options(Recipe))
        self._retain = retain_term(self.recipe.retain) if self.recipe.retain_weight else None
        self._needs = {*objective.needs, *(self._retain.needs if self._retain else ())}
        if "retain" in self._needs and self._retain is None:
            raise Refused(
                f"{self.label} constrains the retain loss, so it needs a retain term: set retain to one of "
                f"{', '.join(RETAIN_TERMS)} and retain_weight above 0."
            )

    @property
    def settings(self) -> dict[str, Any]:
        return self._settings

    @property
    def every_setting(self) -> dict[str, Any]:
        own = (Recipe, self._adapter.target, self._objective.target)
        return later(*own, *([self._retain.loss] if self._retain else ())) | self._settings

    @property
    def has_strength(self) -> bool:
        kind = cast(type[Adapter], self._adapter.target)
        return kind.changes_model or kind.has_strength

    def _options(self, target: Callable[..., Any]) -> dict[str, Any]:
        return {name: self._settings.get(name, default) for name, default in options_of(target).items()}

    @property
    def needs(self) -> frozenset[str]:
        """What its objective and its retain term declare to need."""
        return frozenset(self._needs)

    def new_adapter(self) -> Adapter:
        """Its adapter, which is on no model yet."""
        return self._adapter.target(**self._options(self._adapter.target))

    @property
    def reads_retain(self) -> bool:
        """Whether retain rows are run in training."""
        return self._retain is not None or cast(type[Adapter], self._adapter.target).needs_retain

    def fit(self, context: FitContext) -> Fitted:
        """Train. Raises Refused where data or model cannot give what the pair needs, Diverged at a bad loss."""
        recipe = self.recipe
        self._check_data(context)
        lm = context.load_target()
        start = time.perf_counter()
        torch.manual_seed(context.seed + context.stage)
        adapter, earlier = self._attached(lm, context)
        layers = self._hidden_layers(lm, adapter)
        objective, retain_loss = self._losses()
        sequences = self._sequences(lm, adapter, context)
        draws = draw_batches(sequences, recipe, context.seed)
        check_chance(lm, sequences["forget"])
        adjusted = self._adjusted(lm, len(sequences["forget"]))
        # of a model that is divided nothing is known beside its passes
        apart = processes.count() > 1 and adapter.divides
        head = None if apart else frozen_head(lm.model)
        # blocks whose outputs are read must run
        keep = context.trunk_cache and not apart
        frozen = min([adapter.frozen_blocks, *(layer + 1 for layer in layers)]) if keep else 0
        run = uses(sequences, draws, "reference" in self._needs, self.reads_retain)
        with frozen_trunk(lm, frozen, run, recipe.batch_size, adapter.edits_prompt_end) as trunk:
            step = Step(
                lm, adapter, objective, retain_loss, recipe, sequences, context.seed, self._needs, layers, trunk, head
            )
            step.name = f"objective {self._objective.name}"
            step.keep_references(draws)
            with divided(lm, apart) as parts, checkpointing(lm.model, recipe.checkpointing):
                lm.model.train()
                with adapter.divided(parts.of) if parts else nullcontext():
                    history = self._optimise(step, draws, context, parts)
            lm.model.eval()
        trained = sum(each.numel() for each in adapter.trainable_parameters() if each not in earlier)
        fitted = Fitted(
            lm,
            trained + (context.previous.trainable if context.previous else 0),
            context.seconds_since(start),
            trunk.size if trunk else 0,
            history,
            state=adapter,
            adjusted=adjusted,
        )
        if not adapter.changes_model:
            fitted.adapter, fitted.adapter_name = adapter, self._adapter.name
            fitted.options = self._options(self._adapter.target)
        return fitted

    def _adjusted(self, lm: LM, rows: int) -> dict[str, Any]:
        """The settings that few rows, or a model of another size, are trained otherwise with; it says so."""
        recipe, told = self.recipe, []
        size, epochs, rate = recipe.batch_of(rows), recipe.epochs_over(rows), recipe.rate(_width(lm))
        if (size, epochs) != (recipe.batch_size, recipe.epochs) and recipe.least_steps:
            told.append(f"batches of {size} of the {rows} rows in {epochs} epochs (least_steps={recipe.least_steps})")
        if rate != recipe.lr:
            told.append(f"a rate of {rate:.2g}, which is {recipe.lr:g} for this width (lr_width={recipe.lr_width})")
        if told:
            say(f"{self.label}: {', '.join(told)}; --set batch_size=, epochs= and lr= say otherwise.")
        trained = {"batch_size": size, "epochs": epochs, "lr": rate}
        return {name: value for name, value in trained.items() if value != getattr(recipe, name)}

    def _losses(self) -> tuple[Callable[[UnlearningBatch], Tensor], Callable[[Side], Tensor] | None]:
        """The objective, a function or a new instance of a class, and the retain term's loss; with their options."""
        target = self._objective.target
        options = self._options(target)
        objective = target(**options) if isinstance(target, type) else partial(target, **options)
        return objective, partial(self._retain.loss, **self._options(self._retain.loss)) if self._retain else None

    def _optimise(
        self, step: Step, draws: Sequence[Draw], context: FitContext, parts: Divided | None
    ) -> list[dict[str, float]]:
        """Train on the draws, with a look at the model in between where there is a monitor. Returns the loss terms."""
        recipe, monitor = self.recipe, context.monitor
        schedule = Schedule(
            recipe.rate(_width(step.lm)),
            weight_decay=recipe.weight_decay,
            warmup=recipe.warmup,
            clip=recipe.clip,
            accumulate=recipe.accumulate,
            decay=recipe.decay,
            warmup_from_zero=recipe.warmup_from_zero,
            optimiser=recipe.optimiser,
        )
        beside: dict[str, Stateful] = {}
        if isinstance(step.objective, nn.Module):
            beside["objective"] = step.objective
        if monitor is not None:
            beside["monitor"] = monitor
            monitor.whole = parts.whole if parts else nullcontext
            with step.adapter.disabled():
                monitor.look(step.lm, 0, len(draws))
        return optimise(
            TrainedWeights(step.adapter.trainable_parameters(), recipe.trained_as),
            draws,
            step.losses,
            schedule,
            f"unlearning {self.label}",
            arithmetic=step.lm.model.dtype,
            checkpoint=context.checkpoint,
            beside=beside,
            after_step=partial(monitor.look, step.lm) if monitor else None,
            told=context.told,
        )

    def _attached(self, lm: LM, context: FitContext) -> tuple[Adapter, set[nn.Parameter]]:
        """The adapter on the model, ready for this request, and the parameters that earlier requests trained.

        It goes on from where the request before left it; the target model p0 of objectives and retain terms is the
        model before any request at every stage, as NPO (arXiv 2404.05868) and GRUN (its official code at b59fd78) have
        it for one: what a later request may not lose is measured from there, not from what earlier ones left of it.
        """
        earlier: set[nn.Parameter] = set()
        if context.previous:
            adapter: Adapter = context.previous.state
            earlier.update(adapter.trainable_parameters())
        else:
            adapter = self.new_adapter()
            adapter.attach(lm.model)
            hand_over(adapter, lm)
        if context.stages > 1:
            adapter.next_stage()
        return adapter, earlier

    def _check_data(self, context: FitContext) -> None:
        """Raises Refused where the data cannot give what the pair needs."""
        if not context.retain and self.reads_retain:
            what = "a retain term" if self._retain is not None else "a gate that stays shut on retain prompts"
            raise Refused(f"{self.label} has {what}, and this task has no retain set.")
        if {"idk", "alternate"} & self._needs and not all(question for question, _ in context.forget):
            raise Refused(
                f"{self.label} trains other answers to the forget questions, and this forget set is of plain texts: "
                "there is no question to refuse or to answer otherwise."
            )

    def _hidden_layers(self, lm: LM, adapter: Adapter) -> tuple[int, ...]:
        """The decoder block whose output is read, if any. Raises Refused where nothing trained can change it."""
        if "hidden" not in self._needs:
            return ()
        count, positions = lm.model.config.get_text_config().num_hidden_layers, self._settings["positions"]
        layer = layer_index(self._settings["layer"], count)
        first = adapter.first_layer + (adapter.edits_prompt_end and positions == "answer")
        if layer < first:
            where = f"{first} or more, or 1.0 for the last" if first < count else "any with positions=predicting"
            raise Refused(
                f"{self.label} reads hidden states of layer {layer} (positions: {positions}), which nothing that it "
                f"trains can change: set layer to {where}."
            )
        return (layer,)

    def _sequences(self, lm: LM, adapter: Adapter, context: FitContext) -> dict[str, list[Encoded]]:
        """The training rows, and other answers to the forget questions: refusals, or what the target model samples.

        The target model is kept from here on where it is needed.
        """
        needs, recipe, sequences = self._needs, self.recipe, {}
        for name, rows in (("forget", context.forget), ("retain", context.retain)):
            sequences[name] = encode_rows(lm, rows, recipe)
        if context.stage == 0 and ("target" in needs or (context.stages > 1 and needs & {"reference", "alternate"})):
            adapter.keep_target()
        if "idk" in needs:
            questions = (question for question, _ in context.forget)
            sequences["idk"] = [each for question in questions for each in encode(lm, question, REFUSALS, recipe)]
        if "alternate" in needs:
            with adapter.disabled():
                answers = sample_alternates(lm, context.forget, recipe.batch_size, **self._options(sample_alternates))
            asked = zip(context.forget, answers, strict=True)
            sequences["alternate"] = [each for row, texts in asked for each in encode(lm, row[0], texts, recipe)]
        return sequences


def _width(lm: LM) -> int:
    width: int = lm.model.config.get_text_config().hidden_size
    return width
