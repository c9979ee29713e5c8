"""What a comparison reads (finished runs) and what it holds. Scores are fractions of 1."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from difftrain.pipeline import manifest
from difftrain.pipeline.parquet import MissingArtifact
from difftrain.report.compare.presets import preset_of
from difftrain.report.text import flatten

if TYPE_CHECKING:  # a sweep checks its settings without loading scipy
    from difftrain.stats import Estimate

TABLE_KEYS = ("difficulty.measure", "data.source", "data.tasks")
"""Runs that differ in these belong to different tables: two measures x two task sets give four."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowCost:
    """What a row took, as means over its seeds; tokens are generated ones.

    `selection_*` is what selecting its samples took: the probe, and all up to the selection.
    """

    steps: float
    samples: float
    tokens: float
    seconds: float
    selection_tokens: float
    selection_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlDifference:
    """A row minus its control by benchmark and `mean`, over the `seeds` that both have."""

    control: str
    seeds: tuple[int, ...]
    differences: "dict[str, Estimate]"


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonRow:
    """A row of the table: its scores by benchmark and `mean`, and the paper's scores for it.

    `no_control` says why `versus_control` is None. `is_own_control` marks a control that a run
    trained itself. `size_mismatches` says where the control is not equal in size: then there is no
    verdict.
    """

    name: str
    title: str
    seeds: tuple[int, ...]
    scores: "dict[str, Estimate]"
    cost: RowCost | None = None
    versus_control: ControlDifference | None = None
    no_control: str = ""
    is_own_control: bool = False
    paper: dict[str, float] = field(default_factory=dict)
    size_mismatches: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One table: the settings of its rows differ only in what the rows' names say."""

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
    def title(self) -> str:
        """`pism, shapes`: what distinguishes this table from others."""
        return f"{self.measure}, {self.data}"


@dataclass(frozen=True)
class Run:
    """A finished run: its folder and its report. `label` names its row if its name does not."""

    folder: Path
    report: dict[str, Any]
    label: str | None = None

    @property
    def name(self) -> str:
        """The row that this run belongs to."""
        return self.label or self.report["name"]

    @property
    def seed(self) -> int:
        """The seed of its training."""
        return self.report["seed"]

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Every setting by its full key."""
        return flatten(self.report["settings"])

    @property
    def table(self) -> tuple[str, ...]:
        """Key of the table that it belongs to."""
        return tuple(str(self.settings.get(key)) for key in TABLE_KEYS)

    @property
    def train_stages(self) -> str:
        """The training stages, such as `sft_then_grpo`."""
        return self.report["train_stages"]

    @property
    def recipe_keys(self) -> set[str]:
        """The full keys that its recipe's file sets."""
        return {line.partition("=")[0] for line in self.report["recipe_difference"]}

    @property
    def has_control(self) -> bool:
        """Whether it trained a random control itself."""
        return "evaluate control" in self.report["stages"]

    def results_folder(self, arm: str) -> Path:
        """The folder of an arm's item results. Raises MissingArtifact if it is not finished."""
        name = self.report["stages"][f"evaluate {arm}"]["folder"]
        folder = self.folder.absolute().parent.parent / "evaluate" / name
        if manifest.read_manifest(folder) is None:
            raise MissingArtifact(f"{self.folder}: no finished evaluation of {arm} at {folder}")
        return folder

    def cost(self, arm: str = "tuned") -> RowCost:
        """What this arm's training took, and what selecting its samples took."""
        stages = self.report["cost"]["by_stage"]
        training = [stages[name] for name in (f"sft {arm}", f"train {arm}") if name in stages]
        names = ("probe", "attention", "score", f"select_sft {arm}", f"select {arm}")
        selection = [stages[name] for name in names if name in stages]
        counts = [self.report[key].get(arm) for key in ("sft", "trained") if key in self.report]
        selects = arm == "tuned" and self.needs_probe
        return RowCost(
            steps=sum(stage.get("steps", 0) for stage in training),
            samples=sum(count["samples"] for count in counts if count),
            tokens=sum(stage.get("tokens", 0) for stage in training),
            seconds=sum(stage["seconds"] for stage in training),
            selection_tokens=sum(stage.get("tokens", 0) for stage in selection) * selects,
            selection_seconds=sum(stage["seconds"] for stage in selection) * selects,
        )

    @property
    def needs_probe(self) -> bool:
        """Whether its samples are selected by difficulty, or its SFT learns from probe responses.

        A random set of a given size needs no probe, even if one was run to know the size.
        """
        is_random = [bool(self.settings.get("select.random"))]
        if "sft" in self.train_stages:
            if str(self.settings.get("sft.targets")) == "rollouts":
                return True
            is_random.append(bool(self.settings.get("select.sft_random")))
        return preset_of(self.report["name"]).selects and not all(is_random)


def read_runs(folders: list[Path]) -> list[Run]:
    """The runs of these folders. Raises MissingArtifact naming each that is not finished, and
    SchemaError for a run of an earlier version of difftrain.
    """
    for folder in folders:
        manifest.refuse_old_layout(folder)
    problems = [
        f"{folder}: no finished report (report.json): run launch/train.py again"
        if folder.is_dir()
        else f"{folder}: there is no such run"
        for folder in folders
        if not (folder / "report.json").is_file()
    ]
    if problems:
        raise MissingArtifact("\n".join(problems))
    runs = [Run(folder, manifest.read_json(folder / "report.json")) for folder in folders]
    for run in runs:
        for arm in run.report["means"]:
            run.results_folder(arm)
    return runs
