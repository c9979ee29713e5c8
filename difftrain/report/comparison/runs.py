"""Finished runs, read back from their report.json.

Not here: whether they may stand in one table (agreement.py), marks and statistics, which
recipes/compare.py joins.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from difftrain.pipeline import manifest, parquet
from difftrain.report.comparison.content import Cost
from difftrain.report.comparison.rows import row_of

TABLE = ("difficulty.measure", "data.source", "data.tasks")
"""What sets one table apart from another: four tables are two measures times two task sets."""


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
        return flat(self.report["settings"])

    @property
    def table(self) -> tuple[str, ...]:
        """What sets its table apart."""
        return tuple(str(self.settings.get(key)) for key in TABLE)

    @property
    def data(self) -> str:
        """The data as a heading says it: the source or file, and the tasks where they are few."""
        tasks = self.report["settings"]["data"]["tasks"]
        return f"{self.report['data']} ({', '.join(tasks)})" if tasks else self.report["data"]

    def stage(self, kind: str, name: str) -> Path:
        """A stage folder: `name` as in the report's `made`, `kind` its folder under artifacts."""
        return self.folder.absolute().parent.parent / kind / self.report["made"][name]["folder"]

    def has(self, who: str) -> bool:
        """Whether this checkpoint was marked."""
        return f"marks {who}" in self.report["made"]

    def marks(self, who: str) -> Path:
        """The folder of a checkpoint's marks. Raises MissingArtifact where it is not there."""
        found = self.stage("evaluate", f"marks {who}")
        if manifest.read_manifest(found) is None:
            raise parquet.MissingArtifact(f"{self.folder}: no finished marks of {who} at {found}")
        return found

    @property
    def controlled(self) -> bool:
        """Whether it trained a random arm beside its own."""
        return self.has("control")

    def cost(self, who: str = "tuned") -> Cost:
        """What this arm's training took, and what choosing its samples took."""
        stages = self.report["cost"]["by_stage"]
        own = [name for name in stages if name.split()[0] in ("train", "sft")]
        own = [name for name in own if name.split()[-1] == who]
        asked = ("probe", "attention", "score", f"select_sft {who}", f"select {who}")
        asked = [name for name in asked if name in stages]
        counts = [self.report[each].get(who) for each in ("sft", "trained") if each in self.report]
        chooses = who == "tuned" and self.needs_probe
        return Cost(
            steps=sum(stages[name].get("steps", 0) for name in own),
            samples=sum(each["samples"] for each in counts if each),
            tokens=sum(stages[name].get("tokens", 0) for name in own),
            seconds=sum(stages[name]["seconds"] for name in own),
            choosing_tokens=sum(stages[name].get("tokens", 0) for name in asked) * chooses,
            choosing_seconds=sum(stages[name]["seconds"] for name in asked) * chooses,
        )

    @property
    def needs_probe(self) -> bool:
        """Whether its samples are chosen by difficulty, or its SFT learns from the probe's answers.

        A random set of a given size needs no probe, though one was made to know the size.
        """
        if str(self.settings.get("sft.targets")) == "rollouts" and "sft" in self.program:
            return True
        return row_of(self.report["name"]).chooses and not self.all_random

    @property
    def program(self) -> str:
        """The training stages, as `sft_then_grpo`."""
        return self.report["train_stages"]

    @property
    def all_random(self) -> bool:
        """Whether every stage's samples are drawn at random."""
        random = [bool(self.settings.get("select.random"))]
        if "sft" in self.program:
            random.append(bool(self.settings.get("select.sft_random")))
        return all(random)

    @property
    def set_by_recipe(self) -> set[str]:
        """The full keys that its recipe's file sets."""
        return {line.partition("=")[0] for line in self.report["recipe_difference"]}


def flat(node: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A tree of settings as {full.key: value}."""
    found = {}
    for key, value in node.items():
        if isinstance(value, dict) and value:
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def read(folders: list[Path]) -> list[Run]:
    """The runs of these folders. Raises MissingArtifact naming each without a finished report."""
    wrong = []
    for folder in folders:
        if not folder.is_dir():
            wrong.append(f"{folder}: there is no such run")
        elif not (folder / "report.json").is_file():
            wrong.append(f"{folder}: no finished report (report.json): run launch/train.py again")
    if wrong:
        raise parquet.MissingArtifact("\n".join(wrong))
    runs = [Run(each, json.loads((each / "report.json").read_text())) for each in folders]
    for run in runs:
        for who in run.report["means"]:
            run.marks(who)
    return runs
