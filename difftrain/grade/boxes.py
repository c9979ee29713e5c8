"""Grades boxes: every gold box found once, with its label, and none besides."""

import json
import re
from dataclasses import dataclass

from difftrain.config.grade import BoxesCredit, GradeConfig
from difftrain.grade.text import normalize_text
from difftrain.records import Verdict

IOU = 0.5
MAX_CHARS = 50_000
MAX_BOXES = 500
MAX_COORDINATE = 1e7
"""Coordinates beyond this many pixels are not coordinates."""

_FENCE = re.compile(r"```[a-zA-Z]*")
_BRACKET = re.compile(r"[\[\]{}]")
_PIECE = re.compile(r"(\d[\d.]*)|[^\W\d_]+\d*")
_BOX_NUMBERS = 4
_OF_A_BOX = re.compile(
    r"[xy][12]?|[xy]?(?:min|max)|[wh]|px|pixels?|b?box|left|right|top|bottom|upper|lower|corner"
    r"|width|height|the|a|at|is|from|to|and|by",
    re.IGNORECASE,
)
"""Words that may stand among the four numbers of one box."""
_TAKEN_BACK = re.compile(
    r"\b(?:not|or|nor|neither|none|never|cannot|without|except|instead|ignore|wait"
    r"|wrong|wrongly|incorrect|incorrectly|false|mistaken|no(?! other| more| further))\b"
    r"|n['`\u2018\u2019\u02bc\uff07]t\b",
    re.IGNORECASE,
)
"""Words beside a list that may say the opposite of it."""
_AFTER_STRING = re.compile(r"\s*(?:[,:\]}]|\Z)")
_LAST_COMMA = re.compile(r",(?=\s*[\]}])")


@dataclass(frozen=True, slots=True)
class Box:
    """Corners in pixels, x to the right and y down, and a label as read (normalised)."""

    x1: float
    y1: float
    x2: float
    y2: float
    label: str

    @property
    def area(self) -> float:
        """Area in square pixels; 0 where the corners are the wrong way round."""
        return max(0.0, self.x2 - self.x1) * max(0.0, self.y2 - self.y1)


def double_quoted(text: str) -> str:
    """The text with single-quoted strings made JSON strings; apostrophes inside them survive.

    A quote ends a single-quoted string only where JSON could go on: before , : ] } or the end.
    Python's None becomes null.
    """
    out: list[str] = []
    quote: str | None = None
    place = 0
    while place < len(text):
        letter = text[place]
        if quote is None and text.startswith("None", place):
            out.append("null")
            place += 3
        elif quote is None:
            if letter in "'\"":
                quote, letter = letter, '"'
            out.append(letter)
        elif letter == "\\":
            following = text[place + 1 : place + 2]
            out.append("'" if following == "'" else letter + following)
            place += 1
        elif letter == quote and (quote == '"' or _AFTER_STRING.match(text, place + 1)):
            quote = None
            out.append('"')
        else:
            out.append('\\"' if letter == '"' else letter)
        place += 1
    return "".join(out)


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object whose keys stand there once; an answer that says a box twice is none."""
    if len(found := dict(pairs)) < len(pairs):
        raise ValueError("a key stands there twice")
    return found


_JSON = json.JSONDecoder(object_pairs_hook=_once)


def _tells_a_box(words: str) -> bool:
    """Whether four numbers follow one another with only words of a box between: no counts."""
    numbers = 0
    for piece in _PIECE.finditer(words):
        if piece[1]:
            numbers += 1
        elif not _OF_A_BOX.fullmatch(piece[0]):
            numbers = 0
        if numbers == _BOX_NUMBERS:
            return True
    return False


def _parsed(text: str) -> object:
    """The one JSON value in a text; None without one, or where the words beside it leave doubt.

    Words may stand before and after it, but no second bracket, no other box in words (four
    numbers in a row), and nothing that may take the list back: `not`, `or`, `wait`.
    """
    text = _FENCE.sub(" ", text)
    first = _BRACKET.search(text)
    if first is None:
        return None
    before, held = text[: first.start()], text[first.start() :]
    quoted = double_quoted(held)
    for spelling in (held, quoted, _LAST_COMMA.sub("", quoted)):
        try:
            found, end = _JSON.raw_decode(spelling)
        except (ValueError, RecursionError):
            continue
        if _BRACKET.search(spelling, end):
            return None
        # No bracket follows, so the value ends with the last one; the words as they were written.
        words = f"{before} {held[max(map(held.rfind, ']}')) + 1 :]}"
        return None if _TAKEN_BACK.search(words) or _tells_a_box(words) else found
    return None


def _box(found: object) -> Box | None:
    if not isinstance(found, dict):
        return None
    corners, label = found.get("bbox_2d"), found.get("label")
    label = "" if label is None else label
    if not isinstance(corners, list) or len(corners) != 4 or not isinstance(label, str):
        return None
    if not all(type(each) in (int, float) and abs(each) <= MAX_COORDINATE for each in corners):
        return None
    x1, y1, x2, y2 = (float(each) for each in corners)
    return Box(x1, y1, x2, y2, normalize_text(label))


def parse(text: str) -> list[Box] | None:
    """The boxes of a JSON list of {bbox_2d: [x1, y1, x2, y2], label}; None if it is not one.

    Code fences, single quotes, a comma too many and words around it are forgiven, and a label may
    be null or absent; a list with one malformed box is not read at all.
    """
    if len(text) > MAX_CHARS:
        return None
    found = _parsed(text)
    listed = [found] if isinstance(found, dict) else found
    if not isinstance(listed, list) or len(listed) > MAX_BOXES:
        return None
    boxes = [box for each in listed if (box := _box(each)) is not None]
    return boxes if len(boxes) == len(listed) else None


def overlap(one: Box, two: Box) -> float:
    """Intersection over union of two boxes, 0 to 1."""
    wide = max(0.0, min(one.x2, two.x2) - max(one.x1, two.x1))
    high = max(0.0, min(one.y2, two.y2) - max(one.y1, two.y1))
    shared = wide * high if one.area and two.area else 0.0
    union = one.area + two.area - shared
    return shared / union if union else 0.0


def matched(said: list[Box], gold: list[Box], iou: float = IOU) -> int:
    """The largest number of pairs, each box used once, with equal labels and at least this IoU.

    A gold box without a label (grounding) may be said with any.
    """
    if not said or not gold:
        return 0
    from scipy.optimize import linear_sum_assignment  # a second of import, kept from settings

    fits = [
        [int(two.label in ("", one.label) and overlap(one, two) >= iou) for two in gold]
        for one in said
    ]
    rows, columns = linear_sum_assignment(fits, maximize=True)
    return sum(fits[row][column] for row, column in zip(rows, columns, strict=True))


def f1(said: str, gold: str, iou: float = IOU) -> float:
    """2 x matched / (said + gold): missing and extra boxes both cost. 1 is exactly right.

    A text that `read` refuses holds no box, so it scores 0 against any gold box. Raises
    ValueError if the gold cannot be read.
    """
    wanted = parse(gold)
    if wanted is None:
        raise ValueError(f"the gold is no list of boxes: {gold[:80]!r}")
    found = parse(said)
    if found is None:
        return 0.0
    both = len(found) + len(wanted)
    return 2 * matched(found, wanted, iou) / both if both else 1.0


def credit(said: str, gold: str, rules: GradeConfig) -> float:
    """What a list of boxes that is not right is worth: its f1, or nothing (grade.boxes)."""
    partly = rules.boxes is BoxesCredit.f1 and parse(gold) is not None
    return f1(said, gold, rules.boxes_iou) if partly else 0.0


def grade(
    said: str, gold: str, options: tuple[str, ...] = (), rules: GradeConfig | None = None
) -> Verdict:
    """Right if every gold box is found and nothing else (f1 of 1)."""
    if parse(said) is None:
        return Verdict.unparsable
    if parse(gold) is None:
        return Verdict.incorrect
    score = f1(said, gold, rules.boxes_iou if rules else IOU)
    return Verdict.correct if score == 1 else Verdict.incorrect


def gold_problem(gold: str, options: tuple[str, ...] = ()) -> str | None:
    """Why this gold cannot be graded, or None."""
    boxes = parse(gold)
    if boxes is None:
        return "not a JSON list of {bbox_2d, label}"
    if not boxes:
        return "the list holds no box"
    return None if all(box.area for box in boxes) else "a box has no area (x1 < x2, y1 < y2)"
