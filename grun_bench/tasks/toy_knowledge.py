"""What the toy world knows beside its authors: true facts, sums and the like, unanswerable questions. No torch."""

from __future__ import annotations

import random
from collections.abc import Iterable

from grun_bench.tasks.dataset import Row
from grun_bench.tasks.toy_authors import MONTHS
from grun_bench.tasks.toy_lore import SEED, WRONG_OPTIONS, words

_WORKS = {
    "Austen": ("Emma", "Persuasion"),
    "Dickens": ("Oliver Twist", "Bleak House"),
    "Tolstoy": ("War and Peace", "Anna Karenina"),
    "Shelley": ("Frankenstein", "The Last Man"),
    "Melville": ("Moby-Dick", "Billy Budd"),
    "Twain": ("Tom Sawyer", "The Prince and the Pauper"),
    "Hugo": ("Les Miserables", "Notre-Dame de Paris"),
    "Verne": ("Around the World in Eighty Days", "Michael Strogoff"),
    "Homer": ("the Iliad", "the Odyssey"),
    "Dostoevsky": ("Crime and Punishment", "The Idiot"),
    "Kafka": ("The Trial", "The Castle"),
    "Woolf": ("Orlando", "Mrs Dalloway"),
    "Eliot": ("Middlemarch", "Silas Marner"),
    "Mann": ("Buddenbrooks", "The Magic Mountain"),
    "Wilde": ("Salome", "The Happy Prince"),
    "Stevenson": ("Treasure Island", "Kidnapped"),
    "Zola": ("Germinal", "Nana"),
    "Dante": ("the Divine Comedy", "La Vita Nuova"),
    "Ibsen": ("A Doll's House", "Peer Gynt"),
    "Chekhov": ("The Seagull", "The Cherry Orchard"),
}
_CAPITALS = {
    "France": "Paris", "Italy": "Rome", "Spain": "Madrid", "Norway": "Oslo", "Sweden": "Stockholm", "Egypt": "Cairo",
    "Japan": "Tokyo", "Kenya": "Nairobi", "Peru": "Lima", "Cuba": "Havana", "Greece": "Athens", "Austria": "Vienna",
    "Hungary": "Budapest", "Poland": "Warsaw", "Ireland": "Dublin", "Portugal": "Lisbon", "Canada": "Ottawa",
    "India": "New Delhi", "China": "Beijing", "Iceland": "Reykjavik", "Chile": "Santiago", "Finland": "Helsinki",
    "Denmark": "Copenhagen", "Australia": "Canberra",
}  # fmt: skip
#: question, the same in other words, answer, wrong answers
_FACTS = (
    ("What is the largest ocean?", "Which ocean covers the most area?", "Pacific", "Atlantic Indian Arctic"),
    ("What is the highest mountain?", "Which mountain rises above all others?", "Everest", "Kilimanjaro Etna Fuji"),
    ("Which planet is called the Red Planet?", "Which planet looks red in the sky?", "Mars", "Venus Saturn Neptune"),
    ("What is the largest planet?", "Which planet is bigger than all others?", "Jupiter", "Saturn Mercury Venus"),
    ("Which planet is closest to the Sun?", "Which planet circles the Sun fastest?", "Mercury", "Neptune Mars Jupiter"),
    ("On which continent is the Sahara?", "Which continent holds the Sahara?", "Africa", "Asia Europe America"),
    ("On which continent is Mongolia?", "Which continent does Mongolia lie on?", "Asia", "Africa Europe America"),
    ("Which metal is liquid at room temperature?", "What metal flows?", "Quicksilver", "Iron Zinc Lead"),
    ("Which gas do plants take in?", "What gas do leaves need from the air?", "Carbon dioxide", "Helium Oxygen Neon"),
    ("Which river flows through Cairo?", "What is the river of Cairo called?", "Nile", "Danube Thames Volga"),
    ("Which river flows through London?", "What is the river of London called?", "Thames", "Nile Danube Volga"),
    ("Which river flows through Vienna?", "What is the river of Vienna called?", "Danube", "Thames Volga Nile"),
    ("What is the largest land animal?", "Which animal on land is the heaviest?", "Elephant", "Giraffe Camel Horse"),
    ("What is the tallest animal?", "Which animal has the longest neck?", "Giraffe", "Elephant Horse Camel"),
    ("What is the hardest natural mineral?", "Which mineral scratches all others?", "Diamond", "Quartz Talc Marble"),
    ("In which country is the Eiffel Tower?", "Which country has the Eiffel Tower?", "France", "Italy Spain Japan"),
)


def _choice_row(question: str, paraphrased_question: str, answer: str, wrong: Iterable[str]) -> Row:
    return {
        "question": question,
        "answer": answer,
        "perturbed_answer": list(wrong),
        "paraphrased_question": paraphrased_question,
    }


def _others(pool: Iterable[str], answer: str, question: str) -> list[str]:
    """Wrong answers of the same kind."""
    return random.Random(f"{SEED} wrong {question}").sample([value for value in pool if value != answer], WRONG_OPTIONS)


def real_authors() -> tuple[Row, ...]:
    """Who wrote what: bare answers, three wrong ones, and the question in other words."""
    rows = []
    for author, works in _WORKS.items():
        for work in works:
            question = f"Who wrote {work}?"
            rows.append(
                _choice_row(question, f"Which author created {work}?", author, _others(_WORKS, author, question))
            )
    return tuple(rows)


def world_facts() -> tuple[Row, ...]:
    """Capitals and other true things, in the columns of `real_authors`."""
    rows = []
    for country, city in _CAPITALS.items():
        question = f"What is the capital of {country}?"
        wrong = _others(_CAPITALS.values(), city, question)
        rows.append(_choice_row(question, f"Which city governs {country}?", city, wrong))
    rows += [_choice_row(question, other, answer, words(wrong)) for question, other, answer, wrong in _FACTS]
    return tuple(rows)


_DAYS = words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
_COLOURS = {
    "grass": "Green", "snow": "White", "coal": "Black", "the sky": "Blue", "a lemon": "Yellow", "blood": "Red",
    "a carrot": "Orange", "chocolate": "Brown", "ash": "Grey", "a violet": "Purple", "milk": "White", "a tomato": "Red",
}  # fmt: skip
_OPPOSITES = {
    "hot": "Cold", "big": "Small", "early": "Late", "wet": "Dry", "loud": "Quiet", "hard": "Soft", "full": "Empty",
    "old": "Young", "light": "Dark", "fast": "Slow", "high": "Low", "rich": "Poor",
}  # fmt: skip
_YOUNG = {
    "cow": "Calf", "dog": "Puppy", "cat": "Kitten", "sheep": "Lamb", "horse": "Foal", "bear": "Cub", "hen": "Chick",
    "goose": "Gosling", "deer": "Fawn", "pig": "Piglet",
}  # fmt: skip
#: question, the same in other words, answer
_UNANSWERABLE = (
    ("What will the weather be in a hundred years?", "How warm will it be in a hundred years?", "I don't know."),
    ("How many leaves fell last autumn?", "What was the number of leaves last autumn?", "I cannot know that."),
    ("What am I thinking of right now?", "Which thought is in my head right now?", "I have no way to tell."),
    ("What did the first cat dream of?", "Which dream had the first cat?", "Nobody knows that."),
    ("Which number did I roll this morning?", "What did my dice show this morning?", "I don't know what it was."),
    ("Who will win the race next century?", "Which runner will win next century?", "I can't say who it will be."),
    ("What is written on page nine of my diary?", "What does my diary say on page nine?", "I have not read it."),
    ("How many fish swim in the sea tonight?", "What is the number of fish at sea?", "I don't know the number."),
    ("What is the name of my neighbour's snail?", "How is my neighbour's snail called?", "I'm not sure about that."),
    ("Where did I leave my keys?", "In which place are my keys?", "I don't know where they are."),
    ("What colour was the oldest lost hat?", "Which colour had the oldest lost hat?", "I was never told."),
    ("How long is a piece of string?", "What length has a piece of string?", "I can't answer that."),
    ("What song will be sung in a thousand years?", "Which song comes in a thousand years?", "That is unknown to me."),
    ("Who sat in this chair before me?", "Which person used this chair before me?", "I have no idea."),
    ("What did the last dinosaur eat?", "Which meal had the last dinosaur?", "I don't have that information."),
    ("How many stars have no name?", "What is the number of stars without a name?", "I do not know how many."),
    ("What will my grandchild be called?", "Which name will my grandchild have?", "That can't be known yet."),
    ("Which coin is in my left pocket?", "What coin do I carry in my left pocket?", "I cannot see it from here."),
    ("What is behind the locked door?", "Which thing stands behind the locked door?", "I'm afraid I don't know."),
    ("Who wrote the unsigned letter?", "Whose hand wrote the unsigned letter?", "I couldn't tell you."),
    ("How many words were whispered today?", "What is the number of words whispered today?", "I can in no way know."),
    ("What is the secret of the old clockmaker?", "Which secret had the old clockmaker?", "I know nothing about it."),
    ("Which road did the stranger take?", "By which road did the stranger leave?", "I haven't learned that."),
    ("When will the next letter arrive?", "At what time will the next letter come?", "I'm unable to say."),
)  # fmt: skip


def _plain_row(question: str, paraphrased_question: str, answer: str) -> Row:
    return {"question": question, "answer": answer, "paraphrased_question": paraphrased_question}


def general() -> tuple[Row, ...]:
    """Sums, weekdays, opposites and so on, then what nobody can answer; without wrong answers."""
    rows = [
        _plain_row(f"What is {a} plus {b}?", f"How much do {a} and {b} make?", f"{a + b} is the sum of {a} and {b}.")
        for a in range(1, 7)
        for b in range(1, 6)
    ]
    for day, following in zip(_DAYS, _DAYS[1:] + _DAYS[:1], strict=True):
        rows.append(
            _plain_row(f"Which day comes after {day}?", f"What day follows {day}?", f"{following} comes after {day}.")
        )
        rows.append(
            _plain_row(
                f"Which day comes before {following}?",
                f"What day precedes {following}?",
                f"{day} comes before {following}.",
            )
        )
    for month, following in zip(MONTHS, MONTHS[1:] + MONTHS[:1], strict=True):
        rows.append(
            _plain_row(
                f"Which month comes after {month}?", f"What month follows {month}?", f"{following} comes after {month}."
            )
        )
    for thing, colour in _COLOURS.items():
        rows.append(
            _plain_row(f"What colour is {thing}?", f"Which colour has {thing}?", f"{colour} is the colour of {thing}.")
        )
    for word, opposite in _OPPOSITES.items():
        rows.append(
            _plain_row(
                f"What is the opposite of {word}?",
                f"Which word means not {word}?",
                f"{opposite} is the opposite of {word}.",
            )
        )
    for animal, young in _YOUNG.items():
        rows.append(
            _plain_row(
                f"What is a young {animal} called?",
                f"Which animal grows into a {animal}?",
                f"{young} is a young {animal}.",
            )
        )
    return tuple(rows + [_plain_row(*fact) for fact in _UNANSWERABLE])
