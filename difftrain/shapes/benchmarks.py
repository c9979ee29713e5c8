"""Six miniature benchmarks in the official item formats, drawn from the embedded world.

Their drawings come from the bench split, so no item is in the training pool or was seen in
pretraining. Each item has the harness's columns, the picture as PNG bytes in `image`, and the
drawing's identity in `sample_id`. How they are asked and scored is the official way (evaluate/).
"""

from collections.abc import Callable, Iterator
from itertools import count as numbers
from itertools import islice
from typing import Any

from difftrain import seeds
from difftrain.records import AnswerKind
from difftrain.shapes import pool, wordings
from difftrain.shapes.families import Drawn
from difftrain.shapes.pairs import yes_no_items
from difftrain.shapes.pool import Split

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
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
)


def _option_columns(drawn: Drawn) -> dict[str, str]:
    return dict(zip(LETTERS, drawn.options, strict=False))


def mathvista(family: str, knob: float, drawn: Drawn) -> Item:
    """The harness's MathVista row: `question` is the whole query, `choices` a list literal."""
    task, skills = MATHVISTA_TASKS[family]
    chosen = bool(drawn.options)
    letter = drawn.answer if chosen else None
    return {
        "question": wordings.mathvista(drawn),
        "question_type": "multi_choice" if chosen else "free_form",
        "answer_type": "text" if chosen else "integer",
        "choices": str(list(drawn.options)) if chosen else None,
        "unit": None,
        "precision": None,
        "answer": drawn.options[LETTERS.index(drawn.answer)] if chosen else drawn.answer,
        "answer_option": letter,
        "task": task,
        "skills": skills,
    }


def _mmvet_gold(drawn: Drawn) -> str:
    """A number or its word; of a longer reading, its beginning and its end."""
    text = drawn.answer
    if drawn.kind is AnswerKind.text:
        return f"{text[:-1]}<AND>{text[1:]}" if len(text) > 2 else text
    if int(text) < len(NUMBER_WORDS):
        return f"{text}<OR>{NUMBER_WORDS[int(text)]}"
    return text


def mmvet(family: str, knob: float, drawn: Drawn) -> Item:
    """The harness's MM-Vet row: an open question, capabilities joined by commas."""
    return {
        "question": drawn.question,
        "answer": _mmvet_gold(drawn),
        "category": MMVET_CAPABILITIES[family],
    }


def ocrbench(family: str, knob: float, drawn: Drawn) -> Item | None:
    """The harness's OCRBench row; single letters are left out, any sentence would contain them."""
    if len(drawn.answer) < 2:
        return None
    return {
        "dataset": "shapes",
        "question": drawn.question,
        "answer": [drawn.answer],
        "category": OCR_TYPES[len(drawn.answer) % len(OCR_TYPES)],
    }


def mmmu(family: str, knob: float, drawn: Drawn) -> Item:
    """The harness's MMMU row: the picture's place is marked, open questions have no options."""
    subject, discipline = MMMU_SUBJECTS[family]
    return {
        "question": f"<image 1> {drawn.question}",
        **_option_columns(drawn),
        "answer": drawn.answer,
        "split": "validation",
        "question_type": "multiple-choice" if drawn.options else "open",
        "topic_difficulty": "Easy" if knob < 1 / 3 else "Medium" if knob < 2 / 3 else "Hard",
        "subfield": family,
        "image_type": "['Diagrams']",
        "explanation": drawn.thought,
        "category": discipline,
        "l2-category": subject,
    }


def mmstar(family: str, knob: float, drawn: Drawn) -> Item:
    """The harness's MMStar row: options in columns, one of six capabilities."""
    return {
        "question": drawn.question,
        **_option_columns(drawn),
        "answer": drawn.answer,
        "category": MMSTAR_CAPABILITIES[family][knob >= 0.5],
        "l2_category": family,
        "bench": "shapes",
    }


Row = Callable[[str, float, Drawn], Item | None]

MADE_OF: dict[str, tuple[Row, tuple[str, ...]]] = {
    "MathVista": (mathvista, tuple(MATHVISTA_TASKS)),
    "MMVet": (mmvet, tuple(MMVET_CAPABILITIES)),
    "OCRBench": (ocrbench, ("read",)),
    "MMMU": (mmmu, tuple(MMMU_SUBJECTS)),
    "MMStar": (mmstar, tuple(MMSTAR_CAPABILITIES)),
}


def _drawn_items(benchmark: str, seed: int) -> Iterator[Item]:
    row, families = MADE_OF[benchmark]
    for index in numbers():
        family = families[index % len(families)]
        identity, knob, drawn = pool.draw(Split.bench, family, index, seed)
        columns = row(family, knob, drawn)
        if columns is not None:
            yield {**columns, "image": pool.png(drawn.image), "sample_id": identity}


def _numbered(benchmark: str, place: int, item: Item) -> Item:
    """The item with the identity columns of its benchmark."""
    if benchmark == "MathVista":
        return {"index": place, "pid": str(place + 1), **item}
    if benchmark == "MMMU":
        return {"index": place, "id": f"validation_{item['l2-category']}_{place + 1}", **item}
    return {"index": place, **item}


def items(benchmark: str, size: int, seed: int = 0) -> list[Item]:
    """The first `size` different items of a miniature, the same on every machine.

    `benchmark` is a name of the tables, with or without `shapes/`. Raises ValueError for others.
    """
    name = benchmark.removeprefix("shapes/")
    root = seeds.derive(seed, "benchmark", name)
    if name == "HallusionBench":
        return list(islice(yes_no_items(root), size))
    if name not in MADE_OF:
        known = ", ".join([*MADE_OF, "HallusionBench"])
        raise ValueError(f"benchmark={benchmark!r}: must be one of {known}")
    found: dict[str, Item] = {}
    drawn = _drawn_items(name, root)
    while len(found) < size:
        item = next(drawn)
        found.setdefault(item["sample_id"], item)
    return [_numbered(name, place, item) for place, item in enumerate(found.values())]
