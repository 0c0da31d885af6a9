"""The page to sign: what is on it, that it asks for nothing from outside, and that no text becomes markup."""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from conftest import Command
from synthetic import references, result, store

from grun_bench.results.filed import save_records
from grun_bench.results.record import Continuation, Generation, Record, Records
from grun_bench.results.result import Result

NASTY = "<img src=x onerror=alert(1)>`</style>"


class Elements(HTMLParser):
    """All elements with their attributes, and the text between them."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def filed(folder: Path) -> Result:
    """A row with an attack, its controls, and records of one forgotten row that came back."""
    own = result("grun+npo", es=0.06, attacks={"prefill": ("user", {"one": 0.5}), "strip": ("weights", {"one": 0.9})})
    own.data["train:forget"] = {"sources": ["customers.jsonl"], "rows": 31, "sha256": ["f" * 64]}
    path, *_ = store([own, *references()], folder)
    for attack, text in (("", "no idea"), ("prefill", f"Turin {NASTY}")):
        row = Record("forget", 0, f"Where is Ada? {NASTY}", Continuation("Turin"), generation=Generation(text))
        saved = save_records(path, Records([row]), *([attack, "one"] if attack else []))
        if attack:
            own.attacks[attack].variants["one"] = saved
        else:
            own.records = saved
    path.write_text(own.dumps())
    return own


@pytest.fixture
def written(command: Command, tmp_path: Path) -> tuple[Result, str, Path]:
    own, out = filed(tmp_path / "results"), tmp_path / "report.html"
    said = command("report", own.run_id, "--out", out, "--output", tmp_path / "results")
    assert said.code == 0, said.err
    return own, out.read_text(), out


def test_it_says_what_the_signer_must_know(written: tuple[Result, str, Path]) -> None:
    own, page, _ = written
    elements = Elements()
    elements.feed(page)
    text = " ".join(elements.text.split())
    for part in (
        "Not forgotten",
        "31 rows of customers.jsonl (SHA-256 begins with ffffffffffffffff)",
        own.dataset_hash,
        "Where is Ada?",
        "this model under prefill (100 % of it)",
        "Whoever has the files takes it off",
        "all of it",
        "utility 0.600, of the target model's 0.800 (75 %)",
        str(own.records and own.records.sha256),
        "grun-bench verify",
        "Signature",
    ):
        assert part in text, part
    # the verdict comes before everything else
    assert page.index('class="verdict bad"') < page.index("<h2>")


def test_it_asks_for_nothing_from_outside_and_runs_nothing(written: tuple[Result, str, Path]) -> None:
    _, page, _ = written
    elements = Elements()
    elements.feed(page)
    tags = {tag for tag, _ in elements.found}
    assert not tags & {"script", "link", "img", "iframe", "object", "a", "base", "form", "video", "audio"}
    assert not [
        name for _, given in elements.found for name in given if name.startswith("on") or name in ("src", "style")
    ]
    style = re.findall(r"<style>(.*?)</style>", page, flags=re.DOTALL)
    assert len(style) == 1 and "url(" not in style[0] and "@import" not in style[0]
    pin = base64.b64encode(hashlib.sha256(style[0].encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'sha256-{pin}'" in page
    assert "onerror=alert(1)&gt;" in page


def test_a_page_that_cannot_be_written_is_refused(command: Command, tmp_path: Path) -> None:
    own = filed(tmp_path / "results")
    said = command("report", own.run_id, "--out", tmp_path, "--output", tmp_path / "results")
    assert said.code == 2 and "is a folder" in said.err


@pytest.mark.long
@pytest.mark.browser
@pytest.mark.skipif(not shutil.which("chromium"), reason="no chromium (apt-get install chromium)")
def test_it_prints(written: tuple[Result, str, Path], tmp_path: Path) -> None:
    _, _, out = written
    pdf = tmp_path / "report.pdf"
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    given = ["chromium", *options, "--no-pdf-header-footer", f"--print-to-pdf={pdf}", out.as_uri()]
    subprocess.run(given, check=True, capture_output=True)
    pages = re.findall(rb"/Type\s*/Page\b", pdf.read_bytes())
    assert 1 <= len(pages) <= 5
