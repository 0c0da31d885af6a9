"""Conversations as questions: turns before an answer, and the one text that they are without a template. No torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

#: (role, content) of a message; roles are `system`, `user` and `assistant`
Turn = tuple[str, str]
#: what stands before a message in one text
_NAMED = {"system": "", "user": "User: ", "assistant": "Assistant: "}


class Chat(str):
    """A question that is a conversation: as text the whole of it in one prompt, and its `turns`.

    Where there is a chat template the turns are put into it (`grun_bench.models.lm`); to all else it is its text.
    """

    turns: tuple[Turn, ...]

    def __new__(cls, turns: Sequence[Turn]) -> Chat:
        made = super().__new__(cls, flat(turns))
        made.turns = tuple((role, content) for role, content in turns)
        return made

    def __getnewargs__(self) -> tuple[tuple[Turn, ...]]:  # type: ignore[override]
        return (self.turns,)

    @property
    def asked(self) -> int:
        """The place of the user's last turn, or of the last where there is none."""
        return max((at for at, (role, _) in enumerate(self.turns) if role == "user"), default=len(self.turns) - 1)


def flat(turns: Sequence[Turn]) -> str:
    """Turns as one text: one alone is that, of several each says whose it is; what the system is told comes first."""
    told = [content for role, content in turns if role == "system"]
    spoken = [(role, content) for role, content in turns if role != "system"]
    named = len(spoken) > 1
    return "\n\n".join([*told, "\n".join(f"{_NAMED[role] if named else ''}{content}" for role, content in spoken)])


def last_said(question: str) -> str:
    """What a question asks in the user's last turn: all of one that is no conversation."""
    return question.turns[question.asked][1] if isinstance(question, Chat) else question


def changed(question: str, change: Callable[[str], str]) -> str:
    """A question with the user's last turn as `change` puts it."""
    if not isinstance(question, Chat):
        return change(question)
    place, turns = question.asked, list(question.turns)
    turns[place] = (turns[place][0], change(turns[place][1]))
    return Chat(turns)


def question_of(row: Mapping[str, Any]) -> str:
    """The question of a row, which is a conversation where the row has `turns`."""
    question: str = row["question"]
    return Chat([(role, content) for role, content in row["turns"]]) if row.get("turns") else question
