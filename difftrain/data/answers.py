r"""Reads gold answers: removes tags and \boxed{}, infers the answer kind, converts gold boxes.

difftrain/grade decides whether a grader can parse a gold answer, and compares boxes.
"""

import ast
import json
import math
import re
from collections.abc import Sequence
from typing import Any

from difftrain.config.data import BoxFormat
from difftrain.data.prompts import LETTERS
from difftrain.data.quarantine import RowError
from difftrain.grade import choice, extract, gold_problem
from difftrain.images import DecodedImage
from difftrain.records import AnswerKind, TaskSet

# The perception tasks of Qi et al. 2026. Some datasets write their names with the prefix `cv_`.
KIND_OF_TASK = {
    "detection": AnswerKind.boxes,
    "grounding": AnswerKind.boxes,
    "ocr": AnswerKind.text,
    "counting": AnswerKind.count,
}
TEXT_COMMAND = re.compile(r"\\text\s*\{([^{}]*)\}")
LETTER_MARK = re.compile(r"(?:^|[\s(\[])([A-Z])\s?[.):\]]")  # options in a question: A. / (A) / A:
OPTION_MARK = re.compile(r"\(?([A-Z])[.):]\s*")
MAX_RESPONSE_CHARS = 200  # our choice; a longer response must mark its answer, as in <answer>
MAX_WORDS_CHARS = 40  # our choice; a longer text is more than "few words" (require_comparable)
ANSWER_SEPARATOR = re.compile(r"(?<!\\);|\n")  # between the answers in one gold answer
UNCOMPARABLE = re.compile(r"[=<>≤≥\\]|\d.*\s\D.*\d")  # relations, LaTeX, words between numbers
_AMOUNT = r"[$€£]?\d[\d.,]*\s?%?"
NOT_ARITHMETIC = re.compile(
    r"\d+([-/.])\d+(?:\1\d+)+"  # dates, 555-123-4567
    r"|(?:\d{1,2}:)?\d{1,2}:\d{2}(?:\.\d+)?\s*(?:[ap]\.?m\.?)?|\d{1,2}\s*[ap]\.?m\.?"  # times
    rf"|{_AMOUNT}\s*[-–—~]{{1,3}}\s*{_AMOUNT}"  # ranges, scores, 2007-2008, 555-1234
    r"|[+\d\s]*\(\d+\)\s*\d+(?:[-\s]\d+)+|\+\d+(?:[-\s]\d+)+"  # (555) 123-4567, +1 555 1234
    r"|\d+(?::\d+){2,}"  # 1:2:3
    r"|\d+(?:\s*(?:x|×|\\times)\s*\d+)+"  # 1920x1080
    r"|\d+(?:st|nd|rd|th)",
    re.IGNORECASE,
)
"""Digits that no grader may compute with; such a gold answer is compared as text."""
HAS_NUMBER = re.compile(r"\d|\\pi|π|\\infty|∞")
LATEX_MATH = re.compile(r"\\(?!angle|triangle)[a-zA-Z]+")  # \angle 1 is a name
MATRIX = re.compile(r"\\begin\s*\{[a-zA-Z]*(?:matrix|array)\}")
TUPLE = re.compile(r"\\?[(\[{].*,.*[)\]}]", re.DOTALL)  # pairs, intervals, sets
WORD = re.compile(r"[a-zA-Z]{2,}")
LIST_COMMA = re.compile(r",(?!\d{3}(?!\d))")  # a comma other than that in 1,000
CODE_FENCE = re.compile(r"^```\w*\s*|\s*```$")
BOX_TOLERANCE = 2  # pixels: how far rounding or inclusive corners may put a box outside


class GoldError(RowError):
    """The gold answer of a row cannot be used."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"unusable gold answer: {reason}")


def unwrap(gold: str) -> str:
    r"""The gold answer inside the last <answer> tags, the last \boxed{} and one \text{}, if any."""
    for extract_content in (extract.tag_content, extract.boxed_content):
        content = extract_content(gold)
        gold = gold if content is None else content
    gold = gold.strip()
    text = TEXT_COMMAND.fullmatch(gold)
    return text[1].strip() if text else gold


def answer_of_response(response: str) -> str:
    """The gold answer of an assistant turn: in <answer> or \\boxed{}, else the whole short turn.

    Quotes, # at both ends and one final period are removed. Raises GoldError for a long turn
    without <answer> or \\boxed{}.
    """
    gold = unwrap(response)
    is_unmarked = gold == response.strip()  # there was nothing to unwrap
    if is_unmarked and len(gold) > MAX_RESPONSE_CHARS:
        rule = f"over {MAX_RESPONSE_CHARS}, and neither <answer></answer> nor \\boxed{{}}"
        raise GoldError(f"the assistant's turn has {len(gold)} characters, {rule}")
    text = gold.strip("#").strip()
    if text.endswith(".") and not text.endswith(".."):
        text = text[:-1]
    return text.strip("\"'`").strip()


def require_comparable(gold: str) -> str:
    """The gold answer if it is a number, a letter or few words. Raises GoldError for other text.

    Some datasets have gold answers in free text. No response would equal such a text exactly, and
    math-verify would misread its letters as variables.
    """
    is_free_text = len(gold) > MAX_WORDS_CHARS or UNCOMPARABLE.search(gold)
    if ANSWER_SEPARATOR.search(gold) or (is_free_text and not _looks_numeric(gold)):
        raise GoldError(f"must be a number, a letter or few words: {gold[:80]!r}")
    return gold


def task_set(task: str, kind: AnswerKind) -> TaskSet:
    """Perception for the tasks of KIND_OF_TASK and for boxes, else reasoning."""
    is_perception = task.removeprefix("cv_") in KIND_OF_TASK or kind is AnswerKind.boxes
    return TaskSet.perception if is_perception else TaskSet.reasoning


def infer_kind(gold: str, task: str, question: str, options: Sequence[str]) -> AnswerKind:
    """The kind of an unwrapped gold answer. The first rule that applies decides: boxes if the task
    or answer is about boxes; choice if there are options; the task's kind; the form of the texts.

    LaTeX with numbers is a number even if the number grader cannot read it, since no response would
    equal it as text: the data stage then rejects the row.
    """
    kind = KIND_OF_TASK.get(task.removeprefix("cv_"))
    if kind is AnswerKind.boxes or "bbox_2d" in gold:
        return AnswerKind.boxes
    if options:
        return AnswerKind.choice
    if kind is not None:
        return kind
    letters = set(LETTER_MARK.findall(question))
    if {"A", "B"} <= letters and choice.parse(gold, options=()) in letters:
        return AnswerKind.choice
    return AnswerKind.number if _looks_numeric(gold) else AnswerKind.text


def infer_kind_of_all(
    golds: Sequence[str], task: str, question: str, options: Sequence[str]
) -> AnswerKind:
    """The kind of several accepted answers: text if they are of different kinds (`3`, `three`)."""
    kinds = {infer_kind(gold, task, question, options) for gold in dict.fromkeys(golds)}
    return kinds.pop() if len(kinds) == 1 else AnswerKind.text


def _looks_numeric(gold: str) -> bool:
    """Whether a gold answer is a number, a quantity, a formula or a list of them.

    Words, and digits that are not computed with (dates, ranges, sizes), are not.
    """
    text = gold.strip().strip("$").strip()
    if MATRIX.search(text):
        return True
    if not HAS_NUMBER.search(text) or NOT_ARITHMETIC.fullmatch(text):
        return False
    if LATEX_MATH.search(text) or (TUPLE.fullmatch(text) and not WORD.search(text)):
        return True
    if not re.search(r"[()\[\]{}]", text) and len(parts := LIST_COMMA.split(text)) > 1:
        return all(_looks_numeric(part) for part in parts)
    return gold_problem(gold, AnswerKind.number, options=()) is None


def accepted_answers(value: Any) -> tuple[str, ...] | None:
    """All answers in a list of texts, numbers or VQAv2's {"answer": ...}; None for other values.

    Four numbers are a box. A text may be a list of texts, as JSON or as a Python literal.
    """
    if isinstance(value, str):
        value = _texts_in_text(value)
    if not isinstance(value, list | tuple):
        return None
    entries = [entry.get("answer") if isinstance(entry, dict) else entry for entry in value]
    entries = [entry for entry in entries if entry is not None]
    if not entries or not all(type(entry) in (str, int, float) for entry in entries):
        return None
    if _parse_corners(entries):
        return None
    return tuple(unwrap(answer_text(entry)) for entry in entries)


def _texts_in_text(text: str) -> list[Any] | None:
    """The list of texts, or of {"answer": text}, that a text holds, or None."""
    if not text.lstrip().startswith("["):
        return None
    try:
        values = parse_literal(text.strip())
    except ValueError:
        return None
    values = values if isinstance(values, list) else []
    entries = [value.get("answer") if isinstance(value, dict) else value for value in values]
    return values if entries and all(isinstance(entry, str) for entry in entries) else None


def answer_text(value: Any) -> str:
    """An answer as text: a string unchanged, numbers and lists of boxes as JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return "" if value is None else json.dumps(value, ensure_ascii=False)


def gold_text(value: Any, task: str) -> str:
    """A single gold answer as text. Raises GoldError for a list that is no list of boxes."""
    text = unwrap(answer_text(value))
    is_list = isinstance(value, list | tuple)
    if is_list and KIND_OF_TASK.get(task.removeprefix("cv_")) is not AnswerKind.boxes:
        if not value:
            raise GoldError("the list of answers is empty")
        try:
            _parse_boxes(text)
        except GoldError as error:
            problem = f"a list must have texts and numbers, or boxes, not {text[:80]}"
            raise GoldError(problem) from error
    return text


def gradable_answers(
    golds: Sequence[str], kind: AnswerKind, options: tuple[str, ...]
) -> tuple[str, ...]:
    """The gold answers that the grader of this kind can decide, an option's text as its letter.

    Raises GoldError with the first one's problem if there are none.
    """
    problem_of: dict[str, GoldError] = {}
    answer_of: dict[str, str] = {}
    for gold in dict.fromkeys(golds):
        try:
            answer_of[gold] = _gradable_answer(gold, kind, options)
        except GoldError as error:
            problem_of[gold] = error
    if not answer_of:
        raise problem_of[golds[0]]
    return tuple(answer_of[gold] for gold in golds if gold in answer_of)


def _gradable_answer(gold: str, kind: AnswerKind, options: tuple[str, ...]) -> str:
    answer = choice_letter(gold, options) if kind is AnswerKind.choice else gold
    if not answer:
        raise GoldError("it is empty")
    if problem := gold_problem(answer, kind, options):
        raise GoldError(problem)
    return answer


def choice_letter(gold: str, options: tuple[str, ...]) -> str:
    """The letter of the option that a gold answer names, by its letter or by its text.

    A gold answer that names no option is returned unchanged. Raises GoldError if it names two.
    """
    letter, folded = choice.parse(gold, options), gold.casefold().strip()
    matching = [LETTERS[i] for i, text in enumerate(options) if text.casefold().strip() == folded]
    if len(matching) != 1:
        return letter or gold
    if letter in tuple(LETTERS[: len(options)]) and letter != matching[0]:
        raise GoldError(f"{gold!r} is the letter of one option and the text of another")
    return matching[0]


def strip_option_marks(options: Sequence[str]) -> tuple[str, ...]:
    """Options without marks like "A.", because the prompt adds its own. Raises RowError."""
    if len(options) > len(LETTERS):
        raise RowError(f"unusable options: {len(options)}, but at most {len(LETTERS)} are allowed")
    marks = [OPTION_MARK.match(option) for option in options]
    if options and all(mark and mark[1] == LETTERS[i] for i, mark in enumerate(marks)):
        return tuple(OPTION_MARK.sub("", option, count=1).strip() for option in options)
    return tuple(option.strip() for option in options)


def boxes_in_model_pixels(gold: str, image: DecodedImage, box_format: BoxFormat) -> str:
    """Gold boxes as JSON, [{"bbox_2d", "label"}]: pixels of the resized image, rounded to 0.1."""
    frame = {  # the width and height that the coordinates refer to
        BoxFormat.pixels: image.original_size,
        BoxFormat.resized: image.size,
        BoxFormat.relative: (1000, 1000),
        BoxFormat.unit: (1, 1),
    }[box_format]
    tolerance = BOX_TOLERANCE if min(frame) > 1 else 0.01  # 0.01: 1 % of a side
    boxes = []
    for box, label in _parse_boxes(gold):
        x1, y1, x2, y2 = box
        if min(x1, y1) < -tolerance or x2 > frame[0] + tolerance or y2 > frame[1] + tolerance:
            likely = BoxFormat.pixels if box_format is not BoxFormat.pixels else BoxFormat.relative
            raise GoldError(
                f"box {_round(box)} reaches beyond {frame[0]} x {frame[1]} "
                f"(data.box_format={box_format.value}); is data.box_format={likely.value} meant?"
            )
        sides = zip(box, frame * 2, image.size * 2, strict=True)  # w, h, w, h for x1, y1, x2, y2
        corners = [min(max(value, 0), limit) * size / limit for value, limit, size in sides]
        if corners[2] - corners[0] < 0.1 or corners[3] - corners[1] < 0.1:  # as _round
            raise GoldError(f"box {_round(box)} has no area inside the image")
        boxes.append({"bbox_2d": _round(corners), **label})
    return json.dumps(boxes, ensure_ascii=False)


def _round(values: Sequence[float]) -> list[float | int]:
    """The values rounded to 0.1, as int if that is a whole number."""
    rounded = [round(value, 1) for value in values]
    return [int(value) if value == int(value) else value for value in rounded]


def _parse_boxes(gold: str) -> list[tuple[list[float], dict[str, str]]]:
    """The corners of each box, and {"label": ...} or {}. Raises GoldError."""
    problem = f"not a list of boxes: {gold[:80]!r}"
    try:
        value = parse_literal(CODE_FENCE.sub("", gold.strip()))
    except ValueError as error:
        raise GoldError(problem) from error
    entries = [value] if isinstance(value, dict) or _parse_corners(value) else value
    if not isinstance(entries, list | tuple) or not entries:
        raise GoldError(problem)
    boxes = []
    for entry in entries:
        fields = entry if isinstance(entry, dict) else {"bbox_2d": entry}
        if (corners := _parse_corners(fields.get("bbox_2d"))) is None:
            raise GoldError(f"not a box (bbox_2d with four numbers): {str(entry)[:80]}")
        label = fields.get("label")
        boxes.append((corners, {} if label is None else {"label": str(label)}))
    return boxes


def parse_literal(text: str) -> Any:
    """The value of a JSON text or of a Python literal. Raises ValueError."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        try:
            return ast.literal_eval(text)
        except (SyntaxError, TypeError, RecursionError, MemoryError) as error:
            raise ValueError(str(error)) from error


def _parse_corners(value: Any) -> list[float] | None:
    """The corners x1 <= x2, y1 <= y2 of a list of four finite numbers (no booleans), or None."""
    if not isinstance(value, list | tuple) or len(value) != 4:
        return None
    if not all(type(number) in (int, float) and math.isfinite(number) for number in value):
        return None
    x1, y1, x2, y2 = map(float, value)
    return [min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)]
