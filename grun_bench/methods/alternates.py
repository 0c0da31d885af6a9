"""Other answers to the forget questions, written by the target model itself (AltPO)."""

from __future__ import annotations

from collections.abc import Sequence

from grun_bench.models.lm import LM
from grun_bench.models.sampling import sample

#: how AltPO asks for another answer: Llama 2 in its paper (arXiv 2409.13474), Llama 3 in OpenUnlearning
#: (community/methods/AltPO/generate.py at d3d7cf9), with the text before the question and the answer's first words
REQUESTS = {
    "llama-2": (
        "",
        "Now write another version of the answer with some alternate plausible facts that change answer details.",
        "",
    ),
    "llama-3": (
        "Question: ",
        "Now pretend you are making things up. Write another answer to the question that is of a different template "
        "than the given answer and changes all facts from what are introduced in the given answer (changed answers "
        "must be plausible while being inconsistent with given answer). Ensure that your alternate answer is a "
        "plausible response to the question and doesn't change any details mentioned in question and only introduces "
        "changes to all the facts introduced answer.",
        "Alternate Answer :",
    ),
}
#: an alternate may be longer than the answer by this factor, in tokens, where nothing else is said
LONGER = 2


def sample_alternates(
    lm: LM,
    pairs: Sequence[tuple[str, str]],
    batch_size: int,
    *,
    alternates: int = 5,
    temperature: float = 1.0,
    request: str = "llama-2",
    new_tokens: int = 0,
) -> list[list[str]]:
    """`alternates` other answers to each question, sampled from the model as it is now.

    It is shown the question and its answer and asked for another one, of at most `new_tokens` tokens, or of LONGER
    times the answer's where that is 0. The global random state decides.
    """
    before, asked, begun = REQUESTS[request]
    prompts = [lm.prompts.prompt(f"{before}{pair[0]}\nAnswer: {pair[1]}\n{asked}", (), begun) for pair in pairs]
    limits = [new_tokens or LONGER * len(lm.prompts.answer(answer)) for _, answer in pairs]
    return sample(lm, prompts, limits, alternates, temperature, batch_size, "sampling alternate answers")
