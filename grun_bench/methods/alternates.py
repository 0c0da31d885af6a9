"""Other answers to the forget questions, written by the target model itself (AltPO)."""

from __future__ import annotations

from collections.abc import Sequence

from grun_bench.models.lm import LM
from grun_bench.models.sampling import sample

#: how AltPO (arXiv 2409.13474) asks for another answer
REQUEST = "Now write another version of the answer with some alternate plausible facts that change answer details."
#: an alternate may be longer than the answer by this factor, in tokens
LONGER = 2


def sample_alternates(
    lm: LM, pairs: Sequence[tuple[str, str]], count: int, temperature: float, batch_size: int
) -> list[list[str]]:
    """`count` other answers to each question, sampled from the model as it is now: it is shown the question and its
    answer and asked for another one. The global random state decides."""
    prompts = [lm.prompts.prompt(f"{question}\nAnswer: {answer}\n{REQUEST}") for question, answer in pairs]
    limits = [LONGER * len(lm.prompts.answer(answer)) for _, answer in pairs]
    return sample(lm, prompts, limits, count, temperature, batch_size, "sampling alternate answers")
