"""Read finished runs and check which of them may be compared in one table.

In one table, only seeds and settings of recipes may differ. Scores are fractions of 1.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from difftrain.pipeline import manifest
from difftrain.pipeline.parquet import MissingArtifact
from difftrain.report.compare.presets import RAP_TITLES, preset_of
from difftrain.report.text import flatten

if TYPE_CHECKING:  # so that a sweep can check its settings without loading scipy and pandas
    from difftrain.report.compare.tokens import TokenComparison
    from difftrain.stats import Estimate

# Runs that differ in these settings are in different tables.
TABLE_KEYS = ("difficulty.measure", "data.source", "data.tasks")
PROBED_SAMPLERS = ("learnable", "curriculum", "mirrored_j")
"""Values of grpo.sampler that start from the probe's responses or scores, in both arms."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowCost:
    """What training a row cost, as means over its seeds; `tokens` counts generated tokens.

    `selection_*` is the cost of selecting its samples. It includes measuring their difficulty:
    `selection_seconds` is the sum of `probe_seconds` (responses), `attention_seconds` (the forward
    pass over them) and `scoring_seconds`. `pool` is the number of samples to select from.
    """

    steps: float
    samples: float
    tokens: float
    seconds: float
    selection_tokens: float
    selection_seconds: float
    pool: float
    probe_seconds: float
    attention_seconds: float
    scoring_seconds: float

    @property
    def total_seconds(self) -> float:
        """The time of training and of selecting the samples."""
        return self.seconds + self.selection_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlDifference:
    """A row's scores minus its control's by benchmark and `mean`, over `seeds`, which both have.

    The control has as many random samples, or in `versus_full` all samples; if not `is_random` it
    has the same samples, trained on without dynamic sampling.
    """

    control: str
    seeds: tuple[int, ...]
    differences: "dict[str, Estimate]"
    tokens: "TokenComparison | None" = None
    is_random: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonRow:
    """A row of the table: its scores by benchmark and `mean`, and the paper's scores for it.

    `no_control` says why `versus_control` is None. `is_own_control` marks a control that a run
    trained itself. `size_mismatches` lists how the control differs in size; if it does, there is
    no verdict. Rows that RAP selects also have `versus_full`, the difference from training on all
    samples. `paper` may also have the paper's `samples` and `hours`.
    """

    name: str
    title: str
    seeds: tuple[int, ...]
    scores: "dict[str, Estimate]"
    cost: RowCost | None = None
    versus_control: ControlDifference | None = None
    versus_full: ControlDifference | None = None
    no_control: str = ""
    is_own_control: bool = False
    paper: dict[str, float] = field(default_factory=dict)
    size_mismatches: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One table. Its rows may differ in seeds and in the settings of their recipes only."""

    model: str
    data: str
    measure: str
    benchmarks: tuple[str, ...]
    base: ComparisonRow
    rows: tuple[ComparisonRow, ...]
    notes: tuple[str, ...]

    @property
    def compared_rows(self) -> list[ComparisonRow]:
        """The rows that have a control; p values are corrected for their number."""
        return [row for row in self.rows if row.versus_control is not None]

    @property
    def control_word(self) -> str:
        """What all controls of this table are: `random control`, else `control`."""
        controls = [row.versus_control for row in self.compared_rows]
        return "random control" if all(c and c.is_random for c in controls) else "control"

    @property
    def rap_rows(self) -> list[ComparisonRow]:
        """The rows of RAP's Table 1 and ablation; empty if no row selects as RAP does."""
        rows = [row for row in self.rows if row.name in RAP_TITLES]
        return rows if any(preset_of(row.name).rap for row in rows) else []

    @property
    def title(self) -> str:
        """What distinguishes this table from others, such as `pism, shapes`."""
        return f"{self.measure}, {self.data}"


@dataclass(frozen=True)
class Run:
    """A finished run: its folder and its report. `label` replaces the run's name as row name."""

    folder: Path
    report: dict[str, Any]
    label: str | None = None

    @property
    def name(self) -> str:
        """The name of the row that this run belongs to."""
        return self.label or self.report["name"]

    @property
    def seed(self) -> int:
        return self.report["seed"]

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Every setting by its full key, such as `grpo.learning_rate`."""
        return flatten(self.report["settings"])

    @property
    def table(self) -> tuple[str, ...]:
        """The key of the table that this run belongs to."""
        return tuple(str(self.settings.get(key)) for key in TABLE_KEYS)

    @property
    def has_control(self) -> bool:
        return "evaluate control" in self.report["stages"]

    def results_folder(self, arm: str) -> Path:
        """The folder of an arm's item results. Raises MissingArtifact if it is not finished."""
        name = self.report["stages"][f"evaluate {arm}"]["folder"]
        folder = self.folder.absolute().parent.parent / "evaluate" / name
        if manifest.read_manifest(folder) is None:
            raise MissingArtifact(f"{self.folder}: no finished evaluation of {arm} at {folder}")
        return folder

    def train_folders(self, arm: str) -> list[Path]:
        """The folders of an arm's GRPO, by round."""
        root = self.folder.absolute().parent.parent / "train"
        stages = self.report["stages"].items()
        return [
            root / stage["folder"]
            for name, stage in stages
            if name.partition(",")[0] == f"train {arm}"
        ]

    def cost(self, arm: str = "tuned") -> RowCost:
        """The cost of training an arm (tuned model or its control) and of selecting its samples.

        The probe (responses that measure difficulty) counts if samples are selected or prompts are
        sampled by difficulty or SFT trains on its responses, but not if it only determines the size
        of a random set. Probes of later rounds are of the tuned model: of the control's samplers
        only curriculum uses them.
        """
        stages = self.report["cost"]["by_stage"]

        def of_all_rounds(*names: str) -> list[dict[str, Any]]:
            return [stage for name, stage in stages.items() if name.partition(",")[0] in names]

        training = of_all_rounds(f"sft {arm}", f"train {arm}")
        counts = [self.report[key].get(arm) for key in ("sft", "trained") if key in self.report]
        has_sft = "sft" in self.report["train_stages"]
        trains_on_probe = has_sft and str(self.settings.get("sft.targets")) == "rollouts"
        keys = ("select.random", "select.sft_random") if has_sft else ("select.random",)
        is_random = all(self.settings.get(key) for key in keys)
        selects = preset_of(self.report["name"]).selects and not is_random
        samples_by_probe = str(self.settings.get("grpo.sampler")) in PROBED_SAMPLERS
        parts: dict[str, tuple[str, ...]] = dict.fromkeys(("probe", "attention", "scoring"), ())
        if samples_by_probe or (arm == "tuned" and (trains_on_probe or selects)):
            parts = {
                "probe": ("probe",),
                "attention": ("attention", "likelihood"),
                "scoring": ("score", f"select_sft {arm}", f"select {arm}"),
            }
        by_part = {part: of_all_rounds(*names) for part, names in parts.items()}
        if arm == "control" and self.settings.get("grpo.sampler") != "curriculum":
            by_part = {
                part: [stages[name] for name in names if name in stages]  # of round 1
                for part, names in parts.items()
            }
        seconds = {
            part: sum(stage["seconds"] for stage in members) for part, members in by_part.items()
        }
        selection = [stage for members in by_part.values() for stage in members]
        sample_counts = self.report["counts"]
        return RowCost(
            steps=sum(stage.get("steps", 0) for stage in training),
            samples=sum(count["samples"] for count in counts if count),
            tokens=sum(stage.get("tokens", 0) for stage in training),
            seconds=sum(stage["seconds"] for stage in training),
            selection_tokens=sum(stage.get("tokens", 0) for stage in selection),
            selection_seconds=sum(seconds.values()),
            pool=sample_counts["samples"] - sample_counts["quarantined"],
            **{f"{part}_seconds": value for part, value in seconds.items()},
        )


def read_runs(folders: list[Path]) -> list[Run]:
    """The runs of these folders. Raises MissingArtifact, which names all unfinished runs, and
    SchemaError for a run of an earlier version of difftrain.
    """
    missing = []
    for folder in folders:
        manifest.refuse_old_layout(folder)
        if not folder.is_dir():
            missing.append(f"{folder}: there is no such run")
        elif not (folder / "report.json").is_file():
            missing.append(f"{folder}: no finished report (report.json): run launch/train.py again")
    if missing:
        raise MissingArtifact("\n".join(missing))
    runs = [Run(folder, manifest.read_json(folder / "report.json")) for folder in folders]
    for run in runs:
        for arm in run.report["means"]:
            run.results_folder(arm)
    return runs


# Prefixes of settings that must be equal in all runs, even if they are in different tables.
SHARED_BY_ALL_TABLES = ("model.", "evaluate.")
# ROW_KEYS and the settings of a run's recipe may differ between rows, but not between two runs of
# one row. RUN_KEYS may differ between any two runs.
ROW_KEYS = ("recipe", "name", "train_stages", "select.")
RUN_KEYS = ("seed", "control", "output_dir", "report.", "report_to", "export.")
# Settings that change no sample, weight or score. evaluate.path and evaluate.source are listed,
# because the benchmark items themselves are compared.
WITHOUT_EFFECT = (
    *("probe.retest_samples", "grpo.reward_workers", "grpo.save_steps", "sft.save_steps"),
    *("model.batch_size", "model.attention_batch_size", "model.url", "model.vllm.", "plan."),
    *("evaluate.resamples", "evaluate.judge_client.", "evaluate.path", "evaluate.paths"),
    *("evaluate.source", "evaluate.contamination"),
    *("model.server.api_key_env", "model.server.max_concurrency", "model.server.max_attempts"),
    *("model.server.timeout_s", "model.server.backoff_s", "model.server.max_outage_s"),
)
NAME_CONFLICT = "according to its name, but"  # in messages on settings that contradict a run's name


class NotComparable(ValueError):
    """Raised for runs that cannot be in one table; the message lists the settings that differ."""


def differing_settings(a: Run, b: Run) -> list[str]:
    """The settings that must be equal in two runs but differ, as `key: a's value and b's value`.

    Runs of two rows may differ in settings of recipes. Of runs of two tables, only
    SHARED_BY_ALL_TABLES must be equal.
    """
    ignored = (*RUN_KEYS, *WITHOUT_EFFECT)
    if a.name != b.name:
        recipe_lines = (*a.report["recipe_difference"], *b.report["recipe_difference"])
        ignored = (*ignored, *ROW_KEYS, *(line.partition("=")[0] for line in recipe_lines))
    if not all("sft" in run.report["train_stages"] for run in (a, b)):
        ignored = (*ignored, "sft.")
    return [
        f"{key}: {a.settings.get(key)} and {b.settings.get(key)}"
        for key in sorted(a.settings.keys() | b.settings.keys())
        if a.settings.get(key) != b.settings.get(key)
        and not key.startswith(ignored)
        and (a.table == b.table or key.startswith(SHARED_BY_ALL_TABLES))
    ]


def differences(a: Run, b: Run) -> list[str]:
    """What must be equal in two finished runs but differs. Inputs are checked after settings.

    Inputs are data rows, weights and benchmark items. Stage folders are named by their hashes.
    """
    lines = differing_settings(a, b)
    judges = [run.report["evaluation"]["base"].get("judge") for run in (a, b)]
    if judges[0] != judges[1] and not any(line.startswith("evaluate.judge:") for line in lines):
        lines.append(f"judge: {judges[0]} and {judges[1]}")
    if lines:
        return lines
    if a.table == b.table and (folders := differing_folders(a, b, "data")):
        lines.append(f"rows of the data: {folders}")
    resamples = [run.settings.get("evaluate.resamples") for run in (a, b)]
    if resamples[0] == resamples[1] and (folders := differing_folders(a, b, "evaluate base")):
        lines.append(f"weights of the base model, benchmark items or the judge's server: {folders}")
    return lines


def differing_folders(a: Run, b: Run, stage: str) -> str | None:
    """The names of a stage's folders as `a and b` if they differ, else None."""
    names = [run.report["stages"][stage]["folder"] for run in (a, b)]
    return None if names[0] == names[1] else " and ".join(names)


def find_incompatible(
    runs: list[Run], compare: Callable[[Run, Run], list[str]] = differences
) -> dict[str, list[str]]:
    """The problems of each run, by its folder; empty if all are compatible. A run must agree with
    the typical run of all runs, with the typical run of its row, and with the preset of its name.
    """

    def without_order(value: Any) -> Any:
        return sorted(value) if isinstance(value, list) else value

    problems = [
        [
            f"{key}: {value} {NAME_CONFLICT} {run.settings[key]}"
            for key, value in preset_of(run.name).settings.items()
            if without_order(run.settings.get(key, value)) != without_order(value)
        ]
        for run in runs
    ]
    contradicts_name = [bool(run_problems) for run_problems in problems]
    by_pair = {
        (i, j): compare(a, b) for i, a in enumerate(runs) for j, b in enumerate(runs) if i != j
    }
    rows: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for i, run in enumerate(runs):
        rows[run.table, run.name].append(i)
    # The typical run of a group (all runs, or the seeds of a row) differs from the fewest others.
    for group in ([*range(len(runs))], *rows.values()):
        disagreements = {i: sum(bool(by_pair[i, j]) for j in group if j != i) for i in group}
        typical = min(
            group, key=lambda i, counts=disagreements: (contradicts_name[i], counts[i]), default=0
        )
        for i in group:
            problems[i] += by_pair.get((typical, i), [])
    return {
        str(run.folder): list(dict.fromkeys(run_problems))
        for run, run_problems in zip(runs, problems, strict=True)
        if run_problems
    }


def without_duplicates(runs: list[Run], force: bool) -> list[Run]:
    """One run for each table, row and seed; of two runs with the same model, one with a control.

    Different models of one row and seed raise NotComparable; with `force` they become two rows.
    """
    by_key: dict[tuple[Any, ...], Run] = {}
    for run in runs:
        key = (run.table, run.name, run.seed)
        earlier = by_key.setdefault(key, run)
        if earlier is run:
            continue
        if differing_folders(earlier, run, "evaluate tuned") is None:
            by_key[key] = run if run.has_control else earlier
        elif force:
            label = f"{run.name} ({run.folder.name.rpartition('-')[2]})"
            by_key[(*key, label)] = replace(run, label=label)
        else:
            keys = "; ".join(differences(earlier, run)) or "an input"
            raise NotComparable(
                f"two runs of {run.name} with seed {run.seed}, but a row may have one per seed: "
                f"{earlier.folder} and {run.folder} differ in {keys}"
            )
    return list(by_key.values())
