"""The reference harness's tables of each benchmark, from Mark rows. Pure.

A row holds `n` scored items, their `right` (sum of scores), `by_rule` (settled without a judge)
and `score`, a fraction of 1; HallusionBench's rows hold its own accuracies instead, and how
many figures and questions are in none of them because one of their items has no score.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from difftrain.evaluate import hallusionbench, mmmu, ocrbench, undecided
from difftrain.evaluate.scoring import benchmark_named
from difftrain.records import GradedBy, ItemResult

Row = dict[str, float | int | None]
Table = dict[str, Row]

OVERALL = "Overall"
PRINTED = {"MMMU": 1, "MMStar": 1}
"""The papers' tables print these two as fractions and the others as percentages."""
TEXT_RECOGNITION = "Text Recognition"
GROUPS = {
    TEXT_RECOGNITION: (
        "Regular Text Recognition",
        "Irregular Text Recognition",
        "Artistic Text Recognition",
        "Handwriting Recognition",
        "Digit String Recognition",
        "Non-Semantic Text Recognition",
    ),
    "Scene Text-centric VQA": ("Scene Text-centric VQA",),
    "Doc-oriented VQA": ("Doc-oriented VQA",),
    "Key Information Extraction": ("Key Information Extraction",),
    ocrbench.FORMULAS: (ocrbench.FORMULAS,),
}
"""OCRBench's five groups of types."""
NORM = 10
"""OCRBench's Final Score Norm is the number of right items over ten, on a subset too."""

THINNED = "subsets (no fAcc, qAcc and average: under evaluate.limit figures are not whole)"
"""Title of HallusionBench's table where a limit took some of the items."""


def row(marks: Iterable[ItemResult]) -> Row:
    """Items, points, and the mean; marks without a score are left out."""
    scored = [mark for mark in marks if mark.score is not None]
    right = sum(mark.score or 0.0 for mark in scored)
    return {
        "n": len(scored),
        "right": round(right, 9),
        "by_rule": sum(mark.graded_by is GradedBy.rule for mark in scored),
        "score": right / len(scored) if scored else None,
    }


def by_word(marks: Sequence[ItemResult]) -> Table:
    """One row for each word of the subsets; an item counts fully under each of its words."""
    words = sorted({word for mark in marks for word in mark.category.split(",")})
    return {word: row(mark for mark in marks if word in mark.category.split(",")) for word in words}


def mathvista(marks: Sequence[ItemResult]) -> dict[str, Table]:
    """Tasks and skills in one flat table; `by_rule` is the harness's prefetch."""
    return {"tasks and skills": {OVERALL: row(marks), **by_word(marks)}}


def mmvet(marks: Sequence[ItemResult]) -> dict[str, Table]:
    """Capabilities, and exact combinations of them."""
    together = sorted({mark.category for mark in marks})
    combined = {
        subset.replace(",", "_"): row(mark for mark in marks if mark.category == subset)
        for subset in together
    }
    return {
        "capabilities": {OVERALL: row(marks), **by_word(marks)},
        "combinations": {OVERALL: row(marks), **combined},
    }


def ocr(marks: Sequence[ItemResult]) -> dict[str, Table]:
    """Five groups and the final score, which is a count; the ten types beside them."""
    groups = {
        name: row(mark for mark in marks if mark.category in types)
        for name, types in GROUPS.items()
    }
    total = row(marks)
    final = total | {"norm": (total["right"] or 0) / NORM}
    return {"groups": {**groups, "Final Score": final}, "types": by_word(marks)}


def halluci(marks: Sequence[ItemResult]) -> dict[str, Table]:
    """aAcc, fAcc, qAcc and their mean: overall, by category, by subset."""

    def accuracies(some: Iterable[ItemResult]) -> Row:
        scores = {mark.item_id: mark.score for mark in some}
        found = hallusionbench.accuracies(scores)
        return {
            "n": sum(score is not None for score in scores.values()),
            **{"aAcc": found.aAcc, "fAcc": found.fAcc, "qAcc": found.qAcc},
            "average": found.average,
            "figures_left_out": found.figures_left_out,
            "questions_left_out": found.questions_left_out,
        }

    def within(category: str) -> Row:
        return accuracies(mark for mark in marks if mark.category.startswith(f"{category}_"))

    subsets = sorted({mark.category for mark in marks})
    return {
        "subsets": {
            OVERALL: accuracies(marks),
            **{category: within(category) for category in ("VD", "VS")},
            **{
                each: accuracies(mark for mark in marks if mark.category == each)
                for each in subsets
            },
        }
    }


def just_aAcc(whole: Row) -> Row:
    """A row of HallusionBench without what needs whole figures and questions."""
    return {"n": whole["n"], "aAcc": whole["aAcc"]}


def mmmu_tables(marks: Sequence[ItemResult]) -> dict[str, Table]:
    """A table for each split: overall, subjects, disciplines. `validation` is the printed one."""
    splits: dict[str, list[ItemResult]] = {}
    for mark in marks:
        first = mark.category.split(",")[0]
        splits.setdefault(first if first in ("dev", "validation") else "validation", []).append(
            mark
        )
    found = {}
    for split, own in splits.items():
        words = {name: each for name, each in by_word(own).items() if name != split}
        order = sorted(words, key=lambda name: name in mmmu.SUBJECTS)
        found[split] = {OVERALL: row(own), **{name: words[name] for name in order}}
    return found


def mmstar(marks: Sequence[ItemResult]) -> dict[str, Table]:
    """Overall and the six core capabilities; the mean is over items, not over categories."""
    return {"capabilities": {OVERALL: row(marks), **by_word(marks)}}


TABLES: dict[str, Callable[[Sequence[ItemResult]], dict[str, Table]]] = {
    "MathVista": mathvista,
    "MMVet": mmvet,
    "OCRBench": ocr,
    "HallusionBench": halluci,
    "MMMU": mmmu_tables,
    "MMStar": mmstar,
}


def breakdown(
    benchmark: str, marks: Sequence[ItemResult], thinned: bool = False
) -> dict[str, Table]:
    """The tables of a benchmark, by title; none where nothing was decided.

    `thinned`: a limit took some of the items, so that HallusionBench's figures and questions are
    not whole and only aAcc means what it says. Raises ValueError for an unknown benchmark.
    """
    name = benchmark_named(benchmark).name
    if undecided.why_none(benchmark, marks):
        return {}
    if name == "HallusionBench" and thinned:
        return {THINNED: {key: just_aAcc(each) for key, each in halluci(marks)["subsets"].items()}}
    return TABLES[name](marks)


def printed(benchmark: str, score: float) -> str:
    """A score as the papers' tables print it: 68.300, but 0.547 for MMMU and MMStar."""
    return f"{score * PRINTED.get(benchmark_named(benchmark).name, 100):.3f}"


def outcomes(marks: Sequence[ItemResult]) -> dict[str, int]:
    """How the items came by their scores; every item is in exactly one of the first seven.

    `undecided` counts as wrong (where the reference draws an option at random, too); `drawn` had
    its option drawn (fallback=random); `judge_failed`, `not_asked` and `no_answer` (of the engine)
    have no score. `empty` counts responses without a word.
    """

    def of(mark: ItemResult) -> str:
        if undecided.is_drawn(mark):
            return "drawn"
        if mark.score is not None:
            return "undecided" if mark.graded_by is GradedBy.failed else mark.graded_by.value
        if undecided.unasked([mark]):
            return "not_asked"
        return "no_answer" if undecided.unanswered([mark]) else "judge_failed"

    counted = Counter(map(of, marks))
    names = ("rule", "judge", "undecided", "drawn", "judge_failed", "not_asked", "no_answer")
    empty = sum(not mark.response.strip() for mark in marks)
    return {**{name: counted[name] for name in names}, "empty": empty}
