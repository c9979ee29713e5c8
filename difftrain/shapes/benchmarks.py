"""Six miniature benchmarks in the official item formats, drawn from the embedded world.

Their drawings come from the bench split, so no item is in the training pool or in the pretraining
data. Each item has the harness's columns, the image as PNG bytes in `image`, and its `sample_id`.
Prompts and scores are the official ones (difftrain/evaluate).
"""

from collections.abc import Callable, Iterator
from itertools import count, islice
from typing import Any

from difftrain import seeds
from difftrain.data import prompts
from difftrain.records import AnswerKind
from difftrain.shapes import pool
from difftrain.shapes.families import DrawnSample
from difftrain.shapes.yes_no_pairs import yes_no_items

Item = dict[str, Any]
LETTERS = "ABCD"

MATHVISTA_TASKS = {
    "bar": ("figure question answering", "['statistical reasoning', 'arithmetic reasoning']"),
    "count_plus": ("math word problem", "['arithmetic reasoning']"),
    "compare": ("visual question answering", "['arithmetic reasoning']"),
    "odd": ("visual question answering", "['logical reasoning']"),
    "colour": ("visual question answering", "['scientific reasoning']"),
}
MMVET_CAPABILITIES = {
    "read": "rec,ocr",
    "count": "rec",
    "count_colour": "rec,spat",
    "count_plus": "rec,math",
    "bar": "rec,math",
}
OCR_TYPES = (
    "Regular Text Recognition",
    "Irregular Text Recognition",
    "Artistic Text Recognition",
    "Non-Semantic Text Recognition",
)
MMMU_SUBJECTS = {
    "colour": ("Art", "Art & Design"),
    "compare": ("Math", "Science"),
    "odd": ("Psychology", "Humanities & Social Science"),
    "count": ("Manage", "Business"),
    "bar": ("Economics", "Business"),
}
MMSTAR_CAPABILITIES = {
    "colour": ("coarse perception", "fine-grained perception"),
    "odd": ("instance reasoning", "logical reasoning"),
    "compare": ("science & technology", "math"),
}
"""Capability of a family's simpler and harder half."""

NUMBER_WORDS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"
)  # fmt: skip

MATHVISTA_HINTS = {
    AnswerKind.choice: (
        "Please answer the question and provide the correct option letter, e.g., A, B, C, D, "
        "at the end."
    ),
    AnswerKind.number: (
        "Please answer the question requiring an integer answer and provide the final value, "
        "e.g., 1, 2, 3, at the end."
    ),
}


def mathvista_query(drawn: DrawnSample) -> str:
    """MathVista's query: hint, question, lettered choices in brackets."""
    kind = AnswerKind.choice if drawn.options else AnswerKind.number
    text = f"Hint: {MATHVISTA_HINTS[kind]}\nQuestion: {drawn.question}"
    if drawn.options:
        lettered = zip(prompts.LETTERS, drawn.options, strict=False)
        lines = [f"({letter}) {option}" for letter, option in lettered]
        text += "\nChoices:\n" + "\n".join(lines)
    return text


def option_columns(drawn: DrawnSample) -> dict[str, str]:
    """The options in columns A to D."""
    return dict(zip(LETTERS, drawn.options, strict=False))


def mathvista(family: str, gen_difficulty: float, drawn: DrawnSample) -> Item:
    """A MathVista row of the harness: `question` is the whole query, `choices` a list literal."""
    task, skills = MATHVISTA_TASKS[family]
    is_choice = bool(drawn.options)
    return {
        "question": mathvista_query(drawn),
        "question_type": "multi_choice" if is_choice else "free_form",
        "answer_type": "text" if is_choice else "integer",
        "choices": str(list(drawn.options)) if is_choice else None,
        "unit": None,
        "precision": None,
        "answer": drawn.options[LETTERS.index(drawn.answer)] if is_choice else drawn.answer,
        "answer_option": drawn.answer if is_choice else None,
        "task": task,
        "skills": skills,
    }


def mmvet_gold(drawn: DrawnSample) -> str:
    """A number or its word; of a longer text, its beginning and its end."""
    text = drawn.answer
    if drawn.kind is AnswerKind.text:
        return f"{text[:-1]}<AND>{text[1:]}" if len(text) > 2 else text
    if int(text) < len(NUMBER_WORDS):
        return f"{text}<OR>{NUMBER_WORDS[int(text)]}"
    return text


def mmvet(family: str, gen_difficulty: float, drawn: DrawnSample) -> Item:
    """An MM-Vet row of the harness: an open question, capabilities joined by commas."""
    return {
        "question": drawn.question,
        "answer": mmvet_gold(drawn),
        "category": MMVET_CAPABILITIES[family],
    }


def ocrbench(family: str, gen_difficulty: float, drawn: DrawnSample) -> Item | None:
    """An OCRBench row of the harness; None for a single letter, which any sentence contains."""
    if len(drawn.answer) < 2:
        return None
    return {
        "dataset": "shapes",
        "question": drawn.question,
        "answer": [drawn.answer],
        "category": OCR_TYPES[len(drawn.answer) % len(OCR_TYPES)],
    }


def topic_difficulty(gen_difficulty: float) -> str:
    """The difficulty in MMMU's three words."""
    return "Easy" if gen_difficulty < 1 / 3 else "Medium" if gen_difficulty < 2 / 3 else "Hard"


def mmmu(family: str, gen_difficulty: float, drawn: DrawnSample) -> Item:
    """An MMMU row of the harness: the image's place is marked, open questions have no options."""
    subject, discipline = MMMU_SUBJECTS[family]
    return {
        "question": f"<image 1> {drawn.question}",
        **option_columns(drawn),
        "answer": drawn.answer,
        "split": "validation",
        "question_type": "multiple-choice" if drawn.options else "open",
        "topic_difficulty": topic_difficulty(gen_difficulty),
        "subfield": family,
        "image_type": "['Diagrams']",
        "explanation": drawn.rationale,
        "category": discipline,
        "l2-category": subject,
    }


def mmstar(family: str, gen_difficulty: float, drawn: DrawnSample) -> Item:
    """An MMStar row of the harness: options in columns, one of six capabilities."""
    return {
        "question": drawn.question,
        **option_columns(drawn),
        "answer": drawn.answer,
        "category": MMSTAR_CAPABILITIES[family][gen_difficulty >= 0.5],
        "l2_category": family,
        "bench": "shapes",
    }


ToRow = Callable[[str, float, DrawnSample], Item | None]

SPECS: dict[str, tuple[ToRow, tuple[str, ...]]] = {
    "MathVista": (mathvista, tuple(MATHVISTA_TASKS)),
    "MMVet": (mmvet, tuple(MMVET_CAPABILITIES)),
    "OCRBench": (ocrbench, ("read",)),
    "MMMU": (mmmu, tuple(MMMU_SUBJECTS)),
    "MMStar": (mmstar, tuple(MMSTAR_CAPABILITIES)),
}
"""How a benchmark's rows are made, and of which families."""


def drawn_items(benchmark: str, seed: int) -> Iterator[Item]:
    """Items of a benchmark without end, without the columns that number them."""
    to_row, families = SPECS[benchmark]
    for index in count():
        family = families[index % len(families)]
        sample_id, gen_difficulty, drawn = pool.draw(pool.Split.bench, family, index, seed)
        row = to_row(family, gen_difficulty, drawn)
        if row is not None:
            yield {**row, "image": pool.to_png(drawn.image), "sample_id": sample_id}


def numbered(benchmark: str, index: int, item: Item) -> Item:
    """The item with the identity columns of its benchmark."""
    if benchmark == "MathVista":
        return {"index": index, "pid": str(index + 1), **item}
    if benchmark == "MMMU":
        return {"index": index, "id": f"validation_{item['l2-category']}_{index + 1}", **item}
    return {"index": index, **item}


def items(benchmark: str, size: int, seed: int = 0) -> list[Item]:
    """The first `size` distinct items of a miniature, the same on every machine.

    `benchmark` is a name of the tables, with or without `shapes/`. Raises ValueError for others.
    """
    name = benchmark.removeprefix("shapes/")
    root = seeds.derive(seed, "benchmark", name)
    if name == "HallusionBench":
        return list(islice(yes_no_items(root), size))
    if name not in SPECS:
        allowed = ", ".join([*SPECS, "HallusionBench"])
        raise ValueError(f"benchmark={benchmark!r}: must be one of {allowed}")
    by_id: dict[str, Item] = {}
    drawn = drawn_items(name, root)
    while len(by_id) < size:
        item = next(drawn)
        by_id.setdefault(item["sample_id"], item)
    return [numbered(name, index, item) for index, item in enumerate(by_id.values())]
