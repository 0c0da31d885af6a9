"""Plugins by name: what a file brings is seen where it is included, and nowhere else."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from grun_bench.core import registry
from grun_bench.core.errors import UsageError
from grun_bench.core.plugins import Kind, ObjectivePlugin


def write(path: Path, *names: str, answer: object = 1, options: str = "") -> Path:
    """A file with objectives of these names, each of which gives `answer`."""
    lines = ["from grun_bench.core.registry import objective"]
    for name in names:
        function = re.sub(r"\W", "_", name)
        lines += [f"@objective({name!r}{options})", f"def {function}(batch):", f"    'Gives {answer}.'"]
        lines += [f"    return {answer!r}"]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def answer(name: str) -> object:
    return registry.get("objective", name).target(None)


def test_a_plugin_is_there_while_it_is_included_and_gone_after(tmp_path: Path) -> None:
    file = write(tmp_path / "mine.py", "mine")
    with registry.including([file]):
        assert answer("mine") == 1
        assert registry.entries("objective")["mine"].summary == "Gives 1."
    assert "mine" not in registry.names("objective")
    with pytest.raises(UsageError, match="unknown objective 'mine'"):
        registry.get("objective", "mine")
    # a file that an error ends is gone too
    with pytest.raises(KeyError), registry.including([file]):
        raise KeyError
    assert "mine" not in registry.names("objective")


def test_two_files_of_one_name_do_not_see_each_other(tmp_path: Path) -> None:
    one = write(tmp_path / "a" / "mine.py", "same", answer="a")
    other = write(tmp_path / "b" / "mine.py", "same", answer="b")
    for _ in range(2):
        for file, expected in ((one, "a"), (other, "b")):
            with registry.including([file]):
                assert answer("same") == expected


def test_a_file_that_was_edited_is_read_anew(tmp_path: Path) -> None:
    # of the same length and in the same instant, as far as the clock of the file system goes
    for expected in (1, 2, 3):
        with registry.including([write(tmp_path / "mine.py", "mine", answer=expected)]):
            assert answer("mine") == expected


def test_a_file_is_run_once_for_all_of_its_plugins(tmp_path: Path) -> None:
    file = write(tmp_path / "mine.py", "one", "two")
    with registry.including([file]):
        one, two = (registry.get("objective", name) for name in ("one", "two"))
        assert one.target.__globals__ is two.target.__globals__
    with registry.including([tmp_path]):
        assert registry.get("objective", "one") is one


def test_inner_blocks_add_to_outer_ones(tmp_path: Path) -> None:
    outer, inner = write(tmp_path / "outer.py", "outer"), write(tmp_path / "inner.py", "inner")
    with registry.including([outer]):
        with registry.including([inner, outer]):
            assert {"outer", "inner"} <= set(registry.names("objective"))
        assert "inner" not in registry.names("objective") and answer("outer") == 1


def test_threads_do_not_see_each_others_plugins(tmp_path: Path) -> None:
    count = 4
    together = Barrier(count)

    def work(number: int) -> list[object]:
        with registry.including([write(tmp_path / str(number) / "mine.py", "mine", answer=number)]):
            together.wait()
            found = [answer("mine") for _ in range(20)]
            together.wait()
        return found

    with ThreadPoolExecutor(count) as threads:
        assert list(threads.map(work, range(count))) == [[number] * 20 for number in range(count)]
    assert "mine" not in registry.names("objective")


def test_what_lists_say_of_a_plugin_is_a_sentence() -> None:
    """They show the first line of its docstring."""
    summaries = {name: each.summary for kind in registry.KINDS for name, each in registry.entries(kind).items()}
    assert [name for name, summary in summaries.items() if not summary.endswith(".")] == []


def test_what_there_is_already_cannot_be_overridden(tmp_path: Path) -> None:
    with (
        registry.including([write(tmp_path / "mine.py", "npo")]),
        pytest.raises(UsageError, match="two objectives are named 'npo'"),
    ):
        registry.names("objective")
    assert registry.get("objective", "npo").target.__module__.startswith("grun_bench.")


def test_a_file_that_ends_the_program_is_told(tmp_path: Path) -> None:
    """As a script does that is run when it is imported."""
    file = write(tmp_path / "script.py", "script")
    file.write_text(file.read_text() + "\nraise SystemExit(0)\n")
    with registry.including([file]), pytest.raises(UsageError, match=r"ended .* by .*script\.py, line \d+, "):
        registry.get("objective", "script")


def test_a_broken_file_fails_when_it_is_named(tmp_path: Path) -> None:
    broken = write(tmp_path / "broken.py", "broken")
    broken.write_text("import nowhere_at_all\n" + broken.read_text())
    good = write(tmp_path / "good.py", "good")
    with registry.including([broken, good]):
        assert answer("good") == 1 and "broken" in registry.names("objective")
        for _ in range(2):  # and again: a half-made module does not pass for a whole one
            with pytest.raises(UsageError, match=r"'broken' .*broken\.py\) does not import: ModuleNotFoundError"):
                registry.get("objective", "broken")


@pytest.mark.parametrize(
    ("kind", "options", "body", "said"),
    [
        ("adapter", "", "class Mine:", r"a class derived from grun_bench\.methods\.adapters\.base\.Adapter"),
        ("unlearner", "", "class Mine:", r"a class derived from grun_bench\.methods\.base\.Unlearner"),
        ("unlearner", "", "def mine(context):", r"a class derived from grun_bench\.methods\.base\.Unlearner"),
        ("objective", "", "class Mine:", "a function"),
        ("metric", "", "class Mine:", "a function"),
        ("attack", ", access='user', version=1", "class Mine:", "a function"),
    ],
)
def test_what_is_not_of_its_kind_is_told(tmp_path: Path, kind: Kind, options: str, body: str, said: str) -> None:
    file = tmp_path / "mine.py"
    text = f"from grun_bench.core import registry\n\n\n@registry.{kind}('mine'{options})\n{body}\n"
    file.write_text(text + '    """Mine."""\n')
    with registry.including([file]), pytest.raises(UsageError, match=rf"import: the {kind} 'mine' is to be {said} \("):
        registry.get(kind, "mine")


def test_a_file_that_is_no_python_says_where(tmp_path: Path) -> None:
    (tmp_path / "odd.py").write_text("a = 1\ndef (:\n")
    with registry.including([tmp_path]), pytest.raises(UsageError, match=r"odd\.py, line 2"):
        registry.names("metric")


def test_a_path_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file or folder"), registry.including([tmp_path / "none.py"]):
        pass


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (", nedes=('idk',)", "unknown option of the objective mine 'nedes': did you mean needs"),
        (", sets=('forget',)", "unknown option of the objective mine 'sets'"),
    ],
)
def test_an_option_that_the_kind_does_not_have(tmp_path: Path, options: str, problem: str) -> None:
    file = write(tmp_path / "mine.py", "mine", options=options)
    with registry.including([file]), pytest.raises(UsageError, match=re.escape(problem)):
        registry.get("objective", "mine")


def test_an_attack_says_who_can_make_it(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from grun_bench.core.registry import attack\n@attack('mine')\ndef mine(subject):\n    yield 'a', subject\n"
    )
    with registry.including([tmp_path]), pytest.raises(UsageError, match="access"):
        registry.get("attack", "mine")


def test_declared_options_have_types_and_defaults() -> None:
    npo, ga = registry.get("objective", "npo"), registry.get("objective", "ga")
    assert isinstance(npo, ObjectivePlugin) and "reference" in npo.needs and npo.retain == "ce"
    assert ga.needs == () and ga.retain is None
    assert registry.get("attack", "suffix").access == "user"
    assert registry.get("metric", "probability").bounds == (0.0, 1.0)
    assert registry.get("unlearner", registry.control("target")).role == "target"


def test_all_attacks_and_names_beside_them_are_refused_in_words() -> None:
    assert registry.attack_names("all", ()) == list(registry.entries("attack"))
    assert registry.attack_names("all", ("prefill",)) == registry.attack_names("prefill,prefill", ()) == ["prefill"]
    with pytest.raises(UsageError, match="write all alone"):
        registry.attack_names("all,prefill", ())


def test_attacks_are_left_out_of_all_by_name() -> None:
    every = list(registry.entries("attack"))
    assert set(registry.attack_names("all,-int8,-int4", ())) == set(every) - {"int8", "int4"}
    assert registry.attack_names("all, -suffix", ("prefill", "suffix")) == ["prefill"]
    assert registry.attack_names("all,-int8", ("prefill",)) == ["prefill"]
    for text, said in {"prefill,-int8": "write all,-int8", "-int8": "write all,-int8", "all,-int9": "mean int"}.items():
        with pytest.raises(UsageError, match=said):
            registry.attack_names(text, ())


def test_sources_say_which_library_an_attack_needs() -> None:
    """As literals, or it would be told after torch is loaded."""
    for name, entry in registry.entries("attack").items():
        assert entry.declared.get("extra") == registry.get("attack", name).extra
