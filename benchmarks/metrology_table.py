"""One row a sample: its truth, what each measure says of it, and what RAP decides.

None becomes not-a-number, except that PISM's None (no ratio fails) stands above its last ratio,
as 1.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from metrology_gather import Gathered
from metrology_truth import GROUPS

from difftrain.difficulty import ace, cde
from difftrain.records import AnswerKind, Rollout, Sample, Score, Verdict, View
from difftrain.select import rap
from difftrain.shapes.scenes import GRID, LETTERS, LEVELS

POSSIBLE = {
    "verify": 2,
    "count_colour": 6,
    "count": 10,
    "locate": GRID * GRID,
    "count_plus": 17,
    "bar": 2 * LEVELS - 1,
    "prior": 17,
    "noise": 900,
}
"""Answers a question can have, by family, where options do not say so."""


def possible(sample: Sample) -> int:
    """How many different answers a sample's question can have."""
    if sample.answer_kind is AnswerKind.choice:
        return len(sample.options)
    if sample.task == "read":
        return len(LETTERS) ** len(sample.answer)
    return POSSIBLE[sample.task]


def group_of(number: int) -> str:
    """The answer-space group of a number of answers."""
    return next(name for name, (low, high) in GROUPS.items() if low <= number <= high)


def columns(scores: Sequence[Score], name: str, measure: str) -> dict[str, dict[str, Any]]:
    """Value and stratum of each sample by one measure, as two columns."""
    own = [each for each in scores if each.measure == measure]
    top = 1.0 if measure == "pism" else np.nan
    return {
        name: {each.sample_id: top if each.value is None else each.value for each in own},
        f"{name}_stratum": {each.sample_id: each.stratum for each in own},
    }


def shares(
    rollouts: Sequence[Rollout], view: View, draws: int
) -> tuple[dict[str, float], dict[str, float]]:
    """Share of right answers among the first draws of a view, of all and of the readable ones.

    A sample without a readable answer is missing from the second.
    """
    own = [each for each in rollouts if each.view is view and each.draw < draws]
    verdicts: dict[str, list[Verdict]] = {}
    for each in own:
        verdicts.setdefault(each.sample_id, []).append(each.verdict)
    right = {key: found.count(Verdict.correct) for key, found in verdicts.items()}
    read = {key: len(found) - found.count(Verdict.unparsable) for key, found in verdicts.items()}
    return (
        {key: right[key] / len(found) for key, found in verdicts.items()},
        {key: right[key] / read[key] for key in verdicts if read[key]},
    )


def table(found: dict[str, Gathered]) -> pd.DataFrame:
    """One row a sample: its truth, each measure's value and stratum, and what RAP decides."""
    last = found["and chance"]
    told: dict[str, dict[str, Any]] = {}
    told |= columns(last.scores, "pism_chance", "pism") | columns(last.unguessed, "pism", "pism")
    for kind in ("rectangle", "patches"):
        told |= columns(found[kind].scores, f"pism_{kind}", "pism")
    for measure in ("cmab", "cde", "ace", "drm"):
        told |= columns(last.scores, measure, measure)
    truth = {
        "task": {each.sample_id: each.task for each in last.samples},
        "requires_image": {each.sample_id: each.requires_image for each in last.samples},
        "gen_difficulty": {each.sample_id: each.gen_difficulty for each in last.samples},
        "answers": {each.sample_id: possible(each) for each in last.samples},
    }
    frame = pd.DataFrame({**truth, **told})
    frame["group"] = frame["answers"].map(group_of)
    truths = {True: "needs the picture", False: "prior"}
    frame["truth"] = [truths.get(each, "noise") for each in frame["requires_image"]]
    frame["solved"] = frame["pism_stratum"] != "unsolved"
    first = [each for each in last.rollouts if each.view is View.full_image and each.draw == 0]
    frame["length"] = pd.Series({each.sample_id: each.num_tokens for each in first})
    draws = last.config.probe.cde_rollouts
    for view, name in ((View.full_image, "sighted"), (View.text_only, "blind")):
        right, readable = shares(last.rollouts, view, draws)
        frame[name], frame[f"{name}_readable"] = pd.Series(right), pd.Series(readable)
    frame["cde_readable"] = frame["sighted_readable"] - frame["blind_readable"]
    settings = last.config.difficulty
    bias_N = [None if np.isnan(each) else float(each) for each in frame["ace"]]
    frame["cde_kept"] = [cde.is_kept(each, settings.cde.lambda_c) for each in frame["cde"]]
    frame["ace_kept"] = [not ace.is_biased(each, settings.ace.lambda_a) for each in bias_N]
    picks = rap.choose(
        list(frame.index),
        list(frame["cde"]),
        bias_N,
        list(frame["drm"]),
        draws,
        settings.cde.lambda_c,
        settings.ace.lambda_a,
    )
    frame["rap"] = frame.index.isin([each.sample_id for each in picks])
    return frame
