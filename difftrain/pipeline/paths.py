"""The folders of a run's stages: <output_dir>/<stage>/<fingerprint of its settings and inputs>/.

Each setting's metadata says which fingerprints it is part of (config/setting.py).
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from difftrain import seeds
from difftrain.config.data import PIXEL_STAGES
from difftrain.config.difficulty import BoxCoordinates
from difftrain.config.judge import model_name, server_hash
from difftrain.config.run_config import RunConfig
from difftrain.config.setting import hashed_settings
from difftrain.data import dataset
from difftrain.difficulty.definition import definition
from difftrain.model import family, resolve
from difftrain.pipeline import manifest
from difftrain.records import Arm, Measure, TrainStage

COMPARISON_VERSION = 2  # in the contamination fingerprint; increase it if the comparison changes
MASK_VERSION = 2  # in the probe's fingerprint; increase it if the same seed hides other pixels


@dataclass(frozen=True)
class RunPaths:
    """The folders of one run. Equal settings and inputs give equal folders, in any run.

    `trained`: the run evaluates trained checkpoints, so this process generates the responses to
    benchmarks (model.in_process). `retest`: paths of the second probe, with its own seed and output
    folder. `samples`: the fingerprint of samples that do not come from config.data. `previous`: the
    paths of the round before, whose checkpoints this round scores with and trains on.
    """

    config: RunConfig
    trained: bool = False
    retest: bool = False
    samples: str | None = None
    previous: "RunPaths | None" = None

    @cached_property
    def output_dir(self) -> Path:
        """The folder of all stages."""
        root = Path(self.config.output_dir).expanduser()
        return root / "retest" if self.retest else root

    @cached_property
    def seed(self) -> int:
        """The seed from which all random choices of these stages are derived."""
        return seeds.derive(self.config.seed, "again") if self.retest else self.config.seed

    def folder(self, stage: str, settings: dict[str, Any], *inputs: Path | str) -> Path:
        """A stage's folder, named by a hash of the settings and its inputs' folders or ids."""
        names = [source.name if isinstance(source, Path) else source for source in inputs]
        return self.output_dir / stage / manifest.fingerprint(settings, stage, *names)

    def _settings_from(self, stage: str, *sections: str) -> dict[str, Any]:
        """The settings in other stages' config sections whose change reruns `stage` too."""
        settings: dict[str, Any] = {}
        for section in sections:
            settings |= hashed_settings(getattr(self.config, section), stage, own=False)
        if "data" in sections and stage in PIXEL_STAGES:
            settings |= self.config.data.side_for_fingerprint
        return settings

    def _without_unused(self, difficulty: dict[str, Any]) -> dict[str, Any]:
        """The difficulty settings without the sections of other measures, if their own modules
        define these. So a further measure changes no fingerprint of a run that does not use it."""
        measures = self.config.difficulty.measures
        unused = {name for name in Measure if name not in measures and definition(name).settings}
        return {name: value for name, value in difficulty.items() if name not in unused}

    @cached_property
    def model(self) -> str:
        """The base model's fingerprint."""
        if self.previous:
            return self.previous.model
        return resolve.identity(self.config.model.name, self.config.model.revision)

    @cached_property
    def policy(self) -> str:
        """The fingerprint of the model that the probe samples: the base model's, in later rounds
        that of the former round's training."""
        return self.previous.grpo(Arm.tuned).name if self.previous else self.model

    @cached_property
    def data(self) -> Path:
        """Samples and rejected rows (the quarantine)."""
        if self.previous:
            return self.previous.data
        return self.folder("data", {}, self.samples or dataset.fingerprint(self.config.data))

    @cached_property
    def preflight(self) -> Path:
        """Results of the checks before training (model, precision, pixels, trained parts)."""
        settings = self._settings_from("preflight", "model", "data")
        settings |= {stage: self._settings_from("preflight", stage) for stage in self.config.stages}
        return self.folder("preflight", settings, self.data, self.model)

    @cached_property
    def probe(self) -> Path:
        """Sampled responses (rollouts). Another pism.tau or cde_rollouts adds to this folder."""
        settings = {
            **hashed_settings(self.config.probe, "probe"),
            **self._settings_from("probe", "model", "data"),
            **self.config.model.engine_settings,
            "grade": hashed_settings(self.config.grade),
            "mask_version": MASK_VERSION,
            "seed": self.seed,
        }
        if self.config.grade.box_coordinates is BoxCoordinates.relative:
            settings["box_coordinates"] = "relative"
        return self.folder("probe", settings, self.data, self.policy)

    @cached_property
    def attention(self) -> Path:
        """How much responses attend to image and text and, for ACE, to one of their own tokens."""
        difficulty = self.config.difficulty
        settings = hashed_settings(difficulty.cmab, "attention", own=False)
        if Measure.ace in difficulty.measures:
            settings["ace"] = hashed_settings(difficulty.ace, "attention", own=False)
        model = family.read_config(self.config.model.name, self.config.model.revision)
        if layers := family.other_layers(model or {}):
            settings["layers"] = layers
        return self.folder("attention", settings, self.probe)

    @cached_property
    def likelihood(self) -> Path:
        """How likely the gold answers are with and without the image (measure image_gain)."""
        section = self.config.difficulty.section(Measure.image_gain)
        settings = hashed_settings(section, "likelihood", own=False)
        settings |= self._settings_from("probe", "model", "data")
        if self.config.grade.box_coordinates is BoxCoordinates.relative:
            settings["box_coordinates"] = "relative"
        return self.folder("likelihood", settings, self.data, self.policy)

    @cached_property
    def score(self) -> Path:
        """Each sample's scores, by all difficulty measures."""
        difficulty = self.config.difficulty
        settings = self._without_unused(hashed_settings(difficulty, "score"))
        settings |= self._settings_from("score", "probe")
        inputs = [self.probe, self.attention]
        if Measure.image_gain in difficulty.measures:
            inputs.append(self.likelihood)
        return self.folder("score", settings, *inputs)

    @cached_property
    def reliability(self) -> Path:
        """How well the scores agree with those of the retest."""
        settings = self._settings_from("retest", "probe")
        settings["select"] = hashed_settings(self.config.select)
        retest = RunPaths(self.config, retest=True)
        return self.folder("reliability", settings, self.score, retest.probe, retest.attention)

    def selection(self, arm: str, stage: TrainStage = TrainStage.grpo) -> Path:
        """The samples selected for one training stage of an arm (tuned or control).

        The fingerprint includes the seed if they are random, and for a control the run's name too.
        Recipes whose tuned arm trains on the same random samples share the folder.
        """
        select = self.config.select
        settings, is_random = hashed_settings(select, "select_grpo"), select.random  # no sft_*
        if stage is TrainStage.sft:
            settings = self._settings_from("select_sft", "select", "sft")
            is_random = select.sft_random
        elif select.ids:
            settings["ids"] = select.listed_ids
        settings |= {"stage": stage, "arm": arm}
        if is_random or arm != Arm.tuned:
            settings["seed"] = self.seed
        if arm != Arm.tuned:
            settings["name"] = self.config.name
        return self.folder("select", settings, self.score)

    def selections(self, arm: str) -> list[Path]:
        """The selected samples of every training stage of an arm, former rounds' included."""
        before = self.previous.selections(arm) if self.previous else []
        return [*before, *(self.selection(arm, stage) for stage in self.config.stages)]

    def sft(self, arm: str) -> Path:
        """Checkpoint and log of an arm's SFT."""
        settings = self._training(TrainStage.sft)
        return self.folder("train", settings, self.selection(arm, TrainStage.sft), self.model)

    def grpo(self, arm: str) -> Path:
        """Checkpoint and log of an arm's GRPO, which starts from the former round, SFT or base."""
        if self.previous:
            start = self.previous.grpo(arm)
        else:
            start = self.sft(arm) if TrainStage.sft in self.config.stages else self.model
        return self.folder("train", self._training(TrainStage.grpo), self.selection(arm), start)

    def _training(self, stage: TrainStage) -> dict[str, Any]:
        return {
            **hashed_settings(getattr(self.config, stage), "train"),
            **self._settings_from("train", "model"),
            "stage": stage,
            "seed": self.seed,
        }

    def responses(self, arm: str) -> Path:
        """Responses of the base model or a trained arm to benchmark items.

        The choice of items and their scoring are not part of the fingerprint: further items are
        added to the folder, and other rules or another judge need no new responses.
        """
        settings = hashed_settings(self.config.evaluate, "responses")
        settings |= self._settings_from("responses", "model", "data")
        model = self.config.model.in_process if self.trained else self.config.model
        settings |= model.engine_settings
        return self.folder("responses", settings, self.model if arm == Arm.base else self.grpo(arm))

    def evaluation(self, arm: str) -> Path:
        """Item results of the base model or a trained arm, under these rules and this judge."""
        return self.folder("evaluate", self._evaluation_settings, self.responses(arm))

    @cached_property
    def _evaluation_settings(self) -> dict[str, Any]:
        """Rules, judge, and the items' contents instead of their paths."""
        evaluate = self.config.evaluate
        settings = hashed_settings(evaluate, "evaluate")
        settings |= {"source": evaluate.items_identity(), "path": None, "paths": None}
        # If the judge is an endpoint, the environment names its model.
        settings["judge"] = model_name(evaluate.judge, evaluate.benchmarks)
        if server := server_hash(evaluate.judge):
            settings["judge_server"] = server
        return settings

    @cached_property
    def contamination(self) -> Path:
        """The list of samples that are also benchmark items."""
        evaluate = self.config.evaluate
        names = sorted([*evaluate.official, *evaluate.also_on_disk])
        settings = {"comparison": COMPARISON_VERSION, "items": evaluate.items_identity(names)}
        return self.folder("contamination", settings, self.data)

    @cached_property
    def judge_replies(self) -> Path:
        """The judge's replies, which every run of this output_dir reads and adds to."""
        return self.output_dir / "judge"

    @cached_property
    def export(self) -> Path:
        """Scores and selected samples for other trainers."""
        settings = hashed_settings(self.config.export)
        settings |= {"name": self.config.name, "seed": self.seed}
        return self.folder("export", settings, self.selection(Arm.tuned), self.data)

    @cached_property
    def run(self) -> Path:
        """The run's own folder: its report and its checkpoint."""
        settings = hashed_settings(self.config)
        settings["model"] |= self.config.model.engine_settings
        settings["difficulty"] = self._without_unused(settings["difficulty"])
        settings["evaluate"] = self._evaluation_settings
        folder = self.folder("run", settings, self.grpo(Arm.tuned))
        return folder.with_name(f"{self.config.name}-{folder.name}")


def round_paths(config: RunConfig, trained: bool = False) -> list[RunPaths]:
    """The folders of each round of a run (one round, unless `rounds` is set)."""
    rounds: list[RunPaths] = []
    for number in range(1, config.rounds + 1):
        previous = rounds[-1] if rounds else None
        rounds.append(RunPaths(config.of_round(number), trained=trained, previous=previous))
    return rounds
