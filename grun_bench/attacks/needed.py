"""What an attack asks: what its headline needs, where not everything was asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from grun_bench.attacks.base import Attack, Subject
from grun_bench.metrics.about import about
from grun_bench.models.scoring import Example
from grun_bench.results.record import Records
from grun_bench.tasks.sets import ScoredSets

#: how many rows of a set are asked that is there for its role alone
SAMPLE = 20


@dataclass(frozen=True)
class Needed:
    """The sets that an attack does not ask whole: `rows` is how many of each it asks, 0 where it leaves the set out.

    `texts` says whether it asks plain texts too, which somebody who may only ask questions cannot.
    """

    rows: Mapping[str, int]
    texts: bool = True

    @classmethod
    def of(cls, attack: Attack, sets: ScoredSets, headline: Sequence[str]) -> Needed:
        """For a task with these sets and this headline.

        Whole are the forget sets and what the headline's metrics of forgetting are over beside them, as a holdout set;
        of sets with a role that the attack names in `utility` a sample is asked.
        """
        texts = attack.plugin.access != "user"
        if attack.everything:
            return cls({}, texts)
        forgetting = (each.roles for each in about(headline, sets).values() if each.forgetting)
        whole = {"forget"}.union(*forgetting)
        others = [each for each in sets.sets if each.role not in whole]
        return cls({each.name: SAMPLE if each.role in attack.plugin.utility else 0 for each in others}, texts)

    def subject(self, subject: Subject) -> Subject:
        """The subject with these rows alone: of every set evenly spread ones, the same for every model."""
        by_set: dict[str, list[Example]] = {}
        for row in subject.examples:
            if row.question or self.texts:
                by_set.setdefault(row.set, []).append(row)
        return replace(
            subject,
            examples=[row for name, rows in by_set.items() for row in _spread(rows, self.rows.get(name))],
            measures=[name for name in subject.measures if self.rows.get(name) != 0],
            limits={name: count for name, count in self.rows.items() if count and name in subject.measures},
        )

    def asked(self, variants: Iterable[Records], whole: Records) -> dict[str, int]:
        """How many rows of each of these sets an attack asked at most, where they are fewer than `whole` has.

        Also of the others where it asked a part of them, as where not every row has a paraphrased question.
        """
        of, by_variant = _counts(whole), [_counts(records) for records in variants]
        most = {name: max((counts[name] for counts in by_variant), default=of[name]) for name in of}
        return {name: count for name, count in most.items() if count < of[name] and (count or name in self.rows)}


def _counts(records: Records) -> Counter[str]:
    return Counter(row.set for row in records)


def _spread(rows: Sequence[Example], count: int | None) -> list[Example]:
    if count is None or count >= len(rows):
        return list(rows)
    return [rows[place * len(rows) // count] for place in range(count)]
