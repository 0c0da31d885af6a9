"""Strict JSON: what is in order is read as the library reads it, and what is not is refused with its place."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grun_bench.core.errors import UsageError
from grun_bench.core.strict_json import JSON_DEPTH, LINE_BYTES, json_lines, parse_json


@pytest.mark.parametrize(
    ("text", "place", "what"),
    [
        ('{"a": 1, "a": 2}', "$", "the key 'a' twice"),
        ('{"a": [0, {"b": NaN}]}', "$.a[1].b", "NaN"),
        ('{"a": -Infinity}', "$.a", "-Infinity"),
        ('{"a": 1e999}', "$.a", "too large"),
        ('{"a": ' + "9" * 5000 + "}", "$.a", "whole number"),
        ("[9223372036854775808]", "$[0]", "whole number"),
        (r'{"a": "\ud800"}', "$.a", "surrogate"),
        (r'{"\udc00": 1}', "$", "surrogate"),
        ("[" * 40 + "]" * 40, "$[0][0]", "nested"),
        ("[" * 100_000, "file", "nested"),
        ("\ufeff{}", "file", "byte order mark"),
        ("{", "file", "not JSON"),
        ("", "file", "not JSON"),
        ('{"a": 1} x', "file", "not JSON"),
    ],
)
def test_json_that_is_refused_with_its_place(text: str, place: str, what: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_json(text.encode("utf-8", "surrogatepass"), "file")
    assert place in str(refused.value) and what in str(refused.value)
    assert len(str(refused.value)) < 1100


texts = st.text(st.characters(exclude_categories=["Cs"]))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63) + 1, 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner),
    max_leaves=20,
)  # fmt: skip


@given(json_values, st.booleans())
def test_json_that_is_in_order_is_read_as_the_library_reads_it(value: Any, ascii_only: bool) -> None:
    assert parse_json(json.dumps(value, ensure_ascii=ascii_only).encode(), "file") == value


def test_not_utf_8() -> None:
    with pytest.raises(UsageError, match="not UTF-8"):
        parse_json(b'{"a": "\xff"}', "file")


blanks = st.text(" \t\r\n", max_size=2)


#: values that look like the end of a key, and others
VALUES = ['":"', '" :"', "1", r'"a\":"', "[]", '{"a": ":", "b": 1}', r'"\\"', "1e5", "null"]


@given(st.data())
def test_a_key_that_comes_twice_is_refused_however_it_is_written(data: Any) -> None:
    """With blanks anywhere, with other keys and values that hold colons and quotes, with escapes and without."""
    draw = data.draw

    def member(key: str) -> str:
        return "".join(draw(blanks) + part for part in (key, ":", draw(st.sampled_from(VALUES)))) + draw(blanks)

    others = draw(st.lists(st.sampled_from(['"b"', '":"', '" "', r'"\""']), unique=True))
    members = [member(key) for key in draw(st.permutations(['"a"', *others]))]
    at = draw(st.integers(0, len(members)))
    again = member(draw(st.sampled_from(['"a"', r'"\u0061"'])))
    right, wrong = ("[{" + ",".join(each) + "}]" for each in (members, [*members[:at], again, *members[at:]]))
    assert parse_json(right.encode(), "file") == json.loads(right)
    with pytest.raises(UsageError, match="twice"):
        parse_json(wrong.encode(), "file")


@pytest.mark.parametrize("inner", ["", "1", "[]"])
@pytest.mark.parametrize("depth", range(JSON_DEPTH - 2, JSON_DEPTH + 3))
def test_nesting_is_counted_in_containers(depth: int, inner: str) -> None:
    text = "[" * depth + inner + "]" * depth
    if depth + (inner == "[]") <= JSON_DEPTH:
        assert parse_json(text.encode(), "file") == json.loads(text)
    else:
        with pytest.raises(UsageError, match="nested"):
            parse_json(text.encode(), "file")


@given(st.lists(st.integers(), max_size=20), st.integers(1, 40), st.booleans())
def test_lines_are_the_same_however_they_come(numbers: list[int], size: int, ended: bool) -> None:
    content = b"\n".join(json.dumps(number % 1000).encode() for number in numbers) + b"\n" * (ended and bool(numbers))
    pieces = [content[at : at + size] for at in range(0, len(content), size)]
    assert [line for line, _ in json_lines(pieces, "file")] == content.split(b"\n")[: len(numbers)]


def test_a_line_without_an_end_is_not_read_to_it() -> None:
    def pieces() -> Any:
        yield b"1\n"
        for _ in range(LINE_BYTES // 2**16 + 2):
            yield b" " * 2**16
        raise AssertionError("more than a line was read")

    with pytest.raises(UsageError, match="line 2: longer than"):
        list(json_lines(pieces(), "file"))
