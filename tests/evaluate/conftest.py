"""Imitations of the nine official data sets, with their real sizes, columns, types and categories.

The questions are nonsense and the images are colored squares. The columns that loaders, prompts,
scorers and results tables use have the same form as in the official data sets.
"""

import base64
import csv
from collections.abc import Callable, Iterator
from io import BytesIO
from itertools import count as count_up
from itertools import cycle
from pathlib import Path
from typing import Any

import datasets
import pytest
from PIL import Image

from difftrain.evaluate.benchmarks.mmmu import DISCIPLINE_BY_SUBJECT

Row = dict[str, Any]

# task -> number of items
MATHVISTA_TASKS = {
    "figure question answering": 269,
    "geometry problem solving": 208,
    "math word problem": 186,
    "visual question answering": 179,
    "textbook question answering": 158,
}
# Recognition, reading text, math, knowledge, generation of text, spatial relations.
MMVET_CAPABILITIES = ("rec", "rec,ocr", "ocr,math", "rec,know,gen", "rec,ocr,spat", "rec,know")
# type of question -> number of items
OCRBENCH_TYPES = {
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
# (category, subcategory) -> number of items. VD: visual dependent, VS: visual supplement.
HALLUSIONBENCH_PARTS = {
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
MMSTAR_CAPABILITIES = (
    "coarse perception",
    "fine-grained perception",
    "instance reasoning",
    "logical reasoning",
    "science & technology",
    "math",
)
MATHVERSE_VERSIONS = (
    *("Text Dominant", "Text Lite", "Vision Intensive", "Vision Dominant", "Vision Only"),
)
# (subject, subfield) of MathVerse's problems, in turn
MATHVERSE_FIELDS = (
    ("Plane Geometry", "Length"),
    ("Plane Geometry", "Angle"),
    ("Functions", "Coordinate"),
    ("Functions", "Applied"),
    ("Solid Geometry", "Volume"),
)
WEMATH_CONCEPTS = (
    "Translation",
    "Area of Circles",
    "Cardinal Directions (East, South, West, North)",
)
# skill -> number of items
LOGICVISTA_SKILLS = {
    "inductive": 107,
    "deductive": 93,
    "numerical": 95,
    "spatial": 79,  # one of them has neither question nor answer
    "mechanical": 74,
}
CHOICE_HINT = (
    "Hint: Please answer the question and provide the correct option letter, e.g., A, B, C, D, "
    "at the end.\nQuestion: "
)
IMAGE_MODES = cycle(("RGB", "RGB", "RGBA", "L", "P"))  # the official images have several modes


def image_cell(number: int, side: int = 28) -> Row:
    """A cell of an image column: a square of about `side` pixels, colored by the number."""
    color = (number * 7 % 256, number * 13 % 256, number // 256)
    image = Image.new("RGB", (side + number % 3, side), color)
    image.putpixel((0, 0), (255, 255, 255))  # so that no image has only one color
    buffer = BytesIO()
    image.convert(next(IMAGE_MODES)).save(buffer, format="PNG")
    return {"bytes": buffer.getvalue(), "path": f"{number}.png"}


def repeated(counts: dict[Any, int]) -> Iterator[Any]:
    """Every key, as many times as its value says."""
    for key, count in counts.items():
        for _ in range(count):
            yield key


def mathvista() -> Iterator[Row]:
    """1000 items whose answers are 540 choices, 418 integers, 40 floats and 2 lists."""
    answer_types = repeated({"text": 540, "integer": 418, "float": 40, "list": 2})
    types_and_tasks = zip(answer_types, repeated(MATHVISTA_TASKS), strict=True)
    for number, (answer_type, task) in enumerate(types_and_tasks):
        is_choice = answer_type == "text"
        answers = {"text": "a hen", "integer": str(number % 9), "float": "1.2", "list": "[1, 2]"}
        choices = ["a cat", "a hen", "a dog"] if is_choice else None
        options = "\nChoices:\n(A) a cat\n(B) a hen\n(C) a dog" if is_choice else ""
        yield {
            "pid": str(number + 1),
            "question": f"How many {number}?",
            "image": f"images/{number + 1}.jpg",
            "decoded_image": image_cell(number),
            "choices": choices,
            "unit": None,
            "precision": 1.0 if answer_type == "float" else None,
            "answer": answers[answer_type],
            "question_type": "multi_choice" if is_choice else "free_form",
            "answer_type": answer_type,
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
            "query": f"{CHOICE_HINT}How many {number}?{options}",
        }


def mmvet() -> Iterator[Row]:
    """218 open questions."""
    for number in range(218):
        yield {
            "question_id": f"v1_{number}",
            "image": image_cell(number),
            "question": f"What is x {number}?",
            # MM-Vet's format: both parts are needed after AND, one of them after OR.
            "answer": "-1<AND>-5" if number % 3 else "7<OR>seven",
            "image_source": "shapes",
            "capability": MMVET_CAPABILITIES[number % len(MMVET_CAPABILITIES)],
        }


def ocrbench() -> Iterator[Row]:
    """1000 text-reading items of ten types."""
    for number, question_type in enumerate(repeated(OCRBENCH_TYPES)):
        is_formula = question_type.startswith("Handwritten")
        yield {
            "dataset": "shapes",
            "question": "what is written in the image?",
            "question_type": question_type,
            "answer": ["y _ { 2 } = - 1\n", "y_2 = - 1\n"] if is_formula else [f"AB{number}"],
            "image": image_cell(number),
        }


def hallusionbench() -> Iterator[Row]:
    """951 yes/no questions: three about each figure, two figures in each set."""
    for (category, subcategory), size in HALLUSIONBENCH_PARTS.items():
        for number in range(size):
            yield {
                "category": category,
                "subcategory": subcategory,
                "visual_input": "1",
                "set_id": str(number // 6),
                "figure_id": str(number % 6 // 3),
                "sample_note": "",
                "question_id": str(number % 3),
                "question": f"Is there a {subcategory} in the picture?",
                "gt_answer": str(number % 2),
                "gt_answer_details": "",
                "filename": "x.png",
                "image": image_cell(number),
            }


def mmmu() -> Iterator[Row]:
    """30 items of each of 30 subjects.

    53 items are open (without options), some have two images, and one has the option `None`.
    """
    item_numbers = count_up()
    for subject in sorted(DISCIPLINE_BY_SUBJECT):
        for number_in_subject in range(1, 31):
            number = next(item_numbers)
            is_open, has_two_images = number % 17 == 0, number % 25 == 0
            images = {f"image_{n}": None for n in range(1, 8)}
            images["image_1"] = image_cell(number)
            if has_two_images:
                # 5000 is larger than every item's number, so the color differs from all others.
                images["image_2"] = image_cell(number + 5000)
            options = (
                "['a cat', 'None', 'a dog', 'a pig']"
                if number == 7
                else "['a cat', 'a hen', 'a dog', 'a pig']"
            )
            yield {
                "id": f"validation_{subject}_{number_in_subject}",
                "question": f"<image 1> {'and <image 2> ' if has_two_images else ''}What {number}?",
                "options": "[]" if is_open else options,
                "explanation": "",
                **images,
                "img_type": "['Diagrams']",
                "answer": "8.4" if is_open else "C",
                "topic_difficulty": "Easy",
                "question_type": "open" if is_open else "multiple-choice",
                "subfield": "x",
            }


def mmstar() -> Iterator[Row]:
    """250 items of each core capability.

    345 questions are written as in MathVista. Of the others, every eleventh has options `nan`.
    """
    for number in range(1500):
        if number < 345:
            choices = "Choices:\n(A) 97\n(B) 102\n(C) 107\n(D) 122"
            # Every fiftieth of these questions lacks the line `Choices:`.
            choices = choices if number % 50 else choices.removeprefix("Choices:\n")
            question = f"{CHOICE_HINT}How many {number}?\n{choices}"
        else:
            option_c, option_d = ("nan", "nan") if number % 11 == 0 else ("a dog.", "a pig.")
            options = f"A: a cat., B: a hen., C: {option_c}, D: {option_d}"
            question = f"What is it {number}?\nOptions: {options}"
        yield {
            "index": number,
            "question": question,
            "image": image_cell(number),
            "answer": "AB"[number % 2],
            "category": MMSTAR_CAPABILITIES[number % 6],
            "l2_category": f"kind {number % 18}",
            "meta_info": {"source": "shapes", "split": "x", "image_path": f"{number}.jpg"},
        }


def mathverse() -> Iterator[Row]:
    """788 problems in five versions; Vision Only has no question, because its image shows it."""
    for number in range(788 * 5):
        problem, version = number // 5, MATHVERSE_VERSIONS[number % 5]
        subject, subfield = MATHVERSE_FIELDS[problem % 5]
        is_choice, is_visual = problem < 436, version == "Vision Only"
        choices = "\nChoices:\nA:1\nB:2\nC:3\nD:4" if is_choice else ""
        question = f"How long is side {problem}?{choices}"
        form = "the correct option letter" if is_choice else "the final value"
        start = "According to the question shown in the image, please" if is_visual else "Please"
        end = "" if is_visual else f"\nQuestion: {question}"
        yield {
            "sample_index": str(number + 1),
            "problem_index": str(problem + 1),
            "problem_version": version,
            "question": "" if is_visual else question,
            "image": image_cell(number),
            "answer": "B" if is_choice else str(problem % 7),
            "question_type": "multi-choice" if is_choice else "free-form",
            "metadata": {
                "split": "testmini",
                "source": "shapes",
                "subject": subject,
                "subfield": subfield,
            },
            "query_wo": f"{start} directly answer the question and provide {form}.{end}",
            "query_cot": f"{start} first conduct reasoning, and then answer {form}.{end}",
        }


def wemath() -> Iterator[Row]:
    """360 problems of two steps and 165 of three; the last item of a problem is the whole."""
    numbers = count_up()
    for problem in range(525):
        steps, group = (2, problem + 1) if problem < 360 else (3, problem - 359)
        for name in (*map(str, range(1, steps + 1)), "multi"):
            number = next(numbers)
            concept = WEMATH_CONCEPTS[number % 3]
            yield {
                "ID": f"{steps}steps_{group}",
                "split": "testmini",
                "knowledge concept": f"{concept};Rotation" if name == "multi" else concept,
                "question": f"How long is rope {number}?",
                "option": "A. 12 cm; B. 24 cm; C. 36; or 40 cm; D. No correct answer",
                "answer": "ABC"[number % 3],
                "image_path": image_cell(number),
                "key": f"{steps}steps_{name}",
                "question number": str(number),
                "knowledge concept description": "",
            }


def logicvista() -> Iterator[Row]:
    """448 items, one of which is empty; two have several letters or a number as gold answer."""
    for number, skill in enumerate(repeated(LOGICVISTA_SKILLS)):
        is_empty = number == 382
        gold = {7: "A, C", 9: "3"}.get(number, "ABCD"[number % 4])
        yield {
            "id": f"v1_{number}",
            "question": None if is_empty else f"Which tile is it {number}? Select from A to D.",
            "answer": None if is_empty else gold,
            "reasoning": "",
            "skill": [skill],
            "image": image_cell(number),
        }


ROW_GENERATORS: dict[str, Callable[[], Iterator[Row]]] = {
    "MathVista": mathvista,
    "MMVet": mmvet,
    "OCRBench": ocrbench,
    "HallusionBench": hallusionbench,
    "MMMU": mmmu,
    "MMStar": mmstar,
    "MathVerse": mathverse,
    "WeMath": wemath,
    "LogicVista": logicvista,
}
SPLITS = {"MathVista": "testmini", "HallusionBench": "image", "MMMU": "validation", "MMStar": "val"}
SPLITS |= {"MathVerse": "testmini", "WeMath": "testmini"}


@pytest.fixture(autouse=True)
def cache_in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the `datasets` library put its cache into the test's own folder."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture(scope="session")
def hub_rows() -> Callable[[str], list[Row]]:
    """A function that returns the rows of a benchmark's data set on the Hugging Face hub."""
    rows: dict[str, list[Row]] = {}

    def rows_of(name: str) -> list[Row]:
        if name not in rows:
            rows[name] = list(ROW_GENERATORS[name]())
        return rows[name]

    return rows_of


def to_data_set(rows: list[Row]) -> datasets.Dataset:
    """Rows as a data set whose image columns have the type Image."""
    data_set = datasets.Dataset.from_list(rows)
    for column in data_set.column_names:
        if column in ("decoded_image", "image") or column.startswith("image_"):
            cells = [row[column] for row in rows if row[column] is not None]
            if not cells or isinstance(cells[0], dict):
                data_set = data_set.cast_column(column, datasets.Image())
    return data_set


@pytest.fixture(scope="session")
def write_folder() -> Callable[..., Path]:
    """A function that writes a data set to a folder.

    The form "parquet" is that of a clone from the hub, "disk" that of save_to_disk.
    """

    def write(root: Path, name: str, rows: list[Row], form: str = "parquet") -> Path:
        folder, split = root / name, SPLITS.get(name, "test")
        data_set = to_data_set(rows)
        if form == "disk":
            datasets.DatasetDict({split: data_set}).save_to_disk(str(folder))
        elif name == "MMMU":
            for start in range(0, len(rows), 30):  # a folder for the 30 items of each subject
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
    """A function that writes rows as a TSV file of VLMEvalKit, with images as base64."""

    def cell(value: Any) -> str:
        if isinstance(value, list):
            encoded = [base64.b64encode(image).decode() for image in value]
            return encoded[0] if len(encoded) == 1 else str(encoded)
        return "" if value is None else str(value)

    def write(path: Path, rows: list[Row]) -> Path:
        columns = list(dict.fromkeys(column for row in rows for column in row))
        with path.open("w", newline="") as file:
            writer = csv.writer(file, delimiter="\t", lineterminator="\n")
            writer.writerow(columns)
            writer.writerows([cell(row.get(column)) for column in columns] for row in rows)
        return path

    return write
