"""What the six benchmarks officially hold, and how their hub rows become the harness's columns.

Not here: reading files (tsv.py, hub.py) and counting (sources.py).
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from difftrain.data.prompts import LETTERS
from difftrain.evaluate import hallusionbench, items, mmmu
from difftrain.evaluate.items import IMAGE_COLUMNS

Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Official:
    """One benchmark as published: its hub rows, the harness's TSV, and how many items it has."""

    count: int
    split: str
    columns: tuple[str, ...]
    pictures: tuple[str, ...]
    tsv_columns: tuple[str, ...]
    md5: tuple[str, ...]
    """Of the harness's TSV, the newest first."""
    convert: Callable[[Row, int], Row]
    """(hub row, its number) -> the harness's columns."""
    configs: tuple[str, ...] = ()


def mathvista(row: Row, number: int) -> Row:
    """`question` becomes the query; the gold letter is found among the choices."""
    about = dict(row["metadata"] or {})
    choices = [str(each) for each in row["choices"] or ()]
    chosen = row["question_type"] == "multi_choice"
    if chosen and row["answer"] not in choices:
        raise ValueError(f"row {row['pid']}: the answer is not one of the choices")
    return {
        "index": row["pid"],
        "pid": row["pid"],
        "question": row["query"],
        "question_type": row["question_type"],
        "answer_type": row["answer_type"],
        "choices": str(choices) if choices else None,
        "unit": row.get("unit"),
        "precision": row.get("precision"),
        "answer": row["answer"],
        "answer_option": LETTERS[choices.index(row["answer"])] if chosen else None,
        "task": about["task"],
        "skills": str(list(about["skills"])),
        "image": row["decoded_image"],
    }


def mmvet(row: Row, number: int) -> Row:
    """The capabilities stand in `category`, joined by commas."""
    capability = row["capability"]
    joined = capability if isinstance(capability, str) else ",".join(map(str, capability))
    return {
        "index": row["question_id"],
        "question": row["question"],
        "answer": row["answer"],
        "category": joined,
        "image": row["image"],
    }


def ocrbench(row: Row, number: int) -> Row:
    """Rows have no name of their own; their number is the harness's index."""
    return {
        "index": str(number),
        "question": row["question"],
        "answer": str(items.listed(row["answer"])),
        "category": row["question_type"],
        "dataset": row["dataset"],
        "image": row["image"],
    }


def halluci(row: Row, number: int) -> Row:
    """The index holds set, figure and question as parts 3 to 5; the gold is Yes or No."""
    places = "_".join(str(row[each]) for each in ("set_id", "figure_id", "question_id"))
    kind = f"{row['category']}_{row['subcategory']}"
    return {
        "index": f"hub_{kind}_{places}",
        "category": row["category"],
        "l2-category": kind,
        "question": row["question"],
        "answer": hallusionbench.gold(row),
        "image": row["image"],
    }


def mmmu_row(row: Row, number: int) -> Row:
    """Options become columns; picture N stands at place N - 1 of `image`."""
    subject = row["id"].partition("_")[2].rpartition("_")[0]
    if subject not in mmmu.DISCIPLINES:
        raise ValueError(f"row {row['id']}: there is no subject {subject!r}")
    pictures = [row.get(column) for column in IMAGE_COLUMNS]
    while pictures and pictures[-1] is None:
        pictures.pop()
    return {
        "index": str(number),
        "id": row["id"],
        "question": row["question"],
        **dict(zip(LETTERS, map(str, items.listed(row["options"])), strict=False)),
        "answer": row["answer"],
        "split": row["id"].partition("_")[0],
        "category": mmmu.DISCIPLINES[subject],
        "l2-category": subject,
        "question_type": row["question_type"],
        "image": pictures,
    }


_LETTERED = re.compile(r"\n\s*Options:\s*A:\s*(.*)\Z", re.DOTALL)
_NEXT = {letter: re.compile(rf",\s*{letter}:\s*") for letter in "BCD"}
_BRACKETED = re.compile(r"^\(([A-D])\)\s?(.*?)\s*(?=^\([A-D]\)|\Z)", re.DOTALL | re.MULTILINE)


def parted(question: str) -> tuple[str, dict[str, str]]:
    """An MMStar question without its options, and the options, which the hub writes into it.

    Either "...\\nOptions: A: x, B: y" or, for items taken from MathVista, "...\\nChoices:\\n(A) x".
    Raises ValueError if there are no options.
    """
    if found := _LETTERED.search(question):
        rest, options, letter = found[1], {}, "A"
        for following, mark in _NEXT.items():
            cut = mark.search(rest)
            if cut is None:
                break
            options[letter], rest, letter = rest[: cut.start()], rest[cut.end() :], following
        options[letter] = rest.strip()
        return question[: found.start()], options
    options = {found[1]: found[2] for found in _BRACKETED.finditer(question)}
    if not options:
        raise ValueError("the question holds no options")
    start = next(_BRACKETED.finditer(question)).start()
    return question[:start].rstrip().removesuffix("Choices:").rstrip(), options


def mmstar(row: Row, number: int) -> Row:
    """The options leave the question and become columns."""
    try:
        question, options = parted(row["question"])
    except ValueError as error:
        raise ValueError(f"row {row['index']}: {error}") from error
    return {
        "index": str(row["index"]),
        "question": question,
        **options,
        "answer": row["answer"],
        "category": row["category"],
        "l2_category": row["l2_category"],
        "image": row["image"],
    }


_ASKED = ("index", "image", "question", "answer")
OFFICIAL: dict[str, Official] = {
    "MathVista": Official(
        count=1000,
        split="testmini",
        columns=(
            *("pid", "question", "choices", "answer", "question_type", "answer_type"),
            *("metadata", "query", "decoded_image"),
        ),
        pictures=("decoded_image",),
        tsv_columns=(
            *(*_ASKED, "question_type", "answer_type"),
            *("choices", "answer_option", "task", "skills"),
        ),
        md5=("f199b98e178e5a2a20e7048f5dcb0464",),
        convert=mathvista,
    ),
    "MMVet": Official(
        count=218,
        split="test",
        columns=("question_id", "question", "answer", "capability", "image"),
        pictures=("image",),
        tsv_columns=(*_ASKED, "category"),
        md5=("748aa6d4aa9d4de798306a63718455e3",),
        convert=mmvet,
    ),
    "OCRBench": Official(
        count=1000,
        split="test",
        columns=("dataset", "question", "question_type", "answer", "image"),
        pictures=("image",),
        tsv_columns=(*_ASKED, "category"),
        md5=("e953d98a987cc6e26ef717b61260b778",),
        convert=ocrbench,
    ),
    "HallusionBench": Official(
        count=951,
        split="image",
        columns=(
            *("category", "subcategory", "set_id", "figure_id"),
            *("question_id", "question", "gt_answer", "image"),
        ),
        pictures=("image",),
        tsv_columns=(*_ASKED, "category", "l2-category"),
        md5=("0c23ac0dc9ef46832d7a24504f2a0c7c",),
        convert=halluci,
    ),
    "MMMU": Official(
        count=900,
        split="validation",
        columns=("id", "question", "options", "answer", "question_type", *IMAGE_COLUMNS),
        pictures=IMAGE_COLUMNS,
        tsv_columns=(*_ASKED, "A", "B", "C", "D", "split", "category", "l2-category"),
        md5=("585e8ad75e73f75dcad265dfd0417d64", "521afc0f3bf341e6654327792781644d"),
        convert=mmmu_row,
        configs=tuple(sorted(mmmu.DISCIPLINES)),
    ),
    "MMStar": Official(
        count=1500,
        split="val",
        columns=("index", "question", "image", "answer", "category", "l2_category"),
        pictures=("image",),
        tsv_columns=(*_ASKED, "A", "B", "C", "D", "category"),
        md5=("e1ecd2140806c1b1bbf54b43372efb9e", "2f3da1ab455b65ac89e57b01706207b7"),
        convert=mmstar,
    ),
}
