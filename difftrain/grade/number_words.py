"""Reads numbers in words, English (`one hundred and five`) or Chinese (`一百零五`), as digits."""

import re

_ONE_TO_NINE = "one two three four five six seven eight nine"
_TEN_TO_NINETEEN = "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
_TWENTY_TO_NINETY = "twenty thirty forty fifty sixty seventy eighty ninety"
_ONES = {word: value for value, word in enumerate(_ONE_TO_NINE.split(), 1)}
_TEENS = {word: value for value, word in enumerate(_TEN_TO_NINETEEN.split(), 10)}
_TENS = {word: 10 * value for value, word in enumerate(_TWENTY_TO_NINETY.split(), 2)}
_VALUES = {"a": 1, "zero": 0, **_ONES, **_TEENS, **_TENS}

_ONE, _TEEN, _TEN = map("|".join, (_ONES, _TEENS, _TENS))
_BELOW_100 = rf"(?:(?:{_TEN})(?:[ -](?:{_ONE}))?|{_TEEN}|{_ONE})"
_BELOW_1000 = (
    rf"(?:(?:(?:{_ONE})[ -]|\ba[ ])hundred(?:(?:[ ]and)?[ -]{_BELOW_100})?(?!s)|{_BELOW_100})"
)
_ENGLISH = re.compile(
    rf"(?<![\w'’.,/^-])(?ai:(?:{_BELOW_1000}|a)[ ]thousand(?:,?(?:[ ]and)?[ ]{_BELOW_1000})?(?!s)"
    rf"|{_BELOW_1000}|zero)(?![\w'’])"
)

_CHINESE_DIGITS = {digit: value for value, digit in enumerate("零一二三四五六七八九")}
_CHINESE_DIGITS |= {"〇": 0, "两": 2}
_CHINESE_UNITS = {"十": 10, "百": 100, "千": 1000}
_CHINESE = re.compile("[零〇一二两三四五六七八九十百千]+")


def _english_value(phrase: str) -> int:
    total, group = 0, 0
    for word in re.findall("[a-z]+", phrase.lower()):
        if word == "thousand":
            total, group = 1000 * group, 0
        elif word == "hundred":
            group *= 100
        elif word != "and":
            group += _VALUES[word]
    return total + group


def english_to_digits(text: str) -> str:
    """The text with English number words as digits: `twenty-three cats` becomes `23 cats`.

    Reads whole numbers below a million, one number per phrase. An ordinal (`third`) and a word
    that only holds a number (`someone`) stay as they are.
    """
    return _ENGLISH.sub(lambda match: str(_english_value(match[0])), text)


def chinese_value(numeral: str) -> int | None:
    """The value of a Chinese numeral below ten thousand; None for `五六` (five or six)."""
    if not _CHINESE.fullmatch(numeral):
        return None
    if numeral in _CHINESE_DIGITS:
        return _CHINESE_DIGITS[numeral]
    if len(numeral) > 2 and numeral[-1] in _CHINESE_DIGITS and numeral[-2] in "百千":
        return None  # 二百五 may be 205 or 250
    total, digit, last_unit = 0, None, 10_000
    for character in numeral:
        if unit := _CHINESE_UNITS.get(character):
            if unit >= last_unit or (digit is None and (unit != 10 or total)) or digit == 0:
                return None
            total, digit, last_unit = total + (1 if digit is None else digit) * unit, None, unit
        elif digit:
            return None
        else:
            digit = _CHINESE_DIGITS[character]
    return total + (digit or 0)
