"""All rows side by side: each against its equal-size random control, on the very same items.

The papers' table for our runs. Marks are read here, tests are taken (P has none), and the report
tells what they say.
"""

from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

from difftrain import stats
from difftrain.config.evaluate import MINIATURES, OFFICIAL
from difftrain.evaluate import unscored
from difftrain.evaluate.summary import cluster_of
from difftrain.pipeline import manifest, parquet
from difftrain.records import Arm, ItemResult
from difftrain.report.comparison import agreement, paper, rows, runs, words
from difftrain.report.comparison.content import (
    MEAN,
    Against,
    Comparison,
    Cost,
    Difference,
    Estimate,
    Line,
)
from difftrain.report.comparison.runs import Run
from difftrain.report.comparison.write import write

IN_ORDER = (*OFFICIAL, *MINIATURES)
"""The columns in the papers' order."""
VERSION = 3
"""A change to what is written must change it."""
Seeds = dict[int, Run]
"""The runs of one row by seed."""


def compare(folders: list[Path], to: Path | None = None, force: bool = False) -> Path:
    """Write the comparison of these run folders; returns its folder.

    Raises MissingArtifact naming runs that are not finished, and NotComparable (a ValueError)
    naming the keys of runs made under other settings than the rest.
    """
    found = runs.read(folders)
    noted = agreement.agreed(found, force)
    found = agreement.without_twins(found, force)
    tables: dict[tuple[str, ...], list[Run]] = {}
    for run in found:
        tables.setdefault(run.table, []).append(run)
    contents = [table(each, noted) for _, each in sorted(tables.items())]
    name = manifest.fingerprint(
        {"noted": noted, "version": VERSION},
        *sorted(f"{run.folder.name} {run.marks(Arm.tuned).name}" for run in found),
    )
    folder = to or found[0].folder.absolute().parent.parent / "compare" / name
    write(folder, contents)
    return folder


@cache
def marks_of(folder: Path) -> list[ItemResult]:
    """The marks of one checkpoint; read once."""
    return parquet.read(folder, ItemResult)


def table(own: list[Run], noted: dict[str, list[str]]) -> Comparison:
    """One table from its runs; `noted` has the keys of those that were made otherwise."""
    first = own[0]
    named = [list(run.report["base"]) for run in own]
    shared = [name for name in IN_ORDER if all(name in each for each in named)]
    by_row: dict[str, Seeds] = {}
    for run in sorted(own, key=lambda run: (rows.order(run.name), run.seed)):
        by_row.setdefault(run.name, {})[run.seed] = run
    lines = [line for name in by_row for line in lines_of(name, by_row, shared)]
    lines = [marked(line, by_row, noted) for line in lines]
    lines = corrected(lines, [*shared, MEAN])
    base = Line(
        name=Arm.base,
        title="base model, not trained",
        seeds=(),
        scores=estimates([marks_of(first.marks(Arm.base))], shared),
    )
    return Comparison(
        model=first.report["model"],
        data=first.data,
        measure=first.report["measure"],
        benchmarks=tuple(shared),
        base=base,
        lines=tuple(lines),
        notes=(*words.made_otherwise(own, noted), *words.of_the_runs(own)),
        settings=first.report["settings"],
    )


def lines_of(name: str, by_row: dict[str, Seeds], benchmarks: list[str]) -> list[Line]:
    """A row, and below it the random control that its own runs trained."""
    own = by_row[name]
    control = control_of(name, by_row)
    first = next(iter(own.values()))
    line = Line(
        name=name,
        title=rows.row_of(name).title,
        seeds=tuple(own),
        scores=estimates(marks_S(own, Arm.tuned), benchmarks),
        cost=mean_cost([run.cost() for run in own.values()]),
        against=None if control is None else against(own, *control, benchmarks),
        control=rows.why_uncontrolled(name),
        paper=beside(first, name, benchmarks),
        notes=() if control is None else words.unequal(own, *control),
    )
    controlled = {seed: run for seed, run in own.items() if run.controlled}
    if not controlled:
        return [line]
    below = Line(
        name=f"{name} {Arm.control}",
        title=f"random control of {rows.row_of(name).title}",
        seeds=tuple(controlled),
        scores=estimates(marks_S(controlled, Arm.control), benchmarks),
        cost=mean_cost([run.cost(Arm.control) for run in controlled.values()]),
        control="is a random control itself",
        within=True,
    )
    return [line, below]


def beside(run: Run, name: str, benchmarks: list[str]) -> dict[str, float]:
    """The paper's figures of a row, for the columns that are the paper's own benchmarks, whole."""
    settings = run.report["settings"]
    if settings["evaluate"]["limit"] is not None:
        return {}
    found = paper.figures(settings, name, run.report["measure"])
    return {column: value for column, value in found.items() if column in benchmarks}


def marked(line: Line, by_row: dict[str, Seeds], noted: dict[str, list[str]]) -> Line:
    """The line, its title saying so where one of its runs was made under other settings."""
    own = by_row.get(line.name.removesuffix(f" {Arm.control}"), {}).values()
    if not any(str(run.folder) in noted for run in own):
        return line
    return replace(line, title=f"{line.title} (other settings)")


def control_of(name: str, by_row: dict[str, Seeds]) -> tuple[Seeds, str] | None:
    """The runs that hold a row's control, and which checkpoint of theirs it is.

    Its own runs where all trained one; else the table's random row where it shares a seed; else
    those of its own runs that trained one; None where there is none.
    """
    own = by_row[name]
    controlled = {seed: run for seed, run in own.items() if run.controlled}
    named = rows.row_of(name).control
    random = {seed: run for seed, run in by_row.get(named or "", {}).items() if seed in own}
    if controlled and (len(controlled) == len(own) or not random):
        return controlled, Arm.control
    return (random, Arm.tuned) if random else None


def marks_S(runs_: Seeds, who: str) -> list[list[ItemResult]]:
    """A checkpoint's marks for each seed."""
    return [marks_of(run.marks(who)) for run in runs_.values()]


def estimates(found: list[list[ItemResult]], benchmarks: list[str]) -> dict[str, Estimate]:
    """Mean scores over seeds with intervals, by benchmark and `mean`."""
    told, kept = without_score(found, benchmarks)
    values = stats.score_tables([only(marks, kept) for marks in found], cluster_of)
    pooled = stats.pool(values, "bootstrap")
    own = {
        name: Estimate(**plain(each, "p", "test", "p_corrected", "reason"))
        for name, each in pooled.items()
    }
    return own | {name: Estimate(why=why) for name, why in told.items()}


def against(own: Seeds, control: Seeds, who: str, benchmarks: list[str]) -> Against:
    """A row minus its control, paired on items within each seed that both have."""
    shared = [seed for seed in own if seed in control]
    before = marks_S({seed: control[seed] for seed in shared}, who)
    after = marks_S({seed: own[seed] for seed in shared}, Arm.tuned)
    told, kept = without_score([*before, *after], benchmarks)
    values = stats.difference_tables(
        [only(marks, kept) for marks in before], [only(marks, kept) for marks in after], cluster_of
    )
    pooled = stats.pool(values, "paired")
    differences = {
        name: Difference(**plain(each, "p_corrected", "reason")) for name, each in pooled.items()
    }
    first = control[shared[0]]
    return Against(
        control=rows.row_of(first.name).title if who == Arm.tuned else "its own random control",
        seeds=tuple(shared),
        differences=differences | {name: Difference(why=why) for name, why in told.items()},
    )


def without_score(
    found: list[list[ItemResult]], benchmarks: list[str]
) -> tuple[dict[str, str], list[str]]:
    """Why which benchmarks, and so the mean, have no score; and those that have one.

    Raises NotComparable if none has.
    """
    told = {name: why for name in benchmarks if (why := why_none(found, name))}
    if len(told) == len(benchmarks):
        raise agreement.NotComparable(f"nothing to compare: {'; '.join(told.values())}")
    kept = [name for name in benchmarks if name not in told]
    return told | ({MEAN: f"no mean without {', '.join(told)}"} if told else {}), kept


def why_none(marks_S: list[list[ItemResult]], benchmark: str) -> str | None:
    """Why a benchmark has no score in one of these seeds; None if it has one in each."""
    for marks in marks_S:
        if why := unscored.no_score_reason(benchmark, only(marks, [benchmark])):
            return why
    return None


def only(marks: list[ItemResult], benchmarks: list[str]) -> list[ItemResult]:
    """The marks of these benchmarks."""
    return [mark for mark in marks if mark.benchmark in benchmarks]


def plain(pooled: stats.Estimate, *without: str) -> dict[str, Any]:
    """The fields of a Pooled but for some."""
    return {name: value for name, value in asdict(pooled).items() if name not in without}


def corrected(lines: list[Line], columns: list[str]) -> list[Line]:
    """The lines with p values corrected by Holm over the rows, in each column by itself."""
    for column in columns:
        tested = [
            place
            for place, line in enumerate(lines)
            if line.against is not None and line.against.differences[column].p is not None
        ]
        by_place = {place: lines[place].against for place in tested}
        raw = [each.differences[column].p or 0.0 for each in by_place.values() if each]
        for place, p in zip(tested, stats.holm(raw), strict=True):
            known = by_place[place]
            assert known is not None
            changed = replace(known.differences[column], corrected=p)
            differences = known.differences | {column: changed}
            lines[place] = replace(lines[place], against=replace(known, differences=differences))
    return lines


def mean_cost(costs: list[Cost]) -> Cost:
    """Each cost as its mean over seeds."""
    every = [asdict(each) for each in costs]
    return Cost(**{name: sum(each[name] for each in every) / len(every) for name in every[0]})
