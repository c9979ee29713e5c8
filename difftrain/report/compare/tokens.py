"""A row and its control at equal generated tokens: a training step may cost them different amounts.

Benchmarks are answered at a run's end only, so there is no benchmark score where the cheaper run
ends. What a run logs in between is its accuracy on held-out samples (grpo.eval_samples).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING

import numpy as np

from difftrain.report.inputs import training_steps

if TYPE_CHECKING:
    from difftrain.report.compare.runs import Run

Curve = list[tuple[float, float]]  # generated tokens, and accuracy on held-out samples
UNEQUAL = 1.1
"""From this ratio on, a verdict says that both sides generated different numbers of tokens: the
lengths of responses alone differ by a few percent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenComparison:
    """The tokens that training a row and its control generated, as means over their seeds.

    `held_out`: the held-out accuracies of both after `at_tokens`, where the cheaper one was last
    evaluated. None if the runs have no such evaluations, or several rounds.
    """

    tokens: float
    control_tokens: float
    held_out: tuple[float, float] | None = None
    at_tokens: float | None = None

    @property
    def ratio(self) -> float | None:
        """The row's tokens as a multiple of its control's; None if either generated none."""
        both = self.tokens and self.control_tokens
        return self.tokens / self.control_tokens if both else None

    @property
    def is_unequal(self) -> bool:
        """Whether the numbers differ by a factor of UNEQUAL or more, in either direction."""
        return self.ratio is not None and max(self.ratio, 1 / self.ratio) >= UNEQUAL


def compare_tokens(pairs: Sequence[tuple["Run", "Run"]], control_arm: str) -> TokenComparison:
    """The comparison of runs with their controls, which are `control_arm` of the second ones."""
    tokens = mean(run.cost().tokens for run, _ in pairs)
    control_tokens = mean(control.cost(control_arm).tokens for _, control in pairs)
    held_out = []
    for run, control in pairs:
        curves = [held_out_curve(run.train_folders("tuned")),
                  held_out_curve(control.train_folders(control_arm))]  # fmt: skip
        if (values := at_equal_tokens(*curves)) is None:
            return TokenComparison(tokens=tokens, control_tokens=control_tokens)
        held_out.append(values)
    at_tokens, accuracy, control_accuracy = (mean(column) for column in zip(*held_out, strict=True))
    return TokenComparison(
        tokens=tokens,
        control_tokens=control_tokens,
        held_out=(accuracy, control_accuracy),
        at_tokens=at_tokens,
    )


def held_out_curve(folders: Sequence[Path]) -> Curve:
    """The evaluations on held-out samples of a training in one round; else empty, because every
    round holds out other samples."""
    curve, tokens = [], 0.0
    for row in training_steps(folders[0]) if len(folders) == 1 else ():
        tokens += row.get("generated_tokens", np.nan)
        if (accuracy := row.get("eval_rewards/accuracy/mean")) is not None:
            curve.append((tokens, accuracy))
    return [] if np.isnan(tokens) else curve


def at_equal_tokens(row: Curve, control: Curve) -> tuple[float, float, float] | None:
    """(tokens, accuracy of the row, of the control) where the cheaper one was last evaluated.

    Linear between two evaluations. None if the other one had not been evaluated until then.
    """
    if not row or not control:
        return None
    tokens = min(row[-1][0], control[-1][0])
    if tokens < max(row[0][0], control[0][0]):
        return None
    accuracy, control_accuracy = (
        float(np.interp(tokens, [point[0] for point in curve], [point[1] for point in curve]))
        for curve in (row, control)
    )
    return tokens, accuracy, control_accuracy
