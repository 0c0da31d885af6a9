"""A trial of a model that was loaded: its weights, its tokenizer, and what the engine's passes make of it, which has
to be what its own passes give."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedModel

from grun_bench.core.errors import ModelError
from grun_bench.models.devices import device_of
from grun_bench.models.forward import calling, evaluating
from grun_bench.models.kv_cache import Slots
from grun_bench.models.lm import LM
from grun_bench.models.passes import Passes
from grun_bench.models.work import Counts

#: two rows in the three parts that run one after another, of token ids that every vocabulary has
BEGUN, MIDDLE, LAST = [[4, 5, 6], [8, 7, 6, 5, 4]], [[7, 8], [9, 10]], [[9], [10]]
WHOLE = [[*begun, *middle, *last] for begun, middle, last in zip(BEGUN, MIDDLE, LAST, strict=True)]
#: how far a position's logits may be off, in units of how far they are apart; in lower precision more
TOLERANCE, COARSE = 1e-3, 0.1


def not_numbers(model: PreTrainedModel) -> str | None:
    """Which weights are not finite, in words; None where all are. One among thousands spoils the rows that meet it."""
    # what is offloaded is not here to be asked
    there = [each for each in model.named_parameters() if each[1].device.type != "meta"]
    bad = [name for name, value in there if value.is_floating_point() and not _finite(value)]
    return f"weights that are not numbers (NaN or infinite): {bad[0]}, {len(bad)} in all" if bad else None


def _finite(value: Tensor) -> bool:
    # a weight of eight bits cannot be asked itself
    return bool((value if value.element_size() > 1 else value.float()).isfinite().all())


def unreadable(lm: LM) -> str | None:
    """Why questions and answers cannot be put to a model in its tokens, in words; None if they can."""
    tokens = lm.model.get_input_embeddings().weight.shape[0]
    if lm.tokenizer.eos_token_id is None:
        return 'its tokenizer has no end of sequence, which ends every answer: say which, as "eos_token"'
    try:
        encoded = lm.prompts.encode("Who?", "Ada.")
    except ModelError as error:
        return str(error).rstrip(".")
    most = max(lm.tokenizer.vocab_size - 1, *encoded.prompt, *encoded.answer)
    if most >= tokens:
        return f"its tokenizer has the token {most}, and its embedding has {tokens} tokens: it is that of another model"
    return None


@torch.no_grad()
def obstacle(model: PreTrainedModel) -> str | None:
    """Why the model cannot be scored here, in words; None if it can.

    Rows run in parts, each on the keys and values that those before have left, with padding between them, and have to
    get the logits of a single pass over the row. So are found out models that see later tokens, that keep a state in
    place of keys and values, or that cannot be told positions. Most of a row's positions decide, since in bfloat16 a
    router of experts may tip over at one.
    """
    try:
        with evaluating(model), calling(None):
            given, expected = _in_parts(model), _whole(model)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever a model of an unknown kind makes of it
        said = str(error).splitlines() or [""]
        return f"it does not go on from keys and values of earlier tokens ({type(error).__name__}: {said[0]})"
    if expected.isnan().any():
        return "its logits are not numbers (NaN)"
    # some models give logits of minus infinity to tokens that they never say
    given, expected = (each.nan_to_num(nan=torch.inf, posinf=0, neginf=0) for each in (given, expected))
    spread = (expected - expected.mean(-1, keepdim=True)).norm(dim=-1)
    tolerance = TOLERANCE if model.dtype in (torch.float32, torch.float64) else COARSE
    right = (given - expected).norm(dim=-1) <= tolerance * spread
    if (right.sum(1) > right.shape[1] / 2).all():
        return None
    return "on the keys and values of earlier tokens, tokens do not get what they get in one pass over all"


def _in_parts(model: PreTrainedModel) -> Tensor:
    """(rows, 3, vocabulary) logits after the tokens of the later parts, one by each way that keys and values are kept
    in."""
    passes, lengths = Passes(model, Counts()), [len(row) for row in BEGUN]
    past = passes.run(BEGUN, [range(length) for length in lengths], None, last=0).past
    middle = passes.run(MIDDLE, [range(length, length + 2) for length in lengths], past)
    slots = Slots([middle.past.take([row]).compact() for row in range(len(BEGUN))], room=1)
    last = passes.run(LAST, [range(length + 2, length + 3) for length in lengths], slots)
    parts = [torch.cat([logits for _, logits in passes.head.logits(run.states)]) for run in (middle, last)]
    return torch.cat([part.unflatten(0, (len(BEGUN), -1)) for part in parts], 1)


def _whole(model: PreTrainedModel) -> Tensor:
    """The same logits from one pass over each row."""
    rows = [torch.tensor([row], device=device_of(model)) for row in WHOLE]
    return torch.stack([model(row, use_cache=False).logits[0, -3:].float() for row in rows])
