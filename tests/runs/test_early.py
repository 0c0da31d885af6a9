"""What is refused before torch is loaded: typing errors in names of settings and of models."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from conftest import SMALL, Command
from test_cli import refused

import grun_bench
from grun_bench.cli.commands import Made
from grun_bench.core import registry
from grun_bench.core.errors import UsageError
from grun_bench.core.given import check_device
from grun_bench.core.plugin_search import entries
from grun_bench.core.settings import options_of
from grun_bench.methods.recipes import Recipe, read_recipes
from grun_bench.methods.retain_terms import RETAIN_TERMS
from grun_bench.models import protocols
from grun_bench.results.protocol_names import PROTOCOLS
from grun_bench.runs.config import RunConfig
from grun_bench.runs.early import FLAGS, _check_types, _defaults, _defaults_of_training, _of_training, _recipes

#: an attack whose library nobody has
CRUSH = """
@attack("crush", access="weights", version=1, extra=("no_such_library", "quantisation"))
def crush(subject):
    yield "a", subject
"""
RUN = ["run", "--unlearner", "grun+npo", "--task", "tofu_lite"]
#: options that are wrong -> what is said of them
WRONG = {
    "setting": (["--model", SMALL, "--set", "lrr=1"], ["setting of grun+npo 'lrr'", "did you mean lr"]),
    "attack": (["--set", "prefil.words=1", "--attacks", "prefill"], ["attack in --set 'prefil'", "prefill"]),
    "attack's": (["--set", "prefill.wrods=1", "--attacks", "prefill"], ["setting of prefill 'wrods'", "words"]),
    "no attack": (["--set", "prefill.words=[]"], ["--set prefill.words: no attack is asked for", "--attacks prefill"]),
    "other attack": (
        ["--set", "prefill.words=[]", "--attacks", "suffix"],
        ["prefill is not among the attacks asked for (suffix)"],
    ),
    "wrong attack": (["--set", "prefil.words=[]"], ["attack in --set 'prefil'", "did you mean prefill"]),
    "digits": (["--set", f"lr={'9' * 400}"], ["--set lr=999999999999…: expected"]),
    "more digits": (["--set", f"lr={'9' * 5000}"], ["--set lr=999999999999…: "]),
    "digits of an option": (["--strengths", "9" * 400 + "x"], ["--strengths 999999999999…x: "]),
    "more digits of an option": (["--batch-size", "9" * 5000], ["--batch-size 999999999999…: "]),
    "model": (["--model", "modle"], ["model modle: no such folder", "Did you mean model?"]),
    "target": (["--target", "./no/such"], ["model ./no/such: no such folder"]),
    "retain": (["--model", SMALL, "--retain-model", "smal"], ["model smal: no such folder"]),
    "type": (["--set", "beta=big"], ["--set beta=big: expected float"]),
    "recipe": (["--recipe", "openunlearning"], ["recipe 'openunlearning'", "did you mean open-unlearning"]),
    "device": (["--device", "gpu"], ["--device gpu: write auto, cpu, cuda"]),
    "protocol": (["--protocol", "ou"], ["protocol 'ou'", "open-unlearning"]),
    "tuned": (
        ["--tuned", "model"],
        ["--tuned model: there is no tuning in it.", "tune --unlearner grun+npo --task tofu_lite --output model`"],
    ),
    "library": (
        ["--include-path", "crush.py", "--attacks", "all,-int8,-int4"],
        [
            "--attacks all,-int8,-int4: crush needs no_such_library: pip install 'grun-bench[quantisation]'; "
            "without: --attacks all,-int8,-int4,-crush\n"
        ],
    ),
    "mirrored": (["--model", "org/sub/small"], ["Did you mean org/small?"]),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_name_that_cannot_be_is_told_with_near_ones(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "crush.py").write_text(CRUSH)
    monkeypatch.chdir(tmp_path)
    options, parts = WRONG[case]
    refused(command(*RUN, *options), *parts)


#: runs each command line that stdin has, in one process; prints what each ended with
SEVERAL = """
import contextlib, io, json, sys
from grun_bench import cli
ends = []
for arguments in json.load(sys.stdin):
    sys.argv[1:], said = arguments, io.StringIO()
    with contextlib.redirect_stderr(said):
        try:
            cli.main()
        except SystemExit as ended:
            ends.append((ended.code, said.getvalue()))
print(json.dumps(ends))
"""


@pytest.mark.long
def test_no_torch_is_loaded_for_it(environment: Path, tmp_path: Path) -> None:
    """A process whose torch cannot be imported says the same."""
    (tmp_path / "model").mkdir()
    (tmp_path / "crush.py").write_text(CRUSH)
    (tmp_path / "torch.py").write_text("raise SystemExit('torch was loaded')\n")
    (tmp_path / "transformers.py").write_text("raise SystemExit('transformers was loaded')\n")
    lines = [[*RUN, *options] for options, _ in WRONG.values()]
    lines.append(["tune", "--unlearner", "none", "--task", "tofu_lite"])
    begin = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
    done = subprocess.run(
        [sys.executable, "-c", begin + SEVERAL],
        input=json.dumps(lines),
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=True,
    )
    ends = json.loads(done.stdout)
    parts = [*(parts[0] for _, parts in WRONG.values()), "nothing to tune"]
    for (code, said), part in zip(ends, parts, strict=True):
        assert code == 2 and part in said, said


@pytest.mark.parametrize(
    ("command_line", "module", "words"),
    [
        (["tune", "--unlearner", "lora+npo", "--task", "tofu_lite"], "optuna", "tune needs optuna: pip install"),
        ([*RUN, "--attacks", "prefill,int4"], "bitsandbytes", "int4 needs bitsandbytes: pip install"),
        ([*RUN, "--quantise", "nf4"], "bitsandbytes", "--quantise needs bitsandbytes: pip install"),
    ],
)
def test_a_library_that_is_not_installed_is_told_first_and_leaves_nothing(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command_line: list[str], module: str, words: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)  # as Python has it for what cannot be imported
    monkeypatch.chdir(tmp_path)
    refused(command(*command_line), words)
    assert not any(tmp_path.iterdir())


def test_what_attacks_need_is_read_off_their_source() -> None:
    for name, entry in entries("attack").items():
        assert entry.declared.get("extra") == registry.get("attack", name).extra, name


def test_tune_offers_what_it_takes(command: Command) -> None:
    """The folder that it names is the one that it has, and options that a trial cannot have are not among its own."""
    said = " ".join(command("tune", "--help").out.split())
    assert "Folder of the tunings. [default: tuning]" in said
    for option in ("--attacks", "--attack-sets", "--strengths", "--tuned", "--retain-log"):
        assert f"{option} " not in said
        assert f"{option} " in command("run", "--help").out
        refused(
            command("tune", "--unlearner", "lora+npo", "--task", "tofu_lite", option, "x"),
            f"no such option {option}, which goes with `grun-bench run`",
        )


def test_tune_takes_the_folder_that_it_is_given(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also that of results: where it cannot be written in, that is told."""
    pytest.importorskip("optuna")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "leaderboards").touch()
    given = ["--unlearner", "lora+npo", "--task", "tofu_lite", "--output", "leaderboards/results"]
    refused(command("tune", *given), "--output leaderboards/results: cannot be written")
    assert [each.name for each in tmp_path.iterdir()] == ["leaderboards"]


def test_an_option_of_the_command_line_is_a_keyword_a_setting_or_told() -> None:
    """From Python: every option of `run`."""
    options = {each.opts[0].removeprefix("--").replace("-", "_") for each in Made()["run"].params}
    keywords = {each.name for each in fields(RunConfig)} - {"tuned", "overrides"}
    for name in sorted(options - keywords - _of_training() - {"help"}):
        with pytest.raises(UsageError, match=f"^{name}: .*--{name.replace('_', '-')}"):
            grun_bench.run("lora+npo", "tofu_lite", **{name: "x.jsonl"})
    assert {"tuned", "target", "include_path", "dry_run"} <= options - keywords <= FLAGS.keys() | _of_training()
    page = Path(__file__).parents[2] / "docs/python.md"
    assert all(f"`--{name.replace('_', '-')}`" in page.read_text(encoding="utf-8") for name in FLAGS.keys() - {"set"})


@pytest.mark.parametrize("kind", ["adapter", "objective", "unlearner", "attack"])
def test_settings_read_off_the_source_are_those_of_the_plugin(kind: registry.Kind) -> None:
    known = {name: entry.settings for name, entry in entries(kind).items() if entry.settings is not None}
    assert len(known) >= len(entries(kind)) / 2
    for name, settings in known.items():
        options = options_of(registry.get(kind, name).target)
        assert set(settings) == options.keys(), name
        assert entries(kind)[name].defaults.items() <= options.items(), name


def test_settings_of_training_are_those_of_recipes_and_retain_terms() -> None:
    of_terms = {name for term in RETAIN_TERMS.values() for name in options_of(term.loss)}
    assert _of_training() == {"recipe", *options_of(Recipe), *of_terms}
    assert _defaults_of_training().items() <= (options_of(RETAIN_TERMS["hidden"].loss) | options_of(Recipe)).items()


def test_what_recipes_say_and_ranges_hold_is_of_a_type_that_is_let_through() -> None:
    """A check before torch that is narrower than the one after it would refuse what can be."""
    pairs = [f"{adapter}+{objective}" for adapter in entries("adapter") for objective in entries("objective")]
    for section in read_recipes().values():
        for name, settings in section.items():
            for pair in (each for each in pairs if name in (each, *each.split("+"))):
                _check_types(settings, _defaults(pair))


def test_recipes_protocols_and_devices_are_all_there_are() -> None:
    assert set(_recipes()) == {"default", *(key.partition("/")[0] for key in read_recipes() if "/" in key)}
    assert set(PROTOCOLS) == set(protocols.PROTOCOLS)
    with pytest.raises(RuntimeError) as told:
        torch.device("gpu")
    kinds = str(told.value).removeprefix("Expected one of ").partition(" device type")[0]
    for kind in kinds.split(", "):
        check_device(kind)
        check_device(f"{kind}:1")
