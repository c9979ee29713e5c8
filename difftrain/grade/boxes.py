"""Grades boxes: every gold box matched once, with its label, and no other box."""

import json
import re
from dataclasses import dataclass

from difftrain.config.difficulty import BoxesCredit, GradeConfig
from difftrain.grade.text import normalize_text
from difftrain.records import Verdict

IOU = 0.5
"""Smallest intersection over union of a matched pair."""
MAX_CHARS = 50_000
MAX_BOXES = 500
MAX_COORDINATE = 1e7
"""A box with a larger coordinate, in pixels, is malformed."""

_FENCE = re.compile(r"```[a-zA-Z]*")
_BRACKET = re.compile(r"[\[\]{}]")
_NUMBER_OR_WORD = re.compile(r"(\d[\d.]*)|[^\W\d_]+\d*")
_BOX_NUMBERS = 4
_BOX_WORD = re.compile(
    r"[xy][12]?|[xy]?(?:min|max)|[wh]|px|pixels?|b?box|left|right|top|bottom|upper|lower|corner"
    r"|width|height|the|a|at|is|from|to|and|by",
    re.IGNORECASE,
)
"""Words that may stand among the four numbers of one box."""
_RETRACTION = re.compile(
    r"\b(?:not|or|nor|neither|none|never|cannot|without|except|instead|ignore|wait"
    r"|wrong|wrongly|incorrect|incorrectly|false|mistaken|no(?! other| more| further))\b"
    r"|n['`\u2018\u2019\u02bc\uff07]t\b",
    re.IGNORECASE,
)
"""Words beside a list that may take it back."""
_AFTER_STRING = re.compile(r"\s*(?:[,:\]}]|\Z)")
_LAST_COMMA = re.compile(r",(?=\s*[\]}])")


@dataclass(frozen=True, slots=True)
class Box:
    """Corners in pixels, x to the right and y down, and a normalized label."""

    x1: float
    y1: float
    x2: float
    y2: float
    label: str

    @property
    def area(self) -> float:
        """Area in square pixels; 0 if the corners are swapped."""
        return max(0.0, self.x2 - self.x1) * max(0.0, self.y2 - self.y1)


def double_quoted(text: str) -> str:
    """The text with single-quoted strings turned into JSON strings; their apostrophes survive.

    A quote ends a single-quoted string only where JSON could continue: before , : ] } or the end.
    Python's None becomes null.
    """
    out: list[str] = []
    quote: str | None = None
    i = 0
    while i < len(text):
        letter = text[i]
        if quote is None and text.startswith("None", i):
            out.append("null")
            i += 3
        elif quote is None:
            if letter in "'\"":
                quote, letter = letter, '"'
            out.append(letter)
        elif letter == "\\":
            escaped = text[i + 1 : i + 2]
            out.append("'" if escaped == "'" else letter + escaped)
            i += 1
        elif letter == quote and (quote == '"' or _AFTER_STRING.match(text, i + 1)):
            quote = None
            out.append('"')
        else:
            out.append('\\"' if letter == '"' else letter)
        i += 1
    return "".join(out)


def _without_repeated_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len(keys := dict(pairs)) < len(pairs):
        raise ValueError("an object has a key twice")
    return keys


_JSON = json.JSONDecoder(object_pairs_hook=_without_repeated_keys)


def _describes_box(text: str) -> bool:
    """Whether four numbers follow one another with only words of a box in between."""
    numbers = 0
    for match in _NUMBER_OR_WORD.finditer(text):
        if match[1]:
            numbers += 1
        elif not _BOX_WORD.fullmatch(match[0]):
            numbers = 0
        if numbers == _BOX_NUMBERS:
            return True
    return False


def _parse_json(text: str) -> object:
    """The one JSON value in a text; None without one, or where the words beside it leave doubt.

    Words may stand before and after it, but no second bracket, no other box in words (four
    numbers in a row), and nothing that may take the list back: `not`, `or`, `wait`.
    """
    text = _FENCE.sub(" ", text)
    first = _BRACKET.search(text)
    if first is None:
        return None
    before, rest = text[: first.start()], text[first.start() :]
    quoted = double_quoted(rest)
    for spelling in (rest, quoted, _LAST_COMMA.sub("", quoted)):
        try:
            value, end = _JSON.raw_decode(spelling)
        except (ValueError, RecursionError):
            continue
        if _BRACKET.search(spelling, end):
            return None
        # No bracket follows, so the value ends with the last one; take the words as written.
        words = f"{before} {rest[max(map(rest.rfind, ']}')) + 1 :]}"
        return None if _RETRACTION.search(words) or _describes_box(words) else value
    return None


def _box(value: object) -> Box | None:
    if not isinstance(value, dict):
        return None
    corners, label = value.get("bbox_2d"), value.get("label")
    label = "" if label is None else label
    if not isinstance(corners, list) or len(corners) != 4 or not isinstance(label, str):
        return None
    if not all(type(c) in (int, float) and abs(c) <= MAX_COORDINATE for c in corners):
        return None
    x1, y1, x2, y2 = (float(corner) for corner in corners)
    return Box(x1, y1, x2, y2, normalize_text(label))


def parse(text: str) -> list[Box] | None:
    """The boxes of a JSON list of {bbox_2d: [x1, y1, x2, y2], label}; None if it is not one.

    Code fences, single quotes, a trailing comma and words around the list are allowed, and a label
    may be null or absent; one malformed box makes the whole list unparsable.
    """
    if len(text) > MAX_CHARS:
        return None
    value = _parse_json(text)
    items = [value] if isinstance(value, dict) else value
    if not isinstance(items, list) or len(items) > MAX_BOXES:
        return None
    boxes = [box for item in items if (box := _box(item)) is not None]
    return boxes if len(boxes) == len(items) else None


def intersection_over_union(a: Box, b: Box) -> float:
    """Intersection over union of two boxes, 0 to 1."""
    width = max(0.0, min(a.x2, b.x2) - max(a.x1, b.x1))
    height = max(0.0, min(a.y2, b.y2) - max(a.y1, b.y1))
    shared = width * height if a.area and b.area else 0.0
    union = a.area + b.area - shared
    return shared / union if union else 0.0


def count_matches(boxes: list[Box], gold: list[Box], iou: float = IOU) -> int:
    """The largest number of pairs, each box used once, with equal labels and at least this IoU.

    A gold box without a label (grounding) matches any label.
    """
    if not boxes or not gold:
        return 0
    from scipy.optimize import linear_sum_assignment  # its import takes a second

    matches = [
        [int(g.label in ("", box.label) and intersection_over_union(box, g) >= iou) for g in gold]
        for box in boxes
    ]
    rows, columns = linear_sum_assignment(matches, maximize=True)
    return sum(matches[row][column] for row, column in zip(rows, columns, strict=True))


def f1(answer: str, gold: str, iou: float = IOU) -> float:
    """2 x matched / (answer's + gold's boxes): missing and extra boxes both cost; 1 is correct.

    An answer that `parse` refuses scores 0. Raises ValueError if the gold cannot be parsed.
    """
    gold_boxes = parse(gold)
    if gold_boxes is None:
        raise ValueError(f"the gold answer is not a list of boxes: {gold[:80]!r}")
    boxes = parse(answer)
    if boxes is None:
        return 0.0
    total = len(boxes) + len(gold_boxes)
    return 2 * count_matches(boxes, gold_boxes, iou) / total if total else 1.0


def partial_credit(answer: str, gold: str, rules: GradeConfig) -> float:
    """Credit of a list of boxes that is not correct: its f1, or 0 (grade.boxes)."""
    allowed = rules.boxes is BoxesCredit.f1 and parse(gold) is not None
    return f1(answer, gold, rules.boxes_iou) if allowed else 0.0


def grade(
    answer: str, gold: str, options: tuple[str, ...] = (), rules: GradeConfig | None = None
) -> Verdict:
    """Correct if every gold box is matched and there is no other (f1 of 1)."""
    if parse(answer) is None:
        return Verdict.unparsable
    if parse(gold) is None:
        return Verdict.incorrect
    score = f1(answer, gold, rules.boxes_iou if rules else IOU)
    return Verdict.correct if score == 1 else Verdict.incorrect


def gold_problem(gold: str, options: tuple[str, ...] = ()) -> str | None:
    """Why the gold answer is not a list of boxes, or None."""
    boxes = parse(gold)
    if boxes is None:
        return "not a JSON list of {bbox_2d, label}"
    if not boxes:
        return "the list holds no box"
    return None if all(box.area for box in boxes) else "a box has no area (x1 < x2, y1 < y2)"
