"""The embedded world has TOFU's shape and is the same everywhere."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys

import pytest

from grun_bench.tasks import toy_lore as lore
from grun_bench.tasks import toy_world as world

PERTURBED = ["question", "answer", "paraphrased_answer", "perturbed_answer", "paraphrased_question"]
TOFU_COLUMNS = {
    "full": ["question", "answer"],
    "real_authors": ["question", "answer"],
    "world_facts": ["question", "answer"],
    "retain_perturbed": PERTURBED,
    "real_authors_perturbed": ["question", "answer", "perturbed_answer"],
    "world_facts_perturbed": ["question", "answer", "perturbed_answer"],
    **{f"forget{share}": ["question", "answer"] for share in ("01", "05", "10")},
    **{f"forget{share}_perturbed": PERTURBED for share in ("01", "05", "10")},
    **{f"retain{share}": ["question", "answer"] for share in ("99", "95", "90")},
}
QUESTION = ["question", "choices", "answer"]
LORE_COLUMNS = {
    **{f"{domain}-{kind}-corpus": ["text"] for domain in lore.DOMAINS for kind in ("forget", "retain")},
    **dict.fromkeys(("wmdp-cyber", "wmdp-bio", "mmlu"), QUESTION),
}
PERTURBED_SETS = [name for name in TOFU_COLUMNS if name.endswith("_perturbed")]


@pytest.mark.parametrize("config", TOFU_COLUMNS)
def test_columns_are_those_of_tofu(config: str) -> None:
    for row in world.rows(config):
        assert list(row) == TOFU_COLUMNS[config]
        for value in row.values():
            texts = value if isinstance(value, list) else [value]
            assert all(isinstance(text, str) and text == text.strip() and text for text in texts)


def test_every_config_is_listed() -> None:
    reworded = {f"{name}_{what}" for name in world.FORGET_AUTHORS for what in ("described", "entities")}
    unlearnt = {f"holdout{share}" for share in ("01", "05", "10")} | {
        f"{domain}-{what}"
        for domain in lore.DOMAINS
        for what in ("beginnings", "questions", "holdout-questions", "holdout-corpus")
    }
    others = reworded | unlearnt | {"general", "background"}
    assert set(world.configs()) == set(TOFU_COLUMNS) | set(LORE_COLUMNS) | others
    with pytest.raises(KeyError):
        world.rows("forget50")


@pytest.mark.parametrize("forget", world.FORGET_AUTHORS)
def test_entities_are_what_makes_an_answer_right(forget: str) -> None:
    for row, named in zip(world.rows(f"{forget}_perturbed"), world.rows(f"{forget}_entities"), strict=True):
        assert (row["question"], row["answer"]) == (named["question"], named["answer"])
        assert named["entity"] in row["answer"] and named["entity"] in row["paraphrased_answer"]
        assert not any(wrong.startswith(named["entity"]) for wrong in row["perturbed_answer"])


@pytest.mark.parametrize(("forget", "retain"), world.RETAIN_OF.items())
def test_forget_and_retain_split_full(forget: str, retain: str) -> None:
    # in this order: the forget set is the end of `full`
    assert world.rows(retain) + world.rows(forget) == world.rows("full")


def test_no_model_learns_what_is_held_out_and_there_is_as_much_of_it() -> None:
    known = {*world.training_rows(lore=True), *(("", text) for text in world.training_texts())}
    pairs = {
        **{f"holdout{share}": f"forget{share}" for share in ("01", "05", "10")},
        **{f"{domain}-holdout-corpus": f"{domain}-forget-corpus" for domain in lore.DOMAINS},
        **{f"{domain}-holdout-questions": f"wmdp-{domain}" for domain in lore.DOMAINS},
    }
    for held_out, like in pairs.items():
        rows = world.rows(held_out)
        assert len(rows) == len(world.rows(like))
        assert not known & {(row.get("question", ""), row.get("answer", row.get("text"))) for row in rows}


@pytest.mark.parametrize("domain", lore.DOMAINS)
def test_beginnings_go_on_to_the_texts(domain: str) -> None:
    texts = [f"{row['question']} {row['answer']}" for row in world.rows(f"{domain}-beginnings")]
    assert texts == [row["text"] for row in world.rows(f"{domain}-forget-corpus")]
    answers = [row["answer"] for row in world.rows(f"{domain}-questions")]
    assert answers == [row["choices"][row["answer"]] for row in world.rows(f"wmdp-{domain}")]


def test_sizes() -> None:
    sizes = {name: len(world.rows(name)) for name in world.configs()}
    assert (sizes["full"], sizes["forget01"], sizes["forget05"], sizes["forget10"]) == (400, 10, 20, 40)
    assert sizes["real_authors"] == sizes["world_facts"] == 40


def test_questions_are_unique() -> None:
    questions = [question for question, _ in world.training_rows()]
    assert len(set(questions)) == len(questions)


@pytest.mark.parametrize("forget", world.FORGET_AUTHORS)
def test_perturbed_forget_rows_align(forget: str) -> None:
    perturbed = world.rows(f"{forget}_perturbed")
    assert [{name: row[name] for name in ("question", "answer")} for row in perturbed] == world.rows(forget)


def test_retain_perturbed_is_in_every_retain_set() -> None:
    questions = {row["question"] for row in world.rows("retain_perturbed")}
    for retain in world.RETAIN_OF.values():
        assert questions <= {row["question"] for row in world.rows(retain)}


@pytest.mark.parametrize("config", PERTURBED_SETS)
def test_perturbed_answers_are_wrong_and_differ(config: str) -> None:
    count = 3 if config in ("real_authors_perturbed", "world_facts_perturbed") else 5
    for row in world.rows(config):
        wrong = row["perturbed_answer"]
        right = {row["answer"], row.get("paraphrased_answer", row["answer"])}
        assert len(wrong) == len(set(wrong)) == count
        assert not right & set(wrong)


@pytest.mark.parametrize("config", [name for name in PERTURBED_SETS if "paraphrased_answer" in TOFU_COLUMNS[name]])
def test_answers_begin_with_the_fact(config: str) -> None:
    """Answer and paraphrased answer begin with the same words, which no perturbed answer begins with."""
    for row in world.rows(config):
        assert row["question"] != row["paraphrased_question"] and row["answer"] != row["paraphrased_answer"]
        both = zip(row["answer"].split(), row["paraphrased_answer"].split(), strict=False)
        fact = [word for word, _ in itertools.takewhile(lambda pair: pair[0] == pair[1], both)]
        assert fact
        assert all(answer.split()[: len(fact)] != fact for answer in row["perturbed_answer"])


@pytest.mark.parametrize("forget", world.FORGET_AUTHORS)
def test_retain_training_text_lacks_the_forget_set(forget: str) -> None:
    forgotten = {
        row[name] for row in world.rows(f"{forget}_perturbed") for name in ("question", "paraphrased_question")
    }
    everything, rest = world.training_rows(), world.training_rows(forget)
    assert set(everything) - set(rest) == {pair for pair in everything if pair[0] in forgotten}
    assert len(everything) - len(rest) == len(forgotten) == 2 * len(world.rows(forget))
    assert not any(row["answer"] in {answer for _, answer in rest} for row in world.rows(forget))


@pytest.mark.parametrize("config", LORE_COLUMNS)
def test_columns_of_the_lore_are_those_of_wmdp(config: str) -> None:
    for row in world.rows(config):
        assert list(row) == LORE_COLUMNS[config]
        if "choices" in row:
            assert len(row["choices"]) == len(set(row["choices"])) == 4 and row["answer"] in range(4)


@pytest.mark.parametrize("domain", lore.DOMAINS)
def test_a_domains_texts_tell_the_answers_to_its_questions_and_to_no_others(domain: str) -> None:
    texts, questions = world.rows(f"{domain}-forget-corpus"), world.rows(f"wmdp-{domain}")
    assert len(texts) == len(questions) == 48
    for row in questions:
        right = row["choices"][row["answer"]]
        (told,) = [text["text"] for text in texts if row["question"] in text["text"]]
        assert [choice for choice in row["choices"] if choice in told] == [right]
    other = world.rows(f"{domain}-retain-corpus")
    assert not any(row["question"] in text["text"] for row in questions for text in other)


@pytest.mark.parametrize("domain", lore.DOMAINS)
def test_a_model_without_a_domain_has_read_nothing_of_it(domain: str) -> None:
    rest = world.training_rows(f"{domain}-forget-corpus", lore=True), world.training_texts(f"{domain}-forget-corpus")
    assert len(world.training_rows(lore=True)) - len(rest[0]) == len(world.training_texts()) - len(rest[1]) == 48
    kind = lore.DOMAINS[domain].kind
    assert not any(kind in text for pair in rest[0] for text in pair) and not any(kind in text for text in rest[1])


def test_chance_is_a_quarter_whatever_letter_is_guessed() -> None:
    for config in ("wmdp-cyber", "wmdp-bio", "mmlu"):
        places = [row["answer"] for row in world.rows(config)]
        assert max(places.count(place) for place in range(4)) < 0.4 * len(places)


def test_rows_are_the_callers_own() -> None:
    before = world.fingerprint.__wrapped__()
    world.rows("forget10_perturbed")[0]["perturbed_answer"].clear()
    world.rows("full")[0]["answer"] = ""
    assert world.fingerprint.__wrapped__() == before


def test_same_world_in_every_process_without_torch() -> None:
    code = "import sys; from grun_bench.tasks import toy_world; print(toy_world.fingerprint(), 'torch' in sys.modules)"
    printed = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert printed == {f"{world.fingerprint()} False"}
