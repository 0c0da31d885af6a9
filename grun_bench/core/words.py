"""Words of any script, and whether a text is one that tokenizers made for English read. No torch.

Most scripts put spaces between words. Those that do not are cut into characters, each with the marks on it: to find
words in Japanese, Chinese or Thai takes a dictionary, and another dictionary would be another metric. (BERT's
multilingual tokenizer and sacreBLEU's `zh` cut Chinese so; XL-Sum's multilingual ROUGE, arXiv 2106.13822, has a
segmenter for each of four languages and else takes off punctuation alone.)
"""

from __future__ import annotations

import unicodedata
from functools import cache

import regex

#: what is not seen and ends no word: joiners and their opposite, soft hyphens, direction marks, variation selectors;
#: the space of no width does end one
_UNSEEN = r"(?V1)[\p{Default_Ignorable_Code_Point}--\u200b]"
#: scripts that are written without spaces between words
UNSPACED = ("Han", "Hiragana", "Katakana", "Thai", "Lao", "Khmer", "Myanmar", "Tibetan", "Javanese", "Balinese")


@cache
def _patterns() -> tuple[regex.Pattern[str], regex.Pattern[str]]:
    """What `words` and what `spaced` finds."""
    alone = "[" + "".join("\\p{%s}" % script for script in UNSPACED) + "]"  # noqa: UP031
    character, other = rf"{alone}\p{{M}}*", rf"(?!{alone})"
    word, symbol = rf"(?:{other}[\p{{L}}\p{{M}}\p{{N}}])+", r"\p{S}"
    return regex.compile(f"{character}|{word}|{symbol}"), regex.compile(rf"{character}|(?:{other}(?s:.))+")


def words(text: str) -> list[str]:
    """The words of a text in order, lower case: runs of letters, marks and digits, and each symbol by itself.

    In scripts without spaces each character is one. Other forms of a character (full width, ligatures, an accent apart
    from its letter) are the same one: Unicode NFKC, case folded. What is not seen is left out, as Unicode's
    NFKC_Casefold does: a word with a soft hyphen or a joiner in it is the one without. Of a text of punctuation alone,
    each character; of one where nothing is seen, each of those.
    """
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    seen = unicodedata.normalize("NFKC", regex.sub(_UNSEEN, "", text))
    return _patterns()[0].findall(seen) or list("".join((seen if seen.strip() else text).split()))


def spaced(text: str) -> list[str]:
    """What white space parts, as it is written; in scripts without spaces each character."""
    return [piece for part in text.split() for piece in _patterns()[1].findall(part)]


def begun(text: str, count: int) -> tuple[str, str, str] | None:
    """A text parted after its first `count` words: those, what stands between (a space, or nothing), and the rest.

    Words are those of `spaced`, parted by single spaces where white space parts them. At least one is left as the rest.
    None for a text of a single word, which cannot be parted.
    """
    pieces, written = spaced(text), " ".join(text.split())
    given = min(count, len(pieces) - 1)
    if given < 1:
        return None
    end = 0
    for piece in pieces[:given]:
        end = written.index(piece, end) + len(piece)
    rest = written[end:].lstrip(" ")
    return written[:end], written[end : len(written) - len(rest)], rest


def mostly_ascii(text: str) -> bool:
    """Whether of the letters and digits at least half, and one at all, are among a-z, A-Z and 0-9."""
    letters = [character.isascii() for character in text if character.isalnum()]
    return 2 * sum(letters) >= max(len(letters), 1)
