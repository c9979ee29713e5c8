"""shapes/MathVerse, shapes/WeMath and shapes/LogicVista: RAP's other benchmarks, drawn.

Their items have the official columns, and the images come from the split `bench` of the drawings
(pool.py). `sample_id` is that of the drawing, which the items of a problem share. A drawing has no
room for text, so the question of MathVerse's version Vision Only can only be guessed.
"""

import re
from collections.abc import Iterator
from itertools import count, cycle
from random import Random
from typing import Any

from difftrain import images, seeds
from difftrain.data.prompts import LETTERS
from difftrain.evaluate.benchmarks import wemath
from difftrain.grade import extract
from difftrain.records import Sample
from difftrain.shapes import families, pool

Item = dict[str, Any]
NO_CORRECT_ANSWER = "No correct answer"  # WeMath's last option

VERSIONS = ("Text Dominant", "Text Lite", "Vision Intensive", "Vision Dominant", "Vision Only")
MATHVERSE_FIELDS = {  # family of samples (pool.FAMILIES) -> subject and subfield
    "bar": ("Functions", "Coordinate"),
    "count_plus": ("Functions", "Expression"),
    "compare": ("Plane Geometry", "Applied"),
    "odd": ("Plane Geometry", "Length"),
    "code": ("Solid Geometry", "Volume"),
}
LOGICVISTA_SKILLS = {
    "odd": "inductive",
    "pick": "deductive",
    "bar": "numerical",
    "count": "spatial",
    "compare": "mechanical",
}
WEMATH_STEPS = (2, 2, 3)  # of the problems, in turn
WEMATH_CONCEPTS = ("Observing Figures", "Combining Plane Figures", "Translation")  # of the steps


def _bench_samples(family_names: tuple[str, ...], seed: int) -> Iterator[Sample]:
    """Endless distinct samples of the split `bench`, of these families in turn."""
    ids: set[str] = set()
    for index, family in enumerate(cycle(family_names)):
        sample = pool.bench_sample(family, index, seed)
        if sample.sample_id not in ids:
            ids.add(sample.sample_id)
            yield sample


def _number_options(rng: Random, answer: int) -> tuple[str, ...]:
    """Four numbers in a row, one of which is the answer."""
    first = answer - rng.randint(0, min(answer, 3))
    return tuple(str(number) for number in range(first, first + 4))


def mathverse_items(seed: int) -> Iterator[Item]:
    """Endless MathVerse items: five versions of each problem."""
    index = count(1)
    for problem, sample in enumerate(_bench_samples(tuple(MATHVERSE_FIELDS), seed), 1):
        subject, subfield = MATHVERSE_FIELDS[sample.task]
        choices = [f"{x}:{text}" for x, text in zip(LETTERS, sample.options, strict=False)]
        question = "\n".join([sample.question, *(["Choices:", *choices] if choices else [])])
        form = (
            "the correct option letter, e.g., A, B, C, D"
            if choices
            else ("the final value, e.g., 1, 2.5, 300")
        )
        for version in VERSIONS:
            text = question
            if version == "Text Dominant":
                text = f"The image shows colored shapes, bars or letters on white. {question}"
            start, end = "Please", f"\nQuestion: {text}"
            if version == "Vision Only":
                start, end = "According to the question shown in the image, please", ""
            yield {
                "index": next(index),
                "problem_index": str(problem),
                "problem_version": version,
                "question": f"{start} directly answer the question and provide {form}.{end}",
                "query_cot": f"{start} first conduct reasoning, and then answer the question and "
                f"provide {form}, at the end.{end}",
                "question_for_eval": text,
                "question_type": "multi-choice" if choices else "free-form",
                "answer": sample.answer,
                "metadata": str({
                    "split": "testmini",
                    "source": "shapes",
                    "subject": subject,
                    "subfield": subfield,
                }),
                "image": sample.images[0],
                "sample_id": sample.sample_id,
            }  # fmt: skip


def _try_problem(rng: Random, steps: int) -> tuple[bytes, str, list[tuple[str, int]]] | None:
    """The image (PNG), sample id, and (question, answer) of each step and of the whole problem.

    A step counts the shapes of one color, the whole those of all these colors. None if the image
    with the whole problem is not in the split `bench`.
    """
    colors = rng.sample(list(families.COLORS), steps + 1)  # no question names the last one
    amounts = [rng.randint(1, 3) for _ in colors]
    named = [color for color, amount in zip(colors, amounts, strict=True) for _ in range(amount)]
    looks = [(rng.choice(families.SHAPES), color) for color in named]
    image = families.draw_shapes(families.scatter(rng, looks))
    counted = list(zip(colors, amounts, strict=True))[:steps]
    rows = [(f"How many {color} shapes are there?", amount) for color, amount in counted]
    question, answer = f"How many shapes are {' or '.join(colors[:steps])}?", sum(amounts[:steps])
    sample_id = pool.drawn_id(image, question, str(answer))
    if not pool.in_split(sample_id, pool.Split.bench):
        return None
    return images.to_png(image, compress_level=6), sample_id, [*rows, (question, answer)]


def wemath_items(seed: int) -> Iterator[Item]:
    """Endless WeMath items: problem by problem, first the steps and then the whole."""
    index, numbers = count(1), {steps: count(1) for steps in WEMATH_STEPS}
    for problem, steps in enumerate(cycle(WEMATH_STEPS)):
        attempts = (Random(seeds.derive(seed, "problem", problem, i)) for i in count())
        tries = ((rng, _try_problem(rng, steps)) for rng in attempts)
        rng, drawn = next((rng, drawn) for rng, drawn in tries if drawn)
        image, sample_id, questions = drawn
        group = f"{steps}steps_{next(numbers[steps])}"
        keys = [*map(str, range(1, steps + 1)), "multi"]
        concepts = [*WEMATH_CONCEPTS[:steps], ";".join(WEMATH_CONCEPTS[:steps])]
        for key, concept, (question, answer) in zip(keys, concepts, questions, strict=True):
            options = (*_number_options(rng, answer), NO_CORRECT_ANSWER)
            yield {
                "index": next(index),
                "ID": group,
                "key": f"{steps}steps_{key}",
                "knowledge concept": concept,
                "question": question,
                **dict(zip(LETTERS, options, strict=False)),
                "answer": LETTERS[options.index(str(answer))],
                "requirement": wemath.REQUIREMENT,
                "image": image,
                "sample_id": sample_id,
            }


def logicvista_items(seed: int) -> Iterator[Item]:
    """Endless LogicVista items; the options are in the question."""
    for index, sample in enumerate(_bench_samples(tuple(LOGICVISTA_SKILLS), seed), 1):
        options, answer = sample.options, sample.answer
        if not options:
            options = _number_options(Random(seeds.derive(seed, "options", index)), int(answer))
            answer = LETTERS[options.index(answer)]
        letters = LETTERS[: len(options)]
        listed = " ".join(f"({x}) {text}" for x, text in zip(letters, options, strict=True))
        names = ", ".join(letters[:-1]) + f" and {letters[-1]}"
        yield {
            "index": index,
            "question": f"{sample.question} Select from {names}. {listed}",
            "answer": answer,
            "skill": str([LOGICVISTA_SKILLS[sample.task]]),
            "image": sample.images[0],
            "sample_id": sample.sample_id,
        }


ITEMS = {"MathVerse": mathverse_items, "WeMath": wemath_items, "LogicVista": logicvista_items}
"""By benchmark: the function that draws its endless items from a seed."""

_EXTRACT = re.compile(r"\n7\.\nModel response: '(.*)'\nExtracted Answer: \Z", re.DOTALL)
_SCORE = re.compile(
    r"\n    \[Standard Answer\]: (.*)\n    \[Model_answer\] : (.*)\n    Judgement:\Z", re.DOTALL
)
_ITEM = re.compile(r"(.*)\n<end>\nAnswer: <start>\n(.*)\n<end>\nYour output: \Z", re.DOTALL)
_LISTED_OPTION = re.compile(r"\(([A-D])\) (.*?)(?= \([A-D]\) |\Z)")
_LETTER = re.compile(r"\b[A-D]\b")  # no item has more options
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def judge(prompt: str) -> str | None:
    """A stub of the judges of MathVerse and LogicVista; None for the prompt of another one."""
    if match := _EXTRACT.search(prompt):
        return _final_answer(match[1])
    if match := _SCORE.search(prompt):
        return str(int(_normalized(match[1]) == _normalized(match[2])))
    if prompt.startswith("You are a information extractor"):
        item = prompt.rpartition("Question: <start>\n")[2]  # the last of the prompt's questions
        if match := _ITEM.fullmatch(item):
            options = {text.lower(): letter for letter, text in _LISTED_OPTION.findall(match[1])}
            response, answer = _untagged(match[2]).lower().rstrip("."), _final_answer(match[2])
            if _LETTER.fullmatch(answer):
                return answer
            return options.get(response) or options.get(answer.lower(), "Z")
    return None


def _untagged(response: str) -> str:
    """The text inside the answer tags, or all of it."""
    tagged = extract.tag_content(response)
    return (response if tagged is None else tagged).strip()


def _final_answer(response: str) -> str:
    """The only option letter in a response, or else its last number, or else all of it."""
    text = _untagged(response)
    letters, numbers = set(_LETTER.findall(text)), _NUMBER.findall(text)
    if len(letters) == 1 and not numbers:
        return letters.pop()
    return numbers[-1] if numbers else text.rstrip(".") or "null"


def _normalized(answer: str) -> str:
    answer = " ".join(answer.casefold().split())
    return str(float(answer)) if _NUMBER.fullmatch(answer) else answer
