"""RunConfig: the settings of all stages in one tree, checked together.

Hydra takes the types of the tree from RunConfig. `resolve` turns Hydra's DictConfig into one.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass, replace
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from difftrain import seeds
from difftrain.config.data import WITH_RATIONALE, DataConfig
from difftrain.config.difficulty import DifficultyConfig, GradeConfig, ProbeConfig, SelectConfig
from difftrain.config.evaluate import EvaluateConfig
from difftrain.config.model import EngineKind, ModelConfig
from difftrain.config.report import ExportConfig, PlanConfig, ReportConfig, Tracker, ViewConfig
from difftrain.config.setting import Problems, limit_problems, setting
from difftrain.config.train import (
    STAGES,
    GrpoConfig,
    PromptSampler,
    SftConfig,
    SftTargets,
    TrainStages,
)
from difftrain.difficulty.pass_rate import stratum
from difftrain.model import family
from difftrain.records import Measure


class ConfigError(ValueError):
    """Settings or input that cannot be used; the message lists every problem."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("bad settings:\n" + "\n".join(f"  {problem}" for problem in problems))
        self.problems = problems


Control = StrEnum("Control", ["none", "random"])
"""Whether a model is also trained on a random selection, for comparison."""


@dataclass(kw_only=True, slots=True)
class RunConfig:
    """One run: one row of a results table."""

    recipe: str = setting("grpo_hard", fingerprint=())
    """The recipe's file under conf/recipe."""
    name: str = "grpo_hard"
    """The run's name; each recipe sets its own."""
    train_stages: TrainStages = TrainStages.grpo
    """Which training stages run."""
    seed: int = setting(1, at_least=0, at_most=2**32 - 1)
    """Seed from which every random choice of this run is derived (at most 32 bits, as in NumPy)."""
    output_dir: str = setting("outputs", fingerprint=())
    """The folder that contains the folders of all stages."""
    rounds: int = setting(1, fingerprint=(), at_least=1)
    """How often samples are scored, selected and trained on. Each round after the first scores them
    with the checkpoint of the round before, and trains it on (docs/rounds.md)."""
    control: Control = Control.none
    """random: also train on as many random samples for as many steps, and report both."""
    report_to: list[Tracker] = setting(default_factory=list, fingerprint=())
    """Experiment trackers that get the run from its first step, as report_to=[wandb,tensorboard]
    (docs/trackers.md)."""
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    grade: GradeConfig = field(default_factory=GradeConfig)
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    difficulty: DifficultyConfig = field(default_factory=DifficultyConfig)
    select: SelectConfig = field(default_factory=SelectConfig)
    sft: SftConfig = field(default_factory=SftConfig)
    grpo: GrpoConfig = field(default_factory=GrpoConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    report: ReportConfig = setting(default_factory=ReportConfig, fingerprint=())
    export: ExportConfig = setting(default_factory=ExportConfig, fingerprint=())
    plan: PlanConfig = setting(default_factory=PlanConfig, fingerprint=())
    view: ViewConfig = setting(default_factory=ViewConfig, fingerprint=())

    @property
    def stages(self) -> tuple[Any, ...]:
        """The training stages (records.TrainStage) that run, in order."""
        return STAGES[self.train_stages]

    def of_round(self, number: int) -> "RunConfig":
        """The settings of one round, from 1 to `rounds`; with one round, these settings.

        The rounds share grpo.max_steps, and the first ones get what does not divide. Only the first
        round has this seed and SFT.
        """
        if self.rounds == 1:
            return self
        config = self
        if (total := self.grpo.max_steps) is not None:
            steps = total // self.rounds + (number <= total % self.rounds)
            config = replace(config, grpo=replace(self.grpo, max_steps=steps))
        if number == 1:
            return config
        return replace(
            config,
            seed=seeds.derive(self.seed, "round", number),
            train_stages=TrainStages.grpo,
            select=replace(self.select, sft_strata=[], sft_random=False),
        )

    def step_problems(self, processes: int) -> list[str]:
        """An error for each training stage whose steps cannot be divided among the processes."""
        errors = [getattr(self, stage).step_problem(processes) for stage in self.stages]
        return [error for error in errors if error]

    def _pass_rate_problems(self) -> Problems:
        """Too few draws for any stratum, or for one that is selected."""
        draws, section = self.probe.draws, self.difficulty.section(Measure.pass_rate)
        if draws < section.min_draws:
            rule = f"must be at least difficulty.pass_rate.min_draws={section.min_draws}"
            yield "probe.draws", f"{rule}: with fewer responses no sample has a stratum"
            return
        possible = {
            stratum(correct, draws, section.medium_min, section.min_draws)
            for correct in range(draws + 1)
        }
        if missing := [name for name in self.select.strata if name not in possible]:
            rule = f"with probe.draws={draws} no sample is {' or '.join(missing)} by its pass rate"
            yield "select.strata", f"{rule}; raise probe.draws or difficulty.pass_rate.medium_min"

    def _tracker_problems(self) -> Problems:
        if len(set(self.report_to)) < len(self.report_to):
            yield "report_to", "must not repeat"
        for tracker in self.report_to:
            if find_spec(tracker) is None:
                yield "report_to", f"{tracker} is not installed; pip install 'difftrain[{tracker}]'"

    def check(self) -> Problems:
        if not self.name or not all(char.isalnum() or char in "._-" for char in self.name):
            yield "name", "may hold letters, digits, '.', '_' and '-' only"
        measures = self.difficulty.measures
        if missing := [measure for measure in self.select.rap if measure not in measures]:
            where = "difficulty.extra_measures (difficulty=rap or difficulty=all)"
            yield "select.rap", f"needs {', '.join(missing)} in {where}"
        if Measure.image_gain in measures and self.model.engine is EngineKind.http:
            rule = "image_gain needs log-probabilities of this process; use model.engine=hf or vllm"
            yield "model.engine", f"{rule}, or leave out image_gain"
        target = self.difficulty.section(Measure.image_gain).target
        if target == "rationale" and self.data.source not in WITH_RATIONALE:
            rule = f"data.source={self.data.source} has no rationales; use answer"
            yield "difficulty.image_gain.target", rule
        if self.difficulty.measure is Measure.pass_rate:
            yield from self._pass_rate_problems()
        if self.rounds > 1 and self.model.engine is EngineKind.http:
            rule = "later rounds score with trained weights, which the server of model.engine=http"
            yield "rounds", f"{rule} does not have; use model.engine=hf or vllm, or rounds=1"
        if self.grpo.max_steps is not None and self.grpo.max_steps < self.rounds:
            yield (
                "rounds",
                f"must be at most grpo.max_steps={self.grpo.max_steps}, which they share",
            )
        if self.grpo.sampler is PromptSampler.curriculum and Measure.pism not in measures:
            rule = "curriculum orders by PISM's failure ratio"
            yield "grpo.sampler", f"{rule}, so difficulty.extra_measures must name pism"
        has_sft, stages_text = "sft" in self.stages, f"train_stages={self.train_stages}"
        if has_sft and not self.select.sft_strata:
            yield "select.sft_strata", f"must name at least one stratum for {stages_text}"
        if self.select.sft_strata and not has_sft:
            yield "select.sft_strata", f"must be empty ([]): {stages_text} has no SFT"
        needs_rationale = has_sft and self.sft.targets is SftTargets.rationale
        if needs_rationale and self.data.source not in WITH_RATIONALE:
            yield "sft.targets", f"data.source={self.data.source} has no rationales; use rollouts"
        pixels = self.data.min_pixels, self.data.max_pixels
        for key, rule in self.evaluate.built_in_problems(pixels):
            yield f"evaluate.{key}", rule
        if problem := write_problem(Path(self.output_dir)):
            yield "output_dir", problem
        yield from self._tracker_problems()


OBJECT_STORAGE = re.compile(r"[a-z][a-z0-9+.-]+:/")
"""The start of an address such as s3://bucket, of which Path keeps one slash."""


def write_problem(folder: Path) -> str | None:
    """Why this folder cannot be created or written to, or None."""
    if OBJECT_STORAGE.match(str(folder)):
        return (
            "must be a folder of a file system that all nodes share: stages lock, rename and append"
            " to files, which object storage cannot; copy finished folders there instead"
        )
    folder = folder.expanduser().absolute()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir():
        return f"{existing} is not a folder"
    is_writable = os.access(existing, os.W_OK | os.X_OK)
    return None if is_writable else f"{existing} cannot be written to"


def problems(node: Any, prefix: str = "") -> Iterator[str]:
    """Each setting that breaks a rule, anywhere in a settings tree, as `full.key=value: rule`."""
    for section in fields(node):
        if is_dataclass(value := getattr(node, section.name)):
            yield from problems(value, f"{prefix}{section.name}.")
    rule_problems = node.check() if hasattr(node, "check") else ()
    for key, rule in (*limit_problems(node), *rule_problems):
        value = node
        for part in key.split("."):
            value = value[part] if isinstance(value, dict) else getattr(value, part)
        text = "(hidden)" if key.endswith("_token") else format_value(value)  # a secret
        yield f"{prefix}{key}={text}: {rule}"


def format_value(value: Any) -> str:
    """A value in the notation of the command line."""
    if isinstance(value, list):
        return "[" + ", ".join(format_value(item) for item in value) + "]"
    return "null" if value is None else str(value)


def require_valid(config: RunConfig) -> RunConfig:
    """The same settings. Raises ConfigError with all problems if there are any."""
    if errors := list(dict.fromkeys(problems(config))):
        raise ConfigError(errors)
    return config


def resolve(composed: DictConfig) -> RunConfig:
    """A composed DictConfig as RunConfig. Raises ConfigError with all problems.

    Settings that follow from the model's family, and are null, get the family's value.
    """
    return with_family_settings(to_config(composed))


def to_config(composed: DictConfig) -> RunConfig:
    """A composed DictConfig as RunConfig. Raises ConfigError with all problems."""
    config = OmegaConf.to_object(composed)
    assert isinstance(config, RunConfig)
    return require_valid(config)


def with_family_settings(config: RunConfig) -> RunConfig:
    """The same settings; those that follow from the model's family, and are null, get its value."""
    if config.data.token_side is None or config.grade.box_coordinates is None:
        architecture = family.read_config(config.model.name, config.model.revision) or {}
        if config.data.token_side is None:
            config.data.token_side = family.side_from_config(architecture)
        if config.grade.box_coordinates is None:
            config.grade.box_coordinates = family.facts(architecture.get("model_type")).boxes
    return config
