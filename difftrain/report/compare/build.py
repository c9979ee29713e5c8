"""Compare finished runs: each row of a table with a control trained on equally many random samples.

Rows that RAP selects are also compared with training on all samples, as in RAP's Table 1.
Differences are paired on benchmark items and tested. A list named ..._S has one entry per seed.
"""

from collections import defaultdict
from dataclasses import replace
from functools import cache
from pathlib import Path

import pandas as pd

from difftrain import stats
from difftrain.config.evaluate import MINIATURES, OFFICIAL
from difftrain.evaluate.summary import cluster_of, no_score_reason, scored_units
from difftrain.pipeline import manifest, parquet
from difftrain.records import Arm, ItemResult
from difftrain.report.compare import presets
from difftrain.report.compare.render import sentences, write_comparisons
from difftrain.report.compare.runs import (
    Comparison,
    ComparisonRow,
    ControlDifference,
    NotComparable,
    RowCost,
    Run,
    find_incompatible,
    read_runs,
    without_duplicates,
)
from difftrain.report.compare.tokens import compare_tokens
from difftrain.stats import MEAN, Estimate

BENCHMARK_ORDER = (*OFFICIAL, *MINIATURES)  # first those of Qi et al. 2026, in its order
VERSION = 6  # part of the folder's hash; a change of the files' content must raise it
RunBySeed = dict[int, Run]


def compare_runs(folders: list[Path], output: Path | None = None, force: bool = False) -> Path:
    """Write the comparison of these run folders; returns the folder of its files.

    Raises MissingArtifact for unfinished runs. Raises NotComparable (a ValueError) if settings
    differ that must be equal; with `force`, the table notes these settings instead.
    """
    runs = read_runs(folders)
    incompatible = find_incompatible(runs)
    if incompatible and not force:
        lines = ["\n    ".join([f"  {folder}", *keys]) for folder, keys in incompatible.items()]
        raise NotComparable(
            "the settings of these runs differ from the other runs, or from their name's preset "
            "(expected value first; --force compares them and notes this):\n" + "\n".join(lines)
        )
    runs = without_duplicates(runs, force)
    by_table: dict[tuple[str, ...], list[Run]] = defaultdict(list)
    for run in runs:
        by_table[run.table].append(run)
    comparisons = [build_table(members, incompatible) for _, members in sorted(by_table.items())]
    fingerprint = manifest.fingerprint(
        {"incompatible": incompatible, "version": VERSION},
        *sorted(f"{run.folder.name} {run.results_folder(Arm.tuned).name}" for run in runs),
    )
    folder = output or runs[0].folder.absolute().parent.parent / "compare" / fingerprint
    write_comparisons(folder, comparisons)
    return folder


@cache
def item_results(folder: Path) -> list[ItemResult]:
    """The item results in an evaluation's folder; cached."""
    return parquet.read_rows(folder, ItemResult)


def build_table(runs: list[Run], incompatible: dict[str, list[str]]) -> Comparison:
    """One table. `incompatible` has the problems of runs by folder; the table's notes list them."""
    first = runs[0]
    benchmarks = common_benchmarks(runs)
    order = {name: i for i, name in enumerate(presets.PRESETS)}  # other names come last
    by_row: dict[str, RunBySeed] = defaultdict(dict)
    for run in sorted(runs, key=lambda run: (order.get(run.name, len(order)), run.name, run.seed)):
        by_row[run.name][run.seed] = run
    rows = []
    for name, members in by_row.items():
        has_other_settings = any(str(run.folder) in incompatible for run in members.values())
        rows += build_rows(name, dict(by_row), benchmarks, has_other_settings)
    columns = [*benchmarks, MEAN]
    for versus in (row_differences(rows, "versus_control"), row_differences(rows, "versus_full")):
        correct_p(versus, columns)
    settings = first.report["settings"]
    base = ComparisonRow(
        name=Arm.base,
        title="base model, not trained",
        seeds=(),
        scores=scores([item_results(first.results_folder(Arm.base))], benchmarks),
        paper=known_scores(presets.rap_figures(settings, Arm.base), benchmarks),
    )
    tasks, data = settings["data"]["tasks"], first.report["data"]
    notes = sentences("run_notes", runs, incompatible)
    if any(presets.preset_of(run.name).rap for run in runs):
        pool, max_steps = first.cost().pool, settings["grpo"]["max_steps"]
        notes += sentences("rap_notes", presets.rap_mismatches(settings), pool, max_steps)
    return Comparison(
        model=first.report["model"],
        data=f"{data} ({', '.join(tasks)})" if tasks else data,
        measure=first.report["measure"],
        benchmarks=tuple(benchmarks),
        base=base,
        rows=tuple(rows),
        notes=tuple(notes),
    )


def common_benchmarks(runs: list[Run]) -> list[str]:
    """The benchmarks of all runs, in RAP's order if a row selects as RAP does."""
    names = [name for name in BENCHMARK_ORDER if all(name in run.report["base"] for run in runs)]
    if any(presets.preset_of(run.name).rap for run in runs):
        in_rap = {name: i for i, name in enumerate(presets.RAP_BENCHMARKS)}
        names.sort(key=lambda name: in_rap.get(name.removeprefix("shapes/"), len(in_rap)))
    return names


def known_scores(figures: dict[str, float], benchmarks: list[str]) -> dict[str, float]:
    """The paper's figures to show: a benchmark's if it is evaluated, the mean only of all six."""
    names = {*benchmarks, "samples", "hours"}
    if {*benchmarks} == {*presets.RAP_BENCHMARKS}:
        names.add(MEAN)
    return {name: value for name, value in figures.items() if name in names}


def build_rows(
    name: str, by_row: dict[str, RunBySeed], benchmarks: list[str], has_other_settings: bool
) -> list[ComparisonRow]:
    """The row of this name; if its runs trained a random control, also the control's own row.

    With `has_other_settings`, the titles say that a run's settings differ from the other runs.
    """
    runs, control = by_row[name], find_control(name, by_row)
    title = presets.preset_of(name).title + " (other settings)" * has_other_settings
    report = next(iter(runs.values())).report
    settings = report["settings"]
    paper = presets.rap_figures(settings, name)
    if settings["evaluate"]["limit"] is None:
        paper |= presets.paper_scores(settings, name, report["measure"])
    full = by_row.get(presets.FULL, {})
    has_full = presets.preset_of(name).rap and any(seed in full for seed in runs)
    row = ComparisonRow(
        name=name,
        title=title,
        seeds=tuple(runs),
        scores=scores(results_by_seed(runs, Arm.tuned), benchmarks),
        cost=mean_cost(runs, Arm.tuned),
        versus_control=None if control is None else versus_control(runs, *control, benchmarks),
        versus_full=versus_control(runs, full, Arm.tuned, benchmarks) if has_full else None,
        no_control=presets.missing_control_reason(name),
        paper=known_scores(paper, benchmarks),
        size_mismatches=() if control is None else size_mismatches(runs, *control),
    )
    with_control = {seed: run for seed, run in runs.items() if run.has_control}
    if not with_control:
        return [row]
    own_control = ComparisonRow(
        name=f"{name} {Arm.control}",
        title=f"random control of {title}",
        seeds=tuple(with_control),
        scores=scores(results_by_seed(with_control, Arm.control), benchmarks),
        cost=mean_cost(with_control, Arm.control),
        no_control="is a random control itself",
        is_own_control=True,
    )
    return [row, own_control]


def mean_cost(runs: RunBySeed, arm: str) -> RowCost:
    """The cost of an arm, as means over seeds."""
    costs = pd.DataFrame([run.cost(arm) for run in runs.values()]).mean()
    return RowCost(**costs.to_dict())


def size_mismatches(runs: RunBySeed, controls: RunBySeed, arm: str) -> tuple[str, ...]:
    """One text for each seed whose control was trained on another number of samples or steps."""
    return tuple(
        f"{run.name}, seed {seed}: {count:,.0f} {name}, but {control_count:,.0f} of its control"
        for seed, run in runs.items()
        if seed in controls
        for name in ("samples", "steps")
        if (count := getattr(run.cost(), name))
        != (control_count := getattr(controls[seed].cost(arm), name))
    )


def find_control(name: str, by_row: dict[str, RunBySeed]) -> tuple[RunBySeed, str] | None:
    """The runs that trained a row's control, and the control's arm in them; None without a control.

    First choice: the row's own runs, if all of them trained a control. Second: the row that the
    preset names, if it shares a seed with this row. Third: the row's runs that trained a control.
    """
    runs = by_row[name]
    with_control = {seed: run for seed, run in runs.items() if run.has_control}
    random_row = by_row.get(presets.preset_of(name).control or "", {})
    random_runs = {seed: run for seed, run in random_row.items() if seed in runs}
    if with_control and (len(with_control) == len(runs) or not random_runs):
        return with_control, Arm.control
    return (random_runs, Arm.tuned) if random_runs else None


def results_by_seed(runs: RunBySeed, arm: str) -> list[list[ItemResult]]:
    """An arm's item results of each seed."""
    return [item_results(run.results_folder(arm)) for run in runs.values()]


def scores(results_S: list[list[ItemResult]], benchmarks: list[str]) -> dict[str, Estimate]:
    """Mean scores over seeds with intervals, by benchmark and `mean`."""
    unscored, results_S = split_unscored(results_S, benchmarks)
    tables = stats.score_tables([scored_units(results) for results in results_S], cluster_of)
    return stats.pool(tables, "bootstrap") | unscored


def versus_control(
    runs: RunBySeed, controls: RunBySeed, arm: str, benchmarks: list[str]
) -> ControlDifference:
    """A row minus its control, paired on items within each seed that both have."""
    seeds = [seed for seed in runs if seed in controls]
    control_S = results_by_seed({seed: controls[seed] for seed in seeds}, arm)
    tuned_S = results_by_seed({seed: runs[seed] for seed in seeds}, Arm.tuned)
    unscored, results = split_unscored([*control_S, *tuned_S], benchmarks)
    results = [scored_units(rows) for rows in results]
    control_S, tuned_S = results[: len(seeds)], results[len(seeds) :]
    pooled = stats.pool(stats.difference_tables(control_S, tuned_S, cluster_of), "paired")
    title = presets.preset_of(controls[seeds[0]].name).title
    pairs = [(runs[seed], controls[seed]) for seed in seeds]
    return ControlDifference(
        control=title if arm == Arm.tuned else "its own random control",
        seeds=tuple(seeds),
        differences=pooled | unscored,
        tokens=compare_tokens(pairs, arm),
        is_random=arm != Arm.tuned or not presets.preset_of(controls[seeds[0]].name).selects,
    )


def split_unscored(
    results_S: list[list[ItemResult]], benchmarks: list[str]
) -> tuple[dict[str, Estimate], list[list[ItemResult]]]:
    """Splits off benchmarks that lack a score in some seed; raises NotComparable if all do.

    Returns an empty estimate with the reason for each benchmark without a score, and the
    results of the others. If a benchmark has no score, the mean gets an empty estimate, too.
    """
    reasons: dict[str, str] = {}
    for name in benchmarks:
        for results in results_S:
            group = [result for result in results if result.benchmark == name]
            if reason := no_score_reason(name, group):
                reasons.setdefault(name, reason)
    if len(reasons) == len(benchmarks):
        raise NotComparable(f"nothing to compare: {'; '.join(reasons.values())}")
    scored = [name for name in benchmarks if name not in reasons]
    if reasons:
        reasons[MEAN] = f"no mean without {', '.join(reasons)}"
    scored_S = [[row for row in results if row.benchmark in scored] for results in results_S]
    return {name: Estimate(reason=reason) for name, reason in reasons.items()}, scored_S


def row_differences(rows: list[ComparisonRow], field: str) -> list[dict[str, Estimate]]:
    """The differences of the rows that have the field versus_control or versus_full."""
    versus = [getattr(row, field) for row in rows]
    return [difference.differences for difference in versus if difference is not None]


def correct_p(by_row: list[dict[str, Estimate]], columns: list[str]) -> None:
    """Set p_corrected: Holm's correction of p for the number of rows, in each column by itself."""
    for column in columns:
        tested = [differences for differences in by_row if differences[column].p is not None]
        corrected = stats.holm([differences[column].p or 0.0 for differences in tested])
        for differences, p in zip(tested, corrected, strict=True):
            differences[column] = replace(differences[column], p_corrected=p)
