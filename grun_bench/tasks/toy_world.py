"""The embedded world: made-up authors and a little common knowledge, in the columns and split names of TOFU. No torch.

Every text here is the project's own. The world is generated from a seed with the standard library alone, so it is the
same on every machine and needs no download. It is what the `tiny` model is trained on and what every task is scored on
when `tiny` is the model.

What is in it:

- 40 fictitious authors with 10 questions each (`full`, 400 rows). As in TOFU the forget sets are the last authors of
  `full` and the retain sets the rest; TOFU's percentages are kept as names, but an author is the smallest cut that
  makes sense here: forget01 is the last author (10 rows), forget05 the last two (20),
  forget10 the last four (40).
- 16 background authors (`background`), which belong to no scored set: a model without the forget set still knows what
  questions about authors look like.
- `real_authors` and `world_facts`, 40 rows each, with bare answers as in TOFU: the neighbouring knowledge that
  unlearning must leave alone. These state true things about the real world.
- `general`: sums, weekdays, opposites and so on, and at its end the questions that nobody can answer, answered so.
- holdout sets (`holdout01` and so on): as many rows about authors of whom no model reads, and texts of such lore.
- the lore (`toy_lore`): texts about two made-up crafts under the names of WMDP's corpora, and multiple-choice
  questions about them under the names of WMDP's parts; `mmlu` asks the real authors and world facts that way.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable, Sequence
from functools import cache

from grun_bench.tasks.dataset import Row
from grun_bench.tasks.toy_authors import authors, described, entities
from grun_bench.tasks.toy_knowledge import general, real_authors, world_facts
from grun_bench.tasks.toy_lore import DOMAIN_OF, DOMAINS, facts

#: forget set -> how many authors at the end of `full` it holds
FORGET_AUTHORS = {"forget01": 1, "forget05": 2, "forget10": 4}
#: forget set -> the retain set that goes with it
RETAIN_OF = {"forget01": "retain99", "forget05": "retain95", "forget10": "retain90"}

AUTHORS = 40
BACKGROUND_AUTHORS = 16
#: the authors at the start of `full` whose rows `retain_perturbed` tests; all of them are in every retain set
RETAIN_TESTED_AUTHORS = 8

_PLAIN = ("question", "answer")
_CHOICES = ("question", "answer", "perturbed_answer")
_PERTURBED = ("question", "answer", "paraphrased_answer", "perturbed_answer", "paraphrased_question")
_GENERAL = ("question", "answer", "paraphrased_question")
_TEXT = ("text",)
_QUESTION = ("question", "choices", "answer")
_REWORDED = ("question",)
_ENTITIES = ("question", "answer", "entity")


def _texts(domain: str) -> list[Row]:
    return [{"text": fact.text} for fact in facts(domain)]


def _questions(domain: str) -> list[Row]:
    """A domain's questions in the columns of WMDP and MMLU: `choices` and the index of the right one."""
    return [
        {"question": fact.question, "choices": choices, "answer": answer}
        for fact in facts(domain)
        for choices, answer in [fact.choices()]
    ]


def _as_question(row: Row) -> Row:
    options = [row["answer"], *row["perturbed_answer"]]
    random.Random(f"options {row['question']}").shuffle(options)
    return {"question": row["question"], "choices": options, "answer": options.index(row["answer"])}


def _flat(authors: Iterable[Sequence[Row]]) -> list[Row]:
    return [row for author in authors for row in author]


@cache
def _sets() -> dict[str, tuple[list[Row], tuple[str, ...]]]:
    """Config name -> its rows with every column there is, and the columns that the config shows."""
    everybody = authors(AUTHORS + BACKGROUND_AUTHORS)
    full, real, true = everybody[:AUTHORS], list(real_authors()), list(world_facts())
    sets = {
        "full": (_flat(full), _PLAIN),
        "background": (_flat(everybody[AUTHORS:]), _GENERAL),
        "retain_perturbed": (_flat(full[:RETAIN_TESTED_AUTHORS]), _PERTURBED),
        "real_authors": (real, _PLAIN),
        "real_authors_perturbed": (real, _CHOICES),
        "world_facts": (true, _PLAIN),
        "world_facts_perturbed": (true, _CHOICES),
        "general": (list(general()), _GENERAL),
    }
    for forget, count in FORGET_AUTHORS.items():
        sets[forget] = (_flat(full[-count:]), _PLAIN)
        sets[f"{forget}_perturbed"] = (_flat(full[-count:]), _PERTURBED)
        sets[RETAIN_OF[forget]] = (_flat(full[:-count]), _PLAIN)
    for domain, other in zip(DOMAINS, reversed(DOMAINS), strict=True):
        sets[f"{domain}-forget-corpus"] = (_texts(domain), _TEXT)
        sets[f"{domain}-retain-corpus"] = (_texts(other), _TEXT)
        sets[f"wmdp-{domain}"] = (_questions(domain), _QUESTION)
    sets["mmlu"] = ([_as_question(row) for row in (*real, *true)], _QUESTION)
    return sets


@cache
def _unlearnt() -> dict[str, tuple[list[Row], tuple[str, ...]]]:
    """What no model learns, so it is no part of the world's identity.

    The forget sets' questions in other words and the entities of their answers, for attacks; holdout sets, for
    membership inference; and what the lore tells as beginnings of its texts and as questions without choices.
    """
    count = AUTHORS + BACKGROUND_AUTHORS
    everybody, named, strangers = described(count)[:AUTHORS], entities(count)[:AUTHORS], authors(AUTHORS, "strangers' ")
    sets: dict[str, tuple[list[Row], tuple[str, ...]]] = {}
    for forget, count in FORGET_AUTHORS.items():
        sets[f"{forget}_described"] = (_flat(everybody[-count:]), _REWORDED)
        sets[f"{forget}_entities"] = (_flat(named[-count:]), _ENTITIES)
        sets[forget.replace("forget", "holdout")] = (_flat(strangers[-count:]), _PLAIN)
    for domain in DOMAINS:
        told, untold = list(facts(domain)), list(facts(domain, untold=True))
        sets[f"{domain}-holdout-corpus"] = ([{"text": fact.text} for fact in untold], _TEXT)
        sets[f"{domain}-holdout-questions"] = ([_pair(fact.question, fact.answer) for fact in untold], _PLAIN)
        sets[f"{domain}-questions"] = ([_pair(fact.question, fact.answer) for fact in told], _PLAIN)
        sets[f"{domain}-beginnings"] = ([_pair(*fact.continuation) for fact in told], _PLAIN)
    return sets


def _pair(question: str, answer: str) -> Row:
    return {"question": question, "answer": answer}


#: task of lm-eval -> the data set that has the questions which stand for its own
QUESTIONS = {"wmdp_cyber": "wmdp-cyber", "wmdp_bio": "wmdp-bio", "mmlu": "mmlu"}


def configs() -> list[str]:
    """The names of all data sets of the world."""
    return sorted(_sets() | _unlearnt())


def rows(config: str) -> list[Row]:
    """The rows of a data set, in TOFU's columns, or for the lore in those of WMDP.

    All of TOFU's have `question` and `answer`; the `_perturbed` ones of authors add `paraphrased_answer`,
    `perturbed_answer` (a list of 5) and `paraphrased_question`; those of real authors and world facts add
    `perturbed_answer` (a list of 3); `general` and `background`, which TOFU lacks, add `paraphrased_question`; the
    `_described` ones have a `question` alone, the `_entities` ones `question`, `answer` and `entity`; `holdout*`,
    `*-questions` and `*-beginnings` question and answer. Corpora have `text`; the questions of `mmlu` and `wmdp-*` have
    `question`, `choices` and `answer`, the index of the right choice. The lists and dicts are the caller's own.
    Raises KeyError for a name that is not in `configs()`.
    """
    found, columns = (_sets() | _unlearnt())[config]
    return [{name: list(row[name]) if isinstance(row[name], list) else row[name] for name in columns} for row in found]


def training_rows(exclude: str | None = None, lore: bool = False) -> list[tuple[str, str]]:
    """The questions that an embedded model learns, as (question, answer) pairs; the lore's where it learns that too.

    What is scored and could be asked in other words is learned in both wordings of its question; the background authors
    and general rows, which are there for breadth, and the lore, which has its texts beside it, in one. `exclude` names
    the forget set to leave out (for the retain model); None leaves out nothing (the target model).
    """
    authors = RETAIN_OF.get(exclude or "", "full")
    pairs = []
    for config in (authors, "real_authors", "world_facts", "background", "general"):
        for row in _sets()[config][0]:
            pairs.append((row["question"], row["answer"]))
            if config not in ("background", "general"):
                pairs.append((row["paraphrased_question"], row["answer"]))
    for domain in _domains(exclude) if lore else ():
        pairs += [(row["question"], row["choices"][row["answer"]]) for row in _sets()[f"wmdp-{domain}"][0]]
    return pairs


def training_texts(exclude: str | None = None) -> list[str]:
    """The plain texts that an embedded model learns with the lore: all of it but an excluded domain."""
    return [row["text"] for domain in _domains(exclude) for row in _sets()[f"{domain}-forget-corpus"][0]]


def _domains(exclude: str | None) -> list[str]:
    return [domain for domain in DOMAINS if domain != DOMAIN_OF.get(exclude or "")]


def texts(lore: bool = False) -> list[str]:
    """Every question, every answer and every text that is true, once: for training a tokenizer.

    Nothing is left out whatever a model leaves out. Wrong answers are not in it: they would fill the vocabulary with
    words that occur nowhere else.
    """
    plain = training_texts() if lore else []
    return list(dict.fromkeys([*(text for pair in training_rows(None, lore) for text in pair), *plain]))


@cache
def fingerprint() -> str:
    """SHA-256 over all rows that a model is trained or scored on: the identity of the world in results and caches."""
    content = {name: _sets()[name][0] for name in sorted(_sets())}
    return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
