"""Which runs may stand in one table: those that differ only in what their rows' names say."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from difftrain.report.comparison.rows import row_of
from difftrain.report.comparison.runs import Run

SAME_EVERYWHERE = ("model.", "evaluate.")
"""Settings that all runs share, whatever their table."""
OF_A_ROW = ("recipe", "name", "train_stages", "select.")
"""Settings that recipes set; what else a recipe's file sets is in its run's report. They may differ
between rows, not between two runs of one row."""
OF_A_RUN = ("seed", "control", "output_dir", "report.", "report_to", "export.")
NO_MATTER = (
    *("probe.retest_samples", "grpo.reward_workers", "grpo.save_steps", "sft.save_steps"),
    *("model.batch_size", "model.attention_batch_size"),
    *("evaluate.resamples", "evaluate.judge_client.", "evaluate.path"),
    *("evaluate.paths", "evaluate.source", "evaluate.contamination"),
    *(
        "plan.",
        "model.url",
        "model.vllm.",
        "model.server.api_key_env",
        "model.server.max_concurrency",
    ),
    *("model.server.max_attempts", "model.server.timeout_s", "model.server.backoff_s"),
    "model.server.max_outage_s",
)
"""Settings that change no sample, weight or mark. Where items come from is not asked either: they
are compared one by one."""
SFT = "sft"
"""Its settings matter only between runs that both have it."""
BY_NAME = "by its name and"
"""In what is told of a run that bears a known row's name and is not that row."""


class NotComparable(ValueError):
    """Runs that cannot stand in one table; the message names each with its differing keys."""


def unlike_settings(one: Run, two: Run) -> list[str]:
    """The settings that differ between two runs and may not, as `key: a and b`.

    What recipes set may differ between two rows. Of two tables only SAME_EVERYWHERE is compared.
    """
    free = (*OF_A_RUN, *NO_MATTER)
    if one.name != two.name:
        free = (*free, *OF_A_ROW, *one.set_by_recipe, *two.set_by_recipe)
    if not all(SFT in run.program for run in (one, two)):
        free = (*free, f"{SFT}.")
    same_table = one.table == two.table
    before, after = one.settings, two.settings
    return [
        f"{key}: {before.get(key)} and {after.get(key)}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
        and not key.startswith(free)
        and (same_table or key.startswith(SAME_EVERYWHERE))
    ]


def differing(one: Run, two: Run) -> list[str]:
    """What two finished runs were made under that differs and may not, as `key: a and b`."""
    told = unlike_settings(one, two)
    judges = [run.report["judged"]["base"].get("judge") for run in (one, two)]
    if judges[0] != judges[1] and not any(each.startswith("evaluate.judge:") for each in told):
        told.append(f"judge: {judges[0]} and {judges[1]}")
    return told or unlike_inputs(one, two, one.table == two.table)


def unlike_inputs(one: Run, two: Run, same_table: bool) -> list[str]:
    """What was read under the same settings and was not the same: rows, weights, benchmark items.

    By the stages' fingerprints, which hold them.
    """
    told = []
    if same_table and (names := stage_names(one, two, "data")):
        told.append(f"rows of the data: {names}")
    counted = [run.settings.get("evaluate.resamples") for run in (one, two)]
    if counted[0] == counted[1] and (names := stage_names(one, two, "marks base")):
        told.append(f"weights of the base model, benchmark items or the judge's server: {names}")
    return told


def stage_names(one: Run, two: Run, stage: str) -> str | None:
    """`a and b` where a stage's fingerprints differ."""
    names = [run.report["made"][stage]["folder"] for run in (one, two)]
    return None if names[0] == names[1] else " and ".join(names)


def unordered(value: Any) -> Any:
    """A setting's value, the order of a list aside: the strata of a row are a set."""
    return sorted(value) if isinstance(value, list) else value


def departing(run: Run) -> list[str]:
    """The settings of a run that bears a known row's name and is not that row."""
    return [
        f"{key}: {meant} {BY_NAME} {run.settings[key]}"
        for key, meant in row_of(run.name).settings.items()
        if unordered(run.settings.get(key, meant)) != unordered(meant)
    ]


def disagreements(
    runs: list[Run], unlike: Callable[[Run, Run], list[str]] = differing
) -> dict[str, list[str]]:
    """By run folder, under what it differs from most of the others, from most of its row's other
    seeds, or from what its row's name says; empty if all agree.
    """
    found = [departing(run) for run in runs]
    odd = [bool(told) for told in found]
    apart = {
        (i, j): unlike(one, two)
        for i, one in enumerate(runs)
        for j, two in enumerate(runs)
        if i != j
    }
    rows: dict[tuple[Any, ...], list[int]] = {}
    for i, run in enumerate(runs):
        rows.setdefault((run.table, run.name), []).append(i)
    for group in ([*range(len(runs))], *rows.values()):
        alone = {i: sum(bool(apart[i, j]) for j in group if j != i) for i in group}
        norm = min(group, key=lambda i, alone=alone: (odd[i], alone[i]), default=0)
        for i in group:
            found[i] += apart.get((norm, i), [])
    told = zip(runs, found, strict=True)
    return {str(run.folder): list(dict.fromkeys(each)) for run, each in told if each}


def agreed(runs: list[Run], force: bool) -> dict[str, list[str]]:
    """What is to be noted in the table, by run folder.

    Raises NotComparable unless all agree or it is forced.
    """
    found = disagreements(runs)
    if found and not force:
        lines = [f"  {folder}\n" + "\n".join(f"    {each}" for each in told)
                 for folder, told in found.items()]  # fmt: skip
        raise NotComparable(
            "made under other settings than the rest, or than their names say (the rest's value "
            "stands first; --force compares all the same and notes it):\n" + "\n".join(lines)
        )
    return found


def without_twins(runs: list[Run], force: bool) -> list[Run]:
    """One run for each table, row and seed; of two with the same training, the controlled one.

    Two trainings of one row and seed are two rows where it is forced. Raises NotComparable else.
    """
    found: dict[tuple[Any, ...], Run] = {}
    for run in runs:
        key = (run.table, run.name, run.seed)
        other = found.setdefault(key, run)
        if other is run:
            continue
        if stage_names(other, run, "marks tuned") is None:
            found[key] = run if run.controlled else other
        elif force:
            label = f"{run.name} ({run.folder.name.rpartition('-')[2]})"
            found[(*key, label)] = replace(run, label=label)
        else:
            keys = "; ".join(differing(other, run)) or "an input"
            raise NotComparable(
                f"two runs of {run.name} with seed {run.seed}, but a row has one for each seed: "
                f"{other.folder} and {run.folder} differ in {keys}"
            )
    return list(found.values())
