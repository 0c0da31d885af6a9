"""Unlearned models come back from their folder with the same logits, to the bit, and nothing else is taken for one."""

from __future__ import annotations

import json
import pickle
import resource
import shutil
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import torch
from attaching import logits_of, saved
from conftest import FORGET, RETAIN, SMALL, Said
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

import grun_bench
from grun_bench.core.errors import GrunBenchError, ModelError, UsageError
from grun_bench.methods.base import FitContext, Fitted
from grun_bench.methods.make import make_unlearner
from grun_bench.methods.saving import CARD, check_new, read_card, save
from grun_bench.models.forward import decoder_layers
from grun_bench.models.lm import LM
from grun_bench.models.loading import Placement
from grun_bench.models.loading import load as load_base
from grun_bench.runs.config import RunConfig
from grun_bench.runs.run import run
from grun_bench.tasks.world import PUBLISHED

pytestmark = pytest.mark.whole

Command = Callable[..., Said]


@pytest.fixture
def keep(environment: Path, hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Tensor]:
    """Runs an unlearner with --save; returns the logits that the model had when it was saved."""
    from grun_bench.runs import row

    real, seen = row.save, []

    def noting(fitted: object, *rest: object) -> None:
        seen.append(logits_of(fitted.lm))
        real(fitted, *rest)

    monkeypatch.setattr(row, "save", noting)

    def kept(unlearner: str, folder: Path, **changes: float) -> Tensor:
        settings = {"epochs": 2} | changes if "+" in unlearner else {}
        config = RunConfig(unlearner, str(hub / "small.yaml"), tmp_path / "results", model=SMALL, overrides=settings)
        run(RunConfig(**{**vars(config), "save": folder}))
        return seen[-1]

    return kept


@pytest.mark.parametrize("unlearner", ["grun+npo", "reft+gd", "lora+gd", "full+ga", "none", "guard"])
def test_the_same_logits_to_the_bit(keep: Callable[..., Tensor], tmp_path: Path, unlearner: str) -> None:
    folder = tmp_path / "model"
    expected = keep(unlearner, folder)
    assert torch.equal(logits_of(grun_bench.load(folder)), expected)
    # nothing but safetensors and text is written, and nothing is left beside it
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".md", ".jinja", ".yaml"}
    assert not list(tmp_path.glob("*.part"))


def test_a_base_that_is_a_folder_is_found_from_anywhere(
    environment: Path, hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when both folders have moved; and another one in its place is refused."""
    monkeypatch.delenv("GRUN_BENCH_HUB")
    shutil.copytree(hub / SMALL, tmp_path / "mine" / "model")
    lm = load_base(str(tmp_path / "mine" / "model"), Placement("cpu", "float32"))
    saved(lm, tmp_path / "mine" / "unlearned", "grun")
    expected = logits_of(lm)
    (tmp_path / "mine").rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path / "moved" / "model")
    assert torch.equal(logits_of(grun_bench.load(tmp_path / "moved" / "unlearned")), expected)
    config = tmp_path / "moved" / "model" / "config.json"
    config.write_text(config.read_text() + " ")
    with pytest.raises(ModelError, match="is not the model that the adapter was trained on"):
        grun_bench.load(tmp_path / "moved" / "unlearned")


def test_a_saved_folder_that_was_moved_finds_its_base_by_the_note(
    environment: Path, hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which lay beside it; without the note it is said what it was, and the Hub is not asked for a folder's name."""
    monkeypatch.setenv("GRUN_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("GRUN_BENCH_HUB")
    shutil.copytree(hub / SMALL, tmp_path / "try" / "model")
    lm = load_base(str(tmp_path / "try" / "model"), Placement("cpu", "float32"))
    saved(lm, tmp_path / "try" / "unlearned", "grun")
    shutil.copytree(tmp_path / "try" / "unlearned", tmp_path / "far" / "away" / "unlearned")
    assert torch.equal(logits_of(grun_bench.load(tmp_path / "far" / "away" / "unlearned")), logits_of(lm))
    shutil.rmtree(tmp_path / "cache")
    with pytest.raises(ModelError, match=r"(?s)model try/model: not found from here\..*base=FOLDER") as raised:
        grun_bench.load(tmp_path / "far" / "away" / "unlearned")
    assert "could not be loaded" not in str(raised.value)


def test_a_noted_folder_with_another_model_is_passed_over(
    environment: Path, hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The base has moved to a mirror, and something else lies where it was; without the mirror both are told."""
    monkeypatch.setenv("GRUN_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("GRUN_BENCH_HUB")
    old, kept = tmp_path / "old" / "mine" / "model", tmp_path / "here" / "unlearned"
    shutil.copytree(hub / SMALL, old)
    lm = load_base(str(old), Placement("cpu", "float32"))
    saved(lm, kept, "grun", layers=[2, 4])
    expected = logits_of(lm)
    assert torch.equal(logits_of(grun_bench.load(kept)), expected)
    shutil.copytree(old, tmp_path / "mirror" / "mine" / "model")
    for content in ((old / "config.json").read_text() + " ", "{}"):  # another, and none
        (old / "config.json").write_text(content)
        with pytest.raises(ModelError, match=f"(?s){old}.*Say where it is"):
            grun_bench.load(kept)
        with monkeypatch.context() as patch:
            patch.setenv("GRUN_BENCH_HUB", str(tmp_path / "mirror"))
            assert torch.equal(logits_of(grun_bench.load(kept)), expected)


def test_an_adapter_is_small_and_lora_is_pefts_own(
    keep: Callable[..., Tensor], environment: Path, tmp_path: Path
) -> None:
    from peft import PeftModel

    expected = keep("lora+gd", tmp_path / "lora")
    card = json.loads((tmp_path / "lora" / CARD).read_text())
    base = AutoModelForCausalLM.from_pretrained(environment / card["base"]["cache"])
    lm = grun_bench.load(tmp_path / "lora")
    lm.model = PeftModel.from_pretrained(base, tmp_path / "lora").eval()
    assert torch.equal(logits_of(lm), expected)
    assert not list((tmp_path / "lora").glob("model*.safetensors"))


def test_a_base_of_another_precision_can_be_given(
    keep: Callable[..., Tensor], environment: Path, tmp_path: Path
) -> None:
    expected = keep("grun+gd", tmp_path / "grun")
    card = json.loads((tmp_path / "grun" / CARD).read_text())
    base = load_base(str(environment / card["base"]["cache"]), Placement("cpu", "bfloat16"))
    found = logits_of(grun_bench.load(tmp_path / "grun", base=base))
    assert base.model.dtype == torch.bfloat16
    # bfloat16 keeps eight bits: near the fp32 logits, and far from those of the base without its adapter
    plain = logits_of(load_base(str(environment / card["base"]["cache"]), Placement("cpu", "bfloat16")))
    error = (found.float() - expected).norm() / expected.norm()
    assert 0 < error < 0.05 < (plain.float() - expected).norm() / expected.norm()


@pytest.mark.parametrize("unlearner", ["grun+gd", "reft+gd", "lora+gd", "guard"])
def test_a_quantised_base_can_be_given(
    keep: Callable[..., Tensor], environment: Path, tmp_path: Path, unlearner: str
) -> None:
    """bitsandbytes' own 8-bit layers under a saved adapter: near the logits of the base that it was trained on."""
    layers = pytest.importorskip("bitsandbytes.nn", reason="the extra `quantisation` is not installed")
    expected = keep(unlearner, tmp_path / "model", lr=0.03)
    card = json.loads((tmp_path / "model" / CARD).read_text())

    def quantised() -> LM:
        lm = load_base(str(environment / card["base"]["cache"]), Placement("cpu", "float32"))
        for block in decoder_layers(lm.model):
            for part in (block.self_attn, block.mlp):
                for name, linear in list(part.named_children()):
                    if isinstance(linear, nn.Linear):
                        layer = layers.Linear8bitLt(*linear.weight.T.shape, bias=False, has_fp16_weights=False)
                        layer.load_state_dict({"weight": linear.weight.detach().clone()})
                        setattr(part, name, layer.to("cpu"))
        return lm

    plain, lm = quantised(), grun_bench.load(tmp_path / "model", base=quantised())
    # the base is in 8 bits, the adapter is not
    dtypes = [parameter.dtype for name, parameter in lm.model.named_parameters() if "_proj" in name]
    assert dtypes.count(torch.int8) == 6 * 7 and {*dtypes} <= {torch.int8, torch.float32}
    error = (logits_of(lm) - expected).norm() / expected.norm()
    with pytest.raises(UsageError, match=r"push_to_hub|quantised"):
        lm.model.save_pretrained(tmp_path / "plain")
    assert 0 < error < 0.1 < (logits_of(plain) - expected).norm() / expected.norm()


def test_another_row_and_something_else_are_left_alone(
    keep: Callable[..., Tensor], command: Command, small_run: list[str], tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    first = keep("grun+gd", folder)
    with pytest.raises(UsageError, match=r"another row \(grun\+gd, run "):
        keep("grun+npo", folder)
    assert torch.equal(logits_of(grun_bench.load(folder)), first)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("mine")
    said = command(*small_run, "--unlearner", "grun+gd", "--output", tmp_path, "--save", tmp_path / "thesis")
    assert said.code == 2 and "something else" in said.err
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "mine"


@pytest.mark.parametrize("option", ["--model", "--target", "--retain"])
@pytest.mark.parametrize("adapter", ["grun", "lora"])
def test_a_saved_adapter_is_no_model_to_run(
    make_lm: Callable[..., LM], hub: Path, tmp_path: Path, command: Command, adapter: str, option: str
) -> None:
    """The line says what it is an adapter of, and what takes it."""
    settings = {"layers": [2, 4]} if adapter == "grun" else {}
    context = FitContext(FORGET, RETAIN, make_lm, make_lm, 0)
    fitted = make_unlearner(f"{adapter}+npo", {"epochs": 1, **settings}, PUBLISHED).fit(context)
    save(fitted, f"{adapter}+npo", tmp_path / "model", "0123-seed0")
    other = [] if option == "--model" else ["--model", SMALL]
    task = ["--task", hub / "small.yaml", "--output", tmp_path / "results"]
    said = command("run", "--unlearner", "none", *task, *other, option, tmp_path / "model")
    assert said.code == 2 and said.err.startswith("error: ") and said.err.count("\n") == 1
    folder = str(tmp_path / "model")
    for part in (
        f"the {adapter} adapter of {adapter}+npo on ",
        "grun_bench.load(",
        f"attack 0123-seed0 --saved {folder}",
    ):
        assert part in said.err


@pytest.mark.parametrize("folder", [".", "..", "link", "dangling", "results", "file/model", "n" * 256])
def test_what_cannot_be_saved_is_told_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    """Also where the folder is empty, so that nothing would be lost."""
    (tmp_path / "here").mkdir()
    (tmp_path / "real").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    Path("results").mkdir()
    Path("file").write_text("")
    Path("link").symlink_to(tmp_path / "real")
    Path("dangling").symlink_to(tmp_path / "nothing")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UsageError, match="Choose another folder"):
        check_new(Path(folder), Path("results"))
    assert sorted(tmp_path.rglob("*")) == before
    check_new(Path("model"), Path("results"))
    check_new(tmp_path / "real", Path("results"))


def test_a_model_too_large_for_its_disk_is_an_error_that_leaves_the_earlier_one(lm: LM, tmp_path: Path) -> None:
    """safetensors has an error of its own where no more can be written."""
    save(Fitted(lm), "full+ga", tmp_path / "model")
    before = (tmp_path / "model" / "model.safetensors").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(GrunBenchError, match="could not be saved"):
            save(Fitted(lm), "full+npo", tmp_path / "model")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert read_card(tmp_path / "model").unlearner == "full+ga"
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_the_command_saves_what_was_run_before(
    command: Command, small_run: list[str], results: Path, tmp_path: Path
) -> None:
    """A second run with --save reuses no row of the unlearner: a row has no weights."""
    options = [*small_run, "--unlearner", "grun+npo", "--output", tmp_path / "results"]
    assert command(*options).code == 0
    said = command(*options, "--save", tmp_path / "model")
    assert said.code == 0 and f"grun_bench.load('{tmp_path / 'model'}')" in said.out
    assert grun_bench.load(tmp_path / "model")
    # and the model of another row is not lost; that of the same one may be made again
    before = (tmp_path / "model" / "grun_bench.json").read_bytes()
    for more in (["--dry-run"], []):
        other = command(*options, "--seed", "1", *more, "--save", tmp_path / "model")
        assert other.code == 2 and "grun+npo, run" in other.err and "Choose another folder" in other.err
    assert (tmp_path / "model" / "grun_bench.json").read_bytes() == before
    assert command(*options, "--overwrite", "--save", tmp_path / "model").code == 0


# --- as any model of transformers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("unlearner", ["grun+gd", "reft+gd"])
def test_a_model_does_not_leave_without_what_it_unlearned(
    keep: Callable[..., Tensor], tmp_path: Path, unlearner: str, make_lm: Callable[..., LM]
) -> None:
    expected = keep(unlearner, tmp_path / "model", lr=0.03)
    lm = grun_bench.load(tmp_path / "model")
    for leave in (lm.model.save_pretrained, lm.model.push_to_hub):
        with pytest.raises(UsageError, match=r"grun_bench.push_to_hub\(DIR, NAME\)"):
            leave(tmp_path / "plain")
    assert not (tmp_path / "plain").exists()
    # its weights are taken for no other model's
    state = {name: tensor.clone() for name, tensor in lm.model.state_dict().items()}
    with pytest.raises(RuntimeError, match="edits_beside_the_model"):
        make_lm().model.load_state_dict(state)
    for tensor in lm.model.state_dict().values():
        tensor.zero_()
    assert not torch.equal(logits_of(lm), expected)
    lm.model.load_state_dict(state)
    # a rotation's parameters are found from the rotation: equal up to rounding
    torch.testing.assert_close(logits_of(lm), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("unlearner", ["lora+gd", "full+gd"])
def test_what_is_in_the_weights_is_written_as_a_plain_model(
    keep: Callable[..., Tensor], tmp_path: Path, unlearner: str
) -> None:
    expected = keep(unlearner, tmp_path / "model", lr=0.03)
    lm = grun_bench.load(tmp_path / "model")
    for _ in range(2):
        lm.model.save_pretrained(tmp_path / "plain")
        assert torch.equal(logits_of(lm), expected)
    lm.model = AutoModelForCausalLM.from_pretrained(tmp_path / "plain")
    torch.testing.assert_close(logits_of(lm), expected, atol=1e-4, rtol=1e-4)


def test_a_kept_model_is_refused_as_a_loaded_one(hub: Path, environment: Path, tmp_path: Path) -> None:
    kept = grun_bench.run("grun+gd", hub / "small.yaml", model=SMALL, output=tmp_path, keep_model=True, epochs=1)
    with pytest.raises(UsageError, match="run --save DIR"):
        kept.model.model.save_pretrained(tmp_path / "plain")


def test_another_base_is_refused(keep: Callable[..., Tensor], environment: Path, tmp_path: Path) -> None:
    keep("grun+gd", tmp_path / "model")
    path = tmp_path / "model" / CARD
    card = json.loads(path.read_text())
    path.write_text(json.dumps(card | {"base": card["base"] | {"sha256": "0" * 64}}))
    with pytest.raises(ModelError, match="not the model that the adapter was trained on"):
        grun_bench.load(tmp_path / "model")
    path.write_text(json.dumps(card | {"base": card["base"] | {"cache": "models/gone"}}))
    with pytest.raises(ModelError, match="GRUN_BENCH_CACHE"):
        grun_bench.load(tmp_path / "model")


def test_a_pickle_is_refused_by_its_content(keep: Callable[..., Tensor], tmp_path: Path) -> None:
    for unlearner, name in (("grun+gd", "adapter.safetensors"), ("lora+gd", "adapter_model.safetensors")):
        keep(unlearner, tmp_path / unlearner)
        (tmp_path / unlearner / name).write_bytes(pickle.dumps({"weight": [1.0]}))
        with pytest.raises(ModelError, match="not a safetensors file"):
            grun_bench.load(tmp_path / unlearner)


def of_base(**base: object) -> str:
    """The file of a saved model whose base says this of itself."""
    kinds = {"unlearner": "grun+npo", "adapter": "grun", "options": {}, "prompts": "qa"}
    return json.dumps(kinds | {"base": {"name": "tiny"} | base})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "grun-bench run --save"),
        ("{}", "unlearner"),
        ("[", "file"),
        ('{"adapter": 1}', "unlearner"),
        (of_base(sha256=4), "base: .*sha256 is no text"),
        (of_base(cache=3), "base: .*cache is no text"),
        (of_base(folder=""), "base: .*folder is no text"),
        (of_base(trained_without="x"), "no forget set x"),
    ],
)
def test_what_is_no_saved_model_is_refused(tmp_path: Path, text: str | None, said: str) -> None:
    if text is not None:
        (tmp_path / CARD).write_text(text)
    with pytest.raises(ModelError, match=said):
        grun_bench.load(tmp_path)


# --- the Hub ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def pushable(tmp_path: Path) -> Path:
    """A folder that says it is a saved model, as far as pushing looks at it."""
    (tmp_path / CARD).write_text(of_base())
    return tmp_path


class Refusing(BaseHTTPRequestHandler):
    """A Hub that knows nobody."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_error(401)

    def log_message(self, *args: object) -> None:
        pass


def test_what_the_hub_refuses_is_told_in_a_line_that_says_what_to_do(
    pushable: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pushed(repository: str = "org/name") -> GrunBenchError:
        with pytest.raises(GrunBenchError) as refused:
            grun_bench.push_to_hub(pushable, repository)
        assert "\n" not in str(refused.value)
        return refused.value

    monkeypatch.setenv("HF_TOKEN", "hf_nobody")
    # tests are offline, and a client that was loaded so would not ask
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        Thread(target=server.serve_forever, daemon=True).start()
        refused = pushed()
        server.shutdown()
    assert "could not be pushed to org/name" in str(refused) and "hf auth login" in str(refused)
    assert "401" in str(refused)
    assert refused.exit_code == 1
    # now nobody is there
    assert "could not be pushed to org/name" in str(pushed())
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "could not be pushed to org/name" in str(pushed())
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.invalid")
    assert "the Hub's name cannot be resolved" in str(away := pushed()) and "HF_HUB_OFFLINE" not in str(away)
    odd = pushed("bad name!!/x")
    assert isinstance(odd, UsageError) and str(odd).startswith("bad name!!/x: no name on the Hub")
