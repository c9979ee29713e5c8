"""What a run left behind, and the columns of it that a report needs.

Pictures and responses are read only for the samples that are shown (examples.py): a pool of fifty
thousand samples and a million rollouts is summed up without holding either.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from difftrain.pipeline import manifest, parquet
from difftrain.records import Rollout, Sample, Score, Selection

COMMANDS = {
    "data": "launch/probe.py",
    "probe": "launch/probe.py",
    "attention": "launch/probe.py",
    "score": "launch/score.py",
    "reliability": "launch/train.py",
    "select": "launch/train.py",
    "select_sft": "launch/train.py",
    "sft": "launch/train.py",
    "train": "launch/train.py",
    "marks": "launch/evaluate.py",
}
"""Which launcher makes a stage."""


@dataclass(frozen=True, slots=True)
class ArmFolders:
    """The stage folders of one trained arm; those of SFT where there was one before GRPO."""

    select: Path
    train: Path
    sft_select: Path | None = None
    sft: Path | None = None

    @property
    def picks(self) -> list[Path]:
        """The picks of every training stage, in their order."""
        return [each for each in (self.sft_select, self.select) if each is not None]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunInputs:
    """Where a run's stages lie; `folder` is where the report goes.

    `settings` is settings.plain(RunConfig). `arms` has the keys tuned and maybe control; `marks`
    base, tuned and maybe control. `differences` holds paired bootstraps over items as fractions,
    such as {"tuned - base": {"mean", "low", "high", "n"}}, either way round.
    """

    folder: Path
    settings: dict[str, Any]
    recipe_difference: list[str]
    data: Path
    probe: Path
    attention: Path | None
    score: Path
    arms: dict[str, ArmFolders]
    marks: dict[str, Path]
    differences: dict[str, dict[str, Any]]
    reliability: Path | None = None
    contamination: Path | None = None

    def stages(self) -> dict[str, Path]:
        """Every stage folder by a name such as `score`, `train tuned`, `marks base`."""
        found = {"data": self.data, "probe": self.probe}
        if self.attention is not None:
            found["attention"] = self.attention
        found["score"] = self.score
        if self.reliability is not None:
            found["reliability"] = self.reliability
        for arm, folders in self.arms.items():
            if folders.sft_select is not None and folders.sft is not None:
                found[f"select_sft {arm}"] = folders.sft_select
                found[f"sft {arm}"] = folders.sft
            found[f"select {arm}"] = folders.select
            found[f"train {arm}"] = folders.train
        return found | {f"marks {who}": folder for who, folder in self.marks.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """The parts of a run's artifacts that fit in memory.

    samples: one row a sample with task, task_set, needs_picture, knob, and for each measure its
    value and `<measure>_stratum`. rollouts: sample_id, view, mask_percent, draw, tokens, finished,
    verdict. picks, logs: one frame an arm. summaries: by who was marked. made: by stage name.
    unguessed: PISM's scores as the paper has them, where it is chance-aware. decisions: RAP's
    fate and reason for each sample of the pool. Both are empty elsewhere. quarantine: rows that are
    no sample, then `unanswered`: samples that were not scored, as the engine had no answer.
    """

    samples: pd.DataFrame
    rollouts: pd.DataFrame
    measures: list[str]
    picks: dict[str, pd.DataFrame]
    logs: dict[str, pd.DataFrame]
    summaries: dict[str, dict[str, Any]]
    made: dict[str, dict[str, Any]]
    quarantine: list[dict[str, str]]
    unanswered: list[dict[str, str]]
    unguessed: pd.DataFrame
    decisions: pd.DataFrame
    reliability: dict[str, Any] | None


def unfinished(inputs: RunInputs) -> list[str]:
    """One line for each stage without manifest.json: its name, folder and the command it needs."""
    recipe = inputs.settings["recipe"]
    return [
        f"no finished {stage} at {folder}: run  python {COMMANDS[stage.split()[0]]} recipe={recipe}"
        for stage, folder in inputs.stages().items()
        if not (folder / "manifest.json").is_file()
    ]


def columns(folder: Path, record: type, names: list[str], ids: list[str] | None = None) -> Any:
    """Some columns of a stage's parts as a DataFrame, only the rows of `ids` where they are given.

    Raises SchemaError if a part lacks one of them.
    """
    filters = None if ids is None else [("sample_id", "in", ids)]
    frames = []
    for path in parquet.parts(folder):
        try:
            frames.append(pd.read_parquet(path, columns=names, filters=filters, partitioning=None))
        except ValueError as error:
            told = f"{path} holds other columns than {record.__name__} needs: {names}"
            raise parquet.SchemaError(told) from error
    if not frames:
        return pd.DataFrame(columns=pd.Index(names))
    return pd.concat(frames, ignore_index=True)


def json_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a .jsonl file; none if there is no file."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]


def steps(folder: Path) -> list[dict[str, float]]:
    """The logged steps of a training, each with the look at held-out samples that it ended with."""
    evaluations = {row["step"]: row for row in json_lines(folder / "eval_log.jsonl")}
    return [
        row | evaluations.get(row["step"], {}) for row in json_lines(folder / "train_log.jsonl")
    ]


def widened(samples: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """Samples with a value and a stratum column for each measure. None may lack one of them."""
    for measure, own in scores.groupby("measure", sort=False):
        lost = set(samples["sample_id"]) ^ set(own["sample_id"])
        told = f"{measure}: {len(own)} scores for {len(samples)} samples"
        assert not lost, f"{told}; unmatched: {sorted(lost)[:5]}"
        assert len(own) == len(samples), told
        renamed = own.rename(columns={"value": measure, "stratum": f"{measure}_stratum"})
        samples = samples.merge(renamed.drop(columns="measure"), on="sample_id")
    return samples


def load(inputs: RunInputs) -> Loaded:
    """Read what the report shows. Raises MissingArtifact naming every stage not finished."""
    if missing := unfinished(inputs):
        raise parquet.MissingArtifact("\n".join(missing))
    scores = columns(inputs.score, Score, ["sample_id", "measure", "value", "stratum"])
    about = ["sample_id", "task", "task_set", "requires_image", "gen_difficulty"]
    asked = ["sample_id", "view", "mask_percent", "draw", "num_tokens", "hit_eos", "verdict"]
    samples = columns(inputs.data, Sample, about)
    known = {*scores["sample_id"]}
    # A probe that has grown since for another run may have set aside what was scored before.
    aside = json_lines(inputs.probe / "quarantine.jsonl")
    unanswered = [each for each in aside if each["source"] not in known]
    scored = samples["sample_id"].isin(known)
    arms = inputs.arms.items()
    return Loaded(
        samples=widened(samples[scored].reset_index(drop=True), scores),
        rollouts=columns(inputs.probe, Rollout, asked),
        measures=list(dict.fromkeys(scores["measure"])),
        picks={
            arm: pd.concat(
                [
                    columns(folder, Selection, ["sample_id", "stage", "reason"])
                    for folder in each.picks
                ],
                ignore_index=True,
            )
            for arm, each in arms
        },
        logs={arm: pd.DataFrame(steps(each.train)) for arm, each in arms},
        summaries={
            who: json.loads((folder / "summary.json").read_text())
            for who, folder in inputs.marks.items()
        },
        made={
            stage: manifest.read_manifest(folder) or {} for stage, folder in inputs.stages().items()
        },
        quarantine=json_lines(inputs.data / "quarantine.jsonl") + unanswered,
        unanswered=unanswered,
        unguessed=columns(inputs.score / "pism_uncorrected", Score, ["sample_id", "stratum"]),
        decisions=columns(
            inputs.arms["tuned"].select / "decisions", Selection, ["sample_id", "fate", "reason"]
        ),
        reliability=None
        if inputs.reliability is None
        else json.loads((inputs.reliability / "reliability.json").read_text()),
    )
