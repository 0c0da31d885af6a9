"""What a file is that holds no text: known by its first bytes, with what makes rows or texts of it. No torch."""

from __future__ import annotations

import codecs
import shlex
import zipfile
from pathlib import Path

from grun_bench.core.errors import DataError

#: a kind of file -> what to do with one, `{file}` being its name
_TO_CSV = "save it as CSV in UTF-8 in its program, or with `libreoffice --headless --convert-to csv {file}`"
_TO_TEXT = "save it as a .txt in UTF-8 in its program, or with `pandoc -t plain -o {stem}.txt {file}`"
_UNPACKED = "unpack it, and give a file or a folder of what was in it"
_OCR = "a picture has no text to be read; give what it says as a .txt"
_KINDS = {
    "a workbook of Excel": _TO_CSV,
    "a table of OpenDocument": _TO_CSV,
    "a file of an older Excel or Word": "save it as CSV or text in UTF-8 in its program",
    "a document of Word": _TO_TEXT,
    "a text of OpenDocument": _TO_TEXT,
    "rich text": _TO_TEXT,
    "a presentation": "export its text into a .txt in UTF-8",
    "PDF": "`pdftotext {file}` (of poppler) writes its text into {stem}.txt; read that before you use it",
    "a ZIP archive": _UNPACKED,
    "a 7z archive": _UNPACKED,
    "a RAR archive": _UNPACKED,
    "packed with gzip": "`gunzip -k {file}` unpacks it",
    "packed with bzip2": "`bunzip2 -k {file}` unpacks it",
    "packed with xz": "`unxz -k {file}` unpacks it",
    "packed with zstd": "`unzstd {file}` unpacks it",
    "a database of SQLite": "`sqlite3 -csv -header {file} 'select ... from ...' > rows.csv` writes a table of it",
    "Parquet": "call it .parquet",
    "Arrow": "write it as Parquet or JSON Lines, as `datasets` and pandas do",
    "a PNG picture": _OCR,
    "a JPEG picture": _OCR,
    "a TIFF picture": _OCR,
}
#: how files of a kind begin
_BEGINNINGS = {
    b"%PDF-": "PDF",
    b"\x1f\x8b": "packed with gzip",
    **{f"BZh{size}1AY".encode(): "packed with bzip2" for size in range(1, 10)},
    b"\xfd7zXZ": "packed with xz",
    b"\x28\xb5\x2f\xfd": "packed with zstd",
    b"7z\xbc\xaf": "a 7z archive",
    b"Rar!\x1a": "a RAR archive",
    b"\xd0\xcf\x11\xe0": "a file of an older Excel or Word",
    b"{\\rtf": "rich text",
    b"SQLite format 3": "a database of SQLite",
    b"PAR1": "Parquet",
    b"ARROW1": "Arrow",
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"II*\0": "a TIFF picture",
    b"MM\0*": "a TIFF picture",
}
#: what the archive of an office's program has in it, or says of its type
_IN_ZIP = {
    "xl/": "a workbook of Excel",
    "word/": "a document of Word",
    "ppt/": "a presentation",
    "spreadsheet": "a table of OpenDocument",
    "opendocument.text": "a text of OpenDocument",
}
_ZIP = b"PK\x03\x04"
#: marks at the beginning of a text; the longer ones first, which begin as shorter ones do
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
#: bytes that Windows-1252 has letters and signs for and Latin-1 has not, and those that neither has
_OF_1252, _OF_NEITHER = frozenset(range(0x80, 0xA0)), frozenset((0x81, 0x8D, 0x8F, 0x90, 0x9D))
#: share of bytes beyond ASCII in a text from which it is of no Western language
_FOREIGN = 0.3


def kind_of(beginning: bytes, path: Path) -> str:
    """What a file is that begins so, where that is no text; "" where it may be one."""
    if beginning.startswith(_ZIP):
        return _zipped(path)
    return next((kind for start, kind in _BEGINNINGS.items() if beginning.startswith(start)), "")


def _zipped(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            said = archive.read("mimetype")[:100].decode("ascii", "replace") if "mimetype" in names else ""
    except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError):
        return "a ZIP archive"
    inside = [said, *names[:1000]]
    found = (kind for mark, kind in _IN_ZIP.items() if any(name.startswith(mark) for name in inside) or mark in said)
    return next(found, "a ZIP archive")


def advice(kind: str, path: Path) -> str:
    """What to do with a file of a kind, in one clause."""
    file, stem = shlex.quote(path.name), shlex.quote(path.name.partition(".")[0] or path.name)
    return _KINDS[kind].format(file=file, stem=stem)


def check_text(content: bytes, path: Path) -> None:
    """Raises DataError for the content, or the beginning, of a file that is no text, or one of two bytes a letter."""
    if encoding := _marked(content):
        raise DataError(f"{path}: it is {encoding.upper()}. {save_as_utf8(path, encoding)}")
    if kind := kind_of(content, path):
        raise DataError(f"{path}: it is {kind}, which has no rows that can be read: {advice(kind, path)}.")


def _marked(content: bytes) -> str:
    """UTF-16 or UTF-32, by the mark at the beginning, or by the zeros beside letters; "" for what is neither."""
    if found := next((name for mark, name in _MARKS.items() if content.startswith(mark)), ""):
        return found
    start = content[:1000]
    even, odd = start[::2].count(0), start[1::2].count(0)
    most = len(start) / 5
    return "utf-16le" if odd > most and not even else "utf-16be" if even > most and not odd else ""


def encoding_of(content: bytes) -> str:
    """The encoding of a text that is not UTF-8, as `iconv` calls it; "" where that cannot be told.

    Of the encodings of one byte a letter those that most Western texts are in. Windows-1252 differs from Latin-1 in
    the bytes 80 to 9F alone, which have no letters there (ISO/IEC 8859-1; the WHATWG's index of windows-1252).
    """
    beyond = [byte for byte in content if byte > 0x7F]
    if len(beyond) > _FOREIGN * len(content) or _OF_NEITHER.intersection(beyond):
        return ""
    return "cp1252" if _OF_1252.intersection(beyond) else "latin1"


def save_as_utf8(path: Path, encoding: str = "") -> str:
    """What to do with a text in an encoding, "" for an unknown one."""
    named = {"latin1": "Latin-1", "cp1252": "Windows-1252"}
    seen = f"It looks like {named[encoding]}. " if encoding in named else ""
    file = shlex.quote(path.name)
    return f"{seen}Save it as UTF-8, as `iconv -f {encoding or 'ENCODING'} -t utf-8 {file} > utf8-{file}` does."
