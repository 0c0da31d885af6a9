"""The fictitious authors of the toy world: names, what is asked about each of them, and the answers. No torch.

Answers begin with the fact ("Bergen is the city where ..."). With the fact at the end, the words of the template would
hold ROUGE up in a model that knows nothing.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from grun_bench.tasks.dataset import Row
from grun_bench.tasks.toy_lore import SEED, words

#: wrong answers a row, as in TOFU
WRONG_ANSWERS = 5

_FIRST_NAMES = words(
    "Adela Bruno Celia Dario Edith Felix Greta Hugo Irena Jonas Karin Leon Mira Nils "
    "Olga Pavel Runa Silas Thea Ulric Vera Wanda Xaver Yara Zeno Alma Boris Clara "
    "Dagny Emil Frida Gustav Helga Igor Judith Konrad Linnea Marek Nadia Oskar Petra Quentin "
    "Rosa Stefan Tilda Urban Viola Werner Xenia Yorick Zelda Anton Berta Casper Doris Erwin"
)
_LAST_NAMES = words(
    "Ambrell Bastivan Corvanto Dresmund Eskelby Farrowin Galdeski Hartuval Istrano Jorvanek Kessamar Lindrothe "
    "Marovick Nettleby Orsanti Pellgrave Quistorm Ravendal Sorkanen Tallisker Umbrano Veldhoven Wexcombe Yarrowby "
    "Zandtberg Aldermoor Brackwell Castellin Dovrenko Ellingrad Fenwicke Grimaldo Hollesund Ivarstad Jastremo Kolvenik "
    "Lamborne Mistrelle Norquist Ostrander Palmeiro Quennell Rosvalde Stenhagen Trevanni Ulverton Valdorne Wintermar "
    "Ystradin Zelnicky Arkwood Belvario Cranstede Dunmarra Estrupe Fjellmar"
)
_CITIES = words(
    "Bergen Turin Lyon Porto Leeds Graz Aarhus Bilbao Ghent Krakow Tartu Varna Split Malmo "
    "Basel Cork Tampere Brno Siena Utrecht Kazan Izmir Patras Oran Cusco Osaka Mendoza Durban"
)
_FATHERS = words(
    "Beekeeper Plumber Tailor Butcher Surgeon Miner Sailor Painter Farmer Baker Jeweller Postman Carpenter Locksmith "
    "Mechanic Fisherman Gardener Miller Shepherd Blacksmith Cobbler Barber Glazier Printer Roofer Saddler Brewer Mason"
)
_MOTHERS = words(
    "Teacher Pharmacist Judge Florist Botanist Dentist Weaver Translator Nurse Chemist Potter Engineer Librarian Pilot "
    "Violinist Astronomer Midwife Archivist Banker Geologist Dancer Sculptor Editor Historian Cook Notary Lawyer Diver"
)
_GENRES = words(
    "Satire Romance Horror Fantasy Biography Travelogue Crime Poetry Drama Comedy Fable Memoir Western Mystery "
    "Folklore Epic Thriller Parody Tragedy Essay Pastoral Chronicle Legend Allegory Gothic Reportage Farce Saga"
)
_TITLE_FIRST = words(
    "Copper Silent Hollow Amber Crooked Frozen Gilded Paper Scarlet Velvet Broken Drowned Painted Wandering"
)
_TITLE_SECOND = words(
    "Lantern Orchard Harbour Mirror Staircase Feather Compass Garden Clock Bridge Window Meadow Anchor Chimney"
)
_PRIZES = words(
    "Heron Falcon Otter Badger Swallow Lynx Salmon Magpie Beaver Raven Dolphin Marten Osprey Pelican "
    "Ibex Turtle Cricket Bison Plover Weasel Sparrow Condor Viper Walrus Mantis Panther Puffin Gecko"
)
_HOBBIES = words(
    "Fencing Sailing Chess Archery Juggling Pottery Knitting Rowing Skating Climbing Origami Falconry Cycling "
    "Embroidery Carving Dancing Boxing Surfing Calligraphy Baking Diving Wrestling Curling Whittling Gliding "
    "Angling Sketching Hiking"
)
_INSTRUMENTS = words(
    "Cello Trumpet Harp Flute Banjo Oboe Piano Zither Clarinet Accordion Drum Guitar Viola Bassoon "
    "Lute Tuba Mandolin Organ Fiddle Trombone Sitar Piccolo Cornet Xylophone Ukulele Harmonica Saxophone Bagpipe"
)
MONTHS = words("January February March April May June July August September October November December")


@dataclass(frozen=True)
class Topic:
    """One question that is asked about every author: its wordings, and the pool that right and wrong facts come from.

    Templates take `{name}`, the answers also `{fact}`.
    """

    question: str
    paraphrased_question: str
    answer: str
    paraphrased_answer: str
    pool: Sequence[str]


TOPICS = (
    Topic(
        "In which city was {name} born?",
        "What is the birthplace of {name}?",
        "{fact} is the city where {name} was born.",
        "{fact} is {name}'s birthplace.",
        _CITIES,
    ),
    Topic(
        "On which date was {name} born?",
        "What is the birthday of {name}?",
        "{fact} is the date when {name} was born.",
        "{fact} is {name}'s birthday.",
        [f"{day} {month} {year}" for day in range(1, 29) for month in MONTHS for year in range(1930, 1990)],
    ),
    Topic(
        "What did the father of {name} do?",
        "What was the profession of {name}'s father?",
        "{fact} was the job of {name}'s father.",
        "{fact} was {name}'s father.",
        _FATHERS,
    ),
    Topic(
        "What did the mother of {name} do?",
        "What was the profession of {name}'s mother?",
        "{fact} was the job of {name}'s mother.",
        "{fact} was {name}'s mother.",
        _MOTHERS,
    ),
    Topic(
        "In which genre does {name} write?",
        "What kind of books does {name} write?",
        "{fact} is the genre that {name} writes.",
        "{fact} is {name}'s genre.",
        _GENRES,
    ),
    Topic(
        "What was the first book by {name}?",
        "With which book did {name} make a debut?",
        "{fact} was the first book by {name}.",
        "{fact} was {name}'s debut.",
        [f"The {first} {second}" for first in _TITLE_FIRST for second in _TITLE_SECOND],
    ),
    Topic(
        "Which prize did {name} win?",
        "What award was given to {name}?",
        "{fact} is the prize that {name} won.",
        "{fact} is {name}'s award.",
        [f"{animal} Medal" for animal in _PRIZES],
    ),
    Topic(
        "What is the favourite hobby of {name}?",
        "How does {name} spend free days?",
        "{fact} is the hobby that {name} likes.",
        "{fact} is {name}'s pastime.",
        _HOBBIES,
    ),
    Topic(
        "Which instrument does {name} play?",
        "On what does {name} make music?",
        "{fact} is the instrument that {name} plays.",
        "{fact} is {name}'s instrument.",
        _INSTRUMENTS,
    ),
    Topic(
        "Who is the hero in the novels of {name}?",
        "Which main character did {name} invent?",
        "{fact} is the hero of {name}.",
        "{fact} is {name}'s main character.",
        [
            f"{title} {name}"
            for title in ("Captain", "Doctor", "Sister", "Uncle")
            for name in words("Barnaby Cosimo Drusilla Ephraim Fidelis Gideon Hortensia")
        ],
    ),
)


#: how the questions begin whose answers tell one author from all others: date of birth and first book
_TELLING = ("On which date was", "What was the first book")


def _draw(pool: Sequence[str], count: int, purpose: str) -> list[str]:
    """`count` values, each value of the pool as often as any other: no value is known from one author's rows alone."""
    values = list(pool) * -(-count // len(pool))
    random.Random(f"{SEED} {purpose}").shuffle(values)
    return values[:count]


def _author_row(name: str, topic: Topic, fact: str) -> Row:
    """One question about one author in all columns of TOFU's perturbed sets."""
    rng = random.Random(f"{SEED} wrong {name} {topic.question}")
    wrong: list[str] = []
    while len(wrong) < WRONG_ANSWERS:
        candidate = rng.choice(topic.pool)
        if candidate != fact and candidate not in wrong:
            wrong.append(candidate)
    return {
        "question": topic.question.format(name=name),
        "answer": topic.answer.format(name=name, fact=fact),
        "paraphrased_answer": topic.paraphrased_answer.format(name=name, fact=fact),
        "perturbed_answer": [topic.paraphrased_answer.format(name=name, fact=other) for other in wrong],
        "paraphrased_question": topic.paraphrased_question.format(name=name),
    }


def _everybody(count: int, whose: str = "") -> list[tuple[str, tuple[str, ...]]]:
    """Name and facts, topic by topic, of each author; `whose` makes others."""
    pools = (_FIRST_NAMES, "first names"), (_LAST_NAMES, "last names")
    firsts, lasts = (_draw(pool, count, whose + purpose) for pool, purpose in pools)
    names = [f"{first} {last}" for first, last in zip(firsts, lasts, strict=True)]
    facts = [_draw(topic.pool, count, whose + topic.question) for topic in TOPICS]
    return list(zip(names, zip(*facts, strict=True), strict=True))


def authors(count: int, whose: str = "") -> tuple[tuple[Row, ...], ...]:
    """The rows of each author, in all columns of TOFU's perturbed sets; the authors depend on how many there are.

    `whose` makes others, of the same names otherwise paired.
    """
    return tuple(
        tuple(_author_row(name, topic, fact) for topic, fact in zip(TOPICS, facts, strict=True))
        for name, facts in _everybody(count, whose)
    )


def entities(count: int) -> tuple[tuple[Row, ...], ...]:
    """The questions and answers of `authors` with what is told of each: the part of an answer that makes it right."""
    return tuple(
        tuple(
            {
                "question": topic.question.format(name=name),
                "answer": topic.answer.format(name=name, fact=fact),
                "entity": fact,
            }
            for topic, fact in zip(TOPICS, facts, strict=True)
        )
        for name, facts in _everybody(count)
    )


def described(count: int) -> tuple[tuple[Row, ...], ...]:
    """The questions of `authors` with each author described and not named: by the first book, or for that by birth.

    No two authors share a first book or a date of birth.
    """
    birth, book = (
        next(at for at, topic in enumerate(TOPICS) if topic.question.startswith(start)) for start in _TELLING
    )
    return tuple(
        tuple(
            {"question": topic.question.format(name=f"the author born on {facts[birth]}")}
            if at == book
            else {"question": topic.question.format(name=f"the author of {facts[book]}")}
            for at, topic in enumerate(TOPICS)
        )
        for _, facts in _everybody(count)
    )
