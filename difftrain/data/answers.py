r"""Reads gold answers: removes tags and \boxed{}, infers the answer kind, converts gold boxes.

difftrain/grade decides whether a grader can parse a gold answer, and compares boxes.
"""

import ast
import json
import math
import re
from collections.abc import Sequence
from operator import itemgetter
from typing import Any

from difftrain.config.data import BoxFormat
from difftrain.data import question_options
from difftrain.data.prompts import LETTERS
from difftrain.data.quarantine import RowError
from difftrain.grade import choice, extract, gold_problem, units, values
from difftrain.images import DecodedImage
from difftrain.records import AnswerKind, TaskSet

# The perception tasks of Qi et al. 2026. Some datasets write their names with the prefix `cv_`.
KIND_OF_TASK = {
    "detection": AnswerKind.boxes,
    "grounding": AnswerKind.boxes,
    "ocr": AnswerKind.text,
    "counting": AnswerKind.count,
}
ANSWER_KEYS = ("answer", "answers", "text", "value")  # of an object that holds answers
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
# A4, B-52, 3D, but not 12V, nor 300K, 5M, 2B, which are thousands, millions, billions.
IDENTIFIER = re.compile(r"[A-Z]{1,3}-?\d+[A-Z]?|\d+(?P<letter>[AC-JLN-Z])")
FROM_TO = re.compile(r"\d+(?:\.\d+)?\s+to\s+\d+(?:\.\d+)?")  # a range or a score, or a ratio
WHOLE_NUMBER = re.compile(r"\d+|\d{1,3}(?:,\d{3})+")
ASKS_COUNT = re.compile(
    r"\b(?:how many|number of)\b(?:\s+(?:square\s+|cubic\s+)?(?P<noun>\w+))?", re.IGNORECASE
)
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

    A whole number is a count if the question asks how many things, not how many degrees or meters.
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
    is_ratio = re.search(r"\bratios?\b", f"{question} {task.replace('_', ' ')}", re.IGNORECASE)
    if (FROM_TO.fullmatch(gold.strip()) and not is_ratio) or not _looks_numeric(gold):
        return AnswerKind.text
    is_count = WHOLE_NUMBER.fullmatch(gold.strip().strip("$").strip()) and _asks_count(question)
    return AnswerKind.count if is_count else AnswerKind.number


def _asks_count(question: str) -> bool:
    """Whether a question asks for a number of things, and not for a quantity in a unit."""
    nouns = [match["noun"] or "" for match in ASKS_COUNT.finditer(question)]
    return any(
        not noun.lower().startswith("percent") and units.parse(noun) in (None, units.COUNT)
        for noun in nouns
    )


def infer_kind_of_all(
    golds: Sequence[str], task: str, question: str, options: Sequence[str]
) -> AnswerKind:
    """The kind of several accepted answers: text if they are of different kinds (`3`, `three`).

    Counts beside numbers (`3`, `3.5`) are numbers.
    """
    kinds = {infer_kind(gold, task, question, options) for gold in dict.fromkeys(golds)}
    if kinds == {AnswerKind.count, AnswerKind.number}:
        return AnswerKind.number
    return kinds.pop() if len(kinds) == 1 else AnswerKind.text


def _looks_numeric(gold: str) -> bool:
    """Whether a gold answer is a number, a quantity, a formula or a list of them.

    Words, and digits that are not computed with (dates, ranges, sizes), are not.
    """
    text = gold.strip().strip("$").strip()
    if MATRIX.search(text):
        return True
    if not HAS_NUMBER.search(text) or NOT_ARITHMETIC.fullmatch(text) or _is_identifier(text):
        return False
    if LATEX_MATH.search(text) or (TUPLE.fullmatch(text) and not WORD.search(text)):
        return True
    if not re.search(r"[()\[\]{}]", text) and len(parts := LIST_COMMA.split(text)) > 1:
        return all(_looks_numeric(part) for part in parts)
    return gold_problem(gold, AnswerKind.number, options=()) is None


def _is_identifier(text: str) -> bool:
    """Whether a text is a name such as A4 or 3D; a number with a unit, such as 12V, is not."""
    match = IDENTIFIER.fullmatch(text)
    return match is not None and not (match["letter"] and units.parse(match["letter"]))


def accepted_answers(value: Any) -> tuple[str, ...] | None:
    """All answers in a list of texts, numbers or objects like VQAv2's {"answer": ...}, or in one
    object like SQuAD's {"text": [...]}; None for other values. Raises GoldError for other objects.

    Four numbers with x1 < x2 and y1 < y2 are a box. A text may be a list of texts or an object, as
    JSON or as a Python literal.
    """
    if isinstance(value, str):
        value = _texts_in_text(value)
    if isinstance(value, dict):
        value = answer_in_object(value)
        value = [value] if type(value) in (str, int, float) else value
    if not isinstance(value, list | tuple):
        return None
    entries = [_answer_in_entry(entry) for entry in value]
    entries = [entry for entry in entries if entry is not None]
    if not entries or not all(type(entry) in (str, int, float) for entry in entries):
        return None
    if _parse_corners(entries) and entries[0] < entries[2] and entries[1] < entries[3]:
        return None
    return tuple(unwrap(answer_text(entry)) for entry in entries)


def answer_in_object(value: Any) -> Any:
    """The answers of an object, in the first of ANSWER_KEYS that is not null.

    A box and a value that is no object are returned unchanged. Raises GoldError for other objects.
    """
    if not isinstance(value, dict) or "bbox_2d" in value:
        return value
    content = next((value[key] for key in ANSWER_KEYS if value.get(key) is not None), None)
    if isinstance(content, list | tuple) or type(content) in (str, int, float):
        return content
    keys = ", ".join(map(str, value)) or "none"
    rule = f"needs a text or a list under {', '.join(ANSWER_KEYS[:-1])} or {ANSWER_KEYS[-1]}"
    raise GoldError(f"an object {rule}; keys found: {keys[:80]}")


def _answer_in_entry(entry: Any) -> Any:
    """An entry of a list of answers; of an object its answer; None for a box or if it has none."""
    if not isinstance(entry, dict):
        return entry
    if "bbox_2d" in entry:
        return None
    return next((entry[key] for key in ANSWER_KEYS if entry.get(key) is not None), None)


def _texts_in_text(text: str) -> Any:
    """The object with answers, or the list of texts or of such objects, that a text holds, or None.

    Other objects and lists, such as a set `{1, 2}` and an interval `[1, 2]`, are None.
    """
    if not text.lstrip().startswith(("[", "{")):
        return None
    try:
        value = parse_literal(text.strip())
    except ValueError:
        return None
    if isinstance(value, dict):
        return value if _answer_in_entry(value) is not None else None
    entries = [_answer_in_entry(entry) for entry in value] if isinstance(value, list) else []
    return value if entries and all(isinstance(entry, str) for entry in entries) else None


def answer_text(value: Any) -> str:
    """An answer as text: a string unchanged, numbers and lists of boxes as JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return "" if value is None else json.dumps(value, ensure_ascii=False)


def gold_text(value: Any, task: str) -> str:
    """A single gold answer as text. Raises GoldError for a list of anything but boxes, and for an
    object without an answer."""
    value = answer_in_object(value)
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
    accepted = tuple(answer_of[gold] for gold in golds if gold in answer_of)
    if kind is AnswerKind.choice and len({*accepted}) > 1:
        letters = ", ".join(dict.fromkeys(accepted))
        raise GoldError(f"it names several options ({letters}), and a response may give only one")
    return accepted


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


def option_letter_of_index(index: int, options: tuple[str, ...]) -> str | None:
    """The letter of the option with this index, counted from 0, or None.

    Raises GoldError if numbers are among the options, and it may be one of them instead.
    """
    if not 0 <= index < len(options):
        return None
    if any(values.parse(option) for option in options):
        if choice_letter(str(index), options) == LETTERS[index]:
            return LETTERS[index]  # as an index and as a text it is the same option
        remedy = f'write the option\'s letter ("{LETTERS[index]}") or its text as a string'
        raise GoldError(f"{index} may be the index or the value of an option; {remedy}")
    return LETTERS[index]


def option_texts(value: Any) -> list[str]:
    """The texts of a row's options, in the order of their letters. Raises RowError.

    Options are a list, an object such as {"A": text, "B": text} or {"label": [...], "text": [...]},
    a list of {"label", "text"}, or a text that holds one of these or `A. cat` and `B. dog`.
    """
    if isinstance(value, str):
        value = _options_in_text(value)
    if isinstance(value, list) and value and all(isinstance(entry, dict) for entry in value):
        value = {key: [entry.get(key) for entry in value] for key in ("label", "text")}
    if isinstance(value, dict) and isinstance(value.get("text"), list):
        value = _labeled_texts(value.get("label"), value["text"])
    elif isinstance(value, dict) and value and all(map(_is_letter, value)):
        value = texts_by_letter([(key.upper(), text) for key, text in value.items()])
    elif isinstance(value, dict):
        value = [text for text in value.values() if text is not None]  # Arrow adds null fields
    value = [] if value is None else value
    if not isinstance(value, list) or not all(type(text) in (str, int, float) for text in value):
        raise RowError("unusable options: must be a list of strings or numbers")
    return [str(text) for text in value]


def _labeled_texts(labels: Any, texts: list[Any]) -> list[Any]:
    """The texts in the order of their labels, if there are any. Raises RowError."""
    labels = labels if isinstance(labels, list) else []
    if not any(label is not None for label in labels):
        return texts
    if len(labels) != len(texts) or not all(map(_is_letter, labels)):
        raise RowError("unusable options: each label must be a letter, one for each text")
    return texts_by_letter(
        [(label.upper(), text) for label, text in zip(labels, texts, strict=True)]
    )


def texts_by_letter(pairs: Sequence[tuple[str, Any]]) -> list[Any]:
    """The texts of (letter, text) pairs in the order of their letters; empty ones are left out.

    Raises RowError if the letters that are left are not A, B, ..., since each would be another.
    """
    filled = sorted((pair for pair in pairs if pair[1] not in (None, "")), key=itemgetter(0))
    letters = "".join(letter for letter, _ in filled)
    if letters != LETTERS[: len(letters)]:
        rule = "the options must be A, B, ... without a gap, since the answer is a letter"
        raise RowError(f"unusable options: found {', '.join(letters)}; {rule}")
    return [text for _, text in filled]


def _is_letter(value: Any) -> bool:
    """Whether a value is one letter, of either case."""
    return isinstance(value, str) and len(value) == 1 and value.upper() in LETTERS


def _options_in_text(text: str) -> Any:
    """The value of a JSON text or Python literal, or the options marked `A.`, `B.`, ..., else the
    text unchanged."""
    try:
        return parse_literal(text.strip())
    except ValueError:
        return question_options.marked_options(text) or text


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
