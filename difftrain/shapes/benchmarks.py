"""Six miniature benchmarks in the official item formats, drawn from the embedded world.

Their drawings come from the bench split, so no item is in the training pool or in the pretraining
data. Each item has the harness's columns, the image as PNG bytes in `image`, and its `sample_id`.
Prompts and scores are the official ones (difftrain/evaluate).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count, islice
from random import Random
from typing import Any

from PIL import Image

from difftrain import seeds
from difftrain.data import prompts
from difftrain.records import AnswerKind
from difftrain.shapes import families, pool, scenes
from difftrain.shapes.families import DrawnSample, Look, presence_question
from difftrain.shapes.scenes import COLORS, SHAPES, SceneObject

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

MAX_OTHERS = 5
"""Unchanged objects beside the edited one, in a pair of images."""

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


@dataclass(frozen=True, slots=True)
class ImagePair:
    """A set of HallusionBench: an image, and the same with another object in one object's place.

    `removed` is only in the original, `added` only in the edited image. Whether each is there is
    asked of both images, so the edit reverses both answers.
    """

    original: Image.Image
    edited: Image.Image
    removed: Look
    added: Look


def question_id(image: Image.Image, look: Look, answer: str) -> str:
    """The sample id of one question on one image."""
    return pool.drawn_id(image, presence_question(look), answer)


def in_bench(image: Image.Image, look: Look, answer: str) -> bool:
    """Whether the sample belongs to the bench split."""
    return pool.in_split(question_id(image, look, answer), pool.Split.bench)


def edited_images(objects: Sequence[SceneObject], added: Look) -> Iterator[Image.Image]:
    """The image with another object in the first one's tile, at every small shift."""
    shape, color = added
    for x in range(-2, 3):
        for y in range(-2, 3):
            new = replace(objects[0], shape=shape, color=color, shift=(x, y))
            yield scenes.draw_shapes([new, *objects[1:]])


def try_pair(rng: Random) -> ImagePair | None:
    """A pair whose four questions all belong to the bench split, or None."""
    removed = families.random_look(rng)
    others: list[Look] = []
    while len(others) < rng.randint(1, MAX_OTHERS):
        if (look := families.random_look(rng)) != removed:
            others.append(look)
    objects = families.scatter(rng, [removed, *others])
    original = scenes.draw_shapes(objects)
    if not in_bench(original, removed, "Yes"):
        return None
    absent = [(shape, color) for shape in SHAPES for color in COLORS]
    absent = [look for look in absent if look != removed and look not in others]
    rng.shuffle(absent)
    for added in absent:
        if not in_bench(original, added, "No"):
            continue
        for edited in edited_images(objects, added):
            if in_bench(edited, removed, "No") and in_bench(edited, added, "Yes"):
                return ImagePair(original, edited, removed, added)
    return None


def draw_pair(index: int, seed: int) -> ImagePair:
    """The pair of this index."""
    for attempt in count():
        rng = Random(seeds.derive(seed, "pairs", index, attempt))
        if pair := try_pair(rng):
            return pair
    raise AssertionError("unreachable")


def pair_items(pair: ImagePair, set_id: int) -> Iterator[Item]:
    """The four items of a set in HallusionBench's columns."""
    category, subcategory = "VD", "figure"
    for figure_id, image in ((1, pair.original), (2, pair.edited)):
        for number, look in enumerate((pair.removed, pair.added)):
            answer = "Yes" if (figure_id == 1) == (number == 0) else "No"
            index = ("shapes", category, subcategory, set_id, figure_id, number)
            yield {
                "index": "_".join(map(str, index)),
                "category": category,
                "subcategory": subcategory,
                "l2-category": f"{category}_{subcategory}",
                "visual_input": str(figure_id),
                "set_id": str(set_id),
                "figure_id": str(figure_id),
                "question_id": str(number),
                "question": presence_question(look),
                "answer": answer,
                "image": pool.to_png(image),
                "sample_id": question_id(image, look, answer),
            }


def yes_no_items(seed: int) -> Iterator[Item]:
    """Items without end, four to a set: two images with two questions each."""
    for set_id in count():
        yield from pair_items(draw_pair(set_id, seed), set_id)


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
    to_row, names = SPECS[benchmark]
    for index in count():
        family = names[index % len(names)]
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
