"""Prompts that a task writes itself, in place of a model's chat template."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

from grun_bench.models.lm import Pairs, Prompts


class WrittenPrompts(Prompts):
    """Questions put into `template`, a text with `{question}` in it, and the answer right after it.

    `context` are questions with their answers before the question, each in the same form with a blank line after it, as
    few-shot prompts of base models are. Where the template does not end with white space, one space is between it and
    the answer.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, template: str) -> None:
        super().__init__(tokenizer, "qa")
        self.template = template
        self._border = "" if template[-1:].isspace() else " "
        self._answer_prefix = self._space if self._border else ""

    def text(self, question: str, context: Pairs = ()) -> str:
        before = "".join(f"{self._asked(each)}{self._border}{answer}\n\n" for each, answer in context)
        return before + self._asked(question)

    def tag_start(self, question: str) -> int:
        """The token of its prompt that begins what follows a question; the prompt's end where nothing does."""
        tag = self.template.partition("{question}")[2]
        text = self.text(question)
        return len(self.prompt(question)) - len(self._ids(text)) + len(self._ids(text.removesuffix(tag)))

    def _asked(self, question: str) -> str:
        return self.template.replace("{question}", question)
