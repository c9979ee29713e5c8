"""The forms in which one question is put: the pool's, and those of the official items."""

from random import Random

from difftrain.data import prompts
from difftrain.records import AnswerKind
from difftrain.shapes.families import Drawn

HINTS = {
    AnswerKind.choice: (
        "Please answer the question and provide the correct option letter, e.g., A, B, C, D, "
        "at the end."
    ),
    AnswerKind.number: (
        "Please answer the question requiring an integer answer and provide the final value, "
        "e.g., 1, 2, 3, at the end."
    ),
}
"""MathVista's own hints."""


def plain(drawn: Drawn) -> str:
    """The pool's form, which is also MMStar's and MMMU's for choices."""
    return prompts.user_text(drawn.question, drawn.options)


def mathvista(drawn: Drawn) -> str:
    """MathVista's query: hint, question, lettered choices in brackets."""
    kind = AnswerKind.choice if drawn.options else AnswerKind.number
    text = f"Hint: {HINTS[kind]}\nQuestion: {drawn.question}"
    if drawn.options:
        lettered = zip(prompts.LETTERS, drawn.options, strict=False)
        lines = [f"({letter}) {option}" for letter, option in lettered]
        text += "\nChoices:\n" + "\n".join(lines)
    return text


def mmmu_open(drawn: Drawn) -> str:
    """MMMU's open question, which has no instruction at all."""
    return f"Question: {drawn.question}\n"


def any_of_them(drawn: Drawn, rng: Random) -> str:
    """One of the forms that suit the question, mostly the pool's."""
    luck = rng.random()
    numeric = drawn.kind in (AnswerKind.number, AnswerKind.count)
    if luck < 0.2 and (numeric or drawn.options):
        return mathvista(drawn)
    if luck < 0.3 and numeric:
        return mmmu_open(drawn)
    return plain(drawn)
