"""Citations from docstrings, against a reader of BibTeX that is not ours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Said
from pybtex.database import parse_string
from pylatexenc.latex2text import LatexNodes2Text

from grun_bench.core import registry
from grun_bench.core.errors import UsageError
from grun_bench.core.papers import _KNOWN, Paper, numbers, paper
from grun_bench.core.sources import papers_of, papers_of_unlearner

Command = Callable[..., Said]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("NPO (arXiv 2404.05868, eq. 3), arXiv:2502.17823 and\n2401.06121", ["2404.05868", "2502.17823", "2401.06121"]),
        ("twice arXiv 2404.05868, arXiv 2404.05868", ["2404.05868"]),
        ("https://arxiv.org/abs/2404.05868v2", []),
        ("0.12345, 12345.6789, 1e-1234.56789.1", []),
        ("", []),
    ],
)
def test_numbers_of_papers_are_found(text: str, found: list[str]) -> None:
    assert numbers(text) == found


def test_every_entry_is_read_back_with_the_same_fields() -> None:
    keys = set()
    for number in _KNOWN:
        each = paper(number)
        text = each.bibtex()
        assert text.isascii()
        ((key, entry),) = parse_string(text, "bibtex").entries.items()
        keys.add(key)
        plain = {name: LatexNodes2Text().latex_to_text(value) for name, value in entry.fields.items()}
        assert plain["title"].replace("{", "").replace("}", "") == each.title
        assert (plain["year"], plain["eprint"], plain["archiveprefix"]) == (f"20{number[:2]}", number, "arXiv")
        people = [LatexNodes2Text().latex_to_text(str(person)) for person in entry.persons["author"]]
        assert " and ".join(people) == each.authors
    assert len(keys) == len(_KNOWN)


@pytest.mark.parametrize(
    ("number", "key"),
    [
        ("2404.05868", "zhang2024negative"),
        ("2502.17823", "ren2025general"),
        ("2012.07805", "carlini2020extracting"),
        ("2605.12765", "conteturani2026inference"),
        ("2404.02936", "zhang2024mink"),
        ("2999.00001", "arxiv2999.00001"),
    ],
)
def test_keys_are_author_year_and_first_word(number: str, key: str) -> None:
    assert paper(number).key.replace("min", "min").startswith(key[:12]) and number in paper(number).bibtex()


def test_nothing_is_made_up_of_a_paper_that_is_not_known() -> None:
    ((_, entry),) = parse_string(Paper("2999.00001").bibtex(), "bibtex").entries.items()
    assert set(entry.fields) == {"year", "eprint", "archiveprefix", "url"} and not entry.persons


def test_every_paper_that_the_package_names_has_title_and_authors() -> None:
    found = {name: papers_of([name])[name] for kind in registry.KINDS for name in registry.names(kind)}
    assert {each.number for papers in found.values() for each in papers if not each.title} == set()
    # and none is kept that no docstring names
    assert {each.number for papers in found.values() for each in papers} == set(_KNOWN)
    assert [each.key for each in found["npo"]] == ["zhang2024negative"]
    assert "zhang2024catastrophic" in {each.key for each in found["int4"]}


def test_a_pair_has_the_papers_of_both_parts_and_a_strange_unlearner_none() -> None:
    assert [each.number for each in papers_of(["grun+npo"])["grun+npo"]] == ["2502.17823", "2404.05868"]
    assert papers_of_unlearner("grun+npo") == papers_of(["grun+npo"])["grun+npo"]
    assert papers_of_unlearner("theirs") == papers_of_unlearner("none") == []
    with pytest.raises(UsageError, match="did you mean npo"):
        papers_of(["npoo"])
    with pytest.raises(UsageError, match="did you mean grun"):
        papers_of(["grn+npo"])


def test_a_plugin_of_ones_own_is_cited_by_its_number(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        'from grun_bench.core.registry import objective\n\n\n@objective("mine")\ndef mine(batch):\n'
        '    """Mine (arXiv 2999.00001)."""\n'
    )
    with registry.including([tmp_path / "mine.py"]):
        assert papers_of(["mine"]) == {"mine": [Paper("2999.00001")]}


def test_the_command_prints_each_paper_once(command: Command) -> None:
    said = command("cite", "grun+npo", "npo", "full")
    assert said.code == 0 and list(parse_string(said.out, "bibtex").entries) == ["ren2025general", "zhang2024negative"]
    assert said.err == "full: its source names no paper.\n"
    assert command("cite", "grun+mpo").code == 2
