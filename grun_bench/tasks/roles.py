"""What a scored set is to unlearning. No torch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, get_args

#: `forget`: what must go. `retain`: what was trained on and must stay. `utility`: what the model knew otherwise.
#: `holdout`: rows like the forget set's that no model of the task was trained on. `neighbour`: what is near to the
#: forget set and must not go with it.
Role = Literal["forget", "retain", "utility", "holdout", "neighbour"]
#: all of them, in the order of tables
ROLES: tuple[Role, ...] = get_args(Role)

#: whether more knowledge of a set is better; None where neither is
KNOWING_IS_GOOD: dict[Role, bool | None] = {
    "forget": False,
    "retain": True,
    "utility": True,
    "holdout": None,
    "neighbour": True,
}


def known_roles(names: Iterable[str]) -> tuple[Role, ...]:
    """Those of the names that are roles, in their order."""
    return tuple(role for name in names for role in ROLES if role == name)
