r"""Grades a number, a quantity with a unit, an expression, or a list, point, interval of these.

The first rule that applies decides: equal notation; what is no arithmetic (a range, a score, a
date, a size, a time, a number in another base) has to be written alike; lists in any order, points
and intervals element by element; exact values with units (quantity.py); expressions by math-verify
(math.py). An answer may give its value as the end of a chain: `AB = 2 + 3 = 5`, `1/3 ≈ 0.33`.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from difftrain.config.difficulty import GradeConfig
from difftrain.grade import math, quantity, units
from difftrain.grade.decision import GradeDecision
from difftrain.grade.notation import normalize, split_top_level
from difftrain.grade.number_words import chinese_value, english_to_digits
from difftrain.grade.quantity import Quantity

MAX_CHARS = 200  # longer answers are not parsed
MAX_LIST = 12  # longer lists are not compared
MAX_LABEL_WORDS = 5  # in a name left of `=`

_WRITTEN_ALIKE = re.compile(
    r"[0-9]+(?:\.[0-9]+)?(?:\s*(?:-|\bto\b)\s*[0-9]+(?:\.[0-9]+)?)+"  # a range, a score
    r"|[0-9]{1,4}(?:/[0-9]{1,4}){2}|[0-9]{1,4}(?:\.[0-9]{1,4}){2}"  # a date
    r"|[0-9]{1,2}:[0-9]{2}(?::[0-9]{2})?\s*(?:[ap]\.?m\.?)?"  # a time
    r"|[0-9]+\s*(?:x|\\times)\s*[0-9]+(?:\s*(?:x|\\times)\s*[0-9]+)?"  # a size
    r"|[0-9]+\s*_\s*\{?[0-9]+\}?",  # a number in another base
    re.IGNORECASE,
)
_NO_VALUE = re.compile(
    r"[0-9]+(?:\.[0-9]+)?(?:\s*-\s*[0-9]+(?:\.[0-9]+)?)+|[0-9]+\s*x\s*[0-9]+.*"
    r"|[0-9]+(?:/[0-9]+){2,}|[0-9.]+(?:\s*:\s*[0-9.]+){2,}|[0-9]+\s*_\s*\{?[0-9]+\}?",
    re.IGNORECASE,
)
"""Answers that are no value: math-verify would subtract, multiply, divide, or ignore the base."""
_AS_WRITTEN = re.compile(
    r"\b(?:time signature|day/month|month/day|date|score|odds|aspect ratio|f-number)\b", re.I
)
"""Questions whose answer `6/8` is not 3/4."""
_TWO_NUMBERS = re.compile(r"[0-9]+\s*[/:]\s*[0-9]+")
_TIME = re.compile(r"[0-9]{1,2}:[0-9]{2}(?::[0-9]{2})?")
_RATIO = re.compile(r"[0-9]+(?:\.[0-9]+)?(?:\s*(?::|\bto\b)\s*[0-9]+(?:\.[0-9]+)?){2,}")
_LEAD = re.compile(
    r"(?:(?:so|thus|hence|therefore|then),?\s+|\\therefore\s*)?"
    r"(?:(?:the |my )?(?:final |correct |right )?(?:answer|result|value)s?\s*(?:is|are|:|=|：)+"
    r"|(?:所以|因此)?\s*(?:最终)?答案\s*(?:是|为|:)?\s*:?"
    r"|[a-z']+(?: [a-z']+){0,6} (?:is|are|equals|equal to|measures)\b"
    r"|is\b|it's\b|ans\b\.?|[a-zA-Z\u4e00-\u9fff]{1,12}(?:是|为|等于)(?=\s*[-0-9\\]))?\s*:?\s*",
    re.IGNORECASE,
)
_UNSURE = re.compile(
    r"(?i)\b(?:not|no|never|neither|nor|cannot|without|except|think|believe|guess|maybe|perhaps|might"
    r"|may|could|probably|possibly|if|unless|wrong|wrongly|incorrect|false|other than|more|less"
    r"|least|most|over|under|above|below|half|twice|double|doubt|disagree|unlikely|deny|refuse|says?|said"
    r"|claims?|try|tried|attempt|first|negative|minus|opposite|squared?|cubed?|root|inverse|reciprocal"
    r"|rather|hardly|barely|scarcely|nobody|instead|but|far from|used to|traps?|decoys?"
    r"|distractors?|bait|lies?|myth|fake|initial(?:ly)?|previous(?:ly)?|another|others?|plus|times"
    r"|divided|multiplied|increased|decreased|reduced|mod(?:ulo)?|log(?:arithm)?|ln|triple|thirds?"
    r"|quarter|fourth|fifth|tenth|ignor\w*|avoid)\b|n't\b|[不非没未无]"
)
"""Words in a sentence before the value that may change or withdraw it."""
_ABOUT = re.compile(
    r"(?:(?:equal to|approximately|approx\.?|about|around|roughly|nearly)\s+|(?:\\approx|=)\s*)+",
    re.I,
)
_LABEL = re.compile(
    r"(?:m\s*)?(?:\\(?:angle|theta|alpha|beta|gamma|phi|triangle|sin|cos|tan|cot)\s*)?"
    r"[a-z][a-z' ]{0,30}"
    r"(?:_\{?\w+\}?)?(?:\([^()]*\))?\s*$|(?:m\s*)?\\(?:angle|theta|alpha|beta|gamma|phi)\s*[A-Z]{0,3}\s*$",
    re.IGNORECASE,
)
"""A name left of `=`: `x`, `AB`, `\\angle ABC`, `f(2)`, `Area`."""
_DENOMINATORS = {
    "half": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7,
    "eighth": 8, "ninth": 9, "tenth": 10,
}  # fmt: skip
_FRACTION_WORDS = re.compile(rf"(a|[a-z]+)[ -]({'|'.join(_DENOMINATORS)}|halve)s?", re.IGNORECASE)
_SEPARATOR = re.compile(r"\s*[,;]\s*(?:and\b|or\b)?|\s+(?:and|or)\s+|\s*[或和]\s*")
_RELATION = re.compile(r"[<>]|\\(?:le|ge|neq|in|cup|cap)(?![a-zA-Z])")
_BETWEEN = re.compile(
    r"(?P<low>[^<>]+?)\s*(?P<left><|\\le)\s*[a-z](?:\([a-z]\))?\s*(?P<right><|\\le)(?P<high>[^<>]+)"
)
"""An inequality with two bounds, `2 \\le x < 5`."""
_SUM_OF_NAMES = re.compile(r"[A-Za-z](?:\s*[+\-*/]\s*[A-Za-z]){1,5}")
"""`a + b`: what a question may ask for."""
_CHAIN = re.compile(r"(\\approx(?![a-zA-Z])|=)")
_BRACKETS = {"(": ")", "[": "]", "{": "}"}


@dataclass(frozen=True, slots=True)
class Group:
    """Several values: `opening` and `closing` brackets, or "" for a list without any.

    A set `\\{1, 2\\}` has the brackets `\\{` and `\\}`.
    """

    opening: str
    parts: tuple[str, ...]
    closing: str

    @property
    def is_ordered(self) -> bool:
        """Whether it is a point, a vector or an interval; a list and a set have any order."""
        return self.opening in ("(", "[")


def decide(
    answer: str, gold: str, options: tuple[str, ...], rules: GradeConfig, question: str = ""
) -> GradeDecision:
    """1 if the values are equal, else 0; units are compared only if answer and gold have one.

    None (unparsable) for words, more than MAX_CHARS characters, and anything that math-verify
    cannot parse in time. `options` is unused: all graders have it.
    """
    gold_text = _normal_gold(gold)
    if len(answer) > MAX_CHARS:
        return GradeDecision(None, None, gold_text, f"longer than {MAX_CHARS} characters")
    text = _with_digits(_strip_lead(normalize(answer)))
    if "\\\\" in text and "\\begin" not in text:  # math-verify ignores what stands before it
        return GradeDecision(None, None, gold_text, "a line break inside a formula")
    if text == gold_text and _has_form(text, _may_be_value):
        return GradeDecision(1.0, text, gold_text, "same notation")
    if _WRITTEN_ALIKE.fullmatch(gold_text) or (
        _TWO_NUMBERS.fullmatch(gold_text) and _AS_WRITTEN.search(question)
    ):
        same = _squeeze(text) == _squeeze(gold_text)
        return GradeDecision(float(same), text, gold_text, "same text")
    if _RATIO.fullmatch(gold_text):
        same = bool(_RATIO.fullmatch(text)) and _terms(text) == _terms(gold_text)
        return GradeDecision(float(same), text, gold_text, "ratio")
    if group := _group(gold_text):
        return _decide_group(text, gold_text, group, rules)
    return _decide_single(text, gold_text, rules)


def is_list(gold: str) -> bool:
    """Whether a gold answer has several values in any order."""
    group = _group(_normal_gold(gold))
    return group is not None and not group.is_ordered


def gold_problem(gold: str, options: tuple[str, ...]) -> str | None:
    """Why the gold answer is neither a number nor readable, or None. `options` is unused."""
    if len(gold) <= MAX_CHARS and _has_form(_normal_gold(gold), _is_readable):
        return None
    return f"{gold[:80]!r} is neither a number nor a readable expression"


def _has_form(text: str, is_value: Callable[[str], bool]) -> bool:
    """Whether a text is compared as it is written, or consists of values."""
    if _WRITTEN_ALIKE.fullmatch(text) or _RATIO.fullmatch(text):
        return True
    return all(map(is_value, group.parts if (group := _group(text)) else (text,)))


def _may_be_value(text: str) -> bool:
    return quantity.parse(text) is not None or math.is_expression(_without_unit(text)[0])


def _is_readable(text: str) -> bool:
    text = _without_label(text)
    return quantity.parse(text) is not None or math.is_readable(_without_unit(text)[0])


@lru_cache(maxsize=4096)  # a group's responses have one gold answer
def _normal_gold(gold: str) -> str:
    return normalize(gold.replace("\\\\", "\\") if "\\begin" not in gold else gold)


def _squeeze(text: str) -> str:
    """A text without blanks and braces, with `x` for a multiplication sign, `-` for `to`."""
    text = re.sub(r"(?<=[0-9])\s*to\s*(?=[0-9])", "-", text.replace(r"\times", "x"))
    return re.sub(r"[\s{}]|(?<=[a-z])\.", "", text.lower())


def _terms(ratio: str) -> list[Fraction]:
    """The terms of a ratio, divided by the first."""
    terms = [Fraction(term) for term in re.findall(r"[0-9.]+", ratio)]
    return [term / terms[0] for term in terms] if terms[0] else terms


def _with_digits(text: str) -> str:
    """A value in words in digits: `twenty-one cm`, `two thirds`, `八`; other text is unchanged."""
    if re.search(r"[0-9\\]", text):
        return text
    if match := _FRACTION_WORDS.fullmatch(text):
        top = "1" if match[1].lower() == "a" else english_to_digits(match[1])
        if not top.isdecimal():  # `the third`
            return text
        return f"{top}/{_DENOMINATORS[match[2].lower().removesuffix('s').replace('halve', 'half')]}"
    value = chinese_value(text)
    return english_to_digits(text) if value is None else str(value)


def _strip_lead(text: str) -> str:
    """The text without `The answer is` or another sentence that ends before the value."""
    if (match := _LEAD.match(text)) and not _UNSURE.search(match[0]):
        text = text[match.end() :]
    return _ABOUT.sub("", text, count=1) if _ABOUT.match(text) else text


@lru_cache(maxsize=8192)
def _group(text: str) -> Group | None:
    """The values of a list, a set, a point or an interval; None for a single value."""
    if between := _BETWEEN.fullmatch(text):
        opening, closing = "(" if between["left"] == "<" else "[", ")]"[between["right"] != "<"]
        return Group(opening, (between["low"].strip(), between["high"].strip()), closing)
    label = re.match(
        r"[A-Za-z]\s*=?\s*(?=\()|[a-z]\s*\\in\s*(?=[(\[])|\([a-z](?:,\s*[a-z])+\)\s*=\s*", text
    )
    if label and "," in label[0] and sorted(letters := re.findall("[a-z]", label[0])) != letters:
        label = None  # `(y, x) = (1, 2)` is the point (2, 1)
    inner = text[label.end() :] if label else text
    opening, closing = inner[:1], inner[-1:]
    if inner.startswith(r"\{") and inner.endswith(r"\}"):
        opening, closing, inner = r"\{", r"\}", inner[2:-2]
    elif opening in _BRACKETS and closing in ")]}" and _closes_at_end(inner):
        inner = inner[1:-1]
    else:
        opening = closing = ""
        inner = text
    if quantity.parse(text, decimal_comma=False) or _RELATION.search(inner):
        return None
    parts = split_top_level(inner, _SEPARATOR)
    if len(parts) < 2 or not all(parts) or len(parts) > 2 * MAX_LIST:
        return None
    return Group(opening, tuple(parts), closing)


def _closes_at_end(text: str) -> bool:
    depth = 0
    for i, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        if not depth:
            return i == len(text) - 1
    return False


def _decide_group(text: str, gold_text: str, gold: Group, rules: GradeConfig) -> GradeDecision:
    answer = _group(text)
    if answer is None:
        if not gold.is_ordered or not _RELATION.search(text):
            return GradeDecision(0.0 if quantity.parse(text) else None, text, gold_text, "list")
        same = math.expressions_equal(text, gold_text)  # math-verify needs the relation first
        return GradeDecision(None if same is None else float(same), text, gold_text, "interval")
    if max(len(answer.parts), len(gold.parts)) > MAX_LIST:
        return GradeDecision(None, None, gold_text, f"more than {MAX_LIST} values")
    values, gold_values = (
        list(map(_without_label, answer.parts)),
        list(map(_without_label, gold.parts)),
    )
    labels, gold_labels = _labels(answer), _labels(gold)
    same_length = len(values) == len(gold_values)

    def same_in_order() -> bool:
        pairs = zip(values, gold_values, strict=False)
        return same_length and all(_values_equal(*pair, rules) for pair in pairs)

    if gold.is_ordered:
        same_brackets = (answer.opening, answer.closing) == (gold.opening, gold.closing)
        is_named = bool(labels) and not answer.opening and labels == sorted(labels)
        is_bare = answer.opening == "{" or is_named
        same = (same_brackets or (is_bare and gold.opening == "(")) and same_in_order()
        return GradeDecision(float(same), text, gold_text, "each element")
    if answer.is_ordered and gold.opening:
        return GradeDecision(0.0, text, gold_text, "set instead of a point")
    if len({*gold_labels}) > 1:
        if labels:
            by_label = dict(zip(labels, values, strict=True))
            values = [by_label.get(label, "") for label in gold_labels]
            same_length = sorted(labels) == sorted(gold_labels)
        return GradeDecision(float(same_in_order()), text, gold_text, "values by name")
    if answer.is_ordered:  # a list written as a point has its order
        return GradeDecision(float(same_in_order()), text, gold_text, "each element")
    same = _same_values(values, gold_values, rules)
    return GradeDecision(float(same), text, gold_text, "list in any order")


def _labels(group: Group) -> list[str]:
    """The names of the values in `x = 1, y = 2`; empty if not every value has one."""
    names = [part.rpartition("=")[0].strip() for part in group.parts]
    return names if all(name and _is_label(name) for name in names) else []


def _same_values(values: list[str], gold_values: list[str], rules: GradeConfig) -> bool:
    """Whether two lists hold the same values in any order.

    If the gold list repeats a value, the answer must repeat it as often.
    """
    repeats = len({*map(_key, gold_values)}) < len(gold_values)
    if repeats and len(values) != len(gold_values):
        return False
    rest = list(gold_values)
    for value in values:
        equal = next((gold for gold in rest if _values_equal(value, gold, rules)), None)
        if equal is not None:
            rest.remove(equal)
        elif repeats or not any(_values_equal(value, gold, rules) for gold in gold_values):
            return False
    return not rest


def _key(value: str) -> Quantity | str:
    return quantity.parse(value) or value


def _without_label(text: str) -> str:
    """`5` of `x = 5`."""
    left, equals, right = text.rpartition("=")
    return right.strip() if equals and _is_label(left.strip()) else text


def _is_label(text: str) -> bool:
    """Whether a text left of `=` is a name, in a few words that do not change the value."""
    is_name = _LABEL.fullmatch(text) is not None and not _UNSURE.search(text)
    return is_name and len(text.split()) <= MAX_LABEL_WORDS


def _values_equal(answer: str, gold: str, rules: GradeConfig) -> bool:
    if (group := _group(gold)) is not None:
        return _decide_group(answer, gold, group, rules).credit == 1
    return _decide_single(answer, gold, rules).credit == 1


def _decide_single(text: str, gold_text: str, rules: GradeConfig) -> GradeDecision:
    """Compare single values: quantities exactly, everything else as expressions."""
    gold_value = quantity.parse(_without_label(gold_text))
    if gold_value is None:
        return _decide_expression(text, gold_text, "expression")
    is_written = quantity.parse(text) is None and _NO_VALUE.fullmatch(text)
    if is_written or (_TIME.fullmatch(text) and not gold_value.is_ratio):
        return GradeDecision(None, None, str(gold_value), "a range, a size or a date is no value")
    if quantity.parse(text) is None and _group(text):
        return GradeDecision(None, None, str(gold_value), "several values for one")
    value_texts = _end_of_chain(text)
    if value_texts is None:
        return GradeDecision(None, None, str(gold_value), "an equation that does not hold")
    decisions = [_decide_value(value_text, gold_value, rules) for value_text in value_texts]
    return max(decisions, key=lambda decision: -1 if decision.credit is None else decision.credit)


def _decide_value(text: str, gold: Quantity, rules: GradeConfig) -> GradeDecision:
    value = quantity.parse(text)
    if value is not None:
        tolerance = Fraction(rules.number_tolerance)
        same = quantity.equal(value, gold, tolerance, rules.convert_units)
        rule = "number with unit" if value.unit or gold.unit else "number"
        return GradeDecision(float(same), str(value), str(gold), rule)
    expression, unit = _without_unit(text)
    if unit and gold.unit and unit != gold.unit:
        return GradeDecision(0.0, text, str(gold), "another unit")
    if quantity.PERCENT in expression:
        return GradeDecision(None, None, str(gold), "no readable expression")
    return _decide_expression(expression, _latex(gold), "expression")


def _decide_expression(text: str, gold_text: str, rule: str) -> GradeDecision:
    gold_expression, gold_unit = _without_unit(gold_text)
    value_text = text
    if "=" not in gold_text and not _RELATION.search(gold_text):
        chain_end = _end_of_chain(text)
        if chain_end is None:
            return GradeDecision(None, None, gold_text, "an equation that does not hold")
        value_text = chain_end[0]
    expression, unit = value_text, ""
    if not math.has_letters(gold_expression):
        expression, unit = _without_unit(value_text)
    if unit and gold_unit and unit != gold_unit:
        return GradeDecision(0.0, value_text, gold_text, "another unit")
    value = quantity.parse(expression)
    if value is not None and not value.unit:
        expression = _latex(value)
    if expression == gold_expression and math.is_expression(expression):
        return GradeDecision(1.0, expression, gold_expression, rule)
    equal = math.expressions_equal(gold_expression, expression)
    # A number that cannot be compared with the gold expression is incorrect, not unparsable.
    if equal is None and value is None:
        return GradeDecision(None, None, gold_expression, "no readable expression")
    return GradeDecision(float(bool(equal)), expression, gold_expression, rule)


def _latex(value: Quantity) -> str:
    top, bottom = value.value.as_integer_ratio()
    return str(top) if bottom == 1 else rf"\frac{{{top}}}{{{bottom}}}"


def _without_unit(text: str) -> tuple[str, str]:
    """An expression and the unit at its end, "" if it has none."""
    for match in re.finditer(r"(?<=[\s0-9})π])\s*(?=[^\W\d_]|°|€)", text):
        before, after = text[: match.start()].rstrip(), text[match.end() :]
        if (
            before
            and after
            and before[-1] not in "+-*/^_=\\"
            and (unit := units.parse(after)) is not None
        ):
            return before, unit
    return text, ""


def _end_of_chain(text: str) -> tuple[str, ...] | None:
    r"""The values that `name = formula = value ≈ decimal` gives: the last exact one, the decimal.

    None if a step does not hold. The first part may be a name, and then the next ones formulas with
    letters; all others must be equal. A decimal number behind `\approx` must be the value before
    it, rounded.
    """
    if "=" not in text and r"\approx" not in text:
        return (text,)
    pieces = [piece.strip() for piece in _CHAIN.split(text)]
    steps = list(zip(["=", *pieces[1::2]], pieces[::2], strict=True))
    if not all(part for _, part in steps) or not math.is_expression(_expression(steps[-1][1])):
        return (text,)
    if _is_label(steps[0][1]) or _SUM_OF_NAMES.fullmatch(steps[0][1]):
        steps = [step for step in steps[1:] if not _is_formula(step[1])]
        if not steps:
            return (text,)
    elif _is_formula(steps[0][1]):
        return None  # `2x = 10` does not say that something is 10
    if len({unit for _, part in steps if (unit := _unit(part))}) > 1:
        return None
    last_exact = steps[0][1]
    for sign, part in steps[1:]:
        if not _step_holds(last_exact, sign, part):
            return None
        if sign == "=":
            last_exact = part
    exact = [part for i, (sign, part) in enumerate(steps) if sign == "=" or not i]
    return tuple(dict.fromkeys((exact[-1], steps[-1][1])))


def _unit(part: str) -> str:
    value = quantity.parse(part)
    return value.unit if value else _without_unit(part)[1]


def _is_formula(part: str) -> bool:
    return quantity.parse(part) is None and math.has_letters(_without_unit(part)[0])


def _step_holds(left: str, sign: str, right: str) -> bool:
    a, b = quantity.parse(left), quantity.parse(right)
    if sign == "=":
        if a and b:
            return quantity.equal(a, b)
        return bool(math.expressions_equal(_expression(left), _expression(right)))
    digits = _without_unit(right)[0].replace(",", "")
    if b is None or not re.fullmatch(r"-?[0-9]*\.?[0-9]+", digits):
        return False
    return bool(math.approximates(_expression(left), digits))


def _expression(text: str) -> str:
    value = quantity.parse(text)
    return _latex(value) if value else _without_unit(text)[0]
