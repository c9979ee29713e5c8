"""The rows of the papers' tables in their order, and the random row that each is held against.

A control is of equal size and differs in one thing alone: its samples are drawn at random. A run
that trained one beside itself (control=random) is held against that; else against the row of the
same table that is named here. A row of which every choice is random is a control itself.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Row:
    """One row: its recipe, how the papers print it, and its random row (None: the table has none).

    `grpo`, `sft` and `rap` are what its name says of the samples: strata (with `random`, a random
    set of their size), or RAP's measures. `chooses`: some of its samples are chosen by difficulty,
    so that the probe is part of its price.
    """

    recipe: str
    title: str
    grpo: str = ""
    sft: str = ""
    rap: str = ""
    control: str | None = None
    chooses: bool = True

    @property
    def settings(self) -> dict[str, Any]:
        """What makes a run this row, by full key; nothing where the name is one's own."""
        if not self.grpo and not self.rap:
            return {}
        grpo, sft = self.grpo.split(), self.sft.split()
        return {
            "train_stages": "sft_then_grpo" if sft else "grpo",
            "select.strata": [each for each in grpo if each != RANDOM],
            "select.random": RANDOM in grpo,
            "select.rap": self.rap.split(),
            "select.sft_strata": [each for each in sft if each != RANDOM],
            "select.sft_random": RANDOM in sft,
        }


RANDOM = "random"
ALL_RANDOM_M_H = "sft_rand_m_grpo_rand_h"
ALL_RANDOM_H_M = "sft_rand_h_grpo_rand_m"
ROWS = (
    Row("grpo_full", "GRPO-only(fullset)", "easy medium hard unsolved", chooses=False),
    Row("grpo_unsolved", "GRPO-only(unsolved)", "unsolved"),
    Row("sft_mid_grpo_hard", "SFT(mid)+GRPO(hard)", "hard", "medium", control=ALL_RANDOM_M_H),
    Row("sft_mid_grpo_rand_h", "SFT(mid)+GRPO(rand h)", "random hard", "medium",
        control=ALL_RANDOM_M_H),
    Row("sft_rand_m_grpo_hard", "SFT(rand m)+GRPO(hard)", "hard", "random medium",
        control=ALL_RANDOM_M_H),
    Row(ALL_RANDOM_M_H, "SFT(rand m)+GRPO(rand h)", "random hard", "random medium", chooses=False),
    Row("sft_hard_grpo_mid", "SFT(hard)+GRPO(mid)", "medium", "hard", control=ALL_RANDOM_H_M),
    Row("sft_hard_grpo_rand_m", "SFT(hard)+GRPO(rand m)", "random medium", "hard",
        control=ALL_RANDOM_H_M),
    Row("sft_rand_h_grpo_mid", "SFT(rand h)+GRPO(mid)", "medium", "random hard",
        control=ALL_RANDOM_H_M),
    Row(ALL_RANDOM_H_M, "SFT(rand h)+GRPO(rand m)", "random medium", "random hard", chooses=False),
    Row("grpo_random", "GRPO-only(random)", "random medium hard", chooses=False),
    Row("grpo_mid_hard", "GRPO-only(mid+hard)", "medium hard", control="grpo_random"),
)  # fmt: skip
"""The twelve rows of every table of the first paper, in its order."""
BESIDE = (
    Row("grpo_mid", "GRPO-only(mid)", "medium"),
    Row("grpo_hard", "GRPO-only(hard)", "hard"),
    Row("rap", "RAP", rap="cde ace drm"),
    Row("rap_cde_ace", "RAP, CDE and ACE", rap="cde ace"),
    Row("rap_cde", "RAP, CDE alone", rap="cde"),
    Row("rap_ace", "RAP, ACE alone", rap="ace"),
)
"""Rows of ours that the first paper's tables do not have; they come below its twelve."""
KNOWN = {row.recipe: row for row in (*ROWS, *BESIDE)}
UNCONTROLLED = tuple(row.recipe for row in (*ROWS, *BESIDE) if row.chooses and row.control is None)
"""Rows that choose and have no random row of their size: they need control=random."""


def row_of(name: str) -> Row:
    """The row of a run's name; a name of one's own is a row by itself, with no random row."""
    return KNOWN.get(name, Row(name, name))


def order(name: str) -> tuple[int, str]:
    """The place of a row in a table: the papers' order, then ours, then names of one's own."""
    known = list(KNOWN)
    return (known.index(name) if name in known else len(known), name)


def why_uncontrolled(name: str) -> str:
    """Why a row is held against nothing."""
    row = row_of(name)
    if name == "grpo_full":
        return "none: a random set of this size is the full set"
    if not row.chooses:
        return "is a random control itself"
    if row.control is not None:
        return f"none: {row.control} is not among the runs (nor was control=random trained)"
    return "none: control=random was not trained"
