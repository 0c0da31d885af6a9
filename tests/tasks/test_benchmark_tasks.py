"""The tasks of other benchmarks on their real rows and in the embedded world; sets that are asked in their own way."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import yaml
from conftest import TASK

from grun_bench.core.errors import DataError, UsageError
from grun_bench.methods.make import make_unlearner
from grun_bench.runs.data import read_data
from grun_bench.tasks import toy_world
from grun_bench.tasks.dataset import Source, checked
from grun_bench.tasks.sets import ScoredSet, ScoredSets
from grun_bench.tasks.task import Task, load_task
from grun_bench.tasks.world import PUBLISHED, TOY

MULTILINGUAL = ["tofu_fr", "tofu_ja", "tofu_ar"]
MUSE = ["muse_news", "muse_news_lite", "muse_news_sust", "muse_news_scal"]
NEW = [*MULTILINGUAL, *MUSE, "lume", "kbench_pii", "tofu_lite_holdout", "tofu_forget10_holdout"]


@pytest.fixture
def hub(shared: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GRUN_BENCH_HUB", str(shared / "hub"))
    return shared / "hub"


def ids(hub: Path, name: str) -> set[str]:
    return {*(hub / f"OniReimu/kbench-pii/{name}.txt").read_text().split()}


@pytest.mark.long
def test_kbench_fits_and_scores_the_persons_that_it_publishes_lists_of(hub: Path) -> None:
    """The ranges of the task file are the published lists of ids, which share nobody."""
    task = load_task("kbench_pii")
    whole = [json.loads(line) for line in (hub / "OniReimu/kbench-pii/v1_queries.jsonl").read_text().splitlines()]

    def persons(*names: str) -> set[str]:
        numbers = [number for name in names for number in PUBLISHED.rows(task.scored[name], ("question",)).numbers]
        return {whole[number]["pii_id"] for number in numbers}

    fields = ("date_of_birth", "address", "occupation", "employer")
    scored = {role: persons(*(f"{role}_{field}" for field in fields)) for role in ("forget", "retain")}
    assert scored["forget"] == ids(hub, "forget_ids_eval")
    assert len(scored["retain"]) == 800 and scored["retain"] < ids(hub, "retain_ids_eval")
    for role in ("forget", "retain"):
        (source,) = task.sources[role]
        fitted = {row["pii_id"] for row in whole[source.start : source.stop]}
        assert fitted == ids(hub, f"{role}_ids_adapter") and not fitted & scored[role]
    data = read_data(task, PUBLISHED, None)
    assert len(data.made_on("target")) == 20_000 and len(data.made_on("retain")) == 16_000
    for field in fields:
        assert {whole[number]["field"] for number in data.scored[f"forget_{field}"].numbers} == {field}


@pytest.mark.long
def test_lumes_twelve_sets_hold_every_row_once(hub: Path) -> None:
    data = read_data(load_task("lume"), PUBLISHED, None)
    for role, count in (("forget", 2732), ("retain", 2734)):
        numbers = [number for name, rows in data.scored.items() if name.startswith(role) for number in rows.numbers]
        assert sorted(numbers) == list(range(count)) and len(data.pairs(role)) == count
    examples = data.examples()
    assert len({each.set for each in examples}) == 12 and {each.max_new_tokens for each in examples} == {None}


@pytest.mark.parametrize("name", MULTILINGUAL)
def test_tofu_in_other_languages_has_tofus_rows(hub: Path, name: str) -> None:
    data = read_data(load_task(name), PUBLISHED, None)
    counts = Counter(each.set for each in data.examples())
    assert counts == {"forget": 40, "retain": 400, "real_authors": 100, "world_facts": 117}
    trained = data.pairs("forget")
    assert trained == [(row["question"], row["answer"]) for row in data.scored["forget"].rows]


def test_muse_news_asks_as_its_code_does(hub: Path) -> None:
    data = read_data(load_task("muse_news_lite"), PUBLISHED, 2)
    first = {each.set: each for each in reversed(data.examples())}
    assert first["verbmem"].prompt == "{question}" and first["verbmem"].context == ()
    for name in ("knowmem_forget", "knowmem_retain"):
        asked = first[name]
        assert len(asked.context) == 10 and asked.max_new_tokens == 32  # all ten, whatever --limit says
        assert asked.until == ("\n\n", "\nQuestion", "Question:")
    assert first["knowmem_forget"].context != first["knowmem_retain"].context
    assert first["texts_forget"].question == first["texts_holdout"].question == ""
    assert all(question == "" and text for question, text in data.pairs("forget"))


def test_what_the_hub_alone_has_is_named(hub: Path) -> None:
    with pytest.raises(UsageError, match=r"(?s)'raw/retain1'.*on the Hub alone.*muse_news_lite"):
        read_data(load_task("muse_news"), PUBLISHED, 2)
    with pytest.raises(UsageError, match=r"(?s)'holdout10'.*tofu_lite_holdout"):
        read_data(load_task("tofu_forget10_holdout"), PUBLISHED, 2)


@pytest.mark.parametrize(
    ("name", "asked"), [("muse_news_sust", ["1", "2", "3", "4"]), ("muse_news_scal", ["1", "12", "123", "1234"])]
)
def test_requests_of_muse_come_from_its_configurations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, asked: list[str]
) -> None:
    """A mirror as the Hub has the data set, by configuration and split, with made-up rows."""
    splits = {
        "raw": (["retain1"], "text", ""),
        "sust": ([f"forget_{number}" for number in range(1, 5)], "text", ""),
        "verbmem": (["forget"], "prompt", "gt"),
        "knowmem": (["forget_qa", "forget_qa_icl", "retain_qa", "retain_qa_icl"], "question", "answer"),
    }
    folder = tmp_path / "muse-bench" / "MUSE-News"
    configs = []
    for config, (names, first, second) in splits.items():
        (folder / config).mkdir(parents=True)
        for split in names:
            rows = [
                {first: text, second: "more"}
                for text in (f"{config} {split} has some words", f"{config} {split}, too" if second else "")
            ]
            lines = [json.dumps({column: value for column, value in row.items() if column}) for row in rows]
            (folder / config / f"{split}.jsonl").write_text("\n".join(lines))
        files = [{"split": split, "path": f"{config}/{split}.jsonl"} for split in names]
        configs.append({"config_name": config, "data_files": files})
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump({'configs': configs})}---\n")
    monkeypatch.setenv("GRUN_BENCH_HUB", str(tmp_path))
    data = read_data(load_task(name), PUBLISHED, None)
    requests = data.requests(make_unlearner("full+gd", {}, PUBLISHED))
    texts = [[("", f"sust forget_{number} has some words") for number in each] for each in asked]
    assert requests == texts
    assert [row.question for row in data.examples() if row.set == "articles_3"] == ["sust forget_3"]


@pytest.mark.parametrize("name", ["muse_news_sust", "muse_news_scal"])
def test_requests_of_muse_are_refused_in_words_where_they_are_not(hub: Path, name: str) -> None:
    with pytest.raises(UsageError, match=r"(?s)'sust/forget_1'.*on the Hub alone.*With the default model"):
        read_data(load_task(name), PUBLISHED, 2)


@pytest.mark.long
@pytest.mark.parametrize("name", ["lume", "kbench_pii"])
def test_under_a_limit_models_are_made_on_what_they_are_asked(hub: Path, name: str) -> None:
    data = read_data(load_task(name), PUBLISHED, 2)
    asked = {role: [row for row in data.examples() if row.set.startswith(role)] for role in ("forget", "retain")}
    knows, never = {*data.made_on("target")}, {*data.made_on("retain")}
    assert all((row.question, row.answer) in knows for row in data.examples())
    assert all((row.question, row.answer) in never for row in asked["retain"])
    assert not any((row.question, row.answer) in never for row in asked["forget"])


def test_held_out_rows_are_none_that_a_model_learned(hub: Path) -> None:
    data = read_data(load_task("tofu_lite_holdout"), PUBLISHED, None)
    held_out = {(row["question"], row["answer"]) for row in data.scored["holdout"].rows}
    assert len(held_out) == 40 and not held_out & {*data.made_on("target"), *data.made_on("retain")}


@pytest.mark.parametrize("name", NEW)
def test_each_has_its_counterpart_in_the_embedded_world(name: str) -> None:
    task = TOY.task(load_task(name))
    data = read_data(task, TOY, None)
    published = load_task(name)
    roles = {published.sets.role(each) for each in published.score}
    assert roles <= {task.sets.role(each) for each in task.score}
    assert set(published.score) <= set(task.score) and data.examples()
    known = {*toy_world.training_rows(lore=True), *(("", text) for text in toy_world.training_texts())}
    for each in task.sets.of("holdout"):
        rows = [(row.get("question", ""), row.get("answer", row.get("text"))) for row in data.scored[each].rows]
        assert rows and not known & {*rows}


# --- how sets are described -------------------------------------------------------------------------------------------

ROWS = [{"id": "a1", "kind": "x", "q": "1?", "r": "1"}, {"id": "b1", "kind": "x", "q": "2?", "r": "2"}] * 2
COLUMNS = {"question": "q", "answer": "r"}


def test_where_takes_the_matching_rows_of_the_range_and_keeps_their_numbers() -> None:
    def numbers(where: dict[str, str], start: int = 0, limit: int | None = None) -> list[int]:
        source = Source("rows", start=start, columns=COLUMNS, where=where)
        return checked(ROWS, "rows", source, ("question", "answer"), limit).numbers

    assert numbers({}) == [0, 1, 2, 3]
    assert numbers({"id": "a*"}) == [0, 2] and numbers({"id": "?1", "kind": "x"}, start=1) == [1, 2, 3]
    assert numbers({"id": "b?"}, limit=1) == [1]
    with pytest.raises(DataError, match=r"id 'c\*': no rows"):
        numbers({"id": "c*"})
    with pytest.raises(DataError, match="where: column 'colour' is missing; the columns are id, kind, q, r"):
        numbers({"colour": "red"})


def test_splits_of_a_configuration_are_read_from_mirrors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "org" / "rows"
    folder.mkdir(parents=True)
    for name in ("forget", "retain"):
        (folder / f"{name}.jsonl").write_text(json.dumps({"text": name}) + "\n")
    files = [{"split": name, "path": f"{name}.jsonl"} for name in ("forget", "retain")]
    card = {"configs": [{"config_name": "raw", "data_files": files}]}
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump(card)}---\n")
    monkeypatch.setenv("GRUN_BENCH_HUB", str(tmp_path))
    for name in ("forget", "retain"):
        assert PUBLISHED.rows(Source.parse(f"org/rows:raw/{name}")).rows == [{"text": name}]


def task_of(tmp_path: Path, **changes: object) -> Task:
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(TASK | changes))
    return load_task(str(path))


def test_metrics_are_taken_of_the_sets_that_name_them() -> None:
    sets = ScoredSets((ScoredSet("a", "forget", metrics=("privleak",)), ScoredSet("b", "forget")))
    assert sets.taking("privleak") == sets
    assert sets.taking("probability").of("forget") == ["b"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt": "Q: question"}, r"score.a.ScoredData.prompt: .*\{question\} in it, once"),
        ({"metrics": ["leak"]}, "unknown metric in score.a 'leak'"),
        ({"max_new_tokens": -1}, "max_new_tokens: should be at least 0"),
        ({"fewshot": "a["}, "'a\\[' is not a data source"),
    ],
)
def test_what_describes_no_set_is_one_line(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    told = {"source": "data.jsonl", "role": "forget", **changes}
    with pytest.raises(UsageError, match=message) as error:
        task_of(tmp_path, score={"a": told})
    assert "\n" not in str(error.value)


def test_what_is_not_said_of_a_set_is_in_no_result(tmp_path: Path) -> None:
    """Results that were filed before sets could say it stay those of their task."""
    task = task_of(tmp_path, score={"a": {"source": "data.jsonl", "role": "forget"}})
    assert task.model_dump(mode="json")["score"] == {"a": {"source": "data.jsonl", "role": "forget", "columns": {}}}
    told = {"source": "data.jsonl", "role": "forget", "prompt": "{question}", "until": ["."], "where": {"id": "a*"}}
    assert task_of(tmp_path, score={"a": told}).model_dump(mode="json")["score"]["a"] == told | {"columns": {}}


def test_a_row_that_a_model_learned_is_not_held_out(tmp_path: Path) -> None:
    for name, answers in {"forget": "ab", "retain": "cd", "holdout": "de"}.items():
        lines = [json.dumps({"question": f"{each}?", "answer": each}) for each in answers]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    sources = {name: str(tmp_path / f"{name}.jsonl") for name in ("forget", "retain", "holdout")}
    score = {"holdout": sources["holdout"]}
    with pytest.raises(DataError, match=r"row 0 of the set holdout .* is also row 1 of the set train:retain"):
        read_data(
            task_of(tmp_path, forget=[sources["forget"]], retain=[sources["retain"]], score=score), PUBLISHED, None
        )
    learnt = {"retain": [sources["forget"]]}
    with pytest.raises(DataError, match="learnt:retain"):
        read_data(
            task_of(
                tmp_path,
                forget=[sources["forget"]],
                retain=[sources["retain"]],
                score={"kept": {"source": sources["retain"], "role": "retain"}},
                learnt=learnt,
            ),
            PUBLISHED,
            None,
        )
