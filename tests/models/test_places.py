"""What tells models apart: a folder's files, and for models of the Hub the commit, which a revision chooses."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import huggingface_hub.constants
import pytest
import transformers.utils.hub
from conftest import SMALL, Command

from grun_bench.core.errors import GrunBenchError, ModelError
from grun_bench.models.lm import LM
from grun_bench.models.loading import Placement, load
from grun_bench.models.places import content_of, identity, other_content
from grun_bench.rerun import Rerunner
from grun_bench.results.result import Result

MOVING = "org/moving"
OLD, NEW = "a" * 40, "b" * 40


@pytest.fixture
def publish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_lm: Callable[..., LM]) -> Callable[[str], None]:
    """Puts a model into a cache of the Hub as its newest commit, another one for every commit."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(transformers.utils.hub, "TRANSFORMERS_CACHE", str(tmp_path / "cache"), raising=False)
    repository = tmp_path / "cache" / "models--org--moving"

    def at(commit: str) -> None:
        lm = make_lm(seed=ord(commit[0]))
        for part in (lm.model, lm.tokenizer):
            part.save_pretrained(repository / "snapshots" / commit)
        (repository / "refs").mkdir(exist_ok=True)
        (repository / "refs" / "main").write_text(commit)

    return at


@pytest.fixture
def row(command: Command, hub: Path, tmp_path: Path) -> Callable[..., Result]:
    """The row of a run on the moving model."""

    def run(*arguments: str) -> Result:
        asked = ["--unlearner", "none", "--task", hub / "small.yaml", "--output", tmp_path / "results"]
        said = command("run", "--json", *asked, *arguments)
        assert said.code == 0, said.err
        return Result.model_validate_json(said.out)

    return run


@pytest.mark.whole
def test_a_model_that_moved_on_is_another_one(
    publish: Callable[[str], None], row: Callable[..., Result], hub: Path, tmp_path: Path
) -> None:
    publish(OLD)
    before = row("--model", MOVING)
    publish(NEW)
    after = row("--model", MOVING)
    assert (before.model, after.model) == (MOVING, MOVING)
    assert before.reference["names"] == [f"{MOVING}@{OLD}"] and after.reference["names"] == [f"{MOVING}@{NEW}"]
    assert before.run_id != after.run_id
    # what was fine-tuned from it is another one too
    assert before.target["cache"] != after.target["cache"]
    assert before.results != after.results
    # a revision chooses the one that was, by either way to say it
    assert row("--model", MOVING, "--revision", OLD) == before
    assert row("--model", f"{MOVING}@{OLD}") == before
    # and so does a row that is made again, even one that older versions filed without the commit
    again = Rerunner(tmp_path / "again", "cpu", (hub,))
    assert again.again(before, None).results == before.results
    older = before.model_copy(update={"reference": before.reference | {"names": [MOVING]}})
    assert again.again(older, None).results == after.results
    # of a folder with other content; one that is called so is another, and without one there is none
    folder = {"reference": before.reference | {"names": ["f" * 64]}}
    with pytest.raises(GrunBenchError, match="models here"):
        again.again(before.model_copy(update=folder | {"model": SMALL}), None)
    with pytest.raises(GrunBenchError, match="was a folder, and is not found from here"):
        again.again(before.model_copy(update=folder), None)


@pytest.mark.whole
def test_a_target_is_run_at_its_commit(publish: Callable[[str], None], row: Callable[..., Result]) -> None:
    publish(OLD)
    publish(NEW)
    old = row("--target", MOVING, "--revision", OLD)
    assert old.target == {"name": MOVING, "revision": OLD}
    assert row("--target", MOVING).target == {"name": MOVING, "revision": NEW}


@pytest.mark.long
def test_what_the_hub_does_not_have_is_one_error(publish: Callable[[str], None], hub: Path, command: Command) -> None:
    publish(NEW)
    with pytest.raises(ModelError, match=f"{MOVING}@{OLD} could not be loaded"):
        load(f"{MOVING}@{OLD}", Placement("cpu", "float32"))
    run = ("run", "--unlearner", "none", "--task", hub / "small.yaml", "--revision", NEW)
    for arguments, said in (([], "tiny has none"), (["--model", hub / "org" / "small"], "is a folder")):
        answer = command(*run, *arguments)
        assert answer.code == 2 and said in answer.err and answer.err.count("\n") == 1


@pytest.mark.parametrize(
    "name", ["chat_template.jinja", "merges.txt", "modeling_own.py", "additional_chat_templates/tool.jinja"]
)
def test_templates_merges_and_code_are_part_of_a_folders_content(hub: Path, tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(hub / "org" / "small", tmp_path / "model"))
    plain = identity(str(folder), folder)
    (folder / name).parent.mkdir(exist_ok=True)
    contents = {content_of(folder)}
    for text in ("one", "other"):
        (folder / name).write_text(text)
        contents.add(content_of(folder))
        # what older results say of a folder stays true of it
        assert not other_content(identity(str(folder), folder), plain)
        assert identity(str(folder), folder)["sha256"] == plain["sha256"]
    assert len(contents) == 3
    (folder / "README.md").write_text("About the model.")
    assert content_of(folder) in contents
    (folder / name).unlink()
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    assert content_of(folder) not in contents and other_content(identity(str(folder), folder), plain)
