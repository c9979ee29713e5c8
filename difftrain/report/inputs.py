"""Read the files of a finished run that a report needs.

Images and responses are read only for the few samples that the page shows (html.py), so that a run
of fifty thousand samples and a million rollouts fits in memory.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import pandas as pd

from difftrain.difficulty.pass_rate import PassRate
from difftrain.pipeline import manifest, parquet
from difftrain.records import Measure, Rollout, Sample, Score, Selection
from difftrain.select.rap import DECISIONS_FOLDER, Decision

# The script that runs a stage; launch/train.py runs all stages that are not listed.
COMMANDS = dict.fromkeys(("data", "probe", "attention", "likelihood"), "launch/probe.py") | {
    "score": "launch/score.py",
    "evaluate": "launch/evaluate.py",
}


@dataclass(frozen=True, slots=True)
class ArmFolders:
    """The folders of an arm (a trained model: tuned or control); without SFT, two are None."""

    select: Path
    train: Path
    sft_select: Path | None = None
    sft: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundFolders:
    """The folders of a round after the first; `arms` is empty if it could not train."""

    number: int
    probe: Path
    attention: Path | None
    likelihood: Path | None
    score: Path
    arms: dict[str, ArmFolders]

    def stages(self) -> dict[str, Path]:
        """The stages' folders, by names such as `score, round 2` and `train tuned, round 2`."""
        stages = {"probe": self.probe, "attention": self.attention, "likelihood": self.likelihood,
                  "score": self.score}  # fmt: skip
        for arm, folders in self.arms.items():
            stages |= {f"select {arm}": folders.select, f"train {arm}": folders.train}
        named = {f"{name}, round {self.number}": folder for name, folder in stages.items()}
        return {name: folder for name, folder in named.items() if folder is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunInputs:
    """The folders of a run's stages; the report is written to `folder`.

    With several rounds, `probe` to `arms` are those of the first, and `evaluations` those of the
    last round that trained; `stop_reason` says why the round after it did not, and
    `unused_trainings` has by arm the file with the seconds and counts of its training.

    `settings` is the RunConfig as a dictionary. `arms` has the keys tuned and, if it was trained,
    control; `evaluations` also has base. `differences` has the mean difference of scores and its
    bootstrap interval, in fractions: {"tuned - base": {"mean", "low", "high", "n"}}.
    """

    folder: Path
    settings: dict[str, Any]
    recipe_difference: list[str]  # the settings that the recipe changes, as `key=value`
    data: Path
    probe: Path
    attention: Path | None
    score: Path
    arms: dict[str, ArmFolders]
    evaluations: dict[str, Path]
    differences: dict[str, dict[str, Any]]
    retest: Path | None = None  # a second probe of some samples
    contamination: Path | None = None  # the search for benchmark images in the training data
    likelihood: Path | None = None  # of gold answers
    later_rounds: Sequence[RoundFolders] = ()
    stop_reason: str | None = None
    unused_trainings: dict[str, Path] = field(default_factory=dict)

    def train_folders(self, arm: str) -> list[Path]:
        """The folders of an arm's GRPO, by round."""
        later = [folders.arms[arm].train for folders in self.later_rounds if folders.arms]
        return [self.arms[arm].train, *later]

    def stages(self) -> dict[str, Path]:
        """Every stage's folder, by names such as `score`, `train tuned`, `evaluate base`."""
        stages = {"data": self.data, "probe": self.probe, "attention": self.attention,
                  "likelihood": self.likelihood, "score": self.score,
                  "retest": self.retest}  # fmt: skip
        for arm, folders in self.arms.items():
            stages[f"select_sft {arm}"] = folders.sft_select
            stages[f"sft {arm}"] = folders.sft
            stages[f"select {arm}"] = folders.select
            stages[f"train {arm}"] = folders.train
        for later in self.later_rounds:
            stages |= later.stages()
        stages |= {f"evaluate {arm}": folder for arm, folder in self.evaluations.items()}
        return {name: folder for name, folder in stages.items() if folder is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunData:
    """What a report needs of a run's files."""

    samples: pd.DataFrame  # fields of Sample; for each measure its value and `<measure>_stratum`
    rollouts: pd.DataFrame  # fields of Rollout, without the responses
    measures: list[str]
    selections: dict[str, pd.DataFrame]  # by arm
    logs: dict[str, pd.DataFrame]  # by arm; a row per optimizer step, over all rounds
    round_scores: list[pd.DataFrame]  # by round: sample_id and stratum
    round_selections: list[dict[str, pd.DataFrame]]  # by round and arm; none if it did not train
    pass_rates: pd.DataFrame  # the counts behind pass_rate's values; empty without this measure
    summaries: dict[str, dict[str, Any]]  # the content of summary.json, by arm
    manifests: dict[str, dict[str, Any]]  # by stage
    unused_trainings: dict[str, dict[str, Any]]  # by arm: seconds and counts
    quarantine: list[dict[str, str]]  # data rows that could not become samples, then `unscored`
    unscored: list[dict[str, str]]  # samples without a score: the engine gave no response
    uncorrected: pd.DataFrame  # PISM's strata without chance correction; empty if it is off
    decisions: pd.DataFrame  # why RAP selected or dropped each sample; empty without RAP
    retest: dict[str, Any] | None  # how many samples get the same stratum when probed again


def read_columns(folder: Path, record: type, names: list[str], ids: list[str] | None = None) -> Any:
    """The named columns of a stage's parquet parts; with `ids`, only the rows of these samples.

    Raises SchemaError if a part lacks one of the columns.
    """
    filters = None if ids is None else [("sample_id", "in", ids)]
    frames = []
    for path in parquet.parts(folder):  # partitioning=None: a folder named a=b adds no column a
        try:
            frames.append(pd.read_parquet(path, columns=names, filters=filters, partitioning=None))
        except ValueError as error:
            raise parquet.SchemaError(
                f"{path} does not have the columns of {record.__name__}: {', '.join(names)}"
            ) from error
    if not frames:
        return pd.DataFrame(columns=pd.Index(names))
    return pd.concat(frames, ignore_index=True)


def json_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a .jsonl file; an empty list if there is no file."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]


def training_steps(folder: Path) -> list[dict[str, float]]:
    """The logged steps of a training run; eval_log.jsonl adds its values to the evaluated steps."""
    evaluations = {row["step"]: row for row in json_lines(folder / "eval_log.jsonl")}
    return [
        row | evaluations.get(row["step"], {}) for row in json_lines(folder / "train_log.jsonl")
    ]


def joined_steps(folders: Sequence[Path]) -> list[dict[str, float]]:
    """The logged steps of consecutive rounds of training, with steps and seconds counted on.

    With several rounds, `training_round` numbers them from 1.
    """
    rows: list[dict[str, float]] = []
    for number, folder in enumerate(folders, 1):
        before = rows[-1] if rows else {}
        for row in training_steps(folder):
            counted_on = {name: row[name] + before.get(name, 0) for name in ("step", "seconds")
                          if name in row}  # fmt: skip
            rows.append(row | counted_on)
            if len(folders) > 1:
                rows[-1]["training_round"] = number
    return rows


def by_round(log: pd.DataFrame) -> list[pd.DataFrame]:
    """The steps of each round of a joined log."""
    if "training_round" not in log:
        return [log]
    return [steps for _, steps in log.groupby("training_round")]


def with_scores(samples: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """Adds columns with each measure's value and stratum. Every measure must score every sample."""
    for measure, rows in scores.groupby("measure", sort=False):
        unmatched = set(samples["sample_id"]) ^ set(rows["sample_id"])
        message = f"{measure}: {len(rows)} scores for {len(samples)} samples"
        assert not unmatched, f"{message}; unmatched: {sorted(unmatched)[:5]}"
        assert len(rows) == len(samples), message
        renamed = rows.rename(columns={"value": str(measure), "stratum": f"{measure}_stratum"})
        samples = samples.merge(renamed.drop(columns="measure"), on="sample_id")
    return samples


def load_run(inputs: RunInputs) -> RunData:
    """Read everything that the report shows.

    Raises MissingArtifact, which names every unfinished stage with its folder and command.
    """
    recipe, stages = inputs.settings["recipe"], inputs.stages()
    if unfinished := [
        f"no finished {stage} at {folder}: run  "
        f"python {COMMANDS.get(stage.split(' ')[0], 'launch/train.py')} recipe={recipe}"
        for stage, folder in stages.items()
        if not (folder / "manifest.json").is_file()
    ]:
        raise parquet.MissingArtifact("\n".join(unfinished))
    scores = read_columns(inputs.score, Score, ["sample_id", "measure", "value", "stratum"])
    scored_ids = {*scores["sample_id"]}
    names = ["sample_id", "task", "task_set", "requires_image", "gen_difficulty"]
    samples = read_columns(inputs.data, Sample, names)
    samples = samples[samples["sample_id"].isin(scored_ids)].reset_index(drop=True)
    # Runs share the probe's folder. A later run may have failed on samples that this run scored.
    failures = json_lines(inputs.probe / "quarantine.jsonl")
    unscored = [row for row in failures if row["source"] not in scored_ids]
    names = ["sample_id", "stage", "reason"]
    selections, logs = {}, {}
    for arm, folders in inputs.arms.items():
        select_folders = [folder for folder in (folders.sft_select, folders.select) if folder]
        frames = [read_columns(folder, Selection, names) for folder in select_folders]
        selections[arm] = pd.concat(frames, ignore_index=True)
        logs[arm] = pd.DataFrame(joined_steps(inputs.train_folders(arm)))
    measure, round_scores = str(inputs.settings["difficulty"]["measure"]), []
    for folder in (inputs.score, *(later.score for later in inputs.later_rounds)):
        rows = read_columns(folder, Score, ["sample_id", "measure", "stratum"])
        round_scores.append(rows[rows["measure"] == measure].drop(columns="measure"))
    round_selections = [
        {arm: read_columns(folders.select, Selection, names) for arm, folders in arms.items()}
        for arms in (inputs.arms, *(later.arms for later in inputs.later_rounds))
    ]
    decisions = inputs.arms["tuned"].select / DECISIONS_FOLDER
    uncorrected = inputs.score / "pism_uncorrected"
    pass_rates = [column.name for column in fields(PassRate)]
    names = ["sample_id", "view", "mask_percent", "draw", "num_tokens", "hit_eos", "verdict"]
    return RunData(
        samples=with_scores(samples, scores),
        rollouts=read_columns(inputs.probe, Rollout, names),
        measures=list(dict.fromkeys(scores["measure"])),
        selections=selections,
        logs=logs,
        round_scores=round_scores,
        round_selections=round_selections,
        pass_rates=read_columns(inputs.score / Measure.pass_rate, PassRate, pass_rates),
        summaries={
            arm: manifest.read_json(folder / "summary.json")
            for arm, folder in inputs.evaluations.items()
        },
        manifests={name: manifest.read_manifest(folder) or {} for name, folder in stages.items()},
        unused_trainings={
            arm: manifest.read_json(path) for arm, path in inputs.unused_trainings.items()
        },
        quarantine=json_lines(inputs.data / "quarantine.jsonl") + unscored,
        unscored=unscored,
        uncorrected=read_columns(uncorrected, Score, ["sample_id", "stratum"]),
        decisions=read_columns(decisions, Decision, ["sample_id", "reason"]),
        retest=manifest.read_json(inputs.retest / "reliability.json") if inputs.retest else None,
    )
