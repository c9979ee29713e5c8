"""A comparison as tables of text: the papers' table, the differences, the costs."""

from difftrain.report.comparison import words
from difftrain.report.comparison.content import MEAN, Comparison, Line
from difftrain.report.tables import Table
from difftrain.report.words import duration, percent


def results(comparison: Comparison) -> Table:
    """Rows in the papers' order, a column a benchmark, the mean, and what is to be said of it."""
    head = ["row", "seeds", *comparison.benchmarks, MEAN, "against its random control"]
    rows = [result(comparison, line) for line in (comparison.base, *comparison.lines)]
    return Table(head, rows)


def result(comparison: Comparison, line: Line) -> list[str]:
    """One row of the results."""
    cells = [with_paper(line, name) for name in (*comparison.benchmarks, MEAN)]
    return [line.title, ", ".join(map(str, line.seeds)), *cells, words.said(line)]


def with_paper(line: Line, name: str) -> str:
    """A score with its interval, and the paper's figure in brackets where there is one."""
    told = words.cell(line.scores[name])
    return f"{told} ({percent(line.paper[name])})" if name in line.paper else told


def differences(comparison: Comparison) -> Table:
    """Each row minus its control by benchmark, p and the corrected p of the mean, and its test."""
    head = ["row minus control", *comparison.benchmarks, MEAN, "p", "p, corrected", "control"]
    rows = []
    for line in comparison.lines:
        if line.against is None:
            continue
        found = line.against.differences
        mean = found[MEAN]
        cells = [marked(line, name) for name in (*comparison.benchmarks, MEAN)]
        told = [words.p_value(mean.p), words.p_value(mean.corrected), line.against.control]
        rows.append([line.title, *cells, *told])
    return Table(head, rows)


def marked(line: Line, name: str) -> str:
    """A difference with its interval; a star only where better or worse may be said."""
    assert line.against is not None
    found = line.against.differences[name]
    shown = words.verdict_of(line, name) in (words.BETTER, words.WORSE)
    return words.much(found) + ("*" if shown else "")


def costs(comparison: Comparison) -> Table:
    """What each row took, numbered as in the picture; what choosing took apart, and all together.

    Means over seeds.
    """
    head = ["", "row", "steps", "samples", "tokens generated", "training", "choosing: tokens",
            "choosing: time", "together"]  # fmt: skip
    rows = []
    for number, line in enumerate((each for each in comparison.lines if each.cost), 1):
        cost = line.cost
        assert cost is not None
        rows.append(
            [
                str(number),
                line.title,
                *(f"{each:,.0f}" for each in (cost.steps, cost.samples, cost.tokens)),
                duration(cost.seconds),
                f"{cost.choosing_tokens:,.0f}" if cost.choosing_tokens else "none",
                duration(cost.choosing_seconds) if cost.choosing_seconds else "none",
                duration(cost.seconds + cost.choosing_seconds),
            ]
        )
    return Table(head, rows)


def notes(comparison: Comparison) -> list[str]:
    """Everything a reader must know, the table's own first, then how to read it."""
    own = [note for line in comparison.lines for note in line.notes]
    told = [words.best(comparison), *comparison.notes]
    if own:
        told.append(f"Not equal in size to their controls, so without a verdict: {'; '.join(own)}.")
    if left := left_out(comparison):
        told.append(left)
    return [each for each in (*told, *words.legend(comparison)) if each]


def left_out(comparison: Comparison) -> str | None:
    """Items without a score, which are in no mean."""
    counted = {
        line.title: line.scores[MEAN].left_out
        for line in (comparison.base, *comparison.lines)
        if line.scores[MEAN].left_out
    }
    if not counted:
        return None
    told = ", ".join(f"{title}: {number:,}" for title, number in counted.items())
    return (
        f"Items left out because some side has no score for them: {told}. The engine gave no "
        "answer, a judge failed, or the picture cannot be shown; each run's scores.md counts them."
    )
