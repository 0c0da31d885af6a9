"""Other answers to the forget questions, written by the target model itself (AltPO)."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from grun_bench.data import collate_prompts
from grun_bench.models import LM
from grun_bench.progress import bar
from grun_bench.scoring import stop_tokens

#: how AltPO (arXiv 2409.13474) asks for another answer
REQUEST = "Now write another version of the answer with some alternate plausible facts that change answer details."
#: an alternate may be longer than the answer by this factor, in tokens
LONGER = 2


@torch.no_grad()
def sample_alternates(
    lm: LM, pairs: Sequence[tuple[str, str]], count: int, temperature: float, batch_size: int
) -> list[list[str]]:
    """`count` other answers to each question, sampled from the model as it is now: it is shown the question and its
    answer and asked for another one. The global random state decides."""
    prompts = [lm.prompts.prompt(f"{question}\nAnswer: {answer}\n{REQUEST}") for question, answer in pairs]
    lengths = [len(lm.prompts.answer(answer)) for _, answer in pairs]
    order = sorted(range(len(pairs)), key=lengths.__getitem__)
    texts: list[list[str]] = [[] for _ in pairs]
    lm.model.eval()
    with bar("sampling alternate answers", len(pairs)) as advance:
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            ids, mask = collate_prompts([prompts[row] for row in rows], lm.pad_id)
            tokens = lm.model.generate(
                input_ids=ids.to(lm.device),
                attention_mask=mask.to(lm.device),
                do_sample=True,
                temperature=temperature,
                top_k=0,
                top_p=1.0,
                num_return_sequences=count,
                max_new_tokens=LONGER * max(lengths[row] for row in rows),
                eos_token_id=sorted(stop_tokens(lm)),
                pad_token_id=lm.pad_id,
            )[:, ids.shape[1] :]
            sampled = [text.strip() for text in lm.tokenizer.batch_decode(tokens, skip_special_tokens=True)]
            for place, row in enumerate(rows):
                texts[row] = sampled[place * count : (place + 1) * count]
                advance()
    return texts
