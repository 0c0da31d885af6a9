"""A language model ready to use: the network with its tokenizer, and how questions and answers become token ids."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from grun_bench.core.errors import DataError, ModelError, first_line
from grun_bench.core.patches import template_clock
from grun_bench.models.batch import Encoded, common_length
from grun_bench.models.devices import device_of
from grun_bench.tasks.chats import Chat, Turn

#: how prompts are written; the last is a protocol's (see `protocols`)
Style = Literal["chat", "qa", "open-unlearning"]
#: questions with their answers
Pairs = Sequence[tuple[str, str]]
#: messages of a chat, each with `role` and `content`
Turns = list[dict[str, str]]

#: the date that chat templates with a date print: the one of Llama 3's own default, never today
TEMPLATE_DATE = datetime.datetime(2024, 7, 26)


def turns(question: str, context: Pairs = ()) -> Turns:
    """Questions with their answers, and one that is yet to be answered, as turns of a chat.

    Of questions that are conversations all turns; what a system is told comes before everything.
    """
    said = [(*_turns_of(asked), ("assistant", answer)) for asked, answer in context]
    found = [{"role": role, "content": text} for each in (*said, _turns_of(question)) for role, text in each]
    return sorted(found, key=lambda turn: turn["role"] != "system")


def _turns_of(question: str) -> tuple[Turn, ...]:
    return question.turns if isinstance(question, Chat) else (("user", question),)


def without_system(chat: Turns) -> Turns:
    """A chat in which what the system is told is the beginning of the first other turn, for templates without it."""
    told = [turn["content"] for turn in chat if turn["role"] == "system"]
    first, *others = [turn for turn in chat if turn["role"] != "system"]
    return [first | {"content": "\n\n".join([*told, first["content"]])}, *others]


class Prompts:
    """Questions and answers as token ids, tokenised apart so that no token straddles the border.

    `style` is `chat` (the tokenizer's chat template, dates fixed to 26 Jul 2024) or `qa`, the TOFU paper's
    "Question: ...\\nAnswer:". The answer ends with the end of sequence. `context` are questions with their answers
    before the question, as turns of the chat or blocks of the same form; `prefill` the first words of the answer, given
    as the end of the prompt.
    """

    #: the date that chat templates are told
    date = TEMPLATE_DATE

    def __init__(self, tokenizer: PreTrainedTokenizerBase, style: Style) -> None:
        self.tokenizer = tokenizer
        self.style: Style = style
        # some put a space before every text by themselves, SentencePiece's by its sign and those of bytes by theirs
        self._space = "" if "".join(tokenizer.tokenize("a")).startswith(("▁", "Ġ")) else " "
        self._answer_prefix = self._space if style == "qa" else ""

    def text(self, question: str, context: Pairs = ()) -> str:
        """The prompt as text."""
        if self.style == "qa":
            before = "".join(f"Question: {asked}\nAnswer: {answer}\n\n" for asked, answer in context)
            return f"{before}Question: {question}\nAnswer:"
        return self.templated(self.chat(question, context), add_generation_prompt=True)

    def chat(self, question: str, context: Pairs = ()) -> Turns:
        """The turns of a prompt. A conversation that the template refuses, as for a role or an order that it does not
        have, is without a turn of the system, and where that does not help the one text that it is."""
        found = turns(question, context)
        if isinstance(question, Chat):
            for way in (found, without_system(found)):
                with suppress(ModelError):
                    self.templated(way, add_generation_prompt=True)
                    return way
            return turns(str(question), context)
        return found

    def templated(self, chat: Turns, add_generation_prompt: bool = False) -> str:
        """A chat by the tokenizer's template, on the fixed date. Raises ModelError where it takes no such chat."""
        try:
            with template_clock(self.date):
                return self.tokenizer.apply_chat_template(
                    chat,
                    tokenize=False,
                    add_generation_prompt=add_generation_prompt,
                    date_string=self.date.strftime("%d %b %Y"),
                )
        except Exception as error:  # a template is a program, and a stranger's
            roles = ", ".join(turn["role"] for turn in chat)
            said = first_line(error).rstrip(".")
            raise ModelError(f"the chat template cannot write the turns {roles}: {said}.") from None

    def prompt(self, question: str, context: Pairs = (), prefill: str = "") -> list[int]:
        """Token ids of the prompt. A chat template writes its own special tokens; `qa` gets the tokenizer's."""
        ids = self._ids(self.text(question, context)) + (self._ids(self._answer_prefix + prefill) if prefill else [])
        if self.style == "chat":
            return ids
        bos = [self.tokenizer.bos_token_id] if self.tokenizer("a").input_ids[0] == self.tokenizer.bos_token_id else []
        return bos + ids

    def tag_start(self, question: str) -> int:
        """The token of its prompt that begins the "Answer:" after a question; the prompt's end where there is none."""
        tag = "Answer:" if self.style == "qa" else ""
        text = self.text(question)
        return len(self.prompt(question)) - len(self._ids(text)) + len(self._ids(text.removesuffix(tag)))

    def answer(self, answer: str, prefill: str = "", gap: str = " ") -> list[int]:
        """Token ids of the answer, or of what comes after the prefill and the gap; the end of sequence included."""
        after = self._space if gap else ""
        return [*self._ids((after if prefill else self._answer_prefix) + answer), self.tokenizer.eos_token_id]

    @cached_property
    def frame(self) -> tuple[list[int], list[int]]:
        """The token ids that every prompt begins with, and those that it ends with."""
        prompts = [self.prompt(question) for question in ("a", "1?")]
        turned = [prompt[::-1] for prompt in prompts]
        return prompts[0][: common_length(prompts)], turned[0][: common_length(turned)][::-1]

    def said(self, ids: list[int]) -> str:
        """What a prompt's tokens say, without special tokens and without what every prompt begins and ends with."""
        before, after = self.frame
        ids = ids[len(before) :] if ids[: len(before)] == before else ids
        ids = ids[: -len(after)] if after and ids[-len(after) :] == after else ids
        return self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False).strip()

    @cached_property
    def answer_start(self) -> list[int]:
        """The token ids of the chat template between a question and its answer.

        Empty where other text could have them: without a template, or where none of them is a special token.
        """
        if self.style == "qa":
            return []
        ids = self.frame[1]
        return ids if self._has_special(ids) else []

    @cached_property
    def question_start(self) -> list[int]:
        """The token ids before a question that follows an answer: with them a later turn of the user begins.

        Empty where other text could have them by accident: where a chat template puts no special token among them.
        Without a template they are plain words, as "Question:", which whoever asks can write too.
        """
        contexts = [(("b", said),) for said in ("c", "2.", "d!?")]
        asked = [[self.prompt(question, context) for question in ("a", "1?")] for context in contexts]
        before = [prompts[0][: common_length(prompts)][::-1] for prompts in asked]
        ids = before[0][: common_length(before)][::-1]
        return ids if not self.tokenizer.chat_template or self._has_special(ids) else []

    def _has_special(self, ids: Sequence[int]) -> bool:
        return bool(set(ids) & set(self.tokenizer.all_special_ids + list(self.tokenizer.added_tokens_decoder)))

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False).input_ids

    def encode(self, question: str, answer: str) -> Encoded:
        """A question and its answer; with an empty question the answer is a plain text (see `encode_text`)."""
        if not question:
            return self.encode_text(answer)
        return self.encode_answers(question, [answer])[0]

    def encode_answers(
        self, question: str, answers: Sequence[str], context: Pairs = (), prefill: str = "", gap: str = " "
    ) -> list[Encoded]:
        """Each of several answers after its prompt, which is `prompt`'s unless a protocol tokenises them as one.

        `gap` is what stands between the prefill and the rest: a space, or nothing.
        """
        prompt = self.prompt(question, context, prefill)
        return [Encoded(prompt, self.answer(answer, prefill, gap)) for answer in answers]

    def encode_text(self, text: str, share: float = 0.0, length: int = 512) -> Encoded:
        """A plain text, cut to its first `length` tokens; its first `share` of tokens is the prompt, the rest scored.

        So an adapter that edits at the last prompt token edits at index `share` x L - 1, which with 0.8 is GRUN's way
        (its official code at b59fd78), and with 0 the prompt is the text's first token alone. Raises DataError for a
        text of fewer than two tokens.
        """
        ids = self.tokenizer(text).input_ids[:length]
        if len(ids) < 2:
            raise DataError(f"a text of {len(ids)} tokens cannot be trained on: {text[:40]!r}.")
        end = min(max(1, int(share * len(ids))), len(ids) - 1)
        return Encoded(ids[:end], ids[end:])


def usual_prompts(tokenizer: PreTrainedTokenizerBase) -> Prompts:
    """The prompts of a model about which nothing else is said: its chat template's, if it has one."""
    return Prompts(tokenizer, "chat" if tokenizer.chat_template else "qa")


@dataclass
class LM:
    """A model ready to use: the network, its tokenizer and prompts, and where it came from (for results)."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    prompts: Prompts
    origin: dict[str, Any]

    @property
    def device(self) -> torch.device:
        """Where its inputs go."""
        return device_of(self.model)

    @property
    def context(self) -> int | None:
        """The most tokens that it was made for, where its configuration says so; with stretched positions, of those."""
        config = self.model.config.get_text_config()
        most = getattr(config, "max_position_embeddings", None)
        rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
        stretched = [
            each["factor"] * (each.get("original_max_position_embeddings") or most)
            for each in (rope, *rope.values())
            if most and isinstance(each, dict) and each.get("factor")
        ]
        return most and int(max([most, *stretched]))

    def check_length(self, tokens: int, what: str) -> None:
        """Raises DataError for a row, as `what` names it, of more tokens than the context."""
        if self.context and tokens > self.context:
            raise DataError(
                f"{what} takes {tokens:,} tokens, and {self.model.config.name_or_path or 'the model'} was made for "
                f"{self.context:,}: shorten it, take it out, or choose another model."
            )

    def encoded(self, rows: Pairs) -> list[Encoded]:
        """Training rows as token sequences. Raises DataError as `within_context` and `Prompts.encode_text` do."""
        return self.within_context(rows, [self.prompts.encode(*row) for row in rows])

    def within_context(self, rows: Pairs, encoded: list[Encoded]) -> list[Encoded]:
        """What rows were encoded to, none of it longer than the context. Raises DataError with the row that is."""
        for number, (row, each) in enumerate(zip(rows, encoded, strict=True)):
            self.check_length(len(each), f"training row {number} ({(row[0] or row[1])[:40]!r})")
        return encoded

    @property
    def pad_id(self) -> int:
        """What fills batches up: the end of sequence where there is no padding token, or the model has no such row."""
        pad = self.tokenizer.pad_token_id
        known = pad is not None and pad < self.model.get_input_embeddings().weight.shape[0]
        return pad if known else self.tokenizer.eos_token_id
