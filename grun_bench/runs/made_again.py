"""The model of a row that was made earlier: made again, and checked to be the one that the row says."""

from __future__ import annotations

from dataclasses import replace

import torch

from grun_bench.attacks.base import Subject
from grun_bench.core.errors import GrunBenchError
from grun_bench.core.progress import say
from grun_bench.methods.base import Fitted
from grun_bench.methods.saving import is_saved
from grun_bench.models.scoring import ScoringSettings, score
from grun_bench.results.record import Record
from grun_bench.runs.fit import checkpoints_of, fit
from grun_bench.runs.given import Kept
from grun_bench.runs.inputs import Inputs, Method
from grun_bench.runs.outcome import Cell
from grun_bench.runs.score import subject_of

#: how many examples a model that is made again must answer as its row says, and how closely, in nats, at the least
CHECKED, SAME_LOSS = 8, 0.02
#: logits are smaller than this, as models of language have them; what a dtype rounds of one is what losses differ by
LOGITS = 32.0


def made_again(inputs: Inputs, cell: Cell, method: Method) -> Fitted:
    """The model of a row: as it was saved or its training was kept, else trained again with the same seed.

    Raises GrunBenchError when it does not answer as the row says.
    """
    result, folder = cell.result, inputs.config.save
    if method is inputs.method and folder and is_saved(folder, result.run_id):
        method = replace(method, unlearner=Kept(folder, result, inputs.session.placement))
    kept = isinstance(method.unlearner, Kept) or checkpoints_of(inputs, method, result.run_id)[-1].path.exists()
    if result.cost.trainable_parameters and not kept:
        seconds = result.cost.training_seconds
        say(f"{result.run_id}: its model was not kept, so it is trained again ({seconds:.0f} s the last time).")
    trained = fit(inputs, method, result.run_id)
    if trained.fitted is None:
        raise GrunBenchError(f"{result.run_id} diverged when it was trained again: {trained.error}")
    check_same(inputs, cell, subject_of(inputs, trained.fitted))
    return trained.fitted


def check_same(inputs: Inputs, cell: Cell, subject: Subject) -> None:
    """Raises GrunBenchError when a model does not answer a few of the row's questions as the row says."""
    size = inputs.config.scoring_batch_size
    settings = ScoringSettings(1, size, inputs.config.protocol, generate=False)
    rows = list(score(subject.lm, subject.examples[:CHECKED], settings))
    for name, measure in list(inputs.task.measures.items())[:1]:
        from grun_bench.integrations.lm_eval import measures  # takes seconds

        asked = measures.run(subject.lm, {name: measure}, inputs.session.world, batch_size=size, limit=CHECKED)
        rows += asked.records
    # hashes in the place of texts may have been made with another key; the data are the row's
    texts = not any(row.hidden for row in cell.records)
    known = {_place(row, texts): _losses(row) for row in cell.records}
    pairs = [(_losses(row), known.get(_place(row, texts), [])) for row in rows]
    differ = [abs(new - old) for each in pairs for new, old in zip(*each, strict=False)]
    if differ and max(differ) > allowed(subject.lm.model.dtype):
        raise GrunBenchError(
            f"the model is not the one that {cell.result.run_id} was made from: log-likelihoods of its answers "
            f"differ by up to {max(differ):.3g} nats. `run` with --overwrite and --attacks makes the row again and "
            "attacks it; --save keeps its model."
        )


def _place(row: Record, texts: bool) -> tuple[str, ...]:
    """What a row is found by: its texts, where the row's records have them, else its number."""
    return (row.set, row.question, row.answer.text) if texts else (row.set, str(row.index))


def allowed(dtype: torch.dtype) -> float:
    """What the same model's loss may differ by, in nats a token, when it is asked in other batches.

    `SAME_LOSS`, or `LOGITS` in units of the dtype's last place: 0.25 in bfloat16, of which 0.073 have been seen.
    """
    return max(SAME_LOSS, LOGITS * torch.finfo(dtype).eps)


def _losses(row: Record) -> list[float]:
    if row.choices is not None:
        return row.choices.logprobs
    return [] if row.answer.loss is None else [row.answer.loss]
