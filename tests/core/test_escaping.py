"""Text from result files does nothing but be read: in Markdown, HTML, scripts, CSV and the terminal."""

from __future__ import annotations

import csv
import io
import json
import re
from html.parser import HTMLParser
from urllib.parse import unquote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.console import Console

from grun_bench.core import escaping

NASTY = [
    "<script>alert(1)</script>",
    "[a](javascript:alert(1))",
    "![x](https://a.b/c.png)",
    "a|b|c",
    "`code` **bold** _it_ __b__ ~~s~~",
    "line\nbreak\r\n# heading",
    "- item",
    "12. item",
    "1) item",
    "&lt;b&gt; &amp; &#60;",
    "\\| \\` \\",
    "https://evil.example www.evil.example",
    "\x1b[31mred\x07\x00",
    "\u202egnp.exe\u200b\ufeff",
    "\ud800",
    "=cmd()",
    "$x$ $$y$$",
    "--> <!-- </style></svg>",
    "a_b_c _d_ *",
    "> quote",
    "    code",
]
#: all of Unicode, with what means something made likely
texts = st.one_of(
    st.sampled_from(NASTY),
    st.text(st.characters(codec=None), max_size=40),
    st.text(st.sampled_from("\\`*_[]<>|~&$#!:/.w-+=(){}\"'ab1 \n\t\x1b"), max_size=30),
)
MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"])


class Seen(HTMLParser):
    """The tags of a document, and the text between them."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, list[tuple[str, str | None]]]] = []
        self.text = ""
        self.feed(document)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, attrs))

    def handle_data(self, data: str) -> None:
        self.text += data


def squeezed(text: str) -> str:
    """Markdown keeps no runs of blanks apart."""
    return re.sub(" +", " ", text).strip()


def nasty(test):  # type: ignore[no-untyped-def]
    for text in NASTY:
        test = example(text)(test)
    return given(texts)(test)


@nasty
def test_a_clean_text_is_one_visible_line(text: str) -> None:
    found = escaping.clean(text)
    assert found.isprintable() and found == found.strip() and len(found) <= 1000
    found.encode()
    if text.isprintable() and len(text) <= 1000:
        assert found == text.strip()


@nasty
def test_markdown_shows_the_text_in_a_cell_and_makes_nothing_else(text: str) -> None:
    page = f"| a | b |\n| --- | --- |\n| {escaping.markdown(text)} | end |\n"
    seen = Seen(MARKDOWN.render(page))
    assert [tag for tag, _ in seen.tags] == ["table", "thead", "tr", "th", "th", "tbody", "tr", "td", "td"]
    row = [part for part in seen.text.split("\n") if part][2:]
    assert squeezed("".join(row)) == squeezed(escaping.clean(text) + "end")


@pytest.mark.parametrize(("before", "tags"), [("", ["p"]), ("- ", ["ul", "li"]), ("## ", ["h2"])])
def test_markdown_makes_nothing_elsewhere(before: str, tags: list[str]) -> None:
    @nasty
    def check(text: str) -> None:
        seen = Seen(MARKDOWN.render(before + escaping.markdown(text)))
        assert [tag for tag, _ in seen.tags] in (tags, [])
        assert squeezed(seen.text.replace("\n", " ")) == squeezed(escaping.clean(text))

    check()


@nasty
def test_github_finds_no_address_to_link(text: str) -> None:
    found = escaping.markdown(text)
    assert not re.search(r"(?<!\\)://|www\.", found, re.IGNORECASE)


@nasty
def test_html_shows_the_text_and_makes_nothing_else(text: str) -> None:
    seen = Seen(f'<p title="{escaping.html(text)}">{escaping.html(text)}</p>')
    assert seen.tags == [("p", [("title", escaping.clean(text))])]
    assert seen.text == escaping.clean(text)


@nasty
def test_a_script_keeps_data_as_data(text: str) -> None:
    found = escaping.script({"a": text})
    assert json.loads(found) == {"a": text}
    assert not set(found) & set("<>&\u2028\u2029")


@nasty
def test_the_terminal_shows_the_text_and_obeys_nothing(text: str) -> None:
    out = io.StringIO()
    console = Console(
        file=out, force_terminal=True, color_system="truecolor", width=100_000, emoji=False, highlight=False
    )
    console.print(escaping.terminal(text), soft_wrap=True)
    # rich's markup cannot write every backslash before a bracket or at the end
    assert out.getvalue().replace("\\", "") == escaping.clean(text).replace("\\", "") + "\n"


@nasty
def test_a_spreadsheet_finds_no_formula(text: str) -> None:
    out = io.StringIO()
    csv.writer(out).writerow([escaping.cell(text)])
    ((found,),) = csv.reader(io.StringIO(out.getvalue())) if escaping.clean(text) else (("",),)
    assert found.removeprefix("'") == escaping.clean(text).removeprefix("'")
    assert not found.startswith(("=", "+", "-", "@"))


@nasty
def test_a_path_stays_a_path(text: str) -> None:
    found = escaping.path_link(f"results/{text}.json")
    assert re.fullmatch(r"results/[A-Za-z0-9%/+._,~-]*", found)
    if "\ud800" not in text and text.isprintable():
        assert unquote(found) == f"results/{text}.json"


@pytest.mark.parametrize(
    "address",
    [
        "javascript:alert(1)",
        "JaVaScRiPt:alert(1)",
        " javascript:alert(1)",
        "java\nscript:alert(1)",
        "data:text/html,<script>",
        "file:///etc/passwd",
        "//evil.example",
        "https:evil.example",
        "https://",
        "https://[::1",
        "https://user:word@host/",
        "ftp://a.b/",
        "",
    ],
)
def test_only_addresses_of_the_web_become_links(address: str) -> None:
    assert escaping.web_link(address) is None


@nasty
def test_a_link_breaks_out_of_nothing(text: str) -> None:
    found = escaping.web_link(f"https://a.example/{text}")
    if found is not None:
        assert re.fullmatch(r"https://a\.example/[A-Za-z0-9%/:?#@!$,;=+._~-]*", found)


def test_common_addresses_are_kept() -> None:
    for address in ("https://arxiv.org/abs/2502.17823", "http://localhost:8000/a?b=c&d#e", "https://github.com/a/b-c"):
        assert escaping.web_link(address) == address.replace("&", "%26")
