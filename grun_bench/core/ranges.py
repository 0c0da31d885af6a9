"""Where settings of plugins are searched, as the plugins declare it: `grun-bench tune` reads it. No torch.

A method is tuned over as many settings as any other, `FREE`: an adapter declares half of them and an objective half, an
unlearner that is no pair all. What declares none has the defaults here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

#: free settings of every method, and those that each part of a pair declares
FREE, OF_PART = 4, 2


@dataclass(frozen=True)
class Range:
    """From `low` to `high`, both among them; of a whole number the whole numbers.

    `log`: as likely by factors as by differences elsewhere. `relative`: times the setting's default in force, which
    recipes choose by adapter, objective and world.
    """

    low: float
    high: float
    log: bool = False
    relative: bool = False

    def around(self, default: Any) -> Range:
        """The range in numbers of the setting, whose default this is; of whole numbers from 1 on where relative."""
        if not self.relative:
            return self
        ends = self.low * default, self.high * default
        if isinstance(default, int):
            return Range(max(1, round(ends[0])), max(1, round(ends[1])), self.log)
        return Range(*ends, self.log)

    def holds(self, value: Any) -> bool:
        return isinstance(value, int | float) and self.low <= value <= self.high

    def __str__(self) -> str:
        return f"{'times ' if self.relative else ''}{self.low:g} to {self.high:g}{', by factors' if self.log else ''}"


@dataclass(frozen=True)
class Choice:
    """One of these values, which can stand in a result file."""

    values: tuple[Any, ...]

    def around(self, default: Any) -> Choice:
        return self

    def holds(self, value: Any) -> bool:
        return value in self.values

    def __str__(self) -> str:
        return " or ".join(map(str, self.values))


Searched = Mapping[str, Range | Choice]


def times(low: float, high: float) -> Range:
    """From `low` to `high` times the default in force, by factors."""
    return Range(low, high, log=True, relative=True)


#: of an adapter that declares none: how far a step goes, and how often each row is seen
OF_ADAPTER: Searched = {"lr": times(0.1, 10), "epochs": times(0.5, 2)}
#: of an objective that declares none: the balance of its two terms, and how gently it begins
OF_OBJECTIVE: Searched = {"retain_weight": times(0.1, 10), "warmup": Range(0, 0.5)}
#: of an objective without a retain term
OF_ONE_TERM: Searched = {"warmup": Range(0, 0.5), "weight_decay": Range(0, 0.1)}
