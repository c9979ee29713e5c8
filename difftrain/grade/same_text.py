"""Whether two texts say the same, apart from layout; the rule of grade.text=exact.

Every rule compares whole texts. None looks for the gold answer inside an answer, so `not Paris`,
`Paris or Rome` and `about 5 miles` never equal `Paris` or `5 miles`.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from difftrain.grade import layout, values
from difftrain.grade.normalize import DASHES, normalize_number, normalize_text

_APOSTROPHES = dict.fromkeys(map(ord, "‘’ʼ′`´＇"), "'")
_DOUBLE_QUOTES = dict.fromkeys(map(ord, "“”„«»″"), '"')
_MARKS = {**DASHES, **_APOSTROPHES, **_DOUBLE_QUOTES}

_LETTER, _IDEOGRAPH = r"[^\W\d_]", "[\u3040-\u30ff\u3400-\u9fff]"
_REWRITES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"(?<=[a-z}])_(?:\{(\w+)\}|(\w))", r"\1\2"),  # H_2O
        (r"(?<=[a-z)])\^(?:\{([23])\}|([23]))(?!\w)", r"\1\2"),  # cm^2, as NFKC has made of cm²
        (r" ?percent\b| %", "%"),
        (r"(?<=\d)(?: ?to | ?- ?)(?=\d)", "-"),  # the range 1990 to 2000
        (r"(?<=\d) ?: ?(?=\d)", ":"),  # the time 12 : 30
        (r" ?([-/=<>+*^|]) ?", r"\1"),
        (rf"(?<={_IDEOGRAPH}) (?={_IDEOGRAPH})", ""),
        (rf"(?<={_LETTER})\.(?= )", ""),  # Dr. Smith
        (r"(?<![\w@/.])([a-z])\.([a-z])(?:\.([a-z]))?\.?(?![\w@/.])", r"\1\2\3"),  # p.m.
        (r"(?<= )the ", ""),
        (
            r"\A(?:the|an|a(?! (?:major|minor|flat|sharp|level|grade|positive|negative|team)\b)) ",
            "",
        ),
        (r" ?,(?!\d{3}(?!\d)) ?", ", "),  # not the comma of 1,234
    )
)
_HYPHEN = re.compile(rf"(?<={_LETTER}{{2}})-(?={_LETTER})|(?<={_LETTER})-(?={_LETTER}{{3}})")
_FORMULA = re.compile(r"\\[a-z]|[=^{}]")

_SEPARATOR = re.compile(
    r", (?:and |or )?|; ?|(?<=\S) (?:and|or) (?=\S)|(?<=[)\d])(?:or|and)(?=[(\d])"
)
_BRACKET_DEPTH = {**dict.fromkeys("([{", 1), **dict.fromkeys(")]}", -1)}
_MATHS = re.compile(r"[-+]?(?:[a-z]\w{0,3}=)?.*\d.*")
_PLAIN_INTEGER = re.compile(r"\d+")
_DECIMAL_COMMA = re.compile(r"\d+,\d+")
_NAMED = re.compile(r"(?P<name>[^=]*[a-z|][^=]*)=(?P<value>[^=]+)")
_MAX_ITEMS = 50  # a longer list is compared as one text

_SAYS = re.compile(  # The text reads "STOP".
    r"(?is)(?:the )?(?:text|sign|label|word|title|caption|it)(?: on the \w+)? "
    r"(?:reads|says|is|states)[:,]? [\"“'‘`]([^\"“”‘`]+)[\"”'’`]\.?"
)
_WORDS_AND_FORMULA = re.compile(
    r"(?i)(?P<words>[a-z][a-z ]{0,60})(?: is| are|:)? ?\$(?P<formula>[^$]+)\$\.?"
)
_GENERIC_NOUN = re.compile(r"(?is)(\S.*?) (?:side|colou?r|shape)")
_CONFIRMED = re.compile(
    r"(?i)yes, (?:it|they|there|he|she|this|that|these|those|we|you) "
    r"(?:is|are|was|were|do|does|did|has|have|can|will)"
)
_DENIED = re.compile(
    r"(?i)no, (?:it|they|there|he|she|this|that|these|those|we|you) "
    r"(?:(?:is|are|was|were|do|does|did|has|have|can|will|could|would)(?: not|n't)|cannot|can't)"
)
_EXPANDED = re.compile(
    r"(?P<short>[A-Z]{2,6}) \((?P<words>[A-Za-z][A-Za-z -]+)\)"
)  # CT (computed …)
_NEGATIVE = re.compile(
    r"(?i)\b(?:not?|never|neither|nor|cannot|wrong|incorrect|false|except|but|opposite|without)\b|n't"
)


class _Form(NamedTuple):
    """A text to compare: without layout, and the same with two treatments of its hyphens."""

    plain: str
    hyphens_as_blanks: str
    without_hyphens: str


def without_layout(text: str) -> str:
    """The text without LaTeX, Markdown, quotes, end punctuation and articles, in lower case."""
    text = layout.strip_wrappers(" ".join(text.translate(_MARKS).split()))
    text = normalize_text(layout.strip_wrappers(layout.strip_latex(text)))
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    return (text if "\\" in text else text.replace(" & ", " and ")).strip()


def _packed(plain: str) -> str:
    """A formula without blanks; other texts as they are."""
    return plain.replace(" ", "") if _FORMULA.search(plain) else plain


def _form(text: str) -> _Form:
    plain = without_layout(text)
    packed = _packed(plain)
    if packed != plain:
        return _Form(plain, packed, packed)
    return _Form(plain, _HYPHEN.sub(" ", plain), _HYPHEN.sub("", plain))


def _equal(a: _Form, b: _Form) -> bool:
    return bool(a.plain) and (
        a.hyphens_as_blanks == b.hyphens_as_blanks or a.without_hyphens == b.without_hyphens
    )


class _Gold(NamedTuple):
    """What a gold answer is compared by, computed once for all answers to its sample."""

    text: str
    form: _Form
    items: tuple[str, ...]
    value: values.Value | None
    date: tuple[int | None, int, int] | None


@lru_cache(maxsize=4096)
def _parsed_gold(gold: str) -> _Gold:
    form = _form(gold)
    return _Gold(gold, form, _items(form.plain), values.parse(gold), _date(gold))


def _date(text: str) -> tuple[int | None, int, int] | None:
    return values.parse_date(layout.strip_wrappers(text))


def same(answer: str, gold: str) -> str | None:
    """The rule by which an answer text equals the gold text, or None if it does not.

    Compared in turn: the texts without layout, the answer without words around it (`The answer is
    Paris.`), lists (`red & white`, `white and red`), dates, and quantities with a unit (`5.0 cm`).
    """
    parsed = _parsed_gold(gold)
    for candidate, rule in _candidates(answer, gold):
        form = _form(candidate)
        if _equal(form, parsed.form):
            return rule
        if _same_list(form.plain, parsed):
            return "list of the same items"
        if parsed.date and _date(candidate) == parsed.date:
            return "same date"
        if parsed.value and _same_quantity(candidate, parsed.value, gold):
            return "same quantity"
    return None


def _candidates(answer: str, gold: str) -> Iterator[tuple[str, str]]:
    """The answer, then what it says without the words around it, each with its rule."""
    yield answer, "text without layout"
    shorter = layout.strip_lead(layout.strip_explanation(answer))
    if shorter != answer:
        yield shorter, "text in a sentence"
    if match := _SAYS.fullmatch(shorter):
        yield match[1], "text in a sentence"
    if (match := _WORDS_AND_FORMULA.fullmatch(shorter)) and not _NEGATIVE.search(match["words"]):
        yield match["formula"], "formula in a sentence"
    text = layout.strip_wrappers(shorter)
    if match := _GENERIC_NOUN.fullmatch(text):
        yield match[1], "text with a generic noun"
    if (match := _EXPANDED.fullmatch(text)) and _initials(match["words"]) == match["short"].lower():
        yield match["short"], "abbreviation"
    if gold.casefold() in ("yes", "no"):
        text = text.replace("’", "'")
        if _CONFIRMED.fullmatch(text):
            yield "yes", "yes with a clause"
        if _DENIED.fullmatch(text):
            yield "no", "no with a clause"


def _initials(words: str) -> str:
    return "".join(word[0] for word in re.split("[ -]+", words.lower()) if word)


def _item(text: str) -> str:
    text = text.strip()
    return _packed(text[1:-1] if text[0] == text[-1] == "$" else text) if text else ""


def _items(plain: str) -> tuple[str, ...]:
    """The items of a list without layout: `1, 2, and 3`, `{1, 2}`, `(7,11) or (11,7)`."""
    if plain.startswith("{") and plain.endswith("}"):
        plain = plain[1:-1]
    items, start, depth = [], 0, 0
    boundaries = {match.start(): match.end() for match in _SEPARATOR.finditer(plain)}
    for index, character in enumerate(plain):
        depth += _BRACKET_DEPTH.get(character, 0)
        if depth == 0 and index in boundaries and index >= start:
            items.append(_item(plain[start:index]))
            start = boundaries[index]
    items.append(_item(plain[start:]))
    return tuple(items) if len(items) <= _MAX_ITEMS and all(items) else (plain,)


def _names(items: tuple[str, ...]) -> list[str]:
    """The names of items such as `x=1`, without those of items that have none."""
    return [match["name"] for item in items if (match := _NAMED.fullmatch(item))]


def _without_names(items: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(match["value"] if (match := _NAMED.fullmatch(item)) else item for item in items)


def _is_order_free(items: tuple[str, ...], gold: _Gold) -> bool:
    """Whether a gold list is a set: solutions, names with values, or words joined by `and`."""
    if names := _names(items):
        return len(items) == len(set(names))
    if not all(map(_MATHS.fullmatch, items)):
        return " and " in gold.form.plain
    if all(map(_PLAIN_INTEGER.fullmatch, items)):
        # `3, 1, 2` may be a ranking, and 2,3 a decimal comma.
        is_sorted = list(items) == sorted(items, key=int)
        return is_sorted and not _DECIMAL_COMMA.fullmatch(gold.text.strip())
    return True


def _same_list(plain: str, gold: _Gold) -> bool:
    """Whether the answer lists the gold's items, or only the values of `x=-5, p=14/3`."""
    items = _items(plain)
    if len(items) != len(gold.items):
        return False
    if " or " in plain and " or " not in gold.form.plain and not all(map(_MATHS.fullmatch, items)):
        return False  # `red or white` is not `red and white`
    names, gold_names = _names(items), _names(gold.items)
    if (names and not gold_names and len(items) == 1) or (gold_names and {*names} - {*gold_names}):
        return False
    if len(set(names)) > 1 or len(set(gold_names)) > 1:
        # Without their names, values must be in the order of the gold.
        if not names:
            return items == _without_names(gold.items)
        return items == gold.items or _is_permutation(items, gold.items, gold)
    return _is_permutation(_without_names(items), _without_names(gold.items), gold)


def _is_permutation(items: tuple[str, ...], gold_items: tuple[str, ...], gold: _Gold) -> bool:
    if items == gold_items:
        return True
    return _is_order_free(gold_items, gold) and sorted(items) == sorted(gold_items)


def _same_quantity(answer: str, gold_value: values.Value, gold: str) -> bool:
    """Whether a number with a unit is equal; numbers without a unit are compared as texts."""
    if not gold_value.unit and ",\\!" not in gold:  # `10,\!080` is a number in LaTeX
        return False
    value = values.parse(normalize_number(answer))
    if value is None:
        return False
    if value.equals(gold_value):
        return True
    return gold_value.is_known_unit and value.equals_without_unit(gold_value)
