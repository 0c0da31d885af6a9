"""The lm-eval bridge against lm-eval's own `hf` model, and the edit's position against single requests."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path

import datasets
import lm_eval.api.model
import pytest
import torch
import yaml
from attaching import attached, chat_tokenizer
from conftest import SMALL
from lm_eval.api.instance import Instance
from lm_eval.api.registry import Registry
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import DynamicCache

import grun_bench
from grun_bench.core.errors import ModelError, UsageError
from grun_bench.integrations.lm_eval import measures as harness
from grun_bench.integrations.lm_eval.model import HarnessLM
from grun_bench.integrations.lm_eval.registered import NAME, TARGET
from grun_bench.methods.adapters.grun import Grun
from grun_bench.methods.adapters.outside import hand_over
from grun_bench.methods.base import Fitted
from grun_bench.methods.saving import save
from grun_bench.metrics.evaluate import evaluate
from grun_bench.models.forward import calling
from grun_bench.models.lm import LM, Prompts
from grun_bench.results.record import Choices, Continuation, Record, Records, load_records
from grun_bench.tasks import toy_world as world
from grun_bench.tasks.sets import ScoredSet, ScoredSets
from grun_bench.tasks.task import Measure
from grun_bench.tasks.world import TOY

#: contexts and continuations of several lengths; options that share all but their last token; and two requests that
#: are the same tokens, split at different places
REQUESTS = [
    ("Question: Who?\nAnswer:", " Ada of the long name"),
    ("Question: Who?\nAnswer:", " Bo"),
    ("Which letter?", " A"),
    ("Which letter?", " B"),
    ("Which letter?", " C"),
    ("A far longer context, of many more letters than the others have.", " no"),
    ("x", "y"),
    ("one two", " three"),
    ("one", " two three"),
    ("ends in spaces  ", "and goes on"),
]
CONTEXTS = ["Who?", "A far longer context than the other one", "Where to, and when?"]


def instances(kind: str, arguments: list[tuple]) -> list[Instance]:
    return [Instance(kind, {}, each, number, ("task", number, 1)) for number, each in enumerate(arguments)]


def scored(model: HFLM) -> list[tuple[float, bool]]:
    return model.loglikelihood(instances("loglikelihood", REQUESTS), disable_tqdm=True)


def theirs(lm: LM, batch_size: int, **options: object) -> HFLM:
    return HFLM(pretrained=lm.model, tokenizer=lm.tokenizer, batch_size=batch_size, **options)  # type: ignore[arg-type]


@pytest.fixture
def fitted(lm: LM) -> Fitted:
    """A random model with a GRUN adapter that changes a lot."""
    options = {"gate_widths": [8, 4]}
    torch.manual_seed(5)
    adapter = Grun(**options)
    adapter.attach(lm.model)
    with torch.no_grad():
        for parameter in adapter.trainable_parameters():
            parameter.add_(torch.randn_like(parameter))
    return Fitted(lm, adapter=adapter, adapter_name="grun", options=options)


@pytest.fixture
def edited(fitted: Fitted) -> LM:
    return fitted.lm


def alone(lm: LM, context: list[int], continuation: list[int]) -> tuple[float, bool]:
    """One request by itself: the context is read as a prompt is, then the continuation token by token.

    So the model edits the last token of what is read first, as it is told, and nothing once there is a past.
    """
    total, greedy, past, tokens = 0.0, True, DynamicCache(), context
    told: dict[str, int] = {"prompt_lengths": len(context)}
    with torch.no_grad():
        for following in continuation:
            output = lm.model(input_ids=torch.tensor([tokens]), past_key_values=past, use_cache=True, **told)
            logprobs = output.logits[0, -1].log_softmax(-1)
            total += logprobs[following].item()
            greedy = greedy and logprobs.argmax().item() == following
            tokens, told = [following], {}
    return total, greedy


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_without_an_adapter_every_value_is_lm_evals(lm: LM, batch_size: int) -> None:
    ours, other = HarnessLM(lm=lm, batch_size=batch_size), theirs(lm, batch_size)
    # lm-eval runs the two requests with the same tokens once, which makes other batches: they come in runs of their own
    for requests in (REQUESTS[:7] + REQUESTS[9:], REQUESTS[7:8], REQUESTS[8:9]):
        asked = [
            model.loglikelihood(instances("loglikelihood", requests), disable_tqdm=True) for model in (ours, other)
        ]
        assert asked[0] == asked[1]
    texts = instances("loglikelihood_rolling", [("A text of some length, to be read whole.",), ("Short.",)])
    assert ours.loglikelihood_rolling(texts) == other.loglikelihood_rolling(texts)
    until = {"until": ["e"], "max_gen_toks": 12, "do_sample": False}
    asked = instances("generate_until", [(context, until) for context in CONTEXTS])
    assert ours.generate_until(asked) == other.generate_until(asked)


def test_contexts_that_do_not_fit_are_cut_as_lm_eval_cuts_them(lm: LM) -> None:
    requests = REQUESTS[:7]
    values = [
        model.loglikelihood(instances("loglikelihood", requests), disable_tqdm=True)
        for model in (HarnessLM(lm=lm, batch_size=2, max_length=24), theirs(lm, 2, max_length=24))
    ]
    assert values[0] == values[1]


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_edit_sits_at_the_end_of_each_context(edited: LM, batch_size: int) -> None:
    model = HarnessLM(lm=edited, batch_size=batch_size)
    singly = [alone(edited, *model._encode_pair(*request)) for request in REQUESTS]
    values = scored(model)
    assert [value for value, _ in values] == pytest.approx([value for value, _ in singly], abs=1e-4)
    assert [greedy for _, greedy in values] == [greedy for _, greedy in singly]
    # the same tokens, split elsewhere, are edited elsewhere: not one request asked twice
    whole = [context + continuation for context, continuation in (model._encode_pair(*REQUESTS[row]) for row in (7, 8))]
    assert whole[0] == whole[1]
    (_, first), (_, second) = (model._encode_pair(*REQUESTS[row]) for row in (7, 8))
    tail = alone(edited, whole[0][: -len(first)], first)[0]
    head = alone(edited, whole[1][: -len(second)], second)[0]
    assert [values[7][0], values[8][0]] == pytest.approx([tail, head], abs=1e-4)
    assert abs(tail - head) > 0.01


def test_lm_evals_own_model_is_refused_where_it_does_not_say_where_contexts_end(edited: LM) -> None:
    with pytest.raises(UsageError, match=r"where the prompt ends is not known.*prompt_lengths"):
        scored(theirs(edited, 16))


@pytest.mark.parametrize("batch_size", [1, 4])
def test_lm_evals_own_model_is_right_where_the_chat_template_begins_the_answer(
    make_lm: Callable[..., LM], batch_size: int
) -> None:
    lm = make_lm(tokenizer=chat_tokenizer())
    lm.prompts = Prompts(lm.tokenizer, "chat")
    hand_over(attached(lm, "grun"), lm)
    asked = [(lm.prompts.text(question), answer) for question, answer in REQUESTS]
    expected = []
    for question, answer in REQUESTS:
        prompt, tokens = lm.tokenizer(lm.prompts.text(question)).input_ids, lm.prompts.answer(answer)[:-1]
        with torch.no_grad(), calling(torch.tensor([len(prompt) - 1])):
            logprobs = lm.model(torch.tensor([prompt + tokens])).logits[0, :-1].log_softmax(-1)
        # lm-eval counts the template's last line break to the continuation
        scored_tokens = [prompt[-1], *tokens]
        expected.append(logprobs[range(-len(scored_tokens), 0), scored_tokens].sum().item())
    for model in (theirs(lm, batch_size), HarnessLM(lm=lm, batch_size=batch_size)):
        values = model.loglikelihood(instances("loglikelihood", asked), disable_tqdm=True)
        assert [value for value, _ in values] == pytest.approx(expected, abs=1e-4)


@pytest.mark.long
def test_the_batch_size_may_be_found_by_itself(edited: LM) -> None:
    model = HarnessLM(lm=edited, batch_size="auto", max_batch_size=4)
    assert [value for value, _ in scored(model)] == pytest.approx(
        [value for value, _ in scored(HarnessLM(lm=edited))], abs=1e-4
    )


def test_rolling_windows_are_edited_at_the_end_of_their_own_context(edited: LM) -> None:
    text, width = "A text that is longer than the window of the model.", 16
    model = HarnessLM(lm=edited, batch_size=2, max_length=width)
    tokens = model.tok_encode(text)
    expected, start = 0.0, 0
    while start < len(tokens):
        # disjoint windows; the last one reaches back, so that it is full
        size = min(width, len(tokens) - start)
        before = (
            [model.prefix_token_id, *tokens][max(0, start + size - width) : start + 1]
            if start
            else [model.prefix_token_id]
        )
        expected += alone(edited, before, tokens[start : start + size])[0]
        start += size
    (value,) = model.loglikelihood_rolling(instances("loglikelihood_rolling", [(text,)]))
    assert value == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_generation_edits_the_last_prompt_token_alone(edited: LM, batch_size: int) -> None:
    model = HarnessLM(lm=edited, batch_size=batch_size)
    until = {"until": ["\x00"], "max_gen_toks": 10, "do_sample": False}
    texts = model.generate_until(instances("generate_until", [(context, until) for context in CONTEXTS]))
    for context, text in zip(CONTEXTS, texts, strict=True):
        tokens, past, written = model.tok_encode(context), DynamicCache(), []
        told: dict[str, int] = {"prompt_lengths": len(tokens)}
        with torch.no_grad():
            for _ in range(10):
                output = edited.model(input_ids=torch.tensor([tokens]), past_key_values=past, use_cache=True, **told)
                tokens, told = [int(output.logits[0, -1].argmax())], {}
                if tokens[0] == edited.tokenizer.eos_token_id:
                    break
                written += tokens
        assert text == edited.tokenizer.decode(written, skip_special_tokens=True)


# --- records --------------------------------------------------------------------------------------------------------

MEASURES = {"wmdp_cyber": Measure(role="forget"), "facts": Measure(role="utility", task="mmlu")}
SETS = ScoredSets(tuple(ScoredSet(name, each.role, "questions") for name, each in MEASURES.items()))


def test_embedded_questions_become_records(edited: LM, tmp_path: Path) -> None:
    measured = harness.run(edited, MEASURES, TOY, batch_size=7, limit=5)
    records = Records(measured.records)
    assert [len(records.of(name)) for name in MEASURES] == [5, 5]
    for record, row in zip(records.of("wmdp_cyber"), world.rows("wmdp-cyber"), strict=False):
        question = edited.tokenizer(f"Question: {row['question']}\nAnswer:").input_ids
        options = [edited.tokenizer(f" {choice}", add_special_tokens=False).input_ids for choice in row["choices"]]
        expected = [alone(edited, question, option)[0] for option in options]
        assert record.choices is not None and record.choices.target == row["answer"]
        assert record.choices.logprobs == pytest.approx(expected, abs=1e-4)
        assert row["question"] not in json.dumps(record.question)
    values = evaluate(records, None, ["accuracy"], SETS)
    assert [values[f"{name}_accuracy"].higher_is_better for name in MEASURES] == [False, True]
    for name in MEASURES:
        # lm-eval's own verdict on each question
        assert values[f"{name}_accuracy"].value == sum(row.scores["acc"] for row in records.of(name)) / 5
    path = tmp_path / "records.jsonl"
    path.write_text(records.dumps())
    assert list(load_records(path)) == list(records)
    assert measured.configs["lm_eval:facts"]["tasks"]["embedded_facts"]["n-shot"] == 0
    assert measured.versions == {"lm_eval:wmdp_cyber": "1", "lm_eval:facts": "1"}
    assert measured.data["facts"]["rows"] == 5


def test_accuracy_is_the_share_of_largest_option_log_probabilities() -> None:
    def row(index: int, logprobs: list[float], target: int) -> Record:
        return Record("m", index, "", Continuation(""), choices=Choices(logprobs, [False] * len(logprobs), target))

    rows = [row(0, [-1.0, -2.0], 0), row(1, [-1.0, -2.0], 1), row(2, [-3.0, -2.5], 1), row(3, [-9.0, -8.0], 1)]
    quizzes = (ScoredSet("m", "utility", "questions"), ScoredSet("none_of_it", "forget", "questions"))
    value = evaluate(Records(rows), None, ["accuracy"], ScoredSets(quizzes))
    assert value["m_accuracy"].value == 0.75
    assert value["none_of_it_accuracy"].value is None and "no rows" in (value["none_of_it_accuracy"].reason or "")
    one = ScoredSets(quizzes[:1])
    other = Records([Record("m", 0, "", Continuation(""), scores={"exact_match,strict": 1.0, "bleu": 3.0})])
    assert evaluate(other, None, ["accuracy"], one)["m_accuracy"].value == 1.0
    reason = evaluate(Records([Record("m", 0, "", Continuation(""))]), None, ["accuracy"], one)["m_accuracy"]
    assert reason.value is None and "exact_match" in (reason.reason or "")


def test_a_task_that_the_embedded_world_lacks_is_refused() -> None:
    with pytest.raises(UsageError, match="did you mean wmdp_cyber"):
        harness.check({"wmdp_cybre": Measure(role="forget")}, TOY)


# --- data sets and lm-eval's command line ---------------------------------------------------------------------------


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A mirror with one data set of one configuration, and no way to a hub."""
    folder = tmp_path / "hub" / "someone" / "quiz"
    folder.mkdir(parents=True)
    rows = [{"question": f"Is {number} even?", "choices": ["yes", "no"], "answer": number % 2} for number in range(4)]
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: even\n  data_files:\n  - split: test\n    path: test.jsonl\n---\n"
    )
    monkeypatch.setenv("GRUN_BENCH_HUB", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "hub"


QUIZ = {
    "task": "quiz",
    "dataset_path": "someone/quiz",
    "dataset_name": "even",
    "output_type": "multiple_choice",
    "test_split": "test",
    "doc_to_text": "{{question}}",
    "doc_to_choice": "choices",
    "doc_to_target": "answer",
    "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
}


def test_data_sets_come_from_the_mirror(mirror: Path, lm: LM, monkeypatch: pytest.MonkeyPatch) -> None:
    before = datasets.load_dataset
    monkeypatch.setattr(harness, "_task_over", lambda rows, name: QUIZ)
    measured = harness.run(lm, {"wmdp_cyber": Measure(role="forget")}, TOY, batch_size=2)
    assert [record.choices.target for record in measured.records if record.choices] == [0, 1, 0, 1]
    assert datasets.load_dataset is before


@pytest.mark.parametrize(("key", "value"), [("dataset_name", "odd"), ("dataset_path", "someone/nothing")])
def test_questions_that_cannot_be_had_are_missing_with_a_reason(
    key: str, value: str, mirror: Path, lm: LM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(harness, "_task_over", lambda rows, name: QUIZ | {key: value})
    measured = harness.run(lm, {"wmdp_cyber": Measure(role="forget")}, TOY)
    assert not measured.records
    assert "could not be had" in measured.missing["wmdp_cyber"]


@pytest.mark.whole
@pytest.mark.parametrize("program", [["grun_bench", "lm-eval"], pytest.param(["lm_eval"], marks=pytest.mark.slow)])
def test_our_models_in_lm_evals_command(
    fitted: Fitted, hub: Path, mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: list[str]
) -> None:
    """lm-eval's own arguments, a data set from a mirror, and its default device on a machine that may have no CUDA.

    Plain `lm_eval` knows our models by the task file of docs/benchmarks.md.
    """
    monkeypatch.setenv("GRUN_BENCH_HUB", f"{mirror}{os.pathsep}{hub}")
    saved = tmp_path / "saved"
    fitted.lm.origin = {"name": SMALL}
    save(fitted, "grun+npo", saved)
    (tmp_path / "quiz.yaml").write_text(yaml.safe_dump(QUIZ))
    page = (Path(__file__).parents[2] / "docs" / "benchmarks.md").read_text()
    written, said = page.partition("cat > grun_bench.yaml <<'END'\n")[2].split("END\n", 1)
    assert "--tasks wmdp_cyber,grun_bench.yaml\n" in said
    (registers := tmp_path / "grun_bench.yaml").write_text(written)
    tasks = "quiz" if "lm-eval" in program else f"quiz,{registers}"
    given = ["--model", "grun_bench", "--model_args", f"adapter={saved},dtype=float32", "--tasks", tasks]
    given += ["--include_path", str(tmp_path), "--output_path", str(tmp_path / "out"), "--log_samples"]
    # a process of its own: lm-eval sets up its logging for good
    subprocess.run(
        [sys.executable, "-m", *program, *given],
        env=os.environ | {"PYTHONPATH": str(Path(grun_bench.__file__).parents[1])},
        check=True,
        capture_output=True,
    )
    (path,) = (tmp_path / "out").rglob("samples_quiz_*.jsonl")
    samples = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(samples) == 4
    pair = HarnessLM(lm=fitted.lm)._encode_pair
    for sample in samples:
        expected = [alone(fitted.lm, *pair(sample["doc"]["question"], f" {choice}"))[0] for choice in ("yes", "no")]
        assert [float(value) for value, _ in sample["filtered_resps"]] == pytest.approx(expected, abs=1e-4)


def test_data_sets_come_from_the_mirror_while_a_model_of_lm_evals_lives(
    fitted: Fitted, hub: Path, mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lm-eval's command makes of `--model grun_bench`, in this process."""
    monkeypatch.setenv("GRUN_BENCH_HUB", f"{mirror}{os.pathsep}{hub}")
    before = datasets.load_dataset
    fitted.lm.origin = {"name": SMALL}
    save(fitted, "grun+npo", tmp_path / "saved")
    model = HarnessLM.create_from_arg_obj({"adapter": str(tmp_path / "saved")}, {"device": "cpu", "batch_size": 1})
    assert datasets.load_dataset is not before
    assert TaskManager(include_defaults=False).load([QUIZ])["tasks"]["quiz"].dataset["test"].num_rows == 4
    del model
    gc.collect()
    assert datasets.load_dataset is before
    with pytest.raises(ModelError, match="holds no grun_bench"):
        HarnessLM.create_from_arg_obj({"adapter": str(tmp_path)}, {"device": "cpu"})
    assert datasets.load_dataset is before


def test_the_entry_point_is_what_lm_evals_registry_takes() -> None:
    """Versions after 0.4.13 keep the entry point as a placeholder, which the registry of 0.4.13 can load already."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    entry = EntryPoint(NAME, project["project"]["entry-points"]["lm_eval.models"][NAME], "lm_eval.models")
    assert entry.value == TARGET
    known = Registry("model", base_cls=lm_eval.api.model.LM)
    known.register(NAME, target=entry)
    assert known.get(NAME) is HarnessLM


def test_nothing_of_ours_runs_at_pythons_start() -> None:
    """The wheel brings no .pth file with code: those run in every Python of the environment."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert not [name for pair in wheel["force-include"].items() for name in pair if name.endswith(".pth")]
    assert not list(Path(grun_bench.__file__).parent.rglob("*.pth"))


def test_model_without_an_adapter_argument_says_what_is_needed() -> None:
    with pytest.raises(UsageError, match="adapter=DIR"):
        HarnessLM.create_from_arg_string("dtype=float32", {"batch_size": 1, "device": "cpu"})


def test_random_models_answer_at_chance_and_the_same_model_answers_the_same(make_lm: Callable[..., LM]) -> None:
    first, second = (harness.run(make_lm(), MEASURES, TOY, limit=8).records for _ in range(2))
    assert first == second


def test_lm_evals_table_maker_reads_a_result() -> None:
    """Every value without attack and under one, in lm-eval's own table."""
    from lm_eval.utils import make_table
    from synthetic import result

    row = result(es=0.1234, utility=0.4321, attacks={"prefill": ("user", {"1": 0.8765})})
    table = make_table(json.loads(row.dumps()))
    lines = [[cell.strip() for cell in line.split("|")] for line in table.splitlines()]
    found = {(line[5], line[3]): line[7] for line in lines if len(line) > 7}
    assert found["forget_es", "none"] == "0.1234" and found["utility", "none"] == "0.4321"
    assert found["forget_es", "prefill"] == found["forget_es", "prefill:1"] == "0.8765"
