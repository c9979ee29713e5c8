"""What a finished run left on disk, and the columns of it that a report needs.

Images and responses are read only for the samples that are shown (html.py), so that fifty
thousand samples and a million rollouts can be summarized without holding either in memory.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from difftrain.pipeline import manifest, parquet
from difftrain.records import Rollout, Sample, Score, Selection
from difftrain.select.rap import DECISIONS_FOLDER, Decision

# The launcher of a stage; launch/train.py runs all.
COMMANDS = dict.fromkeys(("data", "probe", "attention"), "launch/probe.py") | {
    "score": "launch/score.py",
    "evaluate": "launch/evaluate.py",
}


@dataclass(frozen=True, slots=True)
class ArmFolders:
    """The stage folders of one trained arm; those of SFT if it came before GRPO."""

    select: Path
    train: Path
    sft_select: Path | None = None
    sft: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunInputs:
    """The folders of a run's stages; the report is written to `folder`.

    `settings` is the RunConfig as a dictionary. `arms` has the keys tuned and maybe control,
    `evaluations` base, tuned and maybe control. `differences` holds paired bootstraps over items
    as fractions, such as {"tuned - base": {"mean", "low", "high", "n"}}, in either direction.
    """

    folder: Path
    settings: dict[str, Any]
    recipe_difference: list[str]
    data: Path
    probe: Path
    attention: Path | None
    score: Path
    arms: dict[str, ArmFolders]
    evaluations: dict[str, Path]
    differences: dict[str, dict[str, Any]]
    retest: Path | None = None
    contamination: Path | None = None

    def stages(self) -> dict[str, Path]:
        """Every stage folder by a name such as `score`, `train tuned`, `evaluate base`."""
        stages = {"data": self.data, "probe": self.probe, "attention": self.attention,
                  "score": self.score, "retest": self.retest}  # fmt: skip
        for arm, folders in self.arms.items():
            stages[f"select_sft {arm}"] = folders.sft_select
            stages[f"sft {arm}"] = folders.sft
            stages[f"select {arm}"] = folders.select
            stages[f"train {arm}"] = folders.train
        stages |= {f"evaluate {arm}": folder for arm, folder in self.evaluations.items()}
        return {name: folder for name, folder in stages.items() if folder is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunData:
    """The parts of a run's files that fit in memory.

    samples: a row per sample with task, task_set, requires_image, gen_difficulty, and for each
    measure its value and `<measure>_stratum`. rollouts: sample_id, view, mask_percent, draw,
    num_tokens, hit_eos, verdict. selections, logs: a frame per arm. summaries: summary.json by
    arm. manifests: by stage name. uncorrected: PISM's scores without chance correction; empty if
    it corrects nothing. decisions: RAP's reason for each sample of the pool; empty without RAP.
    quarantine: rows that are no sample, followed by `unscored`: samples that were not scored,
    because the engine gave no response.
    """

    samples: pd.DataFrame
    rollouts: pd.DataFrame
    measures: list[str]
    selections: dict[str, pd.DataFrame]
    logs: dict[str, pd.DataFrame]
    summaries: dict[str, dict[str, Any]]
    manifests: dict[str, dict[str, Any]]
    quarantine: list[dict[str, str]]
    unscored: list[dict[str, str]]
    uncorrected: pd.DataFrame
    decisions: pd.DataFrame
    retest: dict[str, Any] | None


def read_columns(folder: Path, record: type, names: list[str], ids: list[str] | None = None) -> Any:
    """Some columns of a stage's parts as a DataFrame; with `ids` only the rows of these samples.

    Raises SchemaError if a part lacks one of them.
    """
    filters = None if ids is None else [("sample_id", "in", ids)]
    frames = []
    for path in parquet.parts(folder):
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
    """The objects of a .jsonl file; none if there is no file."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]


def training_steps(folder: Path) -> list[dict[str, float]]:
    """The logged steps of a training, each with the held-out evaluation that followed it."""
    evaluations = {row["step"]: row for row in json_lines(folder / "eval_log.jsonl")}
    return [
        row | evaluations.get(row["step"], {}) for row in json_lines(folder / "train_log.jsonl")
    ]


def with_scores(samples: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """Samples with a value and a stratum column for each measure. Every sample must have both."""
    for measure, rows in scores.groupby("measure", sort=False):
        unmatched = set(samples["sample_id"]) ^ set(rows["sample_id"])
        message = f"{measure}: {len(rows)} scores for {len(samples)} samples"
        assert not unmatched, f"{message}; unmatched: {sorted(unmatched)[:5]}"
        assert len(rows) == len(samples), message
        renamed = rows.rename(columns={"value": str(measure), "stratum": f"{measure}_stratum"})
        samples = samples.merge(renamed.drop(columns="measure"), on="sample_id")
    return samples


def load_run(inputs: RunInputs) -> RunData:
    """Read what the report shows.

    Raises MissingArtifact naming every unfinished stage with its folder and command.
    """
    recipe, stages = inputs.settings["recipe"], inputs.stages()
    if unfinished := [
        f"no finished {stage} at {folder}: run  "
        f"python {COMMANDS.get(stage.split()[0], 'launch/train.py')} recipe={recipe}"
        for stage, folder in stages.items()
        if not (folder / "manifest.json").is_file()
    ]:
        raise parquet.MissingArtifact("\n".join(unfinished))
    scores = read_columns(inputs.score, Score, ["sample_id", "measure", "value", "stratum"])
    scored_ids = {*scores["sample_id"]}
    names = ["sample_id", "task", "task_set", "requires_image", "gen_difficulty"]
    samples = read_columns(inputs.data, Sample, names)
    samples = samples[samples["sample_id"].isin(scored_ids)].reset_index(drop=True)
    # The probe may have grown for another run and failed on samples that were scored before.
    failures = json_lines(inputs.probe / "quarantine.jsonl")
    unscored = [row for row in failures if row["source"] not in scored_ids]
    names = ["sample_id", "stage", "reason"]
    selections = {}
    for arm, folders in inputs.arms.items():
        by_stage = [folder for folder in (folders.sft_select, folders.select) if folder]
        frames = [read_columns(folder, Selection, names) for folder in by_stage]
        selections[arm] = pd.concat(frames, ignore_index=True)
    decisions = inputs.arms["tuned"].select / DECISIONS_FOLDER
    uncorrected = inputs.score / "pism_uncorrected"
    names = ["sample_id", "view", "mask_percent", "draw", "num_tokens", "hit_eos", "verdict"]
    return RunData(
        samples=with_scores(samples, scores),
        rollouts=read_columns(inputs.probe, Rollout, names),
        measures=list(dict.fromkeys(scores["measure"])),
        selections=selections,
        logs={arm: pd.DataFrame(training_steps(each.train)) for arm, each in inputs.arms.items()},
        summaries={
            arm: manifest.read_json(folder / "summary.json")
            for arm, folder in inputs.evaluations.items()
        },
        manifests={name: manifest.read_manifest(folder) or {} for name, folder in stages.items()},
        quarantine=json_lines(inputs.data / "quarantine.jsonl") + unscored,
        unscored=unscored,
        uncorrected=read_columns(uncorrected, Score, ["sample_id", "stratum"]),
        decisions=read_columns(decisions, Decision, ["sample_id", "reason"]),
        retest=manifest.read_json(inputs.retest / "reliability.json") if inputs.retest else None,
    )
