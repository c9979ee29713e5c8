"""What a comparison shows and what it does not, in words. No number without its interval."""

from collections import Counter
from collections.abc import Mapping

from difftrain.report.comparison.content import MEAN, Comparison, Difference, Estimate, Line
from difftrain.report.comparison.rows import UNCONTROLLED
from difftrain.report.comparison.runs import Run
from difftrain.report.words import listed, percent, points, written

ALPHA = 0.05
BETTER, WORSE, NONE = "better", "worse", "no difference shown"
CORRECTED_AWAY = "no difference shown once corrected for the number of rows"
UNTESTED = "not tested"
UNEQUAL = "no verdict, as its control is not of its size"


def verdict(difference: Difference) -> str:
    """better or worse only if the 95 % interval leaves out zero and the corrected p is below 0.05.

    Both hold the luck of items and, where several were run, of seeds; p is corrected for the rows.
    """
    if difference.mean is None or difference.low is None or difference.high is None:
        return UNTESTED
    if difference.low <= 0 <= difference.high:
        return NONE
    if difference.corrected is None or difference.corrected >= ALPHA:
        return CORRECTED_AWAY
    return BETTER if difference.mean > 0 else WORSE


def verdict_of(line: Line, column: str = MEAN) -> str:
    """The verdict on a row against its control; none where their sizes differ (Line.notes)."""
    if line.against is None:
        return UNTESTED
    found = verdict(line.against.differences[column])
    return UNEQUAL if line.notes and found != UNTESTED else found


def much(difference: Difference) -> str:
    """`+2.1 [0.4, 3.9]` in percent points."""
    if difference.mean is None:
        return "none"
    if difference.low == difference.mean == difference.high == 0:
        return f"none of {difference.n:,} items differs"  # an interval of no width would claim more
    return f"{points(difference.mean)} [{percent(difference.low)}, {percent(difference.high)}]"


def said(line: Line, column: str = MEAN) -> str:
    """`better, +2.1 [0.4, 3.9], one seed`: a row against its control."""
    if line.against is None:
        return line.control
    difference = line.against.differences[column]
    if difference.mean is None:
        return f"cannot be said: {difference.why}"
    one = ", one seed" if len(line.against.seeds) == 1 else ""
    return f"{verdict_of(line, column)}, {much(difference)}{one}"


def cell(estimate: Estimate) -> str:
    """`58.6 [55.0, 62.1]` in percent; `none` where there is no score."""
    if estimate.mean is None:
        return "none"
    return f"{percent(estimate.mean)} [{percent(estimate.low)}, {percent(estimate.high)}]"


def p_value(p: float | None) -> str:
    """A p value with three decimals, never as zero."""
    if p is None:
        return ""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def headline(comparison: Comparison) -> str:
    """One sentence: for how many rows a difference to their random control is shown."""
    tested = [line for line in comparison.lines if line.against is not None]
    if not tested:
        return "No row has a random control of its size, so nothing is said of any choice."
    counted = Counter(verdict_of(line) for line in tested)
    shown = [
        f"{written(counted[kind])} {'is' if counted[kind] == 1 else 'are'} {kind}"
        for kind in (BETTER, WORSE)
        if counted[kind]
    ]
    rest = counted[NONE] + counted[CORRECTED_AWAY]
    if rest:
        shown.append(f"for {written(rest)} no difference is shown")
    if counted[UNTESTED]:
        shown.append(f"{written(counted[UNTESTED])} could not be tested")
    if counted[UNEQUAL]:
        was = "was" if counted[UNEQUAL] == 1 else "were"
        shown.append(f"{written(counted[UNEQUAL])} {was} not of its control's size")
    rows = "row" if len(tested) == 1 else "rows"
    return (
        f"Of {written(len(tested))} {rows} held against an equal-size random control, "
        f"{listed(shown)}."
    )


def best(comparison: Comparison) -> str | None:
    """Why the highest mean of the table is not by itself a finding."""
    scored = [(line.scores[MEAN].mean, line) for line in comparison.lines if line.scores[MEAN].mean]
    if len(scored) < 2:
        return None
    _, top = max(scored, key=lambda each: each[0] or 0.0)
    low = top.scores[MEAN].low
    near = [line for _, line in scored if line is not top and overlaps(line.scores[MEAN], low)]
    if not near:
        return None
    others = "another row" if len(near) == 1 else f"{written(len(near))} other rows"
    return (
        f"The highest mean is that of {top.title}, {cell(top.scores[MEAN])}; the intervals of "
        f"{others} reach into its own, so that rank says little."
    )


def overlaps(estimate: Estimate, low: float | None) -> bool:
    """Whether an interval reaches up to another's lower end."""
    return estimate.high is not None and low is not None and estimate.high >= low


def of_the_runs(runs: list[Run]) -> list[str]:
    """What a reader must know about these runs before believing the table."""
    told = [about_seeds(runs)]
    if any(name.startswith("shapes/") for run in runs for name in run.report["base"]):
        told.append(
            "Benchmarks under shapes/ are miniatures of the embedded world in the official item "
            "formats. Their scores are not scores of the official benchmarks, and no figure of the "
            "papers can stand beside them."
        )
    if any(mark.get("rules_only") for run in runs for mark in run.report["base"].values()):
        told.append("Scores are by rules alone: what no rule decides counts as wrong.")
    versions: dict[str, set[str]] = {}
    for run in runs:
        for name, version in run.report["versions"].items():
            versions.setdefault(name, set()).update(version.split(" and "))
    if several := {name: sorted(each) for name, each in versions.items() if len(each) > 1}:
        each = "; ".join(f"{name}: {', '.join(known)}" for name, known in several.items())
        told.append(f"The runs were not made by one version of everything ({each}).")
    return told


def made_otherwise(runs: list[Run], noted: Mapping[str, list[str]]) -> list[str]:
    """Which of these runs were made under other settings than the rest, and under which."""
    return [
        f"{run.folder.name} was made under other settings: {'; '.join(noted[str(run.folder)])}."
        for run in runs
        if str(run.folder) in noted
    ]


def about_seeds(runs: list[Run]) -> str:
    """How many training runs stand behind a row, and what that leaves open."""
    seeds: dict[str, list[int]] = {}
    for run in runs:
        seeds.setdefault(run.name, []).append(run.seed)
    most = max(map(len, seeds.values()))
    if most == 1:
        return (
            "One seed: one training run for each row. The intervals hold the luck of the benchmark "
            "items, not that of training: another seed may turn any of these differences."
        )
    told = (
        f"{written(most).capitalize()} seeds for a row: intervals hold the luck of benchmark items "
        "and of training runs together."
    )
    if most == 2:
        told += (
            " Two seeds know little of the latter: where it is large, intervals are too narrow and "
            "p values too small, so that a difference is called too often. Run three."
        )
    fewer = [f"{name} ({len(each)})" for name, each in seeds.items() if len(each) < most]
    return told + (f" Fewer have {listed(fewer)}." if fewer else "")


def unequal(own: Mapping[int, Run], control: Mapping[int, Run], who: str) -> tuple[str, ...]:
    """Where the control was not trained on as many samples for as many steps."""
    told = []
    for seed in (seed for seed in own if seed in control):
        row, other = own[seed].cost(), control[seed].cost(who)
        for name in ("samples", "steps"):
            ours, theirs = getattr(row, name), getattr(other, name)
            if ours != theirs:
                told.append(
                    f"{own[seed].name}, seed {seed}: {ours:,.0f} {name}, "
                    f"but {theirs:,.0f} of its control"
                )
    return tuple(told)


def legend(comparison: Comparison) -> list[str]:
    """How to read the table: intervals, tests, the papers' figures."""
    told = [
        "Percent, as means over seeds with 95 % intervals. Differences are in percent points and "
        "paired: the same items, within a seed."
    ]
    if comparison.tested:
        rows = "one row" if comparison.tested == 1 else f"{comparison.tested} rows"
        told.append(
            '"Better" and "worse" are said only where the interval leaves out zero and p, by '
            f"Holm corrected for {rows}, is below 0.05: McNemar's exact test for "
            "benchmarks whose items are right or wrong, where one seed was run, else a paired "
            "bootstrap; HallusionBench's questions on one figure are drawn together. Of several "
            "seeds p is the larger of that and Student's t over items and seeds, as the interval "
            "has it. Columns are not corrected for one another: what counts is the mean."
        )
    if any(line.cost and line.cost.choosing_seconds for line in comparison.lines):
        told.append(
            "Choosing is the whole probe, which measures share, with what follows up to the "
            "choice: a row is charged for what other measures asked of it too."
        )
    if any(line.paper for line in comparison.lines):
        told.append(
            "In brackets behind our score: the paper's figure for this row, one training run "
            "without an interval. On MathVista's 1,000 items the interval of one run is about "
            "6 points wide."
        )
    lacking = [
        line.name for line in comparison.lines if line.name in UNCONTROLLED and not line.against
    ]
    if lacking:
        told.append(
            f"{listed(lacking)}: no row of the table is a random set of this size. control=random "
            "trains one beside it."
        )
    return told
