"""Tell what a letter is for the search: without case and accents, so that `eva` finds Éva, and `lodz` finds Łódź.

The table `letters` has what `letters` gives, so that the triggers, which are plain SQL, know it too. Unicode promises
that neither the parts nor the case of a letter ever change. So another version of Python knows more letters, but none
otherwise.
"""

from collections.abc import Mapping
from functools import cache
from unicodedata import category, combining, normalize, ucd_3_2_0

_ALIKE = dict(
    zip("łøđðħŧŋıȷƶƀɨʉɓɗƙƴǥæœþ", [*"loddhtnijzbiubdkyg", "ae", "oe", "th"], strict=True),
)
"""Letters that are for Unicode no letter with an accent, and are mostly typed without it all the same."""
_MARKS = "\u02b9\u02ba\u02bb\u02bc\u02bd\u02be\u02bf\u02c8"
"""Apostrophes and the like, which are letters for Unicode, as in Hawai\u02bbi."""
_SILENT = {"Cf", "Me"}
_APART = {"Cc", "Zs", "Zl", "Zp", "Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po", "Sk"}
_NEVER = {"Cn", "Co", "Cs"}
# Where letters are that change: not among Chinese characters, nor among the syllables of Korean.
_RANGES = (0x1, 0x3100), (0xA000, 0xAC00), (0xFB00, 0x18000), (0x1B000, 0x20000), (0xE0000, 0xE0200)


def plain(letter: str) -> str:
    """Give the small letters that stand for a letter; a space for white space, a hyphen for punctuation.

    Nothing stands for an accent of its own, nor for what cannot be seen.
    """
    text = normalize("NFKD", normalize("NFKD", letter).casefold())
    kept = "".join(_ALIKE.get(part, part) for part in text if not _is_mute(part))
    if kept:
        return kept
    if letter.isspace():
        return " "
    return "" if _is_silent(letter) else "-"


def _is_silent(letter: str) -> bool:
    return bool(combining(letter)) or category(letter) in _SILENT or "\ufe00" <= letter <= "\ufe0f"


def _is_mute(letter: str) -> bool:
    if letter.isascii():
        return not letter.isalnum()
    return letter in _MARKS or _is_silent(letter) or category(letter) in _APART


@cache
def letters() -> Mapping[str, str]:
    """Give every letter that is not plain itself, with what stands for it, in the order of Unicode."""
    every = (chr(code) for begin, end in _RANGES for code in range(begin, end))
    return {each: found for each in every if category(each) not in _NEVER and (found := plain(each)) != each}


def is_told(letter: str) -> bool:
    """Tell whether every Python knows a letter, as all know those of Unicode 3.2."""
    return ucd_3_2_0.category(letter) not in _NEVER
