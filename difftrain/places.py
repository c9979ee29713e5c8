"""Where each stage of a run lies: artefacts/<stage>/<fingerprint of settings and inputs>/."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from difftrain import lineage, settings
from difftrain.data import load
from difftrain.model import locate
from difftrain.settings import RunConfig

CONTROL = "control"
TUNED = "tuned"
BASE = "base"


@dataclass(frozen=True)
class Places:
    """The folders of one run. Equal settings and inputs give equal folders, in any run."""

    config: RunConfig

    def folder(self, stage: str, own: Any, *inputs: Path | str) -> Path:
        """The folder of a stage, from its own settings and its inputs' folders or identities."""
        names = [each.name if isinstance(each, Path) else each for each in inputs]
        root = Path(self.config.artefacts).expanduser()
        return root / stage / lineage.fingerprint(own, stage, *names)

    @cached_property
    def model(self) -> str:
        """The base model's identity."""
        return locate.identity(self.config.model)

    @cached_property
    def data(self) -> Path:
        """Samples and quarantine."""
        return self.folder("data", {}, load.identity(self.config.data))

    @cached_property
    def probe(self) -> Path:
        """Rollouts. tau is not part of it: the store grows where another tau needs more."""
        own = {
            **settings.plain(self.config.probe),
            "grid": None,
            "seed": self.config.seed,
            "dtype": self.config.model.dtype,
            "pixels": [self.config.data.min_pixels, self.config.data.max_pixels],
        }
        return self.folder("probe", own, self.data, self.model)

    @cached_property
    def attention(self) -> Path:
        """Attention masses of right answers."""
        return self.folder("attention", {"text": self.config.difficulty.cmab.text}, self.probe)

    @cached_property
    def score(self) -> Path:
        """Scores of all wanted measures."""
        own = {**settings.plain(self.config.difficulty), "grid": self.config.probe.grid}
        return self.folder("score", own, self.probe, self.attention)

    def select(self, arm: str) -> Path:
        """Picks of the run's own arm or of its control."""
        own = {**settings.plain(self.config.select), "arm": arm}
        if self.config.select.random or arm != TUNED:
            own |= {"seed": self.config.seed, "name": self.config.name}
        return self.folder("select", own, self.score)

    def train(self, arm: str) -> Path:
        """Checkpoint and step log of an arm."""
        own = {**settings.plain(self.config.grpo), "seed": self.config.seed}
        own["dtype"] = self.config.model.dtype
        return self.folder("train", own, self.select(arm), self.model)

    def marks(self, arm: str) -> Path:
        """Benchmark marks of the base or of a trained arm."""
        own = {**settings.plain(self.config.evaluate), "dtype": self.config.model.dtype}
        own["pixels"] = [self.config.data.min_pixels, self.config.data.max_pixels]
        own |= {"source": self.config.evaluate.items_identity(), "path": None, "places": None}
        return self.folder("evaluate", own, self.model if arm == BASE else self.train(arm))

    @cached_property
    def run(self) -> Path:
        """The run's own folder: its report and its checkpoint."""
        everything = settings.plain(self.config)
        for key in ("artefacts", "report", "recipe"):
            del everything[key]
        found = self.folder("run", everything, self.train(TUNED))
        return found.with_name(f"{self.config.name}-{found.name}")
