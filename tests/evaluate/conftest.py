"""Official data sets of full size, drawn: the counts, columns and forms of the six benchmarks.

Questions are nonsense and images are colored squares; what is real is everything that a
loader, a prompt, a scorer and a table depend on.
"""

import base64
import csv
from collections.abc import Callable, Iterator
from io import BytesIO
from itertools import count as numbers
from itertools import cycle
from pathlib import Path
from typing import Any

import datasets
import pytest
from PIL import Image

from difftrain.evaluate.benchmarks.mmmu import DISCIPLINES

Row = dict[str, Any]

TASKS = {
    "figure question answering": 269,
    "geometry problem solving": 208,
    "math word problem": 186,
    "visual question answering": 179,
    "textbook question answering": 158,
}
CAPABILITIES = ("rec", "rec,ocr", "ocr,math", "rec,know,gen", "rec,ocr,spat", "rec,know")
READING = {
    "Regular Text Recognition": 50,
    "Irregular Text Recognition": 50,
    "Artistic Text Recognition": 50,
    "Handwriting Recognition": 50,
    "Digit String Recognition": 50,
    "Non-Semantic Text Recognition": 50,
    "Scene Text-centric VQA": 200,
    "Doc-oriented VQA": 200,
    "Key Information Extraction": 200,
    "Handwritten Mathematical Expression Recognition": 100,
}
PARTS = {
    ("VD", "video"): 170,
    ("VD", "illusion"): 144,
    ("VD", "math"): 108,
    ("VD", "ocr"): 89,
    ("VD", "figure"): 80,
    ("VS", "chart"): 130,
    ("VS", "table"): 112,
    ("VS", "map"): 64,
    ("VS", "ocr"): 54,
}
CORE = (
    "coarse perception",
    "fine-grained perception",
    "instance reasoning",
    "logical reasoning",
    "science & technology",
    "math",
)
CHOOSE = (
    "Hint: Please answer the question and provide the correct option letter, e.g., A, B, C, D, "
    "at the end.\nQuestion: "
)
MODES = cycle(("RGB", "RGB", "RGBA", "L", "P"))


def picture(number: int, side: int = 28) -> Row:
    """A picture cell of a data set: a square of the number's own color."""
    color = (number * 7 % 256, number * 13 % 256, number // 256)
    image = Image.new("RGB", (side + number % 3, side), color)
    image.putpixel((0, 0), (255, 255, 255))
    buffer = BytesIO()
    image.convert(next(MODES)).save(buffer, format="PNG")
    return {"bytes": buffer.getvalue(), "path": f"{number}.png"}


def spread(sizes: dict[Any, int]) -> Iterator[Any]:
    """Every key as often as its size says."""
    for key, size in sizes.items():
        for _ in range(size):
            yield key


def mathvista() -> Iterator[Row]:
    """540 choices, 418 integers, 40 floats of one and two decimals, 2 lists."""
    kinds = spread({"text": 540, "integer": 418, "float": 40, "list": 2})
    for number, (kind, task) in enumerate(zip(kinds, spread(TASKS), strict=True)):
        chosen = kind == "text"
        answer = {"text": "a hen", "integer": str(number % 9), "float": "1.2"}.get(kind, "[1, 2]")
        choices = ["a cat", "a hen", "a dog"] if chosen else None
        options = "\nChoices:\n(A) a cat\n(B) a hen\n(C) a dog" if chosen else ""
        yield {
            "pid": str(number + 1),
            "question": f"How many {number}?",
            "image": f"images/{number + 1}.jpg",
            "decoded_image": picture(number),
            "choices": choices,
            "unit": None,
            "precision": 1.0 if kind == "float" else None,
            "answer": answer,
            "question_type": "multi_choice" if chosen else "free_form",
            "answer_type": kind,
            "metadata": {
                "category": "general-vqa",
                "context": "chart",
                "grade": "daily life",
                "img_height": 28,
                "img_width": 28,
                "language": "english",
                "skills": ["arithmetic reasoning", "statistical reasoning"][: 1 + number % 2],
                "source": "shapes",
                "split": "testmini",
                "task": task,
            },
            "query": f"{CHOOSE}How many {number}?{options}",
        }


def mmvet() -> Iterator[Row]:
    """218 open questions."""
    for number in range(218):
        yield {
            "question_id": f"v1_{number}",
            "image": picture(number),
            "question": f"What is x {number}?",
            "answer": "-1<AND>-5" if number % 3 else "7<OR>seven",
            "image_source": "shapes",
            "capability": CAPABILITIES[number % len(CAPABILITIES)],
        }


def ocrbench() -> Iterator[Row]:
    """1000 reading items of ten types."""
    for number, kind in enumerate(spread(READING)):
        formula = kind.startswith("Handwritten")
        yield {
            "dataset": "shapes",
            "question": "what is written in the image?",
            "question_type": kind,
            "answer": ["y _ { 2 } = - 1\n", "y_2 = - 1\n"] if formula else [f"AB{number}"],
            "image": picture(number),
        }


def hallusionbench() -> Iterator[Row]:
    """951 yes/no questions: three about each figure, two figures in each set."""
    for (category, subcategory), size in PARTS.items():
        for place in range(size):
            yield {
                "category": category,
                "subcategory": subcategory,
                "visual_input": "1",
                "set_id": str(place // 6),
                "figure_id": str(place % 6 // 3),
                "sample_note": "",
                "question_id": str(place % 3),
                "question": f"Is there a {subcategory} in the picture?",
                "gt_answer": str(place % 2),
                "gt_answer_details": "",
                "filename": "x.png",
                "image": picture(place),
            }


def mmmu() -> Iterator[Row]:
    """30 questions of each of 30 subjects: 53 open, some with two pictures, one with `None`."""
    every = numbers()
    for subject in sorted(DISCIPLINES):
        for place in range(1, 31):
            number = next(every)
            opened, several = number % 17 == 0, number % 25 == 0
            pictures = {f"image_{n}": None for n in range(1, 8)}
            pictures["image_1"] = picture(number)
            if several:
                pictures["image_2"] = picture(number + 5000)
            named = (
                "['a cat', 'None', 'a dog', 'a pig']"
                if number == 7
                else "['a cat', 'a hen', 'a dog', 'a pig']"
            )
            yield {
                "id": f"validation_{subject}_{place}",
                "question": f"<image 1> {'and <image 2> ' if several else ''}What {number}?",
                "options": "[]" if opened else named,
                "explanation": "",
                **pictures,
                "img_type": "['Diagrams']",
                "answer": "8.4" if opened else "C",
                "topic_difficulty": "Easy",
                "question_type": "open" if opened else "multiple-choice",
                "subfield": "x",
            }


def mmstar() -> Iterator[Row]:
    """250 of each core capability; 345 in MathVista's form, some of fewer than four options."""
    for number in range(1500):
        if number % 1500 < 345:
            tail = "Choices:\n(A) 97\n(B) 102\n(C) 107\n(D) 122"
            question = f"{CHOOSE}How many {number}?\n{tail if number % 50 else tail[9:]}"
        else:
            last = ("nan", "nan") if number % 11 == 0 else ("a dog.", "a pig.")
            rest = f"A: a cat., B: a hen., C: {last[0]}, D: {last[1]}"
            question = f"What is it {number}?\nOptions: {rest}"
        yield {
            "index": number,
            "question": question,
            "image": picture(number),
            "answer": "AB"[number % 2],
            "category": CORE[number % 6],
            "l2_category": f"kind {number % 18}",
            "meta_info": {"source": "shapes", "split": "x", "image_path": f"{number}.jpg"},
        }


DRAWN: dict[str, Callable[[], Iterator[Row]]] = {
    "MathVista": mathvista,
    "MMVet": mmvet,
    "OCRBench": ocrbench,
    "HallusionBench": hallusionbench,
    "MMMU": mmmu,
    "MMStar": mmstar,
}
SPLITS = {"MathVista": "testmini", "HallusionBench": "image", "MMMU": "validation", "MMStar": "val"}


@pytest.fixture(autouse=True)
def cached_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The data sets' library keeps its copies in the test's own folder."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture(scope="session")
def hub_rows() -> Callable[[str], list[Row]]:
    """The rows of a benchmark as the hub has them."""
    kept: dict[str, list[Row]] = {}

    def of(name: str) -> list[Row]:
        if name not in kept:
            kept[name] = list(DRAWN[name]())
        return kept[name]

    return of


def as_data_set(rows: list[Row]) -> datasets.Dataset:
    """Rows as a data set whose picture columns are pictures."""
    data_set = datasets.Dataset.from_list(rows)
    for column in data_set.column_names:
        if column == "decoded_image" or column.startswith("image_") or column == "image":
            cells = [row[column] for row in rows if row[column] is not None]
            if not cells or isinstance(cells[0], dict):
                data_set = data_set.cast_column(column, datasets.Image())
    return data_set


@pytest.fixture(scope="session")
def write_folder() -> Callable[..., Path]:
    """Writes rows as a folder of data sets: `parquet` as a clone of the hub's, or `disk`."""

    def write(root: Path, name: str, rows: list[Row], form: str = "parquet") -> Path:
        folder, split = root / name, SPLITS.get(name, "test")
        data_set = as_data_set(rows)
        if form == "disk":
            datasets.DatasetDict({split: data_set}).save_to_disk(str(folder))
        elif name == "MMMU":
            for start in range(0, len(rows), 30):
                subject = rows[start]["id"].removeprefix("validation_").rpartition("_")[0]
                (folder / subject).mkdir(parents=True)
                part = data_set.select(range(start, min(start + 30, len(rows))))
                part.to_parquet(str(folder / subject / "validation-00000-of-00001.parquet"))
        else:
            (folder / "data").mkdir(parents=True)
            data_set.to_parquet(str(folder / "data" / f"{split}-00000-of-00001.parquet"))
        return folder

    return write


@pytest.fixture(scope="session")
def write_tsv() -> Callable[[Path, list[Row]], Path]:
    """Writes rows in the harness's columns, pictures as base64, the way pandas writes a TSV."""

    def cell(value: Any) -> str:
        if isinstance(value, list):
            coded = [base64.b64encode(each).decode() for each in value]
            return coded[0] if len(coded) == 1 else str(coded)
        return "" if value is None else str(value)

    def write(path: Path, rows: list[Row]) -> Path:
        columns = list(dict.fromkeys(column for row in rows for column in row))
        with path.open("w", newline="") as file:
            writer = csv.writer(file, delimiter="\t", lineterminator="\n")
            writer.writerow(columns)
            writer.writerows([cell(row.get(column)) for column in columns] for row in rows)
        return path

    return write
