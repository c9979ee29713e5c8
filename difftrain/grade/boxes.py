"""Grades boxes: correct if every gold box is matched once, with its label, and no box is extra."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from difftrain.config.difficulty import BoxesCredit, GradeConfig
from difftrain.grade.decision import GradeDecision
from difftrain.grade.normalize import normalize_text

MAX_CHARS = 50_000  # longer answers are unparsable
MAX_BOXES = 500  # longer lists are unparsable
RELATIVE_SIDE = 1000  # of an image, in the coordinates of Qwen3-VL, GLM-4V and InternVL
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
_PARTLY_VISIBLE = re.compile(
    r"(?i)\bnot (?:fully|completely|entirely|wholly|totally|clearly|perfectly|all) "
    r"(?:visible|shown|seen|in (?:the )?(?:view|frame|picture|image))\b"
)
_ABSENT_THING = re.compile(  # `There are no dogs`, `without a collar`
    r"(?i)\b(?:there(?: is| are|'s) no|without (?:an?|any|its|their)) (?P<noun>[a-z]+)\b"
)
_GENERIC = (
    "animal object thing item box bounding match one such target instance subject person people "
    "answer evidence other doubt sign trace longer figure shape good"
)
_GENERIC_NOUNS = {*_GENERIC.split()}
_STRING = re.compile(  # Python's None, or a string in double or single quotes
    r"""(?s)None|"((?:\\.|[^"\\])*)"?|'((?:\\.|[^'\\]|'(?!\s*(?:[,:\]}]|\Z)))*)'?"""
)
_TUPLE = re.compile(r"\(([0-9 .,-]*)\)")  # Python's corners
_TRAILING_COMMA = re.compile(r",(?=\s*[\]}])")
_CURLY_QUOTES = str.maketrans("“”„", '"""')
_BETWEEN_OBJECTS = re.compile(r"\}\s*+(?:(?:,|\d+[.)]|[-*])\s*+)?\{")
MAX_JSON5_CHARS = 4_000  # the parser of JSON5 reads some ten thousand characters a second

_BOX_KEYS = ("bbox_2d", "bbox", "box_2d", "box", "bounding_box", "coordinates")
_LABEL_KEYS = ("label", "category", "class", "name", "object")
_LIST_KEYS = ("boxes", "bboxes", "objects", "detections", "bounding_boxes")
_CORNER_NAMES = (
    ("x1", "y1", "x2", "y2"),
    ("xmin", "ymin", "xmax", "ymax"),
    ("left", "top", "right", "bottom"),
)
_NUMBER = r"\s*(-?[0-9]+(?:\.[0-9]+)?)\s*"
_CORNERS = re.compile(rf"\(?{_NUMBER},{_NUMBER},{_NUMBER},{_NUMBER}\)?")
_CORNERS_IN_WORDS = re.compile(
    rf"\({_NUMBER},{_NUMBER}(?:,|\)\s*(?:,|to|-|and)?\s*\(){_NUMBER},{_NUMBER}\)|"
    + "|".join(
        r"(?i:\b{}\s*[=:]{}[,;]?\s*{}\s*[=:]{}[,;]?\s*{}\s*[=:]{}[,;]?\s*{}\s*[=:]{})".format(
            *(part for name in names for part in (name, _NUMBER))
        )
        for names in _CORNER_NAMES
    )
)
"""Corners without JSON: `(10,20),(30,40)`, `(10,20,30,40)`, `x1=10, y1=20, x2=30, y2=40`."""
_QWEN_BOX = re.compile(
    r"(?:<\|object_ref_start\|>(?P<label>[^<]*)<\|object_ref_end\|>)?\s*"
    r"<\|box_start\|>(?P<corners>[^<]*)<\|box_end\|>"
)
_BOX_TAG = re.compile(r"</?box>")
_LEADING_ARTICLE = re.compile(r"\A(?:an?|the) ")
_LABEL_NUMBER = re.compile(r" ?#\d+\Z")  # `cat #1`
_SIBILANT = ("s", "x", "ch", "sh")


@dataclass(frozen=True, slots=True)
class Box:
    """Corners in pixels, x to the right and y down, and a normalized label.

    The label is None if the box was given without one, "" if it was given an empty one.
    """

    x1: float
    y1: float
    x2: float
    y2: float
    label: str | None

    @property
    def area(self) -> float:
        """Area in square pixels; 0 if the corners are swapped."""
        return max(0.0, self.x2 - self.x1) * max(0.0, self.y2 - self.y1)


@dataclass(frozen=True, slots=True)
class BoxList:
    """The boxes of an answer. `is_bare`: corners without JSON objects, so without any label."""

    boxes: tuple[Box, ...]
    is_bare: bool = False


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


def _dict_with_unique_keys(pairs: Iterable[tuple[str, object]]) -> dict[str, object]:
    pairs = list(pairs)
    if len(json_object := dict(pairs)) < len(pairs):
        raise ValueError("an object has a repeated key")
    return json_object


def _load_json(text: str) -> object:
    return json.loads(text, object_pairs_hook=_dict_with_unique_keys)


def _load_json5(text: str) -> object:
    if len(text) > MAX_JSON5_CHARS:
        raise ValueError("too long")
    import json5  # the plain answers do not need it

    return json5.loads(text, object_pairs_hook=_dict_with_unique_keys)


def _with_comma(match: re.Match[str]) -> str:
    """What stands between two objects as a comma, if it is one or has a line break."""
    return "}, {" if "," in match[0] or "\n" in match[0] else match[0]


def _spellings(text: str) -> Iterator[tuple[str, Callable[[str], object]]]:
    """A JSON value as it is written, then corrected in ways that leave its meaning, with parsers.

    No spelling closes a bracket, so that a list that was cut off stays unparsable.
    """
    yield text, _load_json
    text = _TUPLE.sub(r"[\1]", text.translate(_CURLY_QUOTES))
    quoted = _json_strings(text)
    yield quoted, _load_json
    without_commas = _TRAILING_COMMA.sub("", quoted)
    yield without_commas, _load_json
    if text.startswith("{"):  # objects one after another, without a list
        yield f"[{_BETWEEN_OBJECTS.sub(_with_comma, without_commas)}]", _load_json
    elif re.fullmatch(r"[\[\]\d\s.,-]*", text):
        yield f"[{text}]", _load_json  # corners one after another
    yield text, _load_json5


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


def _singular(noun: str) -> str:
    for ending in ("es", "s"):
        stem = noun.removesuffix(ending)
        if stem != noun and stem.endswith(_SIBILANT) == (ending == "es"):
            return stem
    return noun


def _may_withdraw(around: str, labels: frozenset[str]) -> bool:
    """Whether words around the boxes may withdraw them, or describe another box.

    `not fully visible` withdraws nothing. Nor do `There are no dogs` and `without a collar`, if
    these things are not what the boxes show.
    """
    shown = {_singular(word) for label in labels for word in label.split()}

    def without_absent_thing(match: re.Match[str]) -> str:
        noun = _singular(match["noun"].lower())
        return match[0] if not shown or noun in shown | _GENERIC_NOUNS else " "

    text = _ABSENT_THING.sub(without_absent_thing, _PARTLY_VISIBLE.sub(" ", around))
    return _RETRACTION.search(text) is not None or _describes_box(around)


def _parse_json(text: str) -> tuple[object, str] | None:
    """The JSON value in a text and the text around it, which has no other bracket; or None."""
    text = _FENCE.sub(" ", text)
    bracket = _BRACKET.search(text)
    if bracket is None:
        return None
    end = max(map(text.rfind, "]}")) + 1
    before, json_text, after = text[: bracket.start()], text[bracket.start() : end], text[end:]
    if not json_text or _BRACKET.search(after):
        return None
    for spelling, load in _spellings(json_text):
        try:
            return load(spelling), f"{before} {after}"
        except (ValueError, RecursionError):
            continue
    return None


def _numbers(values: object) -> list[float] | None:
    """Four corners as numbers, from a list of numbers or texts, two pairs, a text, or by name."""
    if isinstance(values, dict):
        return _corners_by_name(values)
    if isinstance(values, str):
        match = _CORNERS.fullmatch(values.strip().strip("[]"))
        values = list(match.groups()) if match else None
    if isinstance(values, list) and len(values) == 2 and all(isinstance(v, list) for v in values):
        values = [*values[0], *values[1]] if len(values[0]) == len(values[1]) == 2 else None
    if not isinstance(values, list) or len(values) != 4:
        return None
    if all(isinstance(x, str) and re.fullmatch(_NUMBER, x) for x in values):
        values = [float(x) for x in values]
    numbers = [
        float(x)
        for x in values
        if isinstance(x, int | float) and not isinstance(x, bool) and abs(x) <= MAX_COORDINATE
    ]
    return numbers if len(numbers) == 4 else None


def _corners_by_name(item: dict[str, object]) -> list[float] | None:
    """The corners of an object such as {x1, y1, x2, y2}; None if it names none, or two boxes."""
    values = {key.replace("_", ""): value for key, value in item.items()}
    given = [
        [values[name] for name in names]
        for names in _CORNER_NAMES
        if all(name in values for name in names)
    ]
    return _numbers(given[0]) if len(given) == 1 else None


def _corners_of_object(item: dict[str, object]) -> list[float] | None:
    """The corners of a JSON object, by one of the known keys or by name; None if it has two."""
    given = [item[key] for key in _BOX_KEYS if key in item]
    by_name = _corners_by_name(item)
    if given:
        return _numbers(given[0]) if len(given) == 1 and by_name is None else None
    return by_name


def _parse_box(item: object) -> Box | None:
    if not isinstance(item, dict):
        return None
    item = {str(key).lower(): value for key, value in item.items()}
    if len(item) == 1 and not item.keys() & {*_BOX_KEYS}:
        (label, values), *_ = item.items()  # {"cat": [10, 20, 30, 40]}
        numbers = _numbers(values) if isinstance(values, list) else None
        return Box(*numbers, label=normalize_text(label)) if numbers else None
    corners = _corners_of_object(item)
    label = next((item[key] for key in _LABEL_KEYS if key in item), None)
    has_label = any(key in item for key in _LABEL_KEYS)
    label = "" if has_label and label is None else label
    if corners is None or not isinstance(label, str | None):
        return None
    return Box(*corners, label=None if label is None else normalize_text(label))


def _bare_box(corners: object) -> Box | None:
    numbers = _numbers(corners) if isinstance(corners, list) else None
    return Box(*numbers, label=None) if numbers else None


def _all_boxes(boxes: list[Box | None], *, is_bare: bool = False) -> BoxList | None:
    """The boxes, or None if one of them is malformed or there are too many."""
    valid = tuple(box for box in boxes if box is not None)
    if len(valid) < len(boxes) or len(boxes) > MAX_BOXES:
        return None
    return BoxList(valid, is_bare)


def _boxes_of_json(value: object) -> BoxList | None:
    if isinstance(value, dict) and len(value) == 1 and (key := next(iter(value))) in _LIST_KEYS:
        value = value[key]
    items = [value] if isinstance(value, dict) else value
    if not isinstance(items, list) or len(items) > MAX_BOXES:
        return None
    if items and not any(isinstance(item, dict) for item in items):
        if one := _bare_box(items):
            return BoxList((one,), is_bare=True)
        return _all_boxes([_bare_box(item) for item in items], is_bare=True)
    return _all_boxes([_parse_box(item) for item in items])


def _qwen_boxes(text: str) -> tuple[BoxList | None, str]:
    """The boxes of Qwen2-VL's form, and the text around them."""
    boxes, label = [], None
    for match in _QWEN_BOX.finditer(text):
        label = match["label"] if match["label"] is not None else label
        found = _CORNERS_IN_WORDS.fullmatch(match["corners"].strip())
        numbers = _numbers([x for x in found.groups() if x]) if found else None
        name = None if label is None else normalize_text(label)
        boxes.append(Box(*numbers, label=name) if numbers else None)
    is_bare = any(box is None or box.label is None for box in boxes)
    return _all_boxes(boxes, is_bare=is_bare), _QWEN_BOX.sub(" ", text)


def _corners_in_words(text: str) -> tuple[BoxList | None, str]:
    """The only box of a text such as `x1=10, y1=20, x2=30, y2=40`, and the text around it."""
    text = _BOX_TAG.sub(" ", text)
    match = _CORNERS.fullmatch(text.strip()) or _CORNERS_IN_WORDS.search(text)
    if match is None:
        return None, text
    around = f"{text[: match.start()]} {text[match.end() :]}"
    box = _bare_box([float(x) for x in match.groups() if x])
    if box is None or re.search(r"[0-9]|[\[\]{}()]", around):
        return None, around
    return BoxList((box,), is_bare=True), around


def parse(text: str, labels: frozenset[str] = frozenset()) -> BoxList | None:
    """The boxes of a JSON list of {bbox_2d: [x1, y1, x2, y2], label}, or of another known form.

    A single object is one box. Code fences, near-JSON (single quotes, comments, a trailing comma),
    other keys (`bbox`, `x1`), Qwen2-VL's form and bare corners are read, and text around them is
    allowed unless it may withdraw the boxes. A label may be null or absent. One malformed box
    makes the whole list unparsable. `labels` are further names of what the boxes show.
    """
    if len(text) > MAX_CHARS:
        return None
    if "<|box_start|>" in text:
        parsed, around = _qwen_boxes(text)
    elif (json_value := _parse_json(text)) is not None:
        parsed, around = _boxes_of_json(json_value[0]), json_value[1]
    elif _BRACKET.search(text):
        return None
    else:
        parsed, around = _corners_in_words(text)
    if parsed is None:
        return None
    shown = labels | {box.label for box in parsed.boxes if box.label}
    return None if _may_withdraw(around, shown) else parsed


@lru_cache(maxsize=4096)
def _parsed_gold(gold: str) -> BoxList | None:
    return parse(gold)


def _iou(a: Box, b: Box) -> float:
    width = max(0.0, min(a.x2, b.x2) - max(a.x1, b.x1))
    height = max(0.0, min(a.y2, b.y2) - max(a.y1, b.y1))
    intersection = width * height if a.area and b.area else 0.0
    union = a.area + b.area - intersection
    return intersection / union if union else 0.0


def _plain_label(label: str) -> str:
    """The label without an article before it and a number such as `#1` behind it."""
    return _LEADING_ARTICLE.sub("", _LABEL_NUMBER.sub("", label))


def _same_label(label: str | None, gold: str | None, *, one_gold: bool, one_class: bool) -> bool:
    """Whether a box may have this label. A gold box without a label matches any label.

    A box without a label matches only if the gold is one box. With `one_class`, all boxes of the
    answer bear one label, as do those of the gold: then `cats` names the class cat.
    """
    if not gold:
        return True
    if label is None:
        return one_gold
    a, b = _plain_label(label), _plain_label(gold)
    return a == b or (one_class and _singular(a) == b)


def f1(boxes: Sequence[Box], gold: Sequence[Box], min_iou: float) -> float:
    """2 x matched pairs / (number of answer boxes + number of gold boxes); 1 means correct.

    The matching is one-to-one and as large as possible. A pair needs the same label (_same_label)
    and at least `min_iou` intersection over union.
    """
    if not boxes or not gold:
        return float(not boxes and not gold)
    one_class = len({box.label for box in boxes}) == 1 == len({box.label for box in gold})
    can_match = [
        [
            int(
                _same_label(box.label, g.label, one_gold=len(gold) == 1, one_class=one_class)
                and _iou(box, g) >= min_iou
            )
            for g in gold
        ]
        for box in boxes
    ]
    if len(boxes) == 1 or len(gold) == 1:
        num_matched = int(any(map(any, can_match)))
    else:
        from scipy.optimize import linear_sum_assignment  # its import takes a second

        pairs = zip(*linear_sum_assignment(can_match, maximize=True), strict=True)
        num_matched = sum(can_match[row][column] for row, column in pairs)
    return 2 * num_matched / (len(boxes) + len(gold))


def boxes_in_model_coordinates(text: str, size: tuple[int, int]) -> str:
    """A JSON list of boxes in pixels of an image of this size, with corners in 0 to 1000 instead.

    A text that is not such a list is returned unchanged.
    """
    try:
        items = json.loads(text)
        scaled = [
            item
            | {
                "bbox_2d": [
                    round(value * RELATIVE_SIDE / side)
                    for value, side in zip(item["bbox_2d"], size * 2, strict=True)
                ]
            }
            for item in items
        ]
    except (ValueError, TypeError, KeyError):
        return text
    return json.dumps(scaled, ensure_ascii=False)


def in_pixels(boxes: Sequence[Box], size: tuple[int, int]) -> tuple[Box, ...]:
    """Boxes with corners in 0 to 1000 along both sides of an image of this size, in its pixels."""
    x, y = (side / RELATIVE_SIDE for side in size)
    return tuple(Box(b.x1 * x, b.y1 * y, b.x2 * x, b.y2 * y, b.label) for b in boxes)


def decide(
    answer: str,
    gold: str,
    options: tuple[str, ...],
    rules: GradeConfig,
    size: tuple[int, int] | None = None,
) -> GradeDecision:
    """With grade.boxes=f1 the F1 score. Otherwise 1 if all boxes match, else 0.

    Corners without labels are read only where the gold is one box. `size`: that of the image, if
    the answer's corners are relative to it (grade.box_coordinates); the gold's are pixels.
    """
    gold_list = _parsed_gold(gold)
    gold_boxes = gold_list.boxes if gold_list else ()
    answer_list = parse(answer, frozenset(box.label for box in gold_boxes if box.label))
    if answer_list is None:
        return GradeDecision(None, None, gold, "no list of boxes")
    if answer_list.is_bare and len(gold_boxes) != 1:
        return GradeDecision(None, None, gold, "corners without labels, but several gold boxes")
    boxes = answer_list.boxes if size is None else in_pixels(answer_list.boxes, size)
    score = f1(boxes, gold_boxes, rules.boxes_iou) if gold_list else 0.0
    if rules.boxes is BoxesCredit.exact:
        score = float(score == 1)
    texts = _to_text(boxes), _to_text(gold_boxes)
    return GradeDecision(
        score, *texts, "corners" if answer_list.is_bare else f"{rules.boxes} boxes"
    )


def _to_text(boxes: Sequence[Box]) -> str:
    return "; ".join(f"{b.label or ''} {b.x1:g} {b.y1:g} {b.x2:g} {b.y2:g}".strip() for b in boxes)


def gold_problem(gold: str, options: tuple[str, ...]) -> str | None:
    """Why the gold answer is not a list of boxes, or None."""
    gold_list = _parsed_gold(gold)
    if gold_list is None or gold_list.is_bare:
        return "not a JSON list of {bbox_2d, label}"
    if not gold_list.boxes:
        return "the list holds no box"
    all_have_area = all(box.area for box in gold_list.boxes)
    return None if all_have_area else "a box has no area (x1 < x2, y1 < y2)"
