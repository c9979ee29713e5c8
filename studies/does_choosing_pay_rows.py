"""The result rows of does_choosing_pay.py: arms, runs, and their curves of scores."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any, TypeVar

import numpy as np
from scipy import stats as scipy_stats

from difftrain.records import GradedBy, ItemResult, ItemStatus

MAIN = ("mid+hard", "random", "full", "hard")
TWO_STAGE = ("SFT(mid)+GRPO(hard)", "SFT(hard)+GRPO(mid)")
FURTHER = ("unsolved", "RAP", "CMAB mid+hard")
ARMS = (*MAIN, *TWO_STAGE, *FURTHER)
NUM_SEEDS = {
    **dict.fromkeys(("mid+hard", "random"), 27),
    **dict.fromkeys(("full", "hard", *TWO_STAGE), 8),
    **dict.fromkeys(FURTHER, 3),
}
"""Seeds 1, 2, ... that the plan has for each arm. 27 is the result of the power calculation."""
PROMPTS_PER_STEP = 8
STRATA = ("easy", "medium", "hard", "unsolved")
EQUAL_STEPS = 160  # optimizer steps after which arms are compared; the full pool's run goes on


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """Scores after some optimizer steps; `tokens` were generated until then, the probe's included.

    `scores`: by benchmark, one score of 0 to 1 for each item.
    """

    step: int
    tokens: int
    scores: dict[str, list[float]]

    @property
    def mean(self) -> float:
        """The unweighted mean over benchmarks, in points of 100."""
        return 100 * mean(mean(values) for values in self.scores.values())

    def results(self) -> list[ItemResult]:
        """The scores as item results."""
        return [
            ItemResult(
                benchmark=name,
                item_id=str(index),
                response=None,
                extracted=None,
                score=score,
                graded_by=GradedBy.rule,
                status=ItemStatus.scored,
                error=None,
                category="",
            )
            for name, values in self.scores.items()
            for index, score in enumerate(values)
        ]


@dataclass(frozen=True, slots=True)
class ArmRun:
    """The result row of one run: an arm with one seed."""

    arm: str
    seed: int
    strata: dict[str, int]
    selected: int
    sft_steps: int
    points: list[CurvePoint]
    probe_tokens: int
    live_share: list[float]  # of a step's groups, those whose rewards differ
    grad_norm: list[float]
    versions: dict[str, str]
    revision: str | None

    def to_json(self) -> dict[str, Any]:
        """The row as JSON; the items' scores of a benchmark become one text."""
        content = asdict(self)
        for point in content["points"]:
            point["scores"] = {
                name: " ".join(f"{value:g}" for value in values)
                for name, values in point["scores"].items()
            }
        content["live_share"] = [round(share, 3) for share in self.live_share]
        content["grad_norm"] = [round(norm, 4) for norm in self.grad_norm]
        return content

    @property
    def at_equal_steps(self) -> CurvePoint:
        """The last scores within EQUAL_STEPS optimizer steps, those of SFT included."""
        return [p for p in self.points if p.step + self.sft_steps <= EQUAL_STEPS][-1]


R = TypeVar("R", bound=ArmRun)


def read_runs(folder: Path, kind: type[R] = ArmRun) -> list[R]:
    """All finished runs, as rows of a kind, by seed."""
    runs = []
    for path in sorted(folder.glob("*.json")):
        content = json.loads(path.read_text())
        points = [
            CurvePoint(
                point["step"],
                point["tokens"],
                {name: [float(x) for x in row.split()] for name, row in point["scores"].items()},
            )
            for point in content.pop("points")
        ]
        runs.append(kind(points=points, **content))
    return sorted(runs, key=lambda run: (run.seed, run.arm))


def of_arm(runs: Sequence[ArmRun], arm: str) -> list[ArmRun]:
    """The runs of an arm, by seed."""
    return [run for run in runs if run.arm == arm]


def paired(runs: Sequence[ArmRun], first: str, second: str) -> list[tuple[ArmRun, ArmRun]]:
    """The runs of two arms with the same seeds."""
    by_seed = {run.seed: run for run in of_arm(runs, second)}
    return [(run, by_seed[run.seed]) for run in of_arm(runs, first) if run.seed in by_seed]


def mean_curve(runs: Sequence[ArmRun]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(steps, mean tokens, mean score, half width of its 95 % interval over seeds) of one arm."""
    steps = np.array([point.step for point in runs[0].points])
    tokens = np.mean([[point.tokens for point in run.points] for run in runs], axis=0)
    scores = np.array([[point.mean for point in run.points] for run in runs])
    if len(runs) == 1:
        return steps, tokens, scores[0], np.zeros(len(steps))
    quantile = float(scipy_stats.t.ppf(0.975, len(runs) - 1))
    half = quantile * scores.std(axis=0, ddof=1) / len(runs) ** 0.5
    return steps, tokens, scores.mean(axis=0), half


def live_groups(run: ArmRun) -> list[float]:
    """Of each point, the number of groups with different rewards until then."""
    return [PROMPTS_PER_STEP * sum(run.live_share[: point.step]) for point in run.points]
