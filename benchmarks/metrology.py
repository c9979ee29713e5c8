"""What does each measure measure? PISM, CMAB, CDE, ACE and DRM against the truth that was drawn.

    python benchmarks/metrology.py [--output_dir DIR] [KEY=VALUE ...]

Asks the tiny model about the default pool of the shapes world (six steps, finished ones left
alone), and writes benchmarks/results/metrology.md, metrology.json and metrology_*.svg. Under half
an hour on two cores.
"""

import argparse
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import metrology_figures
import metrology_page
import numpy as np
import pandas as pd
from metrology_cost import costs
from metrology_gather import Gathered, gather
from metrology_table import table
from metrology_truth import (
    GROUPS,
    TITLES,
    above_prior,
    agreement,
    confusion,
    pooled,
    rank_correlations,
    separation,
    with_knob,
)

from difftrain.pipeline import manifest

RESULTS = Path(__file__).resolve().parent / "results"
AGREEING = ("pism", "pism_chance", "cmab", "cde", "ace", "drm")
PLACING = ("pism", "pism_chance", "pism_rectangle", "pism_patches", "cmab", "drm")
STRATA = ("easy", "medium", "hard", "unsolved")


def decisions(frame: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """By truth (needs the picture, prior, noise): every measure's strata, and who is kept."""
    found: dict[str, dict[str, Any]] = {}
    for truth in ("needs the picture", "prior", "noise"):
        own = frame[frame["truth"] == truth]
        if own.empty:
            continue
        strata = {
            name: {each: int((own[f"{name}_stratum"] == each).sum()) for each in STRATA}
            for name in PLACING
        }
        kept = {name: int(own[name].sum()) for name in ("cde_kept", "ace_kept", "rap")}
        solved = int(own["solved"].sum())
        blind = {"right_without_picture": float(own["blind"].mean())}
        found[truth] = {"n": len(own), "solved": solved, **strata, **kept, **blind}
    return found


def families(frame: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Each family that needs the picture, against the prior samples, by CDE and by PISM."""
    found = {}
    for task, own in frame[frame["truth"] == "needs the picture"].groupby("task"):
        found[str(task)] = {
            "n": len(own),
            "sighted": float(own["sighted"].mean()),
            "blind": float(own["blind"].mean()),
            "cde": above_prior(frame, "cde", str(task)),
            "pism": above_prior(frame, "pism", str(task)),
        }
    return dict(sorted(found.items(), key=lambda each: -each[1]["sighted"]))


def answer_spaces(frame: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """PISM's strata with and without the chance correction, by the number of possible answers."""
    asked = frame[frame["truth"] == "needs the picture"]
    found = {}
    for group in GROUPS:
        own = asked[asked["group"] == group]
        if own.empty:
            continue
        found[group] = {
            "n": len(own),
            "families": sorted(map(str, own["task"].unique())),
            "luck": float((1 - (1 - 1 / own["answers"].astype(float)) ** 10).mean()),
            "blind": float(own["blind"].mean()),
            "changed": int((own["pism_stratum"] != own["pism_chance_stratum"]).sum()),
            **{
                name: {each: int((own[f"{name}_stratum"] == each).sum()) for each in STRATA}
                for name in ("pism", "pism_chance")
            },
        }
    return found


def measured(found: dict[str, Gathered], frame: pd.DataFrame) -> dict[str, Any]:
    """Every figure of the page."""
    knob = {name: with_knob(frame, name) for name in TITLES}
    rho, size = rank_correlations(frame, AGREEING)
    counts = {
        TITLES[name]: confusion(frame, "pism", name) for name in ("cmab", "drm", "pism_chance")
    }
    long = frame.dropna(subset=["ace"])
    return {
        "separation": {
            name: {
                "all": separation(frame, name, solved=False),
                "solved": separation(frame, name, solved=True),
            }
            for name in TITLES
        },
        "families": families(frame),
        "prior": frame.loc[frame["truth"] == "prior", ["sighted", "blind"]].mean().to_dict(),
        "knob": {name: whole for name, (whole, _) in knob.items()},
        "knob_by_family": {name: own for name, (_, own) in knob.items()},
        "agreeing": list(AGREEING),
        "rho": rho,
        "rho_samples": size,
        "confusion": counts,
        "agreement": {name: agreement(each) for name, each in counts.items()},
        "decisions": decisions(frame),
        "answer_spaces": answer_spaces(frame),
        "ace_with_length": pooled([(long["ace"].to_numpy(), long["length"].to_numpy())]),
        "cost": costs(found),
        "took": {step: each.took for step, each in found.items()},
        "ratios": [percent / 100 for percent in found["PISM"].config.probe.mask_percents],
    }


def plain(value: Any) -> Any:
    """A result as JSON can hold it; what is not a number becomes null."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, pd.DataFrame):
        return {str(row): plain(dict(cells)) for row, cells in value.iterrows()}
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(each) for each in value]
    if isinstance(value, np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return None if np.isnan(value) else round(float(value), 6)
    return value


def main() -> None:
    """Ask, measure, draw, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/metrology"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments, words = parser.parse_known_args()
    found = gather(words, arguments.output_dir)
    frame = table(found)
    result = measured(found, frame)
    command = " ".join(["python benchmarks/metrology.py", *words])
    metrology_figures.write(result, frame, arguments.results)
    page = metrology_page.page(result, len(frame), command)
    (arguments.results / "metrology.md").write_text(page)
    told = {"command": command, "samples": len(frame), "versions": manifest.versions()}
    manifest.write_json(arguments.results / "metrology.json", {**told, **plain(result)})
    print(page)


if __name__ == "__main__":
    main()
