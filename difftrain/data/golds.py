r"""Gold answers: opened (tags, \boxed{}), and of which kind they are.

Not here: whether a grader can read a gold (difftrain/grade says so), and boxes (boxes.py).
"""

import re
from collections.abc import Sequence

from difftrain.data.prompts import LETTERS
from difftrain.data.quarantine import RowError
from difftrain.grade import choice, extract, gold_problem
from difftrain.records import AnswerKind, TaskSet

KIND_OF_TASK = {
    "detection": AnswerKind.boxes,
    "grounding": AnswerKind.boxes,
    "ocr": AnswerKind.text,
    "counting": AnswerKind.count,
}
"""The perception tasks of the first paper; their names also occur with `cv_` in front."""

TEXT = re.compile(r"\\text\s*\{([^{}]*)\}")
MARKED_LETTER = re.compile(r"(?:^|[\s(\[])([A-Z])\s?[.):\]]")
OPTION_MARK = re.compile(r"\(?([A-Z])[.):]\s*")

LONGEST_SPOKEN = 200
"""Characters of an assistant's turn that may be a gold as a whole."""
LONGEST_WORDS = 40
PARTS = re.compile(r"(?<!\\);|\n")
"""Several answers in one gold."""
UNCOMPARABLE = re.compile(r"[=<>≤≥\\]|\d.*\s\D.*\d")
"""Relations, commands, several numbers among words."""
DATE_OR_TIME = re.compile(r"\d+([-/.])\d+\1\d+|\d{1,2}:\d{2}(:\d{2})?")
LIST = re.compile(r"^[^()\[\]{}]*,(?!\d{3}(?!\d))")
"""A comma outside brackets that parts no thousands."""
HAS_NUMBER = re.compile(r"\d|\\pi|π|\\infty")


def opened(gold: str) -> str:
    r"""A gold without <answer> tags, \boxed{} (the last of each) and \text{} around all of it."""
    inside = extract.tag_content(gold)
    gold = gold if inside is None else inside
    inside = extract.boxed_content(gold)
    gold = (gold if inside is None else inside).strip()
    wrapped = TEXT.fullmatch(gold)
    return wrapped[1].strip() if wrapped else gold


def spoken(said: str) -> str:
    """A gold that an assistant's turn says: opened, else the whole turn if it is short.

    Quotes, a trailing # and one final period are no part of it. Raises RowError for a speech.
    """
    inside = opened(said)
    if inside == said.strip() and len(inside) > LONGEST_SPOKEN:
        raise RowError(
            f"unusable gold: the assistant says {len(inside)} characters, none of them in "
            "<answer></answer> or \\boxed{}"
        )
    bare = inside.strip().strip("#").strip()
    if bare.endswith(".") and not bare.endswith(".."):
        bare = bare[:-1]
    return bare.strip("\"'`").strip()


def comparable(gold: str) -> str:
    """A gold that is a number, a letter or few words. Raises RowError for sentences and lists.

    For sets whose golds are free text meant for a mathematician: an exact comparison of such words
    would never pay, and math-verify would pay for their letters.
    """
    words = not reads_as_number(gold)
    if PARTS.search(gold) or (words and (len(gold) > LONGEST_WORDS or UNCOMPARABLE.search(gold))):
        raise RowError(f"unusable gold: neither a number, a letter nor few words: {gold[:80]!r}")
    return gold


def task_set(task: str, kind: AnswerKind) -> TaskSet:
    """Perception for its four tasks and for anything answered with boxes, else reasoning."""
    seen = task.removeprefix("cv_") in KIND_OF_TASK or kind is AnswerKind.boxes
    return TaskSet.perception if seen else TaskSet.reasoning


def kind_of(gold: str, task: str, question: str, options: Sequence[str]) -> AnswerKind:
    """The answer kind of an opened gold: by task, then options, then by how it reads."""
    known = KIND_OF_TASK.get(task.removeprefix("cv_"))
    if known is AnswerKind.boxes or "bbox_2d" in gold:
        return AnswerKind.boxes
    if options:
        return AnswerKind.choice
    if known is not None:
        return known
    if choice.parse(gold, ()) in lettered(question):
        return AnswerKind.choice
    return AnswerKind.number if reads_as_number(gold) else AnswerKind.text


def lettered(question: str) -> set[str]:
    """The letters that mark options inside a question (A. / (A) / A:); empty without A and B."""
    found = set(MARKED_LETTER.findall(question))
    return found if {"A", "B"} <= found else set()


def reads_as_number(gold: str) -> bool:
    """Whether a gold is a number, a measure or a formula, and not words, a date or a list."""
    text = gold.strip().strip("$").strip()
    if not HAS_NUMBER.search(text) or DATE_OR_TIME.fullmatch(text) or LIST.match(text):
        return False
    return gold_problem(gold, AnswerKind.number, ()) is None


def as_choice(gold: str, options: tuple[str, ...]) -> str:
    """A choice gold as its letter, also where it repeats an option's text. Raises RowError.

    A gold that names no option comes back as it is, for the grader to refuse.
    """
    named, plain = choice.parse(gold, options), gold.casefold().strip()
    same = [LETTERS[at] for at, text in enumerate(options) if text.casefold().strip() == plain]
    if len(same) != 1:
        return named or gold
    if named in tuple(LETTERS[: len(options)]) and named != same[0]:
        raise RowError(
            f"unusable gold: {gold!r} is the letter of one option and the text of another"
        )
    return same[0]


def without_marks(options: Sequence[str]) -> tuple[str, ...]:
    """Options without their own "A." marks, which the prompt adds itself. Raises RowError."""
    if len(options) > len(LETTERS):
        raise RowError(f"unusable options: {len(options)}, but only {len(LETTERS)} have a letter")
    marks = [OPTION_MARK.match(option) for option in options]
    if options and all(mark and mark[1] == LETTERS[at] for at, mark in enumerate(marks)):
        return tuple(OPTION_MARK.sub("", option, count=1).strip() for option in options)
    return tuple(option.strip() for option in options)
