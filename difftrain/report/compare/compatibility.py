"""Which runs may be in one table: those that differ only in what the names of their rows say."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from difftrain.report.compare.presets import preset_of
from difftrain.report.compare.types import Run

SHARED_BY_ALL_TABLES = ("model.", "evaluate.")
"""Settings that must be equal in all runs, whatever their table."""
ROW_KEYS = ("recipe", "name", "train_stages", "select.")
"""Settings that recipes set; a run's report lists what else its recipe sets. They may differ
between rows, but not between two runs of one row."""
RUN_KEYS = ("seed", "control", "output_dir", "report.", "report_to", "export.")
WITHOUT_EFFECT = (
    *("probe.retest_samples", "grpo.reward_workers", "grpo.save_steps", "sft.save_steps"),
    *("model.batch_size", "model.attention_batch_size", "model.url", "model.vllm.", "plan."),
    *("evaluate.resamples", "evaluate.judge_client.", "evaluate.path", "evaluate.paths"),
    *("evaluate.source", "evaluate.contamination"),
    *("model.server.api_key_env", "model.server.max_concurrency", "model.server.max_attempts"),
    *("model.server.timeout_s", "model.server.backoff_s", "model.server.max_outage_s"),
)
"""Settings that change no sample, weight or score. The source of benchmark items is among them:
the items themselves are compared."""
BY_NAME = "by its name and"
"""Part of the message for a run that has the name of a preset row and other settings."""


class NotComparable(ValueError):
    """Runs that cannot be in one table; the message names each with its differing keys."""


def differing_settings(a: Run, b: Run) -> list[str]:
    """The settings that differ between two runs and must not, as `key: a and b`.

    What recipes set may differ between two rows. Two tables share only SHARED_BY_ALL_TABLES.
    """
    ignored = (*RUN_KEYS, *WITHOUT_EFFECT)
    if a.name != b.name:
        ignored = (*ignored, *ROW_KEYS, *a.recipe_keys, *b.recipe_keys)
    if not all("sft" in run.train_stages for run in (a, b)):
        ignored = (*ignored, "sft.")
    return [
        f"{key}: {a.settings.get(key)} and {b.settings.get(key)}"
        for key in sorted(a.settings.keys() | b.settings.keys())
        if a.settings.get(key) != b.settings.get(key)
        and not key.startswith(ignored)
        and (a.table == b.table or key.startswith(SHARED_BY_ALL_TABLES))
    ]


def differences(a: Run, b: Run) -> list[str]:
    """What differs between two finished runs and must not: settings, else judge, else inputs."""
    lines = differing_settings(a, b)
    judges = [run.report["evaluation"]["base"].get("judge") for run in (a, b)]
    if judges[0] != judges[1] and not any(line.startswith("evaluate.judge:") for line in lines):
        lines.append(f"judge: {judges[0]} and {judges[1]}")
    return lines or differing_inputs(a, b)


def differing_inputs(a: Run, b: Run) -> list[str]:
    """What differs although the settings are equal: data rows, weights, benchmark items.

    The stages' fingerprints contain them.
    """
    lines = []
    if a.table == b.table and (folders := differing_folders(a, b, "data")):
        lines.append(f"rows of the data: {folders}")
    resamples = [run.settings.get("evaluate.resamples") for run in (a, b)]
    if resamples[0] == resamples[1] and (folders := differing_folders(a, b, "evaluate base")):
        lines.append(f"weights of the base model, benchmark items or the judge's server: {folders}")
    return lines


def differing_folders(a: Run, b: Run, stage: str) -> str | None:
    """`a and b` if a stage's fingerprints differ."""
    names = [run.report["stages"][stage]["folder"] for run in (a, b)]
    return None if names[0] == names[1] else " and ".join(names)


def differences_from_preset(run: Run) -> list[str]:
    """The settings of a run that has the name of a preset row but is not that row."""

    def as_set(value: Any) -> Any:
        return sorted(value) if isinstance(value, list) else value

    return [
        f"{key}: {value} {BY_NAME} {run.settings[key]}"
        for key, value in preset_of(run.name).settings.items()
        if as_set(run.settings.get(key, value)) != as_set(value)
    ]


def find_incompatible(
    runs: list[Run], compare: Callable[[Run, Run], list[str]] = differences
) -> dict[str, list[str]]:
    """By run folder, what differs from most other runs, from most seeds of its row, or from what
    its row's name says. Empty if all agree.
    """
    lines = [differences_from_preset(run) for run in runs]
    contradicts_name = [bool(found) for found in lines]
    pairs = {
        (i, j): compare(a, b) for i, a in enumerate(runs) for j, b in enumerate(runs) if i != j
    }
    rows: dict[tuple[Any, ...], list[int]] = {}
    for i, run in enumerate(runs):
        rows.setdefault((run.table, run.name), []).append(i)
    for group in ([*range(len(runs))], *rows.values()):
        disagreements = {i: sum(bool(pairs[i, j]) for j in group if j != i) for i in group}
        typical = min(
            group, key=lambda i, counts=disagreements: (contradicts_name[i], counts[i]), default=0
        )
        for i in group:
            lines[i] += pairs.get((typical, i), [])
    return {
        str(run.folder): list(dict.fromkeys(found))
        for run, found in zip(runs, lines, strict=True)
        if found
    }


def require_compatible(runs: list[Run], force: bool) -> dict[str, list[str]]:
    """What the table must note about its runs, by run folder.

    Raises NotComparable unless all agree or `force` is set.
    """
    incompatible = find_incompatible(runs)
    if incompatible and not force:
        lines = [f"  {folder}\n" + "\n".join(f"    {line}" for line in found)
                 for folder, found in incompatible.items()]  # fmt: skip
        raise NotComparable(
            "runs with other settings than the rest, or than their names say (the value of the "
            "rest comes first; --force compares them anyway and notes it):\n" + "\n".join(lines)
        )
    return incompatible


def without_duplicates(runs: list[Run], force: bool) -> list[Run]:
    """One run for each table, row and seed; of two with the same training, the one with a control.

    With `force`, two trainings of one row and seed become two rows; else NotComparable is raised.
    """
    by_key: dict[tuple[Any, ...], Run] = {}
    for run in runs:
        key = (run.table, run.name, run.seed)
        other = by_key.setdefault(key, run)
        if other is run:
            continue
        if differing_folders(other, run, "evaluate tuned") is None:
            by_key[key] = run if run.has_control else other
        elif force:
            label = f"{run.name} ({run.folder.name.rpartition('-')[2]})"
            by_key[(*key, label)] = replace(run, label=label)
        else:
            keys = "; ".join(differences(other, run)) or "an input"
            raise NotComparable(
                f"two runs of {run.name} with seed {run.seed}, but a row has one for each seed: "
                f"{other.folder} and {run.folder} differ in {keys}"
            )
    return list(by_key.values())
