"""Steering against loops over texts, clusters and positions: what is made of the sets, and what a prompt then gets."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from attaching import chat_tokenizer, logits_of
from conftest import FORGET, RETAIN
from hypothesis import given, settings
from hypothesis import strategies as st
from sentence_models import write_model
from torch import Tensor
from transformers import Cache, DynamicCache

import grun_bench
from grun_bench.core.errors import ModelError, Refused, UsageError
from grun_bench.integrations.lm_eval.model import HarnessLM
from grun_bench.methods import saving
from grun_bench.methods.adapters.guard import Guard, mean_states, steered
from grun_bench.methods.base import FitContext, Fitted
from grun_bench.methods.clusters import activations, k_means, steering_vector
from grun_bench.methods.make import make_unlearner
from grun_bench.models.engine import Engine
from grun_bench.models.forward import decoder_layers
from grun_bench.models.kv_cache import cache_argument
from grun_bench.models.lm import LM, Prompts
from grun_bench.models.loading import write_model as write_base
from grun_bench.models.scoring import ScoringSettings, score
from grun_bench.models.work import Work
from grun_bench.plugin_checks.small_model import small_lm, two_sets
from grun_bench.tasks.world import PUBLISHED

#: a block in the middle, and a threshold between the cosines of the two sets
OPTIONS = {"layer": 0.5, "threshold": 0.3}


def fit(base: Callable[[], LM] = small_lm, **options: Any) -> Fitted:
    context = FitContext(FORGET, RETAIN, base, base, seed=0)
    return make_unlearner("guard", OPTIONS | options, PUBLISHED).fit(context)


# ---- what is made of the sets


def by_definition(points: np.ndarray, labels: Sequence[int]) -> float:
    """The mean silhouette (Rousseeuw 1987): (b - a) / max(a, b), 0 of a point alone."""
    total = 0.0
    for one, label in zip(points, labels, strict=True):
        means = {}
        for other in set(labels):
            gaps = [
                float(np.linalg.norm(one - point)) for point, its in zip(points, labels, strict=True) if its == other
            ]
            means[other] = sum(gaps) / (len(gaps) - (other == label)) if len(gaps) > (other == label) else None
        inside = means.pop(label)
        nearest = min(means.values())
        total += 0.0 if inside is None else (nearest - inside) / max(nearest, inside)
    return total / len(points)


@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 1000), blobs=st.integers(2, 4))
def test_the_number_of_clusters_is_that_of_the_blobs_and_no_silhouette_is_larger(seed: int, blobs: int) -> None:
    random = np.random.default_rng(seed)
    centres = 10 * np.eye(5)[:blobs]
    points = np.concatenate([centre + random.normal(size=(5, 5)) * 0.3 for centre in centres])
    labels = k_means(points, 2, 6, seed)
    # the clusters are the blobs, whatever their numbers
    assert [len(set(part)) for part in np.split(labels, blobs)] == [1] * blobs and len(set(labels)) == blobs
    best = by_definition(points, labels.tolist())
    for count in (2, 3, 5):
        other = k_means(points, count, count, seed)
        assert by_definition(points, other.tolist()) <= best + 1e-9


@pytest.mark.parametrize("points", [np.ones((1, 3)), np.eye(2), np.ones((9, 3))])
def test_texts_too_few_to_choose_are_one_cluster(points: np.ndarray) -> None:
    assert k_means(points, 2, 20, 0).tolist() == [0] * len(points)


@given(seed=st.integers(0, 1000))
def test_a_vector_is_apart_from_the_retain_mean_and_as_long_as_states_are(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    means, norms, retain = (torch.rand(shape, generator=generator) for shape in ((4, 6), (4,), (6,)))
    mean = [sum(float(row[place]) for row in means) / 4 for place in range(6)]
    share = sum(a * float(b) for a, b in zip(mean, retain, strict=True)) / sum(float(b) ** 2 for b in retain)
    apart = [a - share * float(b) for a, b in zip(mean, retain, strict=True)]
    length = math.sqrt(sum(a * a for a in apart))
    expected = torch.tensor(apart) * (sum(map(float, norms)) / 4 / length)
    found = steering_vector(means, norms, retain)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    assert abs(float(found @ retain)) < 1e-3


@given(seed=st.integers(0, 1000), strength=st.floats(0.01, 10), scale=st.sampled_from([1e-3, 1.0, 1e4]))
def test_a_state_keeps_its_length_and_turns_away(seed: int, strength: float, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    state, vector = (scale * torch.randn(7, generator=generator) for _ in range(2))
    turned = steered(state, vector, strength)
    assert turned.norm().item() == pytest.approx(state.norm().item(), rel=1e-4)
    moved = [float(h) - strength * float(v) for h, v in zip(state, vector, strict=True)]
    factor = math.dist(state.tolist(), [0] * 7) / math.dist(moved, [0] * 7)
    torch.testing.assert_close(turned, torch.tensor(moved) * factor, rtol=1e-3, atol=1e-4 * scale)
    cosine = partial(torch.nn.functional.cosine_similarity, vector, dim=0)
    assert cosine(turned) <= cosine(state) + 1e-4


def test_a_mean_leaves_out_padding_and_the_first_token_of_several() -> None:
    states = torch.randn(3, 4, 5)
    seen = torch.tensor([[0, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 1]]).bool()
    expected = torch.stack([states[0, 2:].mean(0), states[1, 1], states[2, 3]])
    torch.testing.assert_close(mean_states(states, seen), expected)


@torch.no_grad()
def test_activations_are_those_of_each_row_alone() -> None:
    """Question and answer for the vector, the question for the router, whatever the batch."""
    lm, guard = steered_model()
    found = activations(lm, guard, FORGET, batch_size=2)
    assert len(decoder_layers(lm.model)) == lm.model.config.num_hidden_layers == 6
    for number, (question, answer) in enumerate(FORGET):
        prompt = lm.prompts.prompt(question)
        states = states_of(lm, guard, [*prompt, *lm.prompts.answer(answer)])[1:]
        torch.testing.assert_close(found.means[number], states.mean(0), rtol=1e-4, atol=1e-5)
        lengths = [math.sqrt(sum(value * value for value in state.tolist())) for state in states]
        assert found.norms[number].item() == pytest.approx(sum(lengths) / len(lengths), rel=1e-4)
        torch.testing.assert_close(found.embedded[number], states[: len(prompt) - 1].mean(0), rtol=1e-4, atol=1e-5)


# ---- what a prompt gets


@contextmanager
def listening(block: Any, act: Callable[[Tensor], Tensor | None]) -> Iterator[None]:
    """Within this block `act` gets what a block gives, and gives what takes its place."""

    def hook(_: Any, args: Any, output: Any) -> Any:
        states = output[0] if isinstance(output, tuple) else output
        other = act(states)
        return output if other is None else (other, *output[1:]) if isinstance(output, tuple) else other

    handle = block.register_forward_hook(hook)
    yield
    handle.remove()


def states_of(lm: LM, guard: Guard, ids: Sequence[int]) -> Tensor:
    """(length, hidden) what the block gives that is not steered."""
    seen: list[Tensor] = []
    with guard.disabled(), listening(decoder_layers(lm.model)[guard.first_layer], lambda states: seen.append(states)):
        lm.model(torch.tensor([list(ids)]), use_cache=False)
    return seen[0][0]


def route_by_hand(lm: LM, guard: Guard, prompt: Sequence[int]) -> tuple[Tensor, float]:
    """The vector of the nearest cluster, and the cosine with its centroid, of the model's own states as the router."""
    tokens = list(states_of(lm, guard, prompt))[1:]
    return nearest(guard, sum(tokens) / len(tokens))


def nearest(guard: Guard, embedded: Tensor) -> tuple[Tensor, float]:
    found = []
    for request in guard.requests:
        point = (embedded - request.centre).tolist()
        for centroid, vector in zip(request.centroids.tolist(), request.vectors, strict=True):
            product = sum(a * b for a, b in zip(point, centroid, strict=True))
            found.append((product / (math.hypot(*point) * math.hypot(*centroid)), vector))
    cosine, vector = max(found, key=lambda each: each[0])
    return vector, cosine


@torch.no_grad()
def by_hand(lm: LM, guard: Guard, prompt: Sequence[int], after: Sequence[int] = ()) -> Tensor:
    """(length, vocabulary) logits of a prompt and what follows it, in one plain pass."""
    return routed(lm, guard, [*prompt, *after], *route_by_hand(lm, guard, prompt))


def routed(lm: LM, guard: Guard, ids: list[int], vector: Tensor, cosine: float) -> Tensor:
    """The same with the route known, by a loop over positions."""

    def steer(states: Tensor) -> Tensor | None:
        if cosine <= guard.threshold:
            return None
        turned = [state - guard.strength * vector for state in states[0]]
        return torch.stack([new * (old.norm() / new.norm()) for new, old in zip(turned, states[0], strict=True)])[None]

    with guard.disabled(), listening(decoder_layers(lm.model)[guard.first_layer], steer):
        return lm.model(torch.tensor([ids]), use_cache=False).logits[0]


@torch.no_grad()
def test_forget_prompts_are_steered_and_others_are_the_targets_to_the_bit() -> None:
    fitted = fit()
    lm, guard, plain = fitted.lm, fitted.adapter, small_lm()
    assert isinstance(guard, Guard) and fitted.trainable == 0
    opened = []
    for question, answer in (*FORGET, *RETAIN):
        prompt, after = lm.prompts.prompt(question), lm.prompts.answer(answer)
        ids = torch.tensor([[*prompt, *after]])
        whole = lm.model(ids, prompt_lengths=len(prompt)).logits[0]
        torch.testing.assert_close(whole, by_hand(lm, guard, prompt, after), rtol=1e-4, atol=1e-4)
        opened.append(route_by_hand(lm, guard, prompt)[1] > guard.threshold)
        unsteered = plain.model(ids).logits[0]
        assert torch.equal(whole, unsteered) != opened[-1]
        with guard.disabled():
            assert torch.equal(lm.model(ids).logits[0], unsteered)
    assert all(opened[: len(FORGET)]) and not all(opened)


@settings(max_examples=6, deadline=None)
@given(cuts=st.lists(st.integers(1, 11), max_size=4, unique=True), padding=st.integers(0, 3))
@torch.no_grad()
def test_what_follows_a_prompt_is_the_same_in_one_pass_and_piece_by_piece(cuts: list[int], padding: int) -> None:
    lm, guard = steered_model()
    prompt, after = lm.prompts.prompt(FORGET[1][0]), list(range(40, 52))
    whole = by_hand(lm, guard, prompt, after)
    ids = torch.tensor([[2] * padding + [*prompt, *after]])
    visible = torch.tensor([[0] * padding + [1] * len(whole)])
    past: Cache = DynamicCache()
    pieces, start = [], 0
    for end in [len(prompt) + padding + cut for cut in [0, *sorted(cuts), len(after)]]:
        output = lm.model(
            ids[:, start:end],
            attention_mask=visible[:, :end],
            position_ids=(visible.cumsum(1) - 1).clamp(min=0)[:, start:end],
            prompt_lengths=0 if start else len(prompt),
            use_cache=True,
            **cache_argument(lm.model, past),
        )
        past = next(value for value in output.values() if isinstance(value, Cache))
        pieces.append(output.logits[0])
        start = end
    torch.testing.assert_close(torch.cat(pieces)[padding:], whole, rtol=1e-4, atol=1e-4)


def steered_model() -> tuple[LM, Guard]:
    fitted = fit()
    assert isinstance(fitted.adapter, Guard)
    return fitted.lm, fitted.adapter


@pytest.mark.long
def test_the_engine_scores_and_generates_as_one_pass_and_records_say_how_far_it_opened() -> None:
    """Prompts that begin alike share nothing here: what steers their first token is known at their last."""
    lm, guard = steered_model()
    examples = two_sets()[::2]
    works = [
        Work(lm.prompts.prompt(row.question), [lm.prompts.answer(each) for each in row.candidates], True)
        for row in examples
    ]
    for number, scored in Engine(lm.model, stops=[1], max_new_tokens=8).run(works):
        work = works[number]
        for answer, scores in zip(work.continuations, scored.continuations, strict=True):
            logprobs = by_hand(lm, guard, work.prompt, answer).log_softmax(-1)[len(work.prompt) - 1 : -1]
            expected = logprobs.gather(-1, torch.tensor(answer)[:, None])[:, 0]
            torch.testing.assert_close(torch.tensor(scores.logprobs), expected, rtol=1e-3, atol=1e-3)
        text: list[int] = []
        while len(text) < 8 and text[-1:] != [1]:
            text.append(int(by_hand(lm, guard, work.prompt, text)[-1].argmax()))
        assert scored.generated == text
    for row, record in zip(examples, score(lm, examples, ScoringSettings(1)), strict=True):
        asked = (row.question, record.gates), (row.paraphrased_question, record.gates_paraphrased)
        for question, gates in asked:
            _, cosine = route_by_hand(lm, guard, lm.prompts.prompt(str(question)))
            expected = 1 / (1 + math.exp(-20 * (cosine - guard.threshold)))
            assert gates == {str(guard.first_layer): pytest.approx(expected, abs=1e-3)}


@pytest.mark.parametrize(
    "options", [{}, {"use_cache": False}, {"num_beams": 3}, {"cache_implementation": "static"}], ids=str
)
def test_plain_generation_of_padded_prompts_is_that_of_each_alone(options: dict[str, Any]) -> None:
    if "cache_implementation" in options and transformers.__version__.startswith("4."):
        pytest.skip("refused there: no place beside keys and values")
    lm, guard = steered_model()
    prompts = [lm.prompts.prompt(question) for question, _ in (*FORGET[:3], *RETAIN[:2])]
    width = max(map(len, prompts))
    ids = torch.tensor([[2] * (width - len(each)) + each for each in prompts])
    mask = torch.tensor([[0] * (width - len(each)) + [1] * len(each) for each in prompts])
    given = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 2, "eos_token_id": 1, **options}
    together = lm.model.generate(ids, attention_mask=mask, **given)[:, width:]
    for prompt, row in zip(prompts, together, strict=True):
        if "num_beams" in options:
            alone = lm.model.generate(torch.tensor([prompt]), **given | {"use_cache": False})[0, len(prompt) :].tolist()
        else:
            alone = []
            while len(alone) < 6 and alone[-1:] != [1]:
                alone.append(int(by_hand(lm, guard, prompt, alone)[-1].argmax()))
        assert row[: len(alone)].tolist() == alone


def test_lm_evals_requests_are_steered_by_their_contexts() -> None:
    """In batches, right-padded, with continuations that share all but their last token."""
    lm, guard = steered_model()
    pairs = [*FORGET[:3], ("Who?", "Ade."), *RETAIN[:2]]
    requests = [(None, lm.prompts.prompt(asked), lm.prompts.answer(answer)[:-1]) for asked, answer in pairs]
    found = HarnessLM(lm=lm, batch_size=4)._loglikelihood_tokens(requests, disable_tqdm=True)
    for (_, prompt, answer), (total, greedy) in zip(requests, found, strict=True):
        logprobs = by_hand(lm, guard, prompt, answer).log_softmax(-1)[len(prompt) - 1 : -1]
        tokens = torch.tensor(answer)
        assert total == pytest.approx(logprobs.gather(-1, tokens[:, None]).sum().item(), abs=1e-3)
        assert greedy == bool((logprobs.argmax(-1) == tokens).all())


@torch.no_grad()
def test_a_prompt_in_two_calls_is_refused() -> None:
    lm, _ = steered_model()
    prompt = torch.tensor([lm.prompts.prompt(FORGET[1][0])])
    beginning = lm.model(prompt[:, :4], prompt_lengths=0)
    answered = lm.model(prompt, prompt_lengths=prompt.shape[1])
    legacy = tuple((torch.zeros(1, 2, 4, 8),) * 2 for _ in range(6))
    for past, ids, lengths in (
        (beginning.past_key_values, prompt[:, 4:], prompt.shape[1] - 4),  # the rest of it
        (answered.past_key_values, prompt, prompt.shape[1]),  # another turn after an answer
    ):
        with pytest.raises(UsageError, match="give a prompt in one call"):
            lm.model(ids, prompt_lengths=lengths, **cache_argument(lm.model, past))
    foreign = small_lm().model(prompt).past_key_values
    for past in (foreign, legacy):
        name = next(iter(cache_argument(lm.model, foreign))) if isinstance(past, Cache) else "past_key_values"
        with pytest.raises((UsageError, TypeError)):
            lm.model(prompt[:, :1], **{name: past})
    with pytest.raises(UsageError, match="where the prompt ends is not known"):
        lm.model(prompt)


# ---- the router that reads texts


@pytest.fixture(scope="module")
def router(tmp_path_factory: pytest.TempPathFactory) -> str:
    pytest.importorskip("sentence_transformers", reason="the extra `sentences` is not installed")
    folder = tmp_path_factory.mktemp("router") / "org" / "sentences"
    write_model(folder, small_lm().tokenizer)
    return str(folder)


@torch.no_grad()
def test_a_router_of_sentences_reads_what_was_asked(router: str) -> None:
    """In a chat template too: the question's words alone decide, as embedded by themselves."""
    for tokenizer, style in ((small_lm().tokenizer, "qa"), (chat_tokenizer(), "chat")):

        def base(tokenizer: Any = tokenizer, style: Any = style) -> LM:
            return replace(small_lm(tokenizer=tokenizer), prompts=Prompts(tokenizer, style))

        fitted = fit(base, router=router, threshold=0.9)
        lm, guard = fitted.lm, fitted.adapter
        assert isinstance(guard, Guard) and guard.sentences is not None
        for question, answer in (*FORGET, *RETAIN):
            embedded = torch.from_numpy(guard.sentences.embed([question]))[0]
            prompt, after = lm.prompts.prompt(question), lm.prompts.answer(answer)
            expected = routed(lm, guard, [*prompt, *after], *nearest(guard, embedded))
            found = lm.model(torch.tensor([[*prompt, *after]]), prompt_lengths=len(prompt)).logits[0]
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        with pytest.raises(UsageError, match="call it with input_ids"):
            lm.model(inputs_embeds=torch.zeros(1, 3, 32), prompt_lengths=3)


# ---- as a method


def test_a_further_request_adds_its_clusters(tmp_path: Path) -> None:
    unlearner = make_unlearner("guard", OPTIONS, PUBLISHED)
    context = FitContext(FORGET[:3], RETAIN, small_lm, small_lm, seed=0, stages=2)
    first = unlearner.fit(context)
    guard = first.adapter
    assert isinstance(guard, Guard)
    earlier = {name: value.clone() for name, value in guard.requests.state_dict().items()}
    second = unlearner.fit(replace(context, forget=FORGET[3:], load_target=lambda: first.lm, stage=1, previous=first))
    assert second.adapter is guard and len(guard.requests) == 2
    for name, value in earlier.items():
        assert torch.equal(guard.requests.state_dict()[name], value)
    # the second's are those of a request of its own: nothing is steered while they are made
    alone = unlearner.fit(replace(context, forget=FORGET[3:])).adapter
    assert isinstance(alone, Guard)
    assert torch.equal(guard.requests[1].vectors, alone.requests[0].vectors)
    for question, _ in FORGET:
        prompt = second.lm.prompts.prompt(question)
        with torch.no_grad():
            found = second.lm.model(torch.tensor([prompt]), prompt_lengths=len(prompt)).logits[0]
        torch.testing.assert_close(found, by_hand(second.lm, guard, prompt), rtol=1e-4, atol=1e-4)


def test_plain_texts_are_steered_by_all_they_say() -> None:
    texts = [("", f"{question} {answer}") for question, answer in FORGET]
    context = FitContext(texts, [("", f"{question} {answer}") for question, answer in RETAIN], small_lm, small_lm, 0)
    fitted = make_unlearner("guard", OPTIONS, PUBLISHED).fit(context)
    lm, guard = fitted.lm, fitted.adapter
    assert isinstance(guard, Guard)
    for _, text in texts:
        assert route_by_hand(lm, guard, lm.tokenizer(text).input_ids)[1] > guard.threshold


def test_without_retain_texts_it_is_refused() -> None:
    with pytest.raises(Refused, match="no retain set"):
        make_unlearner("guard", {}, PUBLISHED).fit(FitContext(FORGET, [], small_lm, small_lm, seed=0))
    for settings_ in ({"clusters": [5, 2]}, {"threshold": 2.0}, {"strength": 0.0}, {"router": "/no/where"}):
        with pytest.raises(UsageError):
            _ = make_unlearner("guard", settings_, PUBLISHED).settings


@pytest.mark.parametrize("by_sentences", [False, True])
def test_a_saved_model_comes_back_to_the_bit(
    by_sentences: bool, router: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRUN_BENCH_HUB", f"{tmp_path}:{Path(router).parents[1]}")
    write_base(small_lm().model, small_lm().tokenizer, tmp_path / "org" / "base")
    origin = grun_bench.models.places.identity("org/base", tmp_path / "org" / "base")
    fitted = fit(lambda: replace(small_lm(), origin=origin), **({"router": "org/sentences"} if by_sentences else {}))
    saving.save(fitted, "guard", tmp_path / "saved")
    expected = logits_of(fitted.lm)
    assert torch.equal(logits_of(grun_bench.load(tmp_path / "saved")), expected)
    assert not torch.equal(expected, logits_of(small_lm()))
    with pytest.raises(UsageError, match="push_to_hub"):
        fitted.lm.model.save_pretrained(tmp_path / "plain")
    if by_sentences:
        other = Path(router).parents[1] / "org" / "sentences" / "config_of_another_day.json"
        other.write_text("{}")
        with pytest.raises(ModelError, match="not the router"):
            grun_bench.load(tmp_path / "saved")
        other.unlink()
