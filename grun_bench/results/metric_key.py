"""The key of one metric value in a result file: `<metric>,<filter>`. No torch.

The filter is `none` without an attack, an attack's name for its worst variant, or `<attack>:<variant>`; `<attack>:mean`
is the mean over the variants.
"""

from __future__ import annotations

from typing import NamedTuple

#: the filter of values without attack, and the variant that is the mean over all
CLEAN, MEAN = "none", "mean"
#: the variants that sum an attack up: its worst, and the mean
SUMMARIES = ("", MEAN)
_RECOVERY = "recovery_"


class MetricKey(NamedTuple):
    """A metric, the attack that it is under ("" without) and that attack's variant ("" for the worst)."""

    metric: str
    attack: str = ""
    variant: str = ""

    @classmethod
    def parse(cls, text: str) -> MetricKey:
        """Raises ValueError when the text has no filter."""
        metric, comma, label = text.rpartition(",")
        if not comma or not metric:
            raise ValueError(f"the key '{text}' is not <metric>,<filter>")
        return cls(metric, *parse_filter(label))

    @property
    def filter(self) -> str:
        """The part behind the comma."""
        if not self.attack:
            return CLEAN
        return f"{self.attack}:{self.variant}" if self.variant else self.attack

    @property
    def recovery(self) -> MetricKey:
        """The key of how much of this metric came back under its attack."""
        return self._replace(metric=_RECOVERY + self.metric)

    @property
    def is_recovery(self) -> bool:
        return self.metric.startswith(_RECOVERY)

    @property
    def recovered(self) -> MetricKey:
        """The key of the metric that a recovery is of; the key itself where it is none."""
        return self._replace(metric=self.metric.removeprefix(_RECOVERY))

    def __str__(self) -> str:
        return f"{self.metric},{self.filter}"


def parse_filter(label: str) -> tuple[str, str]:
    """(attack, variant) of a filter; both empty without attack."""
    if label == CLEAN:
        return "", ""
    attack, _, variant = label.partition(":")
    return attack, variant
