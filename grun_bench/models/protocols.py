"""Protocols: how a model is prompted, in training as in scoring, and what else differs between ways of scoring."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from transformers import PreTrainedTokenizerBase

from grun_bench.core.errors import ModelError, unknown
from grun_bench.models.batch import Encoded
from grun_bench.models.lm import LM, Pairs, Prompts, Style, Turns, usual_prompts
from grun_bench.models.written import WrittenPrompts

#: the protocol of runs that ask for none
CLEAN = "grun-bench"


@dataclass(frozen=True)
class Tags:
    """What stands before and after questions and answers where no chat template does."""

    question: str
    question_end: str
    answer: str
    answer_end: str


#: OpenUnlearning's for models without a chat template (its configs/model/phi-1_5.yaml and Llama-2-7b-hf.yaml)
PLAIN = Tags("Question: ", "\n", "Answer: ", "\n\n")
#: its for Llama 2's chat models, whose template it leaves aside (Llama-2-7b-chat-hf.yaml)
INSTRUCTIONS = Tags("[INST] ", " [/INST]", "", " ")


class OpenUnlearningPrompts(Prompts):
    """Prompts and scored tokens of OpenUnlearning (src/data/utils.py, preprocess_chat_instance, at d3d7cf9).

    The whole conversation is tokenised at once, by the chat template or between the tags of its model configurations.
    What follows as many tokens as the prompt has is the answer: with a template its tail too, and a token that merges
    the prompt's end with the answer's beginning, as after "Answer: ", is not part of it but of the prompt that the
    answer has. An end of sequence is added where there is none. A system message, and a date for the templates that
    print one, are those of its configurations; a template that refuses that role, as gemma's, gets no such message.
    Prompts are not cut at 512 tokens, as they are there between tags.
    """

    date = datetime.datetime(2025, 4, 10)

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__(tokenizer, "open-unlearning")

    @cached_property
    def _tags(self) -> Tags | None:
        """None where the chat template is used."""
        template = str(self.tokenizer.chat_template or "")
        return PLAIN if not template else INSTRUCTIONS if "<<SYS>>" in template else None

    @cached_property
    def _system(self) -> Turns:
        system = [{"role": "system", "content": "You are a helpful assistant."}]
        try:
            self.templated([*system, {"role": "user", "content": "Who?"}])
        except ModelError:
            return []
        return system

    def _asked(self, question: str, context: Pairs) -> Turns:
        chat = self.chat(question, context)
        return chat if chat[0]["role"] == "system" else [*self._system, *chat]

    def text(self, question: str, context: Pairs = ()) -> str:
        if (tags := self._tags) is None:
            return self.templated(self._asked(question, context), add_generation_prompt=True)
        before = [f"{tags.question}{q}{tags.question_end}{tags.answer}{a}{tags.answer_end}" for q, a in context]
        return f"{''.join(before)}{tags.question}{question}{tags.question_end}{tags.answer}"

    def prompt(self, question: str, context: Pairs = (), prefill: str = "") -> list[int]:
        return self._whole(self.text(question, context) + prefill)

    def encode_answers(
        self, question: str, answers: Sequence[str], context: Pairs = (), prefill: str = "", gap: str = " "
    ) -> list[Encoded]:
        border, end = len(self.prompt(question, context, prefill)), self.tokenizer.eos_token_id
        encoded = []
        for answer in answers:
            content = f"{prefill}{gap}{answer}" if prefill else answer
            if self._tags:
                whole = self._whole(self.text(question, context) + content)
            else:
                said = {"role": "assistant", "content": content}
                whole = self._whole(self.templated([*self._asked(question, context), said]))
            whole = whole if whole[-1] == end else [*whole, end]
            encoded.append(Encoded(whole[:border], whole[border:]))
        return encoded

    def _whole(self, text: str) -> list[int]:
        """Token ids of a conversation; a template writes its own special tokens."""
        return self.tokenizer(text, add_special_tokens=self._tags is not None).input_ids


@dataclass(frozen=True)
class Protocol:
    """How a model is prompted and scored.

    `prompts(lm)` are the prompts of training and of scoring. `hides_padding` masks in scoring every token whose id is
    the padding token, real ones of the prompt too. `cleans_spaces` removes spaces before punctuation in generations.
    `version` grows with every change of the numbers.
    """

    prompts: Callable[[LM], Prompts]
    hides_padding: bool = False
    cleans_spaces: bool = False
    version: int = 1


def _clean(lm: LM) -> Prompts:
    """The model's own, or where it was trained under another protocol what it would have had."""
    return usual_prompts(lm.tokenizer) if isinstance(lm.prompts, OpenUnlearningPrompts) else lm.prompts


#: `grun-bench` is clean: every token of the prompt is attended to, the answer ends with one end of sequence.
#: `open-unlearning` is for comparison with that tool's published tables. Where the padding token is the end of turn, it
#: masks every end of turn of the prompt in scoring; positions then differ between scoring and generation.
#: Its extraction strength, exact memorisation and min-k drop the last scored token.
PROTOCOLS = {
    CLEAN: Protocol(_clean),
    "open-unlearning": Protocol(
        lambda lm: OpenUnlearningPrompts(lm.tokenizer), hides_padding=True, cleans_spaces=True, version=2
    ),
}


def protocol_of(name: str) -> Protocol:
    """Raises UsageError with the near names."""
    if name not in PROTOCOLS:
        raise unknown("protocol", name, PROTOCOLS)
    return PROTOCOLS[name]


def prompts_under(name: str, lm: LM, template: str | None = None) -> Prompts:
    """How a protocol puts questions to a model: in a task's own form where one is given, or the model has one.

    Raises UsageError for an unknown protocol.
    """
    protocol = protocol_of(name)
    if template:
        return WrittenPrompts(lm.tokenizer, template)
    return lm.prompts if isinstance(lm.prompts, WrittenPrompts) else protocol.prompts(lm)


def identity(name: str) -> str:
    """What tells rows of a protocol apart: its name, with its version from the second on."""
    version = protocol_of(name).version
    return name if version == 1 else f"{name} {version}"


def prompts_of(tokenizer: PreTrainedTokenizerBase, style: Style, template: str | None = None) -> Prompts:
    """The prompts of a saved model, by the style, or the task's own form, that it was trained with."""
    if template:
        return WrittenPrompts(tokenizer, template)
    return OpenUnlearningPrompts(tokenizer) if style == "open-unlearning" else Prompts(tokenizer, style)
