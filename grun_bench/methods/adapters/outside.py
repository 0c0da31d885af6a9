"""A model with its adapter in the hands of others, who call and write it as any model of transformers."""

from __future__ import annotations

from functools import partial

from grun_bench.methods.adapters.base import Adapter
from grun_bench.models.lm import LM
from grun_bench.models.plain_calls import PlainCalls


def hand_over(adapter: Adapter, lm: LM) -> None:
    """Ready the model that the adapter is on: plain calls know its chat template, and it does not leave unlearned.

    `save_pretrained` and `push_to_hub` would write the base's weights alone, or such as load at random.
    """
    adapter.know(lm)
    if adapter.edits_prompt_end and adapter.plain_calls is None:
        adapter.plain_calls = PlainCalls(lm.model)
    if adapter.plain_calls is not None:
        adapter.plain_calls.answer_start = lm.prompts.answer_start
    if not adapter.changes_model:
        lm.model.save_pretrained = partial(adapter.save_plain, lm.model)
        if not adapter.merges:
            lm.model.push_to_hub = lm.model.save_pretrained
