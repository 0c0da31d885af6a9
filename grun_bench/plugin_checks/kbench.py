"""GRUN in K-Bench (OniReimu/kbench): whether its port of the method gives what ours gives.

Its port reads the folder of GRUN's official code, which `integrations.pyreft` writes, and knows the linear gate alone.
It edits the last token of every prompt, in hooks on the blocks of a plain model of transformers. It is run from a clone
that the user has; none of it is in this package.
"""

from __future__ import annotations

import importlib
import io
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from grun_bench.core.errors import GrunBenchError, Refused, UsageError
from grun_bench.integrations.pyreft import export_pyreft, import_pyreft
from grun_bench.methods.adapters.base import load_tensors
from grun_bench.methods.adapters.grun import Grun
from grun_bench.methods.adapters.reft import ADAPTER_FILE, Edit
from grun_bench.methods.base import Fitted
from grun_bench.methods.saving import load_fitted, read_card, save
from grun_bench.models.forward import calling, decoder_layers
from grun_bench.models.lm import LM
from grun_bench.models.loading import Placement
from grun_bench.plugin_checks.small_model import FORGET, RETAIN, small_lm

#: where K-Bench has its port, and the commit whose port this was held against
PORT, COMMIT = Path("chcons/methods/grun_adapter.py"), "665a829"
#: what leaves a model of plain transformers
WHOLE = "a whole model"
_IN_WEIGHTS = ("lora", "full", WHOLE)
_EXPORT = " What is in the weights needs no port: `grun-bench export DIR --to merged` writes a model for `kbench eval`."
#: makes what K-Bench has of the method, from `reft_path`, the folder
Port = Callable[..., Any]
#: how far two ways of computing a gate may be apart, and logits by the largest of them, in steps of their dtype
STEPS = 16
#: what stands behind each prompt in the passes that are compared, and what the agent is told between two generations
_ANSWER, _OBSERVED, _NEW_TOKENS = " In 1931, it says.", "\nObservation:\nnone\n", 8


@dataclass(frozen=True)
class Difference:
    """One check: the largest difference between ours and theirs, and the largest that is allowed.

    Of layers, edits elsewhere than at a prompt's last token, and generations it is how many.
    """

    what: str
    dtype: str
    largest: float
    allowed: float

    @property
    def ok(self) -> bool:
        """Never for a value that is not finite."""
        return self.largest <= self.allowed


@dataclass(frozen=True)
class Conformance:
    """All checks of one adapter. `commit` is that of the clone, None where git says none."""

    subject: str
    commit: str | None
    checks: list[Difference]

    @property
    def ok(self) -> bool:
        return all(each.ok for each in self.checks)


def conformance(subject: str, clone: Path) -> Conformance:
    """Hold `grun` on a small random Llama, or the model that `run --save` left in a folder, against K-Bench's port.

    Raises Refused for what the port has no form of, UsageError where the clone has no port, ModelError as
    `grun_bench.load` does, GrunBenchError where the port fails.
    """
    _refuse(*_asked(subject))
    with _port(clone) as port, tempfile.TemporaryDirectory(prefix="grun-bench-") as work:
        if Path(subject).is_dir():
            fitted = load_fitted(subject, Placement.choose("auto", "auto"))
            checks = _checks(fitted, Path(subject), port, Path(work))
        else:
            checks = []
            for dtype in (torch.float32, torch.bfloat16):
                place = Path(work) / str(dtype)
                folder = _random(place, dtype)
                fitted = load_fitted(folder, Placement.choose("cpu", "auto"), small_lm(dtype=dtype))
                checks += _checks(fitted, folder, port, place)
    return Conformance(subject, _commit(clone), checks)


# --- what there is ----------------------------------------------------------------------------------------------------


def _asked(subject: str) -> tuple[str, dict[str, Any], int]:
    """The adapter, its options, and how many requests it has in sequence. Raises ModelError for an empty folder."""
    if not Path(subject).is_dir():
        return subject, {"gate": "linear"}, 1
    saved = read_card(subject)
    requests = 1
    if saved.adapter == "grun":
        requests = len({name.split(".")[0] for name in load_tensors(Path(subject) / ADAPTER_FILE)})
    return saved.adapter or WHOLE, saved.options, requests


def _refuse(adapter: str, options: dict[str, Any], requests: int) -> None:
    """Raises Refused, with what to do, for what K-Bench's port of GRUN cannot carry."""
    said = f"K-Bench's port of GRUN cannot carry {adapter}: "
    if adapter in ("grun-held", "reft-held"):
        raise Refused(
            f"{said}it edits every token, behind gates that stay open; the port edits the last token of a prompt, and "
            "keeps nothing from one token to the next."
        )
    if adapter != "grun":
        raise Refused(f"{said}it has edits behind linear gates alone.{_EXPORT if adapter in _IN_WEIGHTS else ''}")
    if options["gate"] != "linear":
        raise Refused(f"{said}its gate is {options['gate']}, the port's is linear. Train with --set gate=linear.")
    if requests > 1:
        raise Refused(f"{said}it has {requests} requests in sequence, a module each; the port loads one folder.")


@contextmanager
def _port(clone: Path) -> Iterator[Port]:
    """The class of K-Bench's port, and its package importable in the block. Raises UsageError where there is none."""
    if not (clone / PORT).is_file():
        raise UsageError(
            f"--kbench {clone}: no {PORT} is there. `git clone https://github.com/OniReimu/kbench` has it at "
            f"commit {COMMIT}; give the folder of the clone."
        )
    package = PORT.parts[0]
    # another K-Bench may be installed
    before = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == package}
    sys.path.insert(0, str(clone.resolve()))
    try:
        yield _imported(clone)
    finally:
        sys.path.remove(str(clone.resolve()))
        for name in [name for name in sys.modules if name.split(".")[0] == package]:
            del sys.modules[name]
        sys.modules.update(before)


def _imported(clone: Path) -> Port:
    importlib.invalidate_caches()
    try:
        found: Port = importlib.import_module(".".join(PORT.with_suffix("").parts)).GRUNIntervention
    except Exception as error:  # a stranger's code, which may fail in any way
        said = f"{type(error).__name__}: {error}"
        raise UsageError(f"--kbench {clone}: {PORT} does not import ({said}); that of commit {COMMIT} does.") from None
    return found


def _commit(clone: Path) -> str | None:
    """The commit of a clone; None of a folder that is none."""
    if not (clone / ".git").exists():
        return None
    try:
        command = ["git", "-C", str(clone), "log", "-1", "--format=%h"]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or None
    except OSError:
        return None


def _random(work: Path, dtype: torch.dtype) -> Path:
    """A saved `grun` on the small model, drawn at random so that its edits are large and its gates anywhere."""
    lm, adapter = small_lm(dtype=dtype), Grun(gate="linear")
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(7)
        adapter.attach(lm.model)
        for edit in _edits(adapter).values():
            edit.source.weight.normal_(0, 0.5)
            edit.source.bias.normal_()
    options = {"rank": adapter.rank, "layers": list(adapter.layers), "gate": "linear"}
    folder = work / "saved"
    save(Fitted(lm, adapter=adapter, adapter_name="grun", options=options), "grun", folder)
    return folder


def _edits(adapter: Grun) -> dict[int, Edit]:
    return {int(layer): edit for layer, edit in adapter.edits.items()}  # type: ignore[misc]


# --- what is compared -------------------------------------------------------------------------------------------------

#: makes a model edit at the end of a prompt, given as text and by the number of its tokens
Told = Callable[[str, int], AbstractContextManager[Any]]


@dataclass(frozen=True)
class Seen:
    """A pass over a prompt, whose last token is at `end`, and an answer.

    `before` and `edited` are outputs of blocks, layer -> (positions, hidden), as a block gave them and with the edit.
    """

    end: int
    logits: Tensor
    before: dict[int, Tensor]
    edited: dict[int, Tensor]

    def elsewhere(self) -> int:
        """How many positions besides the last of the prompt are edited, over the layers."""
        changed = [(self.edited[layer] != states).any(1) for layer, states in self.before.items()]
        return sum(int(each.sum()) - int(each[self.end]) for each in changed)

    def gate(self, layer: int, edit: Edit) -> float:
        """What the gate was, from what was added: the share of R^T (W h + b - R h), by least squares."""
        states = self.before[layer][self.end]
        rotation, weight, bias = (
            each.detach().double().cpu() for each in (edit.rotation.weight, edit.source.weight, edit.source.bias)
        )
        whole = rotation @ (weight @ states + bias - rotation.T @ states)
        return float((self.edited[layer][self.end] - states) @ whole / (whole @ whole))


def _checks(fitted: Fitted, saved: Path, port: Port, work: Path) -> list[Difference]:
    """All checks of a loaded model, which is in the folder `saved`. `work` is for what is written."""
    lm, adapter = fitted.lm, fitted.adapter
    assert isinstance(adapter, Grun)  # noqa: S101  (`_refuse` says so)
    (folder,) = export_pyreft(saved, work / "folder")
    edits, exact = _edits(adapter), lm.model.dtype == torch.float32
    prompts = [lm.prompts.text(question) for question, _ in (*FORGET[:2], *RETAIN[:2])]

    def see(told: Told) -> list[Seen]:
        return [_see(lm, sorted(edits), prompt, told) for prompt in prompts]

    def generate(told: Told) -> list[list[int]]:
        return [_generate(lm, prompt, told) for prompt in prompts] if exact else []

    ours, our_tokens = see(lambda prompt, length: calling(torch.tensor([length - 1]))), generate(_untold)
    with adapter.disabled():
        plain = see(_untold)
        with _theirs(port, folder, lm) as (intervention, told):
            layers = set(intervention.summary_dict()["layers"])
            theirs, their_tokens = see(told), generate(told)
        after = see(_untold)
    read_back = _read_back(adapter, folder, work / "back")
    again = see(lambda prompt, length: calling(torch.tensor([length - 1])))

    dtype, step = str(lm.model.dtype).removeprefix("torch."), torch.finfo(lm.model.dtype).eps
    of_logits = STEPS * step * max(float(each.logits.abs().max()) for each in ours)
    gates = [
        abs(mine.gate(layer, edit) - its.gate(layer, edit))
        for mine, its in zip(ours, theirs, strict=True)
        for layer, edit in edits.items()
    ]
    found = [
        ("edited layers", len(layers ^ set(edits)), 0),
        ("edits elsewhere", sum(each.elsewhere() for each in (*ours, *theirs)), 0),
        ("gates", float(torch.tensor(gates).max()), STEPS * step),
        ("logits", _apart(ours, theirs), of_logits),
        ("logits, port taken off", _apart(plain, after), 0),
        ("weights, read back", read_back, STEPS * torch.finfo(torch.float32).eps),
        ("logits, read back", _apart(ours, again), of_logits),
    ]
    if exact:  # of 16 bits, a tie between two tokens is decided by how it was rounded
        found.insert(4, ("generations", sum(a != b for a, b in zip(our_tokens, their_tokens, strict=True)), 0))
    return [Difference(what, dtype, float(largest), float(allowed)) for what, largest, allowed in found]


def _apart(ours: list[Seen], theirs: list[Seen]) -> float:
    """The largest difference between logits; not finite where one of them is not."""
    return float(torch.stack([(a.logits - b.logits).abs().max() for a, b in zip(ours, theirs, strict=True)]).max())


@contextmanager
def _untold(prompt: str, length: int) -> Iterator[None]:
    yield


@contextmanager
def _theirs(port: Port, folder: Path, lm: LM) -> Iterator[tuple[Any, Told]]:
    """K-Bench's port on the model, as its evaluator puts it there, and what that tells it before each generation."""
    agent, intervention = SimpleNamespace(model=lm.model, tokenizer=lm.tokenizer), port(reft_path=str(folder))

    @contextmanager
    def told(prompt: str, length: int) -> Iterator[None]:
        intervention.before_generation(agent, prompt)
        try:
            yield
        finally:
            intervention.after_generation(agent)

    try:
        with redirect_stdout(io.StringIO()):  # it says what it loads, and stdout is for the report
            intervention.setup(agent, None, set(), Path())
        yield intervention, told
    except GrunBenchError:
        raise
    except (SystemExit, Exception) as error:  # a stranger's code, which may fail in any way
        raise GrunBenchError(f"K-Bench's port fails on {folder}: {type(error).__name__}: {error}") from error
    finally:
        intervention.teardown()


@torch.no_grad()
def _read_back(adapter: Grun, folder: Path, out: Path) -> float:
    """Reads a folder of pyreft into the adapter. The largest difference from the weights that it had."""

    def weights() -> list[Tensor]:
        edits = _edits(adapter).values()
        kept = [[edit.rotation.weight, *edit.source.parameters(), *edit.gate.parameters()] for edit in edits]  # type: ignore[union-attr]
        return [each.detach().float().clone() for of_edit in kept for each in of_edit]

    before = weights()
    import_pyreft([folder], "model", out)
    adapter.stages.load_state_dict(load_tensors(out / ADAPTER_FILE))
    apart = [(now - then).abs().max() for now, then in zip(weights(), before, strict=True)]
    return float(torch.stack(apart).max())


# --- passes -----------------------------------------------------------------------------------------------------------


def _ids(lm: LM, text: str) -> list[int]:
    """A text as K-Bench's agent tokenises its prompts."""
    return list(lm.tokenizer(text, add_special_tokens=False).input_ids)


@torch.no_grad()
def _see(lm: LM, layers: list[int], prompt: str, told: Told) -> Seen:
    asked = _ids(lm, prompt)
    given = torch.tensor([asked + _ids(lm, _ANSWER)], device=lm.device)
    with _taps(lm.model, layers) as (before, edited), told(prompt, len(asked)):
        logits = lm.model(input_ids=given).logits[0]
    return Seen(len(asked) - 1, logits.float().cpu(), before, edited)


@torch.no_grad()
def _generate(lm: LM, prompt: str, told: Told) -> list[int]:
    """The tokens of two generations: the agent's second prompt is its first with what it said and was told."""
    model: Any = lm.model
    said: list[int] = []
    for _ in range(2):
        given = torch.tensor([_ids(lm, prompt)], device=lm.device)
        options = {"attention_mask": torch.ones_like(given), "pad_token_id": lm.pad_id, "do_sample": False}
        with told(prompt, given.shape[1]):
            new = model.generate(given, max_new_tokens=_NEW_TOKENS, **options)[0, given.shape[1] :].tolist()
        said += new
        prompt += lm.tokenizer.decode(new, skip_special_tokens=True) + _OBSERVED
    return said


@contextmanager
def _taps(model: Any, layers: list[int]) -> Iterator[tuple[dict[int, Tensor], dict[int, Tensor]]]:
    """Collects the outputs of blocks, (positions, hidden), before all hooks that they have and after these."""
    before: dict[int, Tensor] = {}
    after: dict[int, Tensor] = {}

    def tap(into: dict[int, Tensor], layer: int) -> Callable[..., None]:
        def hook(block: nn.Module, args: Any, output: Any) -> None:
            into[layer] = (output[0] if isinstance(output, tuple) else output)[0].double().cpu()

        return hook

    blocks = decoder_layers(model)
    handles = [blocks[layer].register_forward_hook(tap(before, layer), prepend=True) for layer in layers]
    handles += [blocks[layer].register_forward_hook(tap(after, layer)) for layer in layers]
    try:
        yield before, after
    finally:
        for handle in handles:
            handle.remove()
