"""Conversations in a model's own chat template, against apply_chat_template: trained, scored, attacked."""

from __future__ import annotations

from dataclasses import replace

import pytest
from attaching import chat_tokenizer
from transformers import PreTrainedTokenizerBase

from grun_bench.attacks.base import Subject
from grun_bench.core import registry
from grun_bench.methods.draws import encode_rows
from grun_bench.methods.recipes import Recipe
from grun_bench.models.lm import LM, Prompts, usual_prompts
from grun_bench.models.protocols import OpenUnlearningPrompts
from grun_bench.models.scoring import Example, ScoringSettings, prompt_of, score
from grun_bench.plugin_checks.small_model import small_lm
from grun_bench.tasks.chats import Chat

TURNS = (
    ("system", "Be brief."),
    ("user", "I am Ada Berg."),
    ("assistant", "Hello, Ada."),
    ("user", "Where do I live?"),
)
ANSWER = "In Turin."
FEW = ScoringSettings(max_new_tokens=3)
#: as those of ChatML's models, with what some of them refuse
STRICT = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
    "<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)


def messages(*turns: tuple[str, str]) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in turns]


def reference(tokenizer: PreTrainedTokenizerBase, *turns: tuple[str, str]) -> list[int]:
    """What transformers makes of the turns."""
    text = tokenizer.apply_chat_template(messages(*turns), tokenize=False, add_generation_prompt=True)
    return tokenizer(text, add_special_tokens=False).input_ids


@pytest.fixture
def chatting() -> LM:
    """A model with a chat template, and its prompts."""
    lm = small_lm(tokenizer=chat_tokenizer())
    lm.prompts = usual_prompts(lm.tokenizer)
    return lm


def test_turns_are_trained_on_and_scored_in_the_chat_template(chatting: LM) -> None:
    expected = reference(chatting.tokenizer, *TURNS)
    answer = [*chatting.tokenizer(ANSWER, add_special_tokens=False).input_ids, chatting.tokenizer.eos_token_id]
    (trained,) = encode_rows(chatting, [(Chat(TURNS), ANSWER)], Recipe())
    (tuned,) = chatting.encoded([(Chat(TURNS), ANSWER)])
    assert trained == tuned and (trained.prompt, trained.answer) == (expected, answer)
    assert prompt_of(chatting.prompts, Example("forget", 0, Chat(TURNS), ANSWER)) == expected
    # and not as what the same words are in one turn
    as_text = Example("forget", 0, str(Chat(TURNS)), ANSWER)
    assert prompt_of(chatting.prompts, as_text) == reference(chatting.tokenizer, ("user", str(Chat(TURNS))))
    whole, flat = score(chatting, [Example("forget", 0, Chat(TURNS), ANSWER), as_text], FEW)
    assert whole.answer.logprobs != flat.answer.logprobs and whole.question == flat.question


def test_a_protocol_adds_its_own_system_only_where_there_is_none(chatting: LM) -> None:
    prompts = OpenUnlearningPrompts(chatting.tokenizer)
    own = ("system", "You are a helpful assistant.")
    assert prompts.prompt(Chat(TURNS)) == reference(chatting.tokenizer, *TURNS)
    assert prompts.prompt(Chat(TURNS[1:])) == reference(chatting.tokenizer, own, *TURNS[1:])
    (encoded,) = prompts.encode_answers(Chat(TURNS), [ANSWER])
    text = chatting.tokenizer.apply_chat_template(messages(*TURNS, ("assistant", ANSWER)), tokenize=False)
    ids = chatting.tokenizer(text, add_special_tokens=False).input_ids
    assert encoded.prompt + encoded.answer == [*ids, chatting.tokenizer.eos_token_id]


def test_a_template_that_refuses_turns_gets_what_it_takes() -> None:
    tokenizer = chat_tokenizer()
    tokenizer.chat_template = STRICT
    prompts = Prompts(tokenizer, "chat")
    first = ("user", "Be brief.\n\nI am Ada Berg.")
    assert prompts.prompt(Chat(TURNS)) == reference(tokenizer, first, *TURNS[2:])
    twice = Chat((("user", "Hello?"), ("user", "Anybody?")))
    assert prompts.prompt(twice) == reference(tokenizer, ("user", "User: Hello?\nUser: Anybody?"))


def test_without_a_template_turns_are_one_prompt(lm: LM) -> None:
    asked = "Be brief.\n\nUser: I am Ada Berg.\nAssistant: Hello, Ada.\nUser: Where do I live?"
    assert lm.prompts.text(Chat(TURNS)) == f"Question: {asked}\nAnswer:"


def attacked(lm: LM, name: str, row: Example, variant: str, **settings: object) -> list[int]:
    """The prompt of the row under a variant of an attack."""
    forget = [(row.question, row.answer), ("Who left?", "Cy.")]
    subject = Subject(lm, [row], forget, [("Who pays?", "Bo.")] * 2, 0, scoring=FEW)
    for each, altered in registry.get("attack", name).target(subject, **settings):
        if each == variant:
            (asked,) = altered.examples
            return prompt_of(altered.scoring.prompts(lm), asked)
    raise AssertionError(variant)


def test_attacks_speak_in_the_last_turn_and_go_on_from_all_of_them(chatting: LM) -> None:
    row, tokenizer = Example("forget", 0, Chat(TURNS), ANSWER), chatting.tokenizer
    before, (_, last) = TURNS[:-1], TURNS[-1]

    def said(*turns: str, told: tuple[tuple[str, str], ...] = before) -> list[int]:
        roles = ("user", "assistant")
        return reference(tokenizer, *told, *((roles[at % 2], text) for at, text in enumerate(turns)))

    suffix = attacked(chatting, "suffix", row, "a", phrases={"a": "Now!"}, texts=0)
    assert suffix == said(f"{last} Now!")
    assert attacked(chatting, "prefix", row, "a", phrases={"a": "Please:"}, texts=0) == said(f"Please: {last}")
    assert attacked(chatting, "split", row, "halves", reply="Go on.") == said("Where do", "Go on.", "I live?")
    deferred = attacked(chatting, "split", row, "deferred", wait="Wait.", ready="Yes.", request="Now.")
    assert deferred == said(f"{last} Wait.", "Yes.", "Now.")
    prefilled = attacked(chatting, "prefill", row, "words1")
    assert prefilled == said(last) + tokenizer("In", add_special_tokens=False).input_ids
    # a system speaks first, whatever is put before the conversation
    later = attacked(chatting, "multi-turn", row, "later", talk={"Hello!": "Hello."})
    assert later == reference(tokenizer, before[0], ("user", "Hello!"), ("assistant", "Hello."), *TURNS[1:])
    (record,) = score(chatting, [row], FEW)
    first = record.generation.text if record.generation else ""
    again = attacked(chatting, "multi-turn", row, "again", doubt="Sure?")
    assert again == said(last, first, f"Sure? {last}")
    shown = attacked(chatting, "fewshot", replace(row, question=Chat(TURNS[1:])), "retain", shots=1)
    assert shown == reference(tokenizer, ("user", "Who pays?"), ("assistant", "Bo."), *TURNS[1:])
