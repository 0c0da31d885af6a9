"""The engine against unbatched passes of the plain model and against its own `generate`."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    PhiConfig,
    PreTrainedModel,
)

from grun_bench.models import decoding, head, kernels
from grun_bench.models.engine import Engine
from grun_bench.models.forward import current_call
from grun_bench.models.kv_cache import KeyValues, Slots
from grun_bench.models.limits import Limits
from grun_bench.models.passes import Passes
from grun_bench.models.tree import Tree
from grun_bench.models.work import Counts, Scored, Work

VOCABULARY, STOP, LIMIT = 53, 2, 24
SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": STOP,
    "pad_token_id": 0,
}
CONFIGS = {
    "llama": LlamaConfig(**SMALL, num_key_value_heads=2, tie_word_embeddings=True),
    "gpt_neox": GPTNeoXConfig(**SMALL),
    "phi": PhiConfig(**SMALL),
    "mistral": MistralConfig(**SMALL, num_key_value_heads=2, sliding_window=512),
    "grouped": LlamaConfig(**SMALL, num_key_value_heads=2),
    "sliding": MistralConfig(**SMALL, num_key_value_heads=1, sliding_window=16),
    "gemma2": Gemma2Config(**SMALL, num_key_value_heads=2, head_dim=8, final_logit_softcapping=2.0),
}
#: run with torch's scaled dot-product attention, several query heads a key head
GROUPED = ("grouped", "sliding")


@functools.cache
def model_of(name: str) -> PreTrainedModel:
    """A random model whose weights are large enough for generations that are varied and end by themselves at times."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(
        CONFIGS[name], attn_implementation="sdpa" if name in GROUPED else "eager"
    ).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(6)
    return model


def texts(seed: int, count: int, low: int, high: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(low, high + 1, (count,), generator=generator).tolist()
    return [torch.randint(3, VOCABULARY, (length,), generator=generator).tolist() for length in lengths]


def works_of(seed: int, count: int = 6) -> list[Work]:
    """Works with a common beginning, of differing lengths, some with a stop token inside a continuation."""
    common = texts(seed + 1, 1, 4, 4)[0]
    prompts = [common + rest for rest in texts(seed, count, 1, 12)]
    answers = [texts(seed * 31 + index, 1 + index % 4, 1, 9) for index in range(count)]
    return [
        Work(prompt, [[*answer, STOP] for answer in group], generate=True, moments=True)
        for prompt, group in zip(prompts, answers, strict=True)
    ]


def run(model: nn.Module, works: Sequence[Work], **options) -> list[Scored]:  # type: ignore[no-untyped-def]
    options = {"stops": [STOP], "max_new_tokens": LIMIT, **options}
    results = dict(Engine(model, **options).run(works))
    assert sorted(results) == list(range(len(works)))
    return [results[number] for number in range(len(works))]


@torch.no_grad()
def takes_trees(model: PreTrainedModel, works: Sequence[Work]) -> bool:
    """Whether the engine runs a work's continuations as one tree."""
    return Passes(model, Counts()).takes_trees(works)


@torch.no_grad()
def plain_scores(model: nn.Module, prompt: Sequence[int], continuation: Sequence[int]) -> Tensor:
    """Full log-softmax (continuation, vocabulary) of one unpadded pass."""
    logits = model(torch.tensor([[*prompt, *continuation]])).logits[0, len(prompt) - 1 : -1]
    return logits.double().log_softmax(-1)


def plain_generation(model: PreTrainedModel, prompt: Sequence[int]) -> list[int]:
    return list(_plain_generation(model, tuple(prompt)))


@functools.cache  # several tests ask the same
@torch.no_grad()
def _plain_generation(model: PreTrainedModel, prompt: Sequence[int]) -> list[int]:
    ids = torch.tensor([list(prompt)])
    out = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=LIMIT,
        pad_token_id=0,
        eos_token_id=STOP,
    )
    generated: list[int] = out[0, len(prompt) :].tolist()
    return generated


def assert_scores(model: nn.Module, work: Work, result: Scored) -> None:
    for number, (continuation, scores) in enumerate(zip(work.continuations, result.continuations, strict=True)):
        expected = plain_scores(model, work.prompt, continuation)
        chosen = expected[range(len(continuation)), continuation]
        torch.testing.assert_close(torch.tensor(scores.logprobs).double(), chosen, rtol=1e-4, atol=1e-4)
        best = expected.gather(-1, torch.tensor(scores.argmax)[:, None])[:, 0]
        torch.testing.assert_close(best, expected.max(-1).values, rtol=1e-4, atol=1e-4)
        if number == 0:
            means = (expected.exp() * expected).sum(-1)
            deviations = (expected.exp() * (expected - means[:, None]).square()).sum(-1).sqrt()
            torch.testing.assert_close(torch.tensor(scores.means).double(), means, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(torch.tensor(scores.deviations).double(), deviations, rtol=1e-4, atol=1e-4)
        else:
            assert scores.means == scores.deviations == []


def assert_same_scores(result: Scored, expected: Scored) -> None:
    for one, other in zip(result.continuations, expected.continuations, strict=True):
        for part in ("logprobs", "means", "deviations"):
            pair = (torch.tensor(getattr(each, part)) for each in (one, other))
            torch.testing.assert_close(*pair, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", CONFIGS)
def test_scores_equal_one_by_one_passes(name: str) -> None:
    model, works = model_of(name), works_of(3)
    for work, result in zip(works, run(model, works), strict=True):
        assert_scores(model, work, result)


@pytest.mark.long
@pytest.mark.parametrize("name", CONFIGS)
def test_generations_equal_unbatched_generate(name: str) -> None:
    model, works = model_of(name), works_of(5, 10)
    expected = [plain_generation(model, work.prompt) for work in works]
    assert [result.generated for result in run(model, works)] == expected
    # the test would show little if all generations were alike
    assert len({tuple(each) for each in expected}) > len(expected) // 2


@pytest.mark.parametrize("name", GROUPED)
def test_keys_are_not_repeated_for_query_heads_that_share_them(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, heads = model_of(name), set()
    attention = kernels.grouped_attention

    def spy(query: Tensor, key: Tensor, *args: object, **options: object) -> Tensor:
        heads.add((query.shape[1], key.shape[1]))
        return attention(query, key, *args, **options)

    monkeypatch.setattr(kernels, "grouped_attention", spy)
    run(model, works_of(3))
    assert heads == {(4, CONFIGS[name].num_key_value_heads)}
    # the model is as it was
    assert all(
        layer.self_attn.num_key_value_groups == 4 // CONFIGS[name].num_key_value_heads for layer in model.model.layers
    )


def test_a_row_that_leaves_the_slots_takes_only_itself_away() -> None:
    """Slots against joining, appending and taking plain tensors."""

    def part(width: int) -> KeyValues:
        return KeyValues(
            [(torch.randn(1, 2, width, 3), torch.randn(1, 2, width, 3))], torch.ones(1, width, dtype=torch.long)
        )

    parts = [part(3), part(5), part(4)]
    slots = Slots(parts, room=4)
    new = torch.randn(3, 2, 2, 3)
    keys, values = slots.update(new, -new, 0)
    assert keys.shape == values.shape == (3, 2, 7, 3)
    assert slots.get_seq_length() == 5, "a pass alone does not move on"
    slots.advance(torch.tensor([[True, False], [True, True], [True, True]]))
    slots.drop(0)
    for row, original in enumerate([2, 1]):
        taken = slots.take(row).compact()
        expected = torch.cat([parts[original].layers[0][0], new[original : original + 1]], 2)
        assert taken.visible.all()
        torch.testing.assert_close(taken.layers[0][0], expected, rtol=0, atol=0)
        torch.testing.assert_close(taken.layers[0][1][:, :, -2:], -new[original : original + 1], rtol=0, atol=0)


def test_generations_without_continuations_and_scores_without_generations() -> None:
    model = model_of("llama")
    works = [Work(work.prompt, generate=True) for work in works_of(7)]
    results = run(model, works)
    assert [result.generated for result in results] == [plain_generation(model, work.prompt) for work in works]
    scored = run(model, [Work(work.prompt, work.continuations) for work in works_of(7)])
    assert all(result.generated is None for result in scored)


@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_logits_exist_for_a_few_answer_positions_at_a_time(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No head call sees more rows than the limit, or positions of the prompt; the numbers stay the same."""
    model, works = model_of(name), [Work(work.prompt, work.continuations, moments=True) for work in works_of(3)]
    expected = run(model, works)
    monkeypatch.setitem(head.LOGIT_BYTES, "cpu", 4 * VOCABULARY * 9)
    rows = []
    hook = model.get_output_embeddings().register_forward_hook(
        lambda _, __, output: rows.append(output[..., 0].numel())
    )
    try:
        results = run(model, works)
    finally:
        hook.remove()
    for one, other in zip(results, expected, strict=True):
        assert_same_scores(one, other)
    if name == "llama":  # the other's head has to run inside the model
        assert max(rows) == 9
        answers = sum(len(each) for work in works for each in work.continuations)
        # besides the answers: the trial at the start, twice eight rows
        assert sum(rows) <= answers + 16


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.integers(3, 5), min_size=1, max_size=6), min_size=1, max_size=6))
def test_a_tree_has_one_node_for_every_beginning(continuations: list[list[int]]) -> None:
    tree = Tree.of(continuations)
    beginnings = {tuple(each[:end]) for each in continuations for end in range(1, len(each))}
    assert len(tree.tokens) == len(beginnings)
    lineage = tree.lineage(len(tree.tokens) + 2)
    for continuation, path in zip(continuations, tree.paths, strict=True):
        assert [tree.tokens[node] for node in path] == continuation[:-1]
        assert [tree.depths[node] for node in path] == list(range(len(path)))
        for place, node in enumerate(path):
            assert lineage[node].nonzero()[:, 0].tolist() == path[: place + 1]
    assert tree.paths[0] == list(range(len(continuations[0]) - 1))


def alike(prompt: list[int]) -> Work:
    """A work whose continuations begin alike, one of them with another's beginning and one twice."""
    return Work(
        prompt, [[5, 6, 7, 8, STOP], [5, 6, 9, 10, STOP], [5, 6, 7], [11, STOP], [5, 6, 7, 8, STOP]], True, True
    )


@pytest.mark.long
@pytest.mark.parametrize("name", CONFIGS)
def test_answers_that_begin_alike_run_once_and_score_the_same(name: str) -> None:
    model, works = model_of(name), [alike(work.prompt) for work in works_of(17, 4)]
    engine = Engine(model, stops=[STOP], max_new_tokens=LIMIT)
    results = dict(engine.run(works))
    assert takes_trees(model, works), "all of these models see trees as they are"
    for number, work in enumerate(works):
        assert_scores(model, work, results[number])
        assert results[number].generated == plain_generation(model, work.prompt)


def test_a_model_that_makes_its_own_mask_gets_one_row_an_answer() -> None:
    """Without the tree's mask a branch would see its neighbours: the trial notices."""
    model, works = model_of("llama"), [alike(work.prompt) for work in works_of(17, 4)]

    def own_mask(_: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        mask = kwargs.get("attention_mask")
        if mask is not None and mask.dim() == 4:
            kwargs["attention_mask"] = torch.ones_like(mask[:, 0, 0], dtype=torch.long)
        return args, kwargs

    handle = model.register_forward_pre_hook(own_mask, with_kwargs=True)
    try:
        engine = Engine(model, stops=[STOP], max_new_tokens=LIMIT)
        results = dict(engine.run(works))
        assert not takes_trees(model, works)
        for number, work in enumerate(works):
            assert_scores(model, work, results[number])
    finally:
        handle.remove()


def test_trees_stay_within_a_sliding_window() -> None:
    """A window counts columns: where a tree would be longer than it, each answer is a row of its own."""
    model, prompt = model_of("sliding"), [3, 4, 5, 6]
    work = Work(prompt, [list(range(3 + first, 33 + first)) for first in range(4)])
    engine = Engine(model, stops=[STOP], max_new_tokens=LIMIT)
    result = dict(engine.run([work]))[0]
    for continuation, scores in zip(work.continuations, result.continuations, strict=True):
        chosen = plain_scores(model, prompt, continuation)[range(30), continuation]
        torch.testing.assert_close(torch.tensor(scores.logprobs).double(), chosen, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("cut", [0, 1, 5, LIMIT - 1, LIMIT])
def test_a_known_answer_needs_no_decoding(cut: int) -> None:
    """The reference answer agrees with the greedy generation for `cut` tokens; the generation stays the same."""
    model, prompt = model_of("llama"), works_of(11)[0].prompt
    greedy = plain_generation(model, prompt)
    answer = greedy[:cut] + [3 + (token + 1) % (VOCABULARY - 3) for token in greedy[cut:]]
    engine = Engine(model, stops=[STOP], max_new_tokens=LIMIT)
    result = dict(engine.run([Work(prompt, [answer], generate=True)]))[0]
    assert result.generated == greedy
    assert engine.counts.decoded_tokens == max(0, len(greedy) - cut - 1)


def test_generation_stops_inside_a_known_answer() -> None:
    """A continuation that goes on after the end of sequence does not carry the generation past it."""
    model, prompt = model_of("llama"), works_of(11)[0].prompt
    greedy = plain_generation(model, prompt)
    result = run(model, [Work(prompt, [[*greedy, 5, 6]], generate=True)], stops=[greedy[3]])[0]
    assert result.generated == greedy[: greedy.index(greedy[3]) + 1]


@pytest.mark.long
@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 9), st.randoms(use_true_random=False), st.integers(1, 40))
def test_results_do_not_depend_on_batches_or_order(seed, count, random, token_limit) -> None:  # type: ignore[no-untyped-def]
    model, works = model_of("llama"), works_of(seed, count)
    order = list(range(count))
    random.shuffle(order)
    alone = [run(model, [work])[0] for work in works]
    engine = Engine(model, stops=[STOP], max_new_tokens=LIMIT)
    engine.limits = Limits(token_limit, 1 + seed % 5)
    together = dict(engine.run([works[place] for place in order]))
    for place, original in enumerate(order):
        assert together[place].generated == alone[original].generated
        assert_same_scores(together[place], alone[original])


@pytest.mark.parametrize("free", [24, 64, 1000])
def test_drafts_change_nothing(free: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Verified drafts give the same tokens in fewer passes than tokens."""
    model, works = model_of("llama"), works_of(5, 10)
    monkeypatch.setitem(decoding.FREE_TOKENS, "cpu", free)
    monkeypatch.setattr(decoding, "NGRAM", 1)
    engine = Engine(model, stops=[STOP], max_new_tokens=LIMIT)
    results = dict(engine.run(works))
    assert [results[n].generated for n in range(10)] == [plain_generation(model, work.prompt) for work in works]
    assert engine.counts.row_steps < engine.counts.decoded_tokens


def test_finished_rows_leave_the_batch() -> None:
    model, works = model_of("llama"), [Work(work.prompt, generate=True) for work in works_of(5, 10)]
    engine = Engine(model, stops=[STOP], max_new_tokens=LIMIT, batch_size=4)
    results = dict(engine.run(works))
    assert engine.counts.row_steps <= sum(len(result.generated) - 1 for result in results.values())


@pytest.mark.parametrize("name", ["llama", "sliding"])
def test_hidden_tokens_as_a_padded_model_call_gives_them(name: str) -> None:
    """A hidden token is masked as a key; its position counts when scoring and not when generating."""
    model, hidden = model_of(name), 7
    works = [
        Work([1, *texts(9, 1, 3, 3)[0], hidden, *rest, hidden, 9], [[4, 5, hidden]], True) for rest in texts(2, 4, 2, 6)
    ]
    results = run(model, works, hidden=hidden, stops=[hidden])
    for work, result in zip(works, results, strict=True):
        ids = torch.tensor([[*work.prompt, 4, 5, hidden]])
        with torch.no_grad():
            logits = model(ids, attention_mask=(ids != hidden).long()).logits[0, len(work.prompt) - 1 : -1]
            prompt = torch.tensor([work.prompt])
            out = model.generate(
                prompt,
                attention_mask=(prompt != hidden).long(),
                do_sample=False,
                max_new_tokens=LIMIT,
                pad_token_id=hidden,
                eos_token_id=hidden,
            )
        expected = logits.log_softmax(-1)[range(3), [4, 5, hidden]]
        torch.testing.assert_close(torch.tensor(result.continuations[0].logprobs), expected, rtol=1e-4, atol=1e-4)
        assert result.generated == out[0, len(work.prompt) :].tolist()


class Edit:
    """A toy adapter: adds a vector at the prompt's end in one layer and gates with the sum of the state there."""

    def __init__(self, model: nn.Module) -> None:
        self.vector = torch.randn(32, generator=torch.Generator().manual_seed(1)) * 3
        self.handle = model.model.layers[1].register_forward_hook(self)

    def __call__(self, module: nn.Module, args: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        call = current_call()
        if call is None or call.prompt_end is None:
            return output
        states = (output if isinstance(output, Tensor) else output[0]).clone()
        rows = torch.arange(len(states))
        call.gates[1] = states[rows, call.prompt_end].sum(-1)
        states[rows, call.prompt_end] += self.vector
        return states if isinstance(output, Tensor) else (states, *output[1:])


def test_edits_at_the_prompt_end_and_gates() -> None:
    """An adapter that edits the last prompt token sees it once, wherever the batch puts it."""
    torch.manual_seed(0)
    model, works = AutoModelForCausalLM.from_config(CONFIGS["llama"]).eval(), works_of(13)
    unedited = run(model, works)
    edit = Edit(model)
    results = run(model, works)
    edit.handle.remove()
    for work, result, before in zip(works, results, unedited, strict=True):
        end = len(work.prompt) - 1
        sums = []

        def at_end(_, __, output, end=end, sums=sums):  # type: ignore[no-untyped-def]
            states = (output if isinstance(output, Tensor) else output[0]).clone()
            if states.shape[1] > end:
                sums.append(states[0, end].sum().item())
                states[0, end] += edit.vector
            return states if isinstance(output, Tensor) else (states, *output[1:])

        handle = model.model.layers[1].register_forward_hook(at_end)
        assert_scores(model, work, result)
        handle.remove()
        assert result.gates[1] == pytest.approx(sums[0], rel=1e-4, abs=1e-4)
        assert before.gates == {}
        assert result.continuations[0].logprobs != before.continuations[0].logprobs


@pytest.mark.long
@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10**6), st.integers(3, 60), st.sampled_from(["before", "after"]))
def test_out_of_memory_halves_the_batches(seed: int, capacity: int, when: str) -> None:
    """A model that fails above `capacity` input tokens at a time, before or after its work, still gives everything."""
    model, works = model_of("llama"), works_of(seed, 5)
    expected = run(model, works)
    failures = 0

    def fail(module: nn.Module, args: tuple, kwargs: dict, output: object = None) -> None:
        nonlocal failures
        if kwargs["input_ids"].numel() > max(capacity, kwargs["input_ids"].shape[1]):
            failures += 1
            raise torch.OutOfMemoryError("too much")

    register = model.register_forward_pre_hook if when == "before" else model.register_forward_hook
    handle = register(fail, with_kwargs=True)
    engine = Engine(model, stops=[STOP], max_new_tokens=LIMIT)
    begun = engine.limits.tokens
    try:
        results = dict(engine.run(works))
    finally:
        handle.remove()
    assert engine.limits.tokens == max(1, begun // 2**failures), "halved at every failure, and only then"
    for number, other in enumerate(expected):
        assert results[number].generated == other.generated
        assert_same_scores(results[number], other)


def test_out_of_memory_in_the_decoding_batch_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows go back to the queue whole when their joint keys and values do not fit."""
    model, works = model_of("llama"), [Work(work.prompt, generate=True) for work in works_of(5, 8)]
    expected, sizes = [plain_generation(model, work.prompt) for work in works], []

    def tight(parts: Sequence[KeyValues], room: int) -> Slots:
        if len(parts) > 3:
            raise torch.OutOfMemoryError("too much")
        sizes.append(len(parts))
        return Slots(parts, room)

    monkeypatch.setattr(decoding, "Slots", tight)
    assert [result.generated for result in run(model, works, batch_size=8)] == expected
    assert max(sizes) == 2


def test_out_of_memory_for_a_single_row_is_raised() -> None:
    model = model_of("llama")

    def fail(_: nn.Module, args: tuple, kwargs: dict) -> None:
        if kwargs["input_ids"].shape[1] > 2:
            raise torch.OutOfMemoryError("too much")

    handle = model.register_forward_pre_hook(fail, with_kwargs=True)
    try:
        with pytest.raises(torch.OutOfMemoryError):
            run(model, works_of(1))
    finally:
        handle.remove()


def test_no_works() -> None:
    assert run(model_of("llama"), []) == []
