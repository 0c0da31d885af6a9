"""Prompts of plain texts: the beginning of a text alone, which the rest goes on from; no template, no question."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from grun_bench.models.batch import Encoded, common_length
from grun_bench.models.lm import Pairs, Prompts


class TextPrompts(Prompts):
    """Questions are beginnings of texts, answers the rest of them; `join` is what stands between the two.

    A text is tokenised whole, as in training, with the special tokens that the tokenizer puts before one. No end of
    sequence is added: the text may be a part of a longer one. So its last token stands where metrics expect that end.
    Texts of the context are put before it, a blank line between.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, join: str) -> None:
        super().__init__(tokenizer, "qa")
        self.join = join

    def text(self, question: str, context: Pairs = ()) -> str:
        return "".join(f"{beginning}{self.join}{rest}\n\n" for beginning, rest in context) + question

    def prompt(self, question: str, context: Pairs = (), prefill: str = "") -> list[int]:
        return self._whole(self._begun(question, context, prefill))

    def encode_answers(
        self, question: str, answers: Sequence[str], context: Pairs = (), prefill: str = "", gap: str = " "
    ) -> list[Encoded]:
        begun = self._begun(question, context, prefill)
        prompt, join = self._whole(begun), gap if prefill else self.join
        found = []
        for answer in answers:
            whole = self._whole(f"{begun}{join}{answer}")
            # a token that both share belongs to the rest
            border = max(1, min(common_length([prompt, whole]), len(whole) - 1))
            found.append(Encoded(whole[:border], whole[border:]))
        return found

    def _begun(self, question: str, context: Pairs, prefill: str) -> str:
        return self.text(question, context) + (self.join + prefill if prefill else "")

    def _whole(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text).input_ids
        return ids
