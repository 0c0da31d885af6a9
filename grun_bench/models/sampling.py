"""Answers drawn at random: several to a prompt, for alternates and for what an unlearned model lets slip."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from grun_bench.core import processes
from grun_bench.core.progress import bar
from grun_bench.models.batch import collate_prompts
from grun_bench.models.devices import cuda_devices
from grun_bench.models.lm import LM
from grun_bench.models.scoring import Example, ScoringSettings, cut, forms_of, new_tokens, prompt_of, stop_tokens
from grun_bench.results.record import Continuation, Record, Records

#: sequences drawn at once where nothing is said
ROWS = 128


@torch.no_grad()
def sample(
    lm: LM, prompts: Sequence[list[int]], limits: Sequence[int], count: int, temperature: float, size: int, label: str
) -> list[list[str]]:
    """`count` answers to each prompt from the whole distribution, `size` prompts at once; `limits` bound their tokens.

    A batch goes on to the largest limit of its prompts. The global random state decides.
    """
    order = sorted(range(len(prompts)), key=limits.__getitem__)
    texts: list[list[str]] = [[] for _ in prompts]
    lm.model.eval()
    with bar(label, len(prompts)) as advance:
        for start in range(0, len(order), size):
            rows = order[start : start + size]
            ids, mask = collate_prompts([prompts[row] for row in rows], lm.pad_id)
            tokens = lm.model.generate(
                input_ids=ids.to(lm.device),
                attention_mask=mask.to(lm.device),
                do_sample=True,
                temperature=temperature,
                top_k=0,
                top_p=1.0,
                num_return_sequences=count,
                max_new_tokens=max(limits[row] for row in rows),
                eos_token_id=sorted(stop_tokens(lm)),
                pad_token_id=lm.pad_id,
            )[:, ids.shape[1] :]
            sampled = [text.strip() for text in lm.tokenizer.batch_decode(tokens, skip_special_tokens=True)]
            for place, row in enumerate(rows):
                texts[row] = sampled[place * count : (place + 1) * count]
                advance()
    # each of several processes draws all of them, and alike, but for what a GPU makes of it
    return processes.from_first(texts)


def sampled_records(lm: LM, examples: Sequence[Example], count: int, seed: int, settings: ScoringSettings) -> Records:
    """One record per example with `count` answers sampled at temperature 1, and nothing scored."""
    forms = forms_of(lm, examples, settings)
    prompts = [prompt_of(forms[row.prompt], row) for row in examples]
    size = max(1, (settings.batch_size or ROWS) // count)
    with torch.random.fork_rng(devices=cuda_devices(lm.model)):
        torch.manual_seed(seed)
        limits = [max(new_tokens(row, settings), 1) for row in examples]
        texts = sample(lm, prompts, limits, count, 1.0, size, f"sampling {count} answers")
    return Records(
        Record(
            row.set, row.index, row.question, Continuation(row.answer), samples=[cut(text, row.until) for text in each]
        )
        for row, each in zip(examples, texts, strict=True)
    )
