"""Where each stage of a run lies: outputs/<stage>/<fingerprint of settings and inputs>/."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from difftrain.config import run_config
from difftrain.config.evaluate import NEITHER, SCORING, WHICH
from difftrain.config.judge import model_name, server_hash
from difftrain.config.run_config import RunConfig
from difftrain.data import dataset
from difftrain.model import resolve
from difftrain.pipeline import manifest
from difftrain.records import Measure, TrainStage

CONTROL = "control"
TUNED = "tuned"
BASE = "base"
LOOKS = 2
"""A change to how the pictures of samples and items are compared must change it."""


@dataclass(frozen=True)
class Places:
    """The folders of one run. Equal settings and inputs give equal folders, in any run."""

    config: RunConfig
    trained: bool = False
    """Whether benchmarks are asked before and after training: then in this process (model.here)."""

    def folder(self, stage: str, own: Any, *inputs: Path | str) -> Path:
        """The folder of a stage, from its own settings and its inputs' folders or identities."""
        names = [each.name if isinstance(each, Path) else each for each in inputs]
        root = Path(self.config.output_dir).expanduser()
        return root / stage / manifest.fingerprint(own, stage, *names)

    @cached_property
    def model(self) -> str:
        """The base model's identity."""
        return resolve.identity(self.config.model)

    @cached_property
    def data(self) -> Path:
        """Samples and quarantine."""
        return self.folder("data", {}, dataset.fingerprint(self.config.data))

    @cached_property
    def probe(self) -> Path:
        """Rollouts. tau and M are not part of it: the store grows where others need more."""
        own = {
            **run_config.plain(self.config.probe),
            "grid": None,
            "cde_rollouts": None,
            "retest_samples": None,
            "seed": self.config.seed,
            "dtype": self.config.model.dtype,
            "pixels": [self.config.data.min_pixels, self.config.data.max_pixels],
            "grade": run_config.plain(self.config.grade),
            **self.config.model.maker,
        }
        return self.folder("probe", own, self.data, self.model)

    @cached_property
    def attention(self) -> Path:
        """Attention masses of right answers, and ACE's bias of first ones where it is wanted."""
        difficulty = self.config.difficulty
        own: dict[str, Any] = {"text": difficulty.cmab.text}
        if Measure.ace in difficulty.measures:
            own["ace"] = {**run_config.plain(difficulty.ace), "lambda_a": None}
        return self.folder("attention", own, self.probe)

    @cached_property
    def score(self) -> Path:
        """Scores of all wanted measures."""
        probe = self.config.probe
        own = run_config.plain(self.config.difficulty)
        own |= {"grid": probe.grid, "cde_rollouts": probe.cde_rollouts}
        return self.folder("score", own, self.probe, self.attention)

    def reliability(self, second: "Places") -> Path:
        """How the scores compare with those of a second probe, whose places are given."""
        own = {
            "retest_samples": self.config.probe.retest_samples,
            "select": run_config.plain(self.config.select),
        }
        return self.folder("reliability", own, self.score, second.probe, second.attention)

    def select(self, arm: str, stage: TrainStage = TrainStage.grpo) -> Path:
        """Picks of one training stage, of the run's own arm or of its control.

        A random set goes by seed, stage and size alone, so that rows of one table share it; that
        of a control by the run's name too.
        """
        select = self.config.select
        own: dict[str, Any] = {"keep": select.strata, "rap": select.rap, "random": select.random}
        if stage is TrainStage.sft:
            own = {"keep": select.sft_strata, "random": select.sft_random, "stage": stage}
            own |= {"targets": self.config.sft.targets}
        own |= {"arm": arm}
        if own["random"] or arm != TUNED:
            own |= {"seed": self.config.seed}
        if arm != TUNED:
            own |= {"name": self.config.name}
        return self.folder("select", own, self.score)

    def picked(self, arm: str) -> list[Path]:
        """The picks of every training stage of an arm."""
        return [self.select(arm, stage) for stage in self.config.stages]

    def sft(self, arm: str) -> Path:
        """Checkpoint and step log of an arm's SFT."""
        own = {
            **run_config.plain(self.config.sft),
            "seed": self.config.seed,
            "stage": TrainStage.sft,
        }
        own |= {"dtype": self.config.model.dtype}
        return self.folder("train", own, self.select(arm, TrainStage.sft), self.model)

    def train(self, arm: str) -> Path:
        """Checkpoint and step log of an arm's GRPO."""
        own = {**run_config.plain(self.config.grpo), "seed": self.config.seed}
        own |= {"dtype": self.config.model.dtype, "reward_workers": None}
        return self.folder("train", own, self.select(arm), self.start(arm))

    def start(self, arm: str) -> Path | str:
        """What an arm's GRPO starts from: its SFT, or the base model's identity."""
        return self.sft(arm) if TrainStage.sft in self.config.stages else self.model

    def responses(self, arm: str) -> Path:
        """What the base or a trained arm said to benchmark items.

        Neither which items nor how they are scored is part of it: the store grows where other
        items are wanted, and other rules or another judge ask no model.
        """
        own = self._evaluate_without(WHICH + SCORING + NEITHER)
        own["dtype"] = self.config.model.dtype
        own["pixels"] = [self.config.data.min_pixels, self.config.data.max_pixels]
        own |= (self.config.model.here if self.trained else self.config.model).maker
        return self.folder("responses", own, self.model if arm == BASE else self.train(arm))

    def marks(self, arm: str) -> Path:
        """Benchmark marks of the base or of a trained arm, by one set of rules and one judge."""
        return self.folder("evaluate", self._marked, self.responses(arm))

    @cached_property
    def _marked(self) -> dict[str, Any]:
        """What marks go by: rules, judge, and the items' contents, wherever they lie."""
        own = self._evaluate_without(NEITHER) | {"judge": self.judge}
        own |= {"source": self.config.evaluate.items_identity(), "path": None, "paths": None}
        if server := server_hash(self.config.evaluate.judge):
            own["judge_server"] = server
        return own

    @cached_property
    def contamination(self) -> Path:
        """Which samples of the data are in benchmarks too."""
        evaluate = self.config.evaluate
        names = sorted([*evaluate.official, *evaluate.also_on_disk])
        own = {"looks": LOOKS, "items": evaluate.items_identity(names)}
        return self.folder("contamination", own, self.data)

    @cached_property
    def replies(self) -> Path:
        """The judge's replies; every run under these artifacts adds to them and reads them."""
        return Path(self.config.output_dir).expanduser() / "judge"

    @cached_property
    def judge(self) -> str:
        """The judge's name, which the environment says where an endpoint is asked."""
        evaluate = self.config.evaluate
        return model_name(evaluate.judge, evaluate.benchmarks)

    def _evaluate_without(self, names: Iterable[str]) -> dict[str, Any]:
        own = run_config.plain(self.config.evaluate)
        return {name: value for name, value in own.items() if name not in names}

    @cached_property
    def run(self) -> Path:
        """The run's own folder: its report and its checkpoint."""
        everything = run_config.plain(self.config)
        for key in ("output_dir", "report", "report_to", "recipe", "export", "plan"):
            del everything[key]
        for key in ("engine", "url", "server", "vllm"):
            del everything["model"][key]
        everything["model"] |= self.config.model.maker
        everything["evaluate"] = self._marked
        found = self.folder("run", everything, self.train(TUNED))
        return found.with_name(f"{self.config.name}-{found.name}")
