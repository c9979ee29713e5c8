"""Grades boxes: correct if every gold box is matched once, with its label, and no box is extra."""

import json
import re
from dataclasses import dataclass

from difftrain.config.difficulty import BoxesCredit, GradeConfig
from difftrain.grade.decision import Decision
from difftrain.grade.text import normalize_text

MAX_CHARS = 50_000  # longer answers are unparsable
MAX_BOXES = 500  # longer lists are unparsable
MAX_COORDINATE = 1e7  # pixels; a box beyond it is malformed

_FENCE = re.compile(r"```[a-zA-Z]*")  # of a Markdown code block
_BRACKET = re.compile(r"[\[\]{}]")
_NUMBER_OR_WORD = re.compile(r"(\d[\d.]*)|[^\W\d_]+\d*")
_BOX_WORD = re.compile(
    r"(?i)[xy][12]?|[xy]?(?:min|max)|[wh]|px|pixels?|b?box|left|right|top|bottom|upper|lower|corner"
    r"|width|height|the|a|at|is|from|to|and|by"
)
"""Words allowed between the four numbers of a box."""
_RETRACTION = re.compile(
    r"(?i)\b(?:not|or|nor|neither|none|never|cannot|without|except|instead|ignore|wait"
    r"|wrong|wrongly|incorrect|incorrectly|false|mistaken|no(?! other| more| further))\b"
    r"|n['`\u2018\u2019\u02bc\uff07]t\b"
)
"""Words that, before or after a list of boxes, may mean that the model withdraws it."""
_STRING = re.compile(  # Python's None, or a string in double or single quotes
    r"""(?s)None|"((?:\\.|[^"\\])*)"?|'((?:\\.|[^'\\]|'(?!\s*(?:[,:\]}]|\Z)))*)'?"""
)
_TRAILING_COMMA = re.compile(r",(?=\s*[\]}])")


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


def _json_strings(text: str) -> str:
    """The text with single-quoted strings as JSON strings, and Python's None as null.

    A single quote ends a string only if JSON can continue after it (`,`, `:`, `]`, `}` or the end);
    any other single quote is an apostrophe.
    """
    escapes = {"\\'": "'", '"': '\\"'}

    def json_string(match: re.Match[str]) -> str:
        content = match[1] or match[2] or ""
        content = re.sub(r'(?s)\\.|"', lambda part: escapes.get(part[0], part[0]), content)
        return "null" if match[0] == "None" else f'"{content}"'

    return _STRING.sub(json_string, text)


def _dict_with_unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len(json_object := dict(pairs)) < len(pairs):
        raise ValueError("an object has a repeated key")
    return json_object


_JSON = json.JSONDecoder(object_pairs_hook=_dict_with_unique_keys)


def _describes_box(text: str) -> bool:
    """Whether the text has four numbers with nothing but _BOX_WORD words between them."""
    count = 0
    for match in _NUMBER_OR_WORD.finditer(text):
        if match[1]:
            count += 1
        elif not _BOX_WORD.fullmatch(match[0]):
            count = 0
        if count == 4:
            return True
    return False


def _parse_json(text: str) -> object:
    """The JSON value in a text; None if there is none, or if the text around it may change it.

    The text around it must not have another bracket, a box in words (four numbers in a row), or a
    word that may withdraw the value, such as `not`, `or`, `wait`.
    """
    text = _FENCE.sub(" ", text)
    bracket = _BRACKET.search(text)
    if bracket is None:
        return None
    before, rest = text[: bracket.start()], text[bracket.start() :]
    quoted = _json_strings(rest)
    for json_text in (rest, quoted, _TRAILING_COMMA.sub("", quoted)):
        try:
            value, end = _JSON.raw_decode(json_text)
        except (ValueError, RecursionError):
            continue
        if _BRACKET.search(json_text, end):
            return None
        # `end` is an index of json_text, whose quotes and commas may differ from those of `rest`.
        # In both texts no bracket follows the value, so it ends at the last bracket of `rest`.
        around = f"{before} {rest[max(map(rest.rfind, ']}')) + 1 :]}"
        return None if _RETRACTION.search(around) or _describes_box(around) else value
    return None


def _parse_box(value: object) -> Box | None:
    if not isinstance(value, dict):
        return None
    corners, label = value.get("bbox_2d"), value.get("label")
    label = "" if label is None else label
    if not isinstance(corners, list) or len(corners) != 4 or not isinstance(label, str):
        return None
    # isinstance() would accept True as an int.
    if not all(type(x) in (int, float) and abs(x) <= MAX_COORDINATE for x in corners):
        return None
    return Box(*map(float, corners), label=normalize_text(label))


def parse(text: str) -> list[Box] | None:
    """The boxes of a JSON list of {bbox_2d: [x1, y1, x2, y2], label}; None for any other text.

    A single object is one box. Code fences, single quotes, a trailing comma and text around it
    are allowed. A label may be null or absent. One malformed box makes the whole list unparsable.
    """
    value = _parse_json(text) if len(text) <= MAX_CHARS else None
    items = [value] if isinstance(value, dict) else value
    if not isinstance(items, list) or len(items) > MAX_BOXES:
        return None
    boxes = [box for item in items if (box := _parse_box(item)) is not None]
    return boxes if len(boxes) == len(items) else None


def _iou(a: Box, b: Box) -> float:
    width = max(0.0, min(a.x2, b.x2) - max(a.x1, b.x1))
    height = max(0.0, min(a.y2, b.y2) - max(a.y1, b.y1))
    intersection = width * height if a.area and b.area else 0.0
    union = a.area + b.area - intersection
    return intersection / union if union else 0.0


def f1(boxes: list[Box], gold: list[Box], min_iou: float) -> float:
    """2 x matched pairs / (number of answer boxes + number of gold boxes); 1 means correct.

    The matching is one-to-one and as large as possible. A pair needs equal labels and at least
    `min_iou` intersection over union. A gold box without a label matches any label.
    """
    if not boxes or not gold:
        return float(not boxes and not gold)
    from scipy.optimize import linear_sum_assignment  # its import takes a second

    can_match = [
        [int(g.label in ("", box.label) and _iou(box, g) >= min_iou) for g in gold] for box in boxes
    ]
    pairs = zip(*linear_sum_assignment(can_match, maximize=True), strict=True)
    return 2 * sum(can_match[row][column] for row, column in pairs) / (len(boxes) + len(gold))


def decide(answer: str, gold: str, options: tuple[str, ...], rules: GradeConfig) -> Decision:
    """With grade.boxes=f1 the F1 score. Otherwise 1 if all boxes match, else 0."""
    boxes, gold_boxes = parse(answer), parse(gold)
    if boxes is None:
        return Decision(None, None, gold, "no list of boxes")
    score = 0.0 if gold_boxes is None else f1(boxes, gold_boxes, rules.boxes_iou)
    if rules.boxes is BoxesCredit.exact:
        score = float(score == 1)
    return Decision(score, _to_text(boxes), _to_text(gold_boxes or []), f"{rules.boxes} boxes")


def _to_text(boxes: list[Box]) -> str:
    return "; ".join(f"{b.label} {b.x1:g} {b.y1:g} {b.x2:g} {b.y2:g}".strip() for b in boxes)


def gold_problem(gold: str, options: tuple[str, ...]) -> str | None:
    """Why the gold answer is not a list of boxes, or None."""
    boxes = parse(gold)
    if boxes is None:
        return "not a JSON list of {bbox_2d, label}"
    if not boxes:
        return "the list holds no box"
    return None if all(box.area for box in boxes) else "a box has no area (x1 < x2, y1 < y2)"
