"""The nine built-in shapes/ benchmarks: drawn items in the formats of the official benchmarks.

The items come from the split `bench` of the drawings, so none of them is in the training pool or in
the pretraining data. An item has the columns of the official harness (VLMEvalKit), the image as PNG
bytes in `image`, and its `sample_id`. Prompts and scores are the official ones (evaluate/).
"""

import re
import threading
from collections.abc import Callable, Iterator
from functools import cache
from itertools import count, cycle, islice, product
from random import Random
from typing import Any

from PIL import Image

from difftrain import images, seeds
from difftrain.grade import extract
from difftrain.records import AnswerKind, Sample
from difftrain.shapes import pool, reasoning_benchmarks, signs
from difftrain.shapes.families import DrawnSample
from difftrain.shapes.signs import PRESENT, Sign

Item = dict[str, Any]
LETTERS = "ABCD"

# Keys of these tables: families of samples (spelled as in pool.FAMILIES). Values: columns of a row.
MATHVISTA_TASKS = {
    "code": ("math word problem", "['numeric commonsense']"),
    "pick": ("visual question answering", "['scientific reasoning']"),
    "bar": ("figure question answering", "['statistical reasoning', 'arithmetic reasoning']"),
    "count_plus": ("math word problem", "['arithmetic reasoning']"),
}
MMVET_CAPABILITIES = {
    "sign": "rec,know",
    "signs": "rec,know,spat",
    "code": "rec,know,math",
    "read": "rec,ocr",
    "count": "rec",
}
OCR_TYPES = ("Regular", "Irregular", "Artistic", "Non-Semantic")  # by the answer's length modulo 4
MMMU_SUBJECTS = {
    "code": ("Accounting", "Business"),
    "pick": ("History", "Humanities & Social Science"),
    "compare": ("Psychology", "Humanities & Social Science"),
    "bar": ("Math", "Science"),
}
MMSTAR_CAPABILITIES = {  # for a gen_difficulty (0 to 1) below 0.5, and for a higher one
    "odd": ("instance reasoning", "logical reasoning"),
    "compare": ("science & technology", "math"),
    "pick": ("coarse perception", "fine-grained perception"),
}
FAMILIES_OF = {
    "MathVista": ("code", "pick", "bar", "code", "pick", "count_plus"),
    "MMVet": ("sign", "code", "signs", "code", "sign", "count", "signs", "code", "sign", "read"),
    "OCRBench": ("sign", "signs", "read"),
    "MMMU": ("pick", "code", "compare", "pick", "code", "bar"),
    "MMStar": ("pick", "compare", "pick", "pick", "compare", "odd"),
}
"""The families whose samples become a benchmark's items, in turn; more often named, more items."""
NUMBER_WORDS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"
)  # fmt: skip
MAX_TRIES = 100  # drawings of one image of a pair
MAX_OTHERS = 3  # other signs beside the edited one in a HallusionBench pair

MATHVISTA_HINTS = {
    AnswerKind.choice: "Please answer the question and provide the correct option letter, "
    "e.g., A, B, C, D, at the end.",
    AnswerKind.number: "Please answer the question requiring an integer answer and provide the "
    "final value, e.g., 1, 2, 3, at the end.",
}


def mathvista_query(sample: Sample | DrawnSample) -> str:
    """MathVista's query: hint, question, lettered choices in brackets."""
    kind = AnswerKind.choice if sample.options else AnswerKind.number
    lettered = zip(LETTERS, sample.options, strict=False)
    choices = ["Choices:", *(f"({letter}) {option}" for letter, option in lettered)]
    lines = [f"Hint: {MATHVISTA_HINTS[kind]}", f"Question: {sample.question}"]
    return "\n".join(lines + (choices if sample.options else []))


def mathvista(sample: Sample) -> Item:
    """A MathVista row: `question` is the whole query, `choices` the text of a Python list."""
    task, skills = MATHVISTA_TASKS[sample.task]
    options, answer = sample.options, sample.answer
    return {
        "question": mathvista_query(sample),
        "question_type": "multi_choice" if options else "free_form",
        "answer_type": "text" if options else "integer",
        "choices": str(list(options)) if options else None,
        "unit": None,
        "precision": None,
        "answer": options[LETTERS.index(answer)] if options else answer,
        "answer_option": answer if options else None,
        "task": task,
        "skills": skills,
    }


def mmvet(sample: Sample) -> Item:
    """An MM-Vet row: an open question, capabilities joined by commas.

    A number's gold answer is like `7<OR>seven`, that of a text like ACE is `AC<AND>CE`, and that of
    several words has <AND> between them.
    """
    gold = sample.answer
    if " " in gold:
        gold = gold.replace(" ", "<AND>")
    elif sample.answer_kind is AnswerKind.text:
        gold = f"{gold[:-1]}<AND>{gold[1:]}" if len(gold) > 2 else gold
    elif int(gold) < len(NUMBER_WORDS):
        gold = f"{gold}<OR>{NUMBER_WORDS[int(gold)]}"
    capabilities = MMVET_CAPABILITIES[sample.task]
    return {"question": sample.question, "answer": gold, "category": capabilities}


def ocrbench(sample: Sample) -> Item | None:
    """An OCRBench row; None if the answer is a single letter, which any sentence would contain."""
    if len(sample.answer) < 2:
        return None
    return {
        "dataset": "shapes",
        "question": sample.question,
        "answer": [sample.answer],
        "category": f"{OCR_TYPES[len(sample.answer) % len(OCR_TYPES)]} Text Recognition",
    }


def mmmu(sample: Sample) -> Item:
    """An MMMU row: `<image 1>` is the image placeholder; open questions have no options."""
    subject, discipline = MMMU_SUBJECTS[sample.task]
    return {
        "question": f"<image 1> {sample.question}",
        **dict(zip(LETTERS, sample.options, strict=False)),
        "answer": sample.answer,
        "split": "validation",
        "question_type": "multiple-choice" if sample.options else "open",
        "topic_difficulty": ("Easy", "Medium", "Hard")[int((sample.gen_difficulty or 0) * 3)],
        "subfield": sample.task,
        "image_type": "['Diagrams']",
        "explanation": sample.rationale,
        "category": discipline,
        "l2-category": subject,
    }


def mmstar(sample: Sample) -> Item:
    """An MMStar row: one column for each option, one of six capabilities."""
    return {
        "question": sample.question,
        **dict(zip(LETTERS, sample.options, strict=False)),
        "answer": sample.answer,
        "category": MMSTAR_CAPABILITIES[sample.task][(sample.gen_difficulty or 0) >= 0.5],
        "l2_category": sample.task,
        "bench": "shapes",
    }


def _in_bench(image: Image.Image, sign: Sign, answer: str) -> bool:
    sample_id = pool.drawn_id(image, PRESENT.format(sign.name), answer)
    return pool.in_split(sample_id, pool.Split.bench)


def _try_pair(rng: Random) -> tuple[list[Image.Image], list[Sign]] | None:
    """A HallusionBench set: [image, edited copy], [removed sign, added sign].

    In the copy, the added sign replaces the removed one. Both signs are questions for
    both images, and the edit reverses both answers. None unless all four pairs of image and
    question are in the split `bench`.
    """
    every = signs.signs()
    removed, added = rng.sample(every[: int(pool.HARDEST_SIGN * len(every))], 2)
    known = [sign for sign in every[: signs.KNOWN] if sign not in (removed, added)]
    placed = signs.scatter_signs(rng, [removed, *rng.sample(known, rng.randint(1, MAX_OTHERS))])
    pair = []
    for sign, answers in ((removed, ("Yes", "No")), (added, ("No", "Yes"))):
        in_place = [(sign, placed[0][1]), *placed[1:]]
        # The split depends on a hash of the image, so each color and shift is another try.
        candidates = (signs.draw_signs(rng, in_place) for _ in range(MAX_TRIES))
        questions = list(zip((removed, added), answers, strict=True))
        fitting = (
            image
            for image in candidates
            if all(_in_bench(image, *question) for question in questions)
        )
        pair.append(next(fitting, None))
    return None if None in pair else (pair, [removed, added])


def _yes_no_items(seed: int) -> Iterator[Item]:
    """Endless HallusionBench items, four per set: two images with two questions each."""
    for set_id in count():
        attempts = (Random(seeds.derive(seed, "pairs", set_id, attempt)) for attempt in count())
        pair, names = next(filter(None, map(_try_pair, attempts)))
        for (figure_id, image), (sign_index, sign) in product(enumerate(pair, 1), enumerate(names)):
            question = PRESENT.format(sign.name)
            answer = "Yes" if (figure_id == 1) == (sign_index == 0) else "No"
            yield {
                "index": f"shapes_VD_figure_{set_id}_{figure_id}_{sign_index}",
                "category": "VD",
                "subcategory": "figure",
                "l2-category": "VD_figure",
                "visual_input": str(figure_id),
                "set_id": str(set_id),
                "figure_id": str(figure_id),
                "question_id": str(sign_index),
                "question": question,
                "answer": answer,
                "image": images.to_png(image, compress_level=6),
                "sample_id": pool.drawn_id(image, question, answer),
            }


SPECS: dict[str, Callable[[Sample], Item | None]] = {
    "MathVista": mathvista,
    "MMVet": mmvet,
    "OCRBench": ocrbench,
    "MMMU": mmmu,
    "MMStar": mmstar,
}
"""By benchmark: the function that turns a sample of its FAMILIES_OF into a row."""


def items(benchmark: str, size: int, seed: int = 0) -> list[Item]:
    """The first `size` distinct items of a benchmark; its name may begin with `shapes/`.

    They are the same on every machine. Raises ValueError for an unknown name.
    """
    name = benchmark.removeprefix("shapes/")
    names = [*SPECS, "HallusionBench", *reasoning_benchmarks.ITEMS]
    if name not in names:
        allowed = ", ".join(names)
        raise ValueError(f"benchmark={benchmark!r}: must be one of: {allowed}")
    with _drawing:
        drawn, more = _drawn_items(name, seed)
        drawn.extend(islice(more, max(0, size - len(drawn))))
    return [dict(item) for item in drawn[:size]]


_drawing = threading.Lock()


@cache  # a run compares its samples with the items, and evaluates several models on them
def _drawn_items(name: str, seed: int) -> tuple[list[Item], Iterator[Item]]:
    """A benchmark's items drawn so far, and the items that come after them."""
    root = seeds.derive(seed, "benchmark", name)
    if name in reasoning_benchmarks.ITEMS:
        return [], reasoning_benchmarks.ITEMS[name](root)
    more = _yes_no_items(root) if name == "HallusionBench" else _items_of_samples(name, root)
    return [], more


def _items_of_samples(name: str, seed: int) -> Iterator[Item]:
    """Endless distinct items of a benchmark in SPECS."""
    to_row, family_names = SPECS[name], FAMILIES_OF[name]
    ids: set[str] = set()
    for draw_index, family in enumerate(cycle(family_names)):
        sample = pool.bench_sample(family, draw_index, seed)
        row = to_row(sample)
        if row is None or sample.sample_id in ids:
            continue
        index, id_column = len(ids), {}
        if name == "MathVista":
            id_column = {"pid": str(index + 1)}
        elif name == "MMMU":
            id_column = {"id": f"validation_{row['l2-category']}_{index + 1}"}
        ids.add(sample.sample_id)
        image = {"image": sample.images[0], "sample_id": sample.sample_id}
        yield {"index": index, **id_column, **row, **image}


_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def _normalize(text: str) -> str:
    return " ".join(text.casefold().split())


def judge(prompt: str, temperature: float) -> str:
    """An offline, deterministic stub of the judges, only for the built-in shapes/ benchmarks.

    It is no language model: it ignores `temperature`, and its scores are comparable only with each
    other. The last row of MM-Vet's prompt is `question | gold | prediction | `. If the prediction
    (inside its answer tags, if any) contains one <OR> part or all <AND> parts of the gold answer,
    the score is 1.0; with some <AND> parts 0.5; else, or with more numbers than the gold answer
    has, 0.0.
    """
    if (reply := reasoning_benchmarks.judge(prompt)) is not None:
        return reply
    cells = prompt.rpartition("\n")[2].split(" | ")
    if len(cells) < 4 or cells[-1].strip():
        return "Z"  # another benchmark's prompt: not a valid option, so the item counts as wrong
    gold, prediction = cells[1], " | ".join(cells[2:-1])
    tagged = extract.tag_content(prediction)
    text = _normalize(prediction if tagged is None else tagged)
    numbers = {float(number) for number in _NUMBER.findall(text)}
    gold_numbers, present = 0, []
    parts = [_normalize(part) for part in re.split("<AND>|<OR>", gold)]
    for part in parts:
        if _NUMBER.fullmatch(part):  # compare as numbers: 7 is not a part of 17
            gold_numbers += 1
            present.append(float(part) in numbers)
        else:
            present.append(bool(part) and part in text)
    if gold_numbers and len(numbers) > gold_numbers:
        return "0.0"
    if "<OR>" in gold:
        return "1.0" if any(present) else "0.0"
    return "1.0" if all(present) else "0.5" if any(present) else "0.0"
