"""What each measure asks alone and together, counted exactly, and the seconds that takes.

The answers are found by replaying the schedule over the table that the probe filled: the very
draws that a probe for this measure alone would have asked.
"""

from collections.abc import Iterable

import numpy as np
from metrology_gather import Gathered

from difftrain.config.difficulty import PismConfig
from difftrain.difficulty.pism import guess_rate, min_correct
from difftrain.difficulty.score import Correctness, Evidence, gather_evidence
from difftrain.probe.schedule import next_draws
from difftrain.records import View

Drawn = frozenset[tuple[str, int, int]]
"""Answers of one sample as (view, row of the ladder, draw)."""


def climbed(correct_RK: np.ndarray, minimum: int) -> Drawn:
    """The draws that settle PISM's label. Raises ValueError if the table lacks one of them."""
    known_RK, found = np.full_like(correct_RK, -1), set()
    while cells := next_draws(known_RK, minimum=minimum):
        for row, draw in cells:
            if correct_RK[row, draw] < 0:
                raise ValueError(f"draw {draw} of row {row} was not asked")
            known_RK[row, draw] = correct_RK[row, draw]
            found.add(("ladder", row, draw))
    return frozenset(found)


def needed(tables: Correctness, pism: PismConfig, rollouts: int) -> dict[str, Drawn]:
    """What each measure asks of one sample."""
    draws = tables.correct_RK.shape[1]
    right = np.flatnonzero(tables.correct_RK[0] == 1)
    whole = frozenset(("ladder", 0, draw) for draw in range(rollouts))
    blind = frozenset((str(View.text_only), 0, draw) for draw in range(rollouts))
    guessing = min_correct(draws, pism.tau, guess_rate(tables.text_only_M), pism.alpha)
    plain = climbed(tables.correct_RK, min_correct(draws, pism.tau))
    upto = int(right[0]) + 1 if len(right) else draws
    found = {
        "PISM": plain,
        "PISM, both labels": plain | climbed(tables.correct_RK, guessing) | blind,
        "CMAB": frozenset(("ladder", 0, draw) for draw in range(upto)),
        "CDE": whole | blind,
        "ACE": frozenset({("ladder", 0, 0)}),
        "DRM": whole,
    }
    four = ("PISM", "CMAB", "CDE", "ACE", "DRM")
    return {**found, "all together": frozenset[tuple[str, int, int]]().union(*map(found.get, four))}


def looks(known: Iterable[Evidence]) -> dict[str, int]:
    """Teacher-forced passes that each measure needs: one a right answer, one a first answer."""
    rights = [np.flatnonzero(each.correctness.correct_RK[0] == 1) for each in known]
    cmab = sum(len(each) > 0 for each in rights)
    both = len(rights) + sum(len(each) > 0 and each[0] != 0 for each in rights)
    return {"CMAB": cmab, "ACE": len(rights), "all together": both}


def costs(found: dict[str, Gathered]) -> dict[str, dict[str, float]]:
    """Answers, passes and processor seconds of each measure; PISM alone is 1 in `ratio`.

    An answer costs what the probe's answers cost on average, a pass what passes did.
    """
    last = found["and chance"]
    probe = last.config.probe
    known = gather_evidence(last.rollouts, last.attention, probe)
    asked: dict[str, int] = {}
    for seen in known.values():
        for name, drawn in needed(
            seen.correctness, last.config.difficulty.pism, probe.cde_rollouts
        ).items():
            asked[name] = asked.get(name, 0) + len(drawn)
    steps = [found[step].took for step in ("PISM", "and CDE, DRM", "and chance")]
    answer = sum(step["cpu"] for step in steps) / sum(step["generations"] for step in steps)
    seen_once = found["and CMAB, ACE"].took
    look = seen_once["cpu"] / seen_once["looks"]
    passes = looks(known.values())
    return {
        name: {
            "answers": number,
            "per_sample": number / len(known),
            "looks": passes.get(name, 0),
            "seconds": number * answer + passes.get(name, 0) * look,
            "ratio": number / asked["PISM"],
        }
        for name, number in asked.items()
    }
