"""A few samples of each stratum, with their pictures and what the model said.

They are taken in the order of their content hash, task families in turn, so nobody picks them.
"""

# pandas' stubs make a union of every chain of attributes, so these say nothing here:
# pyright: reportArgumentType=false, reportCallIssue=false

from base64 import b64encode
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any

import pandas as pd

from difftrain.records import Rollout, Sample, View
from difftrain.report.inputs import Loaded, RunInputs, columns

LONGEST = 700
"""Characters of a response that are shown; the middle of a longer one is left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """One answer of the model and how many of the answers asked under this view were right."""

    mask_percent: int
    response: str
    verdict: str
    finished: bool
    right: int
    asked: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One sample as it is shown. `pictures` are data: addresses; `first_failure` a fraction."""

    sample_id: str
    stratum: str
    task: str
    pictures: list[str]
    question: str
    options: list[tuple[str, str]]
    gold: str
    reason: str | None
    picked: bool
    first_failure: float | None
    laddered: bool
    balance: float | None
    whole: Said | None
    text_only: Said | None
    masked: Said | None


def chosen_ids(samples: pd.DataFrame, measure: str, number: int) -> dict[str, list[str]]:
    """Up to `number` sample ids of each stratum, families in turn, by content hash within each."""
    found = {}
    ordered = samples.sort_values("sample_id")
    for stratum, own in ordered.groupby(f"{measure}_stratum", sort=False):
        turn = own.groupby("task").cumcount()
        taken = own.assign(turn=turn).sort_values(["turn", "sample_id"])["sample_id"].head(number)
        found[str(stratum)] = taken.tolist()
    return found


def shortened(response: str) -> str:
    """A response no longer than a reader looks at; both its ends are kept."""
    if len(response) <= LONGEST:
        return response
    half = LONGEST // 2
    left_out = len(response) - 2 * half
    return f"{response[:half]} [\u2026 {left_out:,} characters \u2026] {response[-half:]}"


def said(rollouts: pd.DataFrame, mask_percent: int) -> Said | None:
    """The first draw under one mask ratio; None if the model was not asked there."""
    own = rollouts[rollouts["mask_percent"] == mask_percent].sort_values("draw")
    if own.empty:
        return None
    first = own.iloc[0]
    return Said(
        mask_percent=mask_percent,
        response=shortened(first["response"]),
        verdict=str(first["verdict"]),
        finished=bool(first["hit_eos"]),
        right=int((own["verdict"] == "correct").sum()),
        asked=len(own),
    )


def examples(inputs: RunInputs, loaded: Loaded, number: int) -> dict[str, list[Example]]:
    """Up to `number` examples of each stratum, read from disk with their pictures and responses."""
    measure = str(inputs.settings["difficulty"]["measure"])
    chosen = chosen_ids(loaded.samples, measure, number)
    ids = [sample_id for several in chosen.values() for sample_id in several]
    if not ids:
        return {}
    names = ["sample_id", "images", "question", "options", "answer"]
    pictured = columns(inputs.data, Sample, names, ids).set_index("sample_id")
    names = ["sample_id", "view", "mask_percent", "draw", "response", "hit_eos", "verdict"]
    answers = columns(inputs.probe, Rollout, names, ids)
    known = loaded.samples.set_index("sample_id")
    picked = loaded.picks["tuned"].drop_duplicates("sample_id").set_index("sample_id")["reason"]
    decided = loaded.decisions.set_index("sample_id")["reason"]
    return {
        stratum: [
            example(
                pictured.loc[sample_id],
                known.loc[sample_id],
                answers[answers["sample_id"] == sample_id],
                stratum,
                (picked.get(sample_id) or decided.get(sample_id), sample_id in picked.index),
            )
            for sample_id in several
        ]
        for stratum, several in chosen.items()
    }


def example(
    pictured: pd.Series,
    known: pd.Series,
    answers: pd.DataFrame,
    stratum: str,
    chosen: tuple[str | None, bool],
) -> Example:
    """One sample and what the model said of it whole and where it first failed.

    A sample that never fails shows the highest ratio it was asked at.
    """
    first_failure = number_or_none(known.get("pism"))
    masked = answers[answers["view"] == View.masked]
    failed_at = None if masked.empty else int(masked["mask_percent"].max())
    if first_failure is not None:
        failed_at = round(100 * first_failure)
    return Example(
        sample_id=str(pictured.name),
        stratum=stratum,
        task=str(known["task"]),
        pictures=[
            f"data:image/png;base64,{b64encode(picture).decode()}" for picture in pictured["images"]
        ],
        question=pictured["question"],
        options=list(zip(ascii_uppercase, pictured["options"], strict=False)),
        gold=pictured["answer"],
        reason=chosen[0],
        picked=chosen[1],
        first_failure=first_failure,
        laddered="pism" in known,
        balance=number_or_none(known.get("cmab")),
        whole=said(answers[answers["view"] == View.full_image], 0),
        text_only=said(answers[answers["view"] == View.text_only], 0),
        masked=said(masked, failed_at) if failed_at else None,
    )


def number_or_none(value: Any) -> float | None:
    """A measure's value; None where there is none."""
    return None if value is None or pd.isna(value) else float(value)
