"""A comparison in sentences and tables: what it shows and what it does not.

Every number comes with its interval.
"""

from collections import Counter
from collections.abc import Mapping

from difftrain.report.compare.presets import NEEDS_OWN_CONTROL
from difftrain.report.compare.types import Comparison, ComparisonRow, Run
from difftrain.report.tables import Table
from difftrain.report.text import duration, join_words, number_word, percent, points
from difftrain.stats import MEAN, Estimate

ALPHA = 0.05
BETTER, WORSE, NO_DIFFERENCE = "better", "worse", "no difference shown"
CORRECTED_AWAY = "no difference shown after correction for the number of rows"
UNTESTED = "not tested"
UNEQUAL = "no verdict: its control is not of its size"


def verdict(difference: Estimate) -> str:
    """better or worse only if the 95 % interval excludes zero and the corrected p is below 0.05.

    Both cover the variance of items and, with several seeds, of training runs.
    """
    if difference.mean is None or difference.low is None or difference.high is None:
        return UNTESTED
    if difference.low <= 0 <= difference.high:
        return NO_DIFFERENCE
    if difference.p_corrected is None or difference.p_corrected >= ALPHA:
        return CORRECTED_AWAY
    return BETTER if difference.mean > 0 else WORSE


def row_verdict(row: ComparisonRow, column: str = MEAN) -> str:
    """The verdict on a row against its control; none if their sizes differ."""
    if row.versus_control is None:
        return UNTESTED
    result = verdict(row.versus_control.differences[column])
    return UNEQUAL if row.size_mismatches and result != UNTESTED else result


def format_difference(difference: Estimate) -> str:
    """`+2.1 [0.4, 3.9]` in percent points."""
    if difference.mean is None:
        return "none"
    if difference.low == difference.mean == difference.high == 0:
        return f"none of {difference.n:,} items differs"  # not an interval of zero width
    return f"{points(difference.mean)} [{percent(difference.low)}, {percent(difference.high)}]"


def describe(row: ComparisonRow, column: str = MEAN) -> str:
    """`better, +2.1 [0.4, 3.9], one seed`: a row against its control."""
    if row.versus_control is None:
        return row.no_control
    difference = row.versus_control.differences[column]
    if difference.mean is None:
        return f"unknown: {difference.reason}"
    suffix = ", one seed" if len(row.versus_control.seeds) == 1 else ""
    return f"{row_verdict(row, column)}, {format_difference(difference)}{suffix}"


def format_score(estimate: Estimate) -> str:
    """`58.6 [55.0, 62.1]` in percent; `none` without a score."""
    if estimate.mean is None:
        return "none"
    return f"{percent(estimate.mean)} [{percent(estimate.low)}, {percent(estimate.high)}]"


def format_p(p: float | None) -> str:
    """A p value with three decimals, never as zero."""
    if p is None:
        return ""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def headline(comparison: Comparison) -> str:
    """One sentence: for how many rows a difference from their random control is shown."""
    rows = comparison.compared_rows
    if not rows:
        return "No row has a random control of its size, so no selection can be judged."
    counts = Counter(row_verdict(row) for row in rows)
    parts = [
        f"{number_word(counts[kind])} {'is' if counts[kind] == 1 else 'are'} {kind}"
        for kind in (BETTER, WORSE)
        if counts[kind]
    ]
    if no_difference := counts[NO_DIFFERENCE] + counts[CORRECTED_AWAY]:
        parts.append(f"for {number_word(no_difference)} no difference is shown")
    if counts[UNTESTED]:
        parts.append(f"{number_word(counts[UNTESTED])} could not be tested")
    if counts[UNEQUAL]:
        verb = "has" if counts[UNEQUAL] == 1 else "have"
        parts.append(f"{number_word(counts[UNEQUAL])} {verb} a control of another size")
    noun = "row" if len(rows) == 1 else "rows"
    return (
        f"Of {number_word(len(rows))} {noun} compared with an equal-size random control, "
        f"{join_words(parts)}."
    )


def top_row_caveat(comparison: Comparison) -> str | None:
    """Why the highest mean of the table is not a finding by itself."""
    means = [(row.scores[MEAN], row) for row in comparison.rows if row.scores[MEAN].mean]
    if len(means) < 2:
        return None
    best, top = max(means, key=lambda pair: pair[0].mean or 0.0)
    overlapping = [
        row
        for estimate, row in means
        if row is not top
        and estimate.high is not None
        and best.low is not None
        and estimate.high >= best.low
    ]
    if not overlapping:
        return None
    count = len(overlapping)
    rows = "another row" if count == 1 else f"{number_word(count)} other rows"
    verb = "overlaps" if count == 1 else "overlap"
    subject = "the interval" if count == 1 else "the intervals"
    return (
        f"{top.title} has the highest mean, {format_score(best)}, but {subject} of {rows} {verb} "
        "with its own: the order of the rows says little."
    )


def run_notes(runs: list[Run], incompatible: Mapping[str, list[str]]) -> list[str]:
    """What a reader must know about the runs; `incompatible` is by run folder."""
    notes = [
        f"{run.folder.name} has other settings: {'; '.join(incompatible[str(run.folder)])}."
        for run in runs
        if str(run.folder) in incompatible
    ]
    notes.append(seed_note(runs))
    if any(name.startswith("shapes/") for run in runs for name in run.report["base"]):
        notes.append(
            "Benchmarks under shapes/ are miniatures of the embedded world in the official item "
            "formats. Their scores are not scores of the official benchmarks and cannot be "
            "compared with any score in the papers."
        )
    if any(score.get("rules_only") for run in runs for score in run.report["base"].values()):
        notes.append("Scores are by rules only: items that no rule decides count as incorrect.")
    versions: dict[str, set[str]] = {}
    for run in runs:
        for name, version in run.report["versions"].items():
            versions.setdefault(name, set()).update(version.split(" and "))
    different = [f"{name}: {', '.join(sorted(v))}" for name, v in versions.items() if len(v) > 1]
    if different:
        notes.append(f"The runs used different versions ({'; '.join(different)}).")
    return notes


def seed_note(runs: list[Run]) -> str:
    """How many training runs a row has, and what that leaves open."""
    seeds: dict[str, list[int]] = {}
    for run in runs:
        seeds.setdefault(run.name, []).append(run.seed)
    count = max(map(len, seeds.values()))
    if count == 1:
        return (
            "One seed: one training run for each row. The intervals cover the variance of "
            "benchmark items, not that of training: another seed may reverse any difference."
        )
    note = (
        f"{number_word(count).capitalize()} seeds per row: the intervals cover the variance of "
        "benchmark items and of training runs."
    )
    if count == 2:
        note += (
            " Two seeds say little about the variance of training runs: where it is large, "
            "intervals are too narrow and p values too small, so that a difference is reported too "
            "often. Run three."
        )
    fewer = [f"{name} ({len(each)})" for name, each in seeds.items() if len(each) < count]
    return note + (f" Rows with fewer: {join_words(fewer)}." if fewer else "")


def size_mismatches(
    runs: Mapping[int, Run], controls: Mapping[int, Run], arm: str
) -> tuple[str, ...]:
    """Where the control was not trained on as many samples for as many steps; runs by seed."""
    lines = []
    for seed in (seed for seed in runs if seed in controls):
        cost, control_cost = runs[seed].cost(), controls[seed].cost(arm)
        for name in ("samples", "steps"):
            count, control_count = getattr(cost, name), getattr(control_cost, name)
            if count != control_count:
                lines.append(
                    f"{runs[seed].name}, seed {seed}: {count:,.0f} {name}, "
                    f"but {control_count:,.0f} of its control"
                )
    return tuple(lines)


def legend(comparison: Comparison) -> list[str]:
    """How to read the table: intervals, tests, the paper's scores."""
    tested, rows = len(comparison.compared_rows), comparison.rows
    lines = [
        "Scores are in percent, as means over seeds with 95 % intervals. Differences are in "
        "percent points and paired: the same items, within a seed."
    ]
    if tested:
        count = "one row" if tested == 1 else f"{tested} rows"
        lines.append(
            'A row is called "better" or "worse" only if the interval excludes zero and p, '
            f"corrected by Holm for {count}, is below 0.05. With one seed, p is McNemar's exact "
            "test for benchmarks whose items are correct or incorrect, else a paired bootstrap "
            "that resamples HallusionBench's questions on one figure together. With several seeds "
            "p is the larger of the bootstrap's and Student's t over items and seeds, as in the "
            "interval. Columns are not corrected for one another: the mean counts."
        )
    if any(row.cost and row.cost.selection_seconds for row in rows):
        lines.append(
            "The cost of selection is the whole probe, which all measures share, and everything "
            "up to the selection: a row is also charged for what only other measures needed."
        )
    if any(row.paper for row in rows):
        lines.append(
            "In brackets behind our score: the paper's score for this row, one training run "
            "without an interval. On MathVista's 1,000 items the interval of one run is about "
            "6 points wide."
        )
    lacking = [row.name for row in rows if row.name in NEEDS_OWN_CONTROL and not row.versus_control]
    if lacking:
        lines.append(
            f"{join_words(lacking)}: no row of the table is a random set of this size. "
            "control=random trains one with the run."
        )
    return lines


def left_out_note(comparison: Comparison) -> str | None:
    """Items without a score, which are in no mean."""
    counts = [
        f"{row.title}: {row.scores[MEAN].left_out:,}"
        for row in (comparison.base, *comparison.rows)
        if row.scores[MEAN].left_out
    ]
    if not counts:
        return None
    return (
        f"Items left out because a side has no score for them: {', '.join(counts)}. The engine "
        "gave no response, the judge failed, or the image cannot be read; each run's scores.md "
        "counts them."
    )


def notes(comparison: Comparison) -> list[str]:
    """Everything a reader must know: first about this table, then how to read any."""
    lines = [top_row_caveat(comparison), *comparison.notes]
    if mismatches := [line for row in comparison.rows for line in row.size_mismatches]:
        lines.append(f"No verdict where the control is not of equal size: {'; '.join(mismatches)}.")
    lines.append(left_out_note(comparison))
    return [line for line in (*lines, *legend(comparison)) if line]


def with_paper_score(row: ComparisonRow, name: str) -> str:
    """A score with its interval, and the paper's score in brackets if there is one."""
    text = format_score(row.scores[name])
    return f"{text} ({percent(row.paper[name])})" if name in row.paper else text


def costs_table(comparison: Comparison) -> Table:
    """What each row took as means over seeds: training, selection, and both together.

    Rows are numbered as in the figure.
    """
    head = ["", "row", "steps", "samples", "tokens generated", "training", "selection: tokens",
            "selection: time", "together"]  # fmt: skip
    rows = []
    for row in comparison.rows:
        if cost := row.cost:
            rows.append(
                [
                    str(len(rows) + 1),
                    row.title,
                    *(f"{value:,.0f}" for value in (cost.steps, cost.samples, cost.tokens)),
                    duration(cost.seconds),
                    f"{cost.selection_tokens:,.0f}" if cost.selection_tokens else "none",
                    duration(cost.selection_seconds) if cost.selection_seconds else "none",
                    duration(cost.seconds + cost.selection_seconds),
                ]
            )
    return Table(head, rows)
