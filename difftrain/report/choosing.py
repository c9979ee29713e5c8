"""How far the choice of samples can be trusted: RAP's funnel, guessing, and the second draws."""

# pandas' stubs make a union of every chain of attributes, so these say nothing here:
# pyright: reportArgumentType=false, reportCallIssue=false

from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from difftrain.report.inputs import Loaded
from difftrain.report.plots import picture
from difftrain.report.style import FAINT, INK, STRATUM_COLOURS, blank
from difftrain.report.tables import Table, share, share_of
from difftrain.report.words import listed, percent

CHANGED_SHOWN = 50
UNMEASURED = (
    "Not measured, for no sample was asked again: probe.retest_samples=N asks N samples once more "
    "with other seeds and tells how many keep their label."
)
"""What stands for the second draws where there are none."""
FEW = 20
"""Fewer chosen samples than this, both choices together, say nothing about their overlap."""
LEFT, GONE, IN = "#2f78b4", "#e3e4e6", "#0b8068"
NAMES = {"pism": "PISM", "cmab": "CMAB", "cde": "CDE", "ace": "ACE", "drm": "DRM"}


def funnel(loaded: Loaded, settings: dict[str, Any]) -> dict[str, Any] | None:
    """The steps of RAP's choice with their counts; None where strata or luck chose."""
    if settings["select"]["random"]:
        return None
    steps = [str(measure) for measure in settings["select"]["rap"]]
    found = loaded.made["select tuned"]["counts"].get("funnel")
    return None if not steps or found is None else {"steps": steps, **found}


def guessing(loaded: Loaded) -> dict[str, Any] | None:
    """Both labels of the samples where PISM is chance-aware; None where it is not.

    `labels` counts samples by the paper's stratum and then the chance-aware one.
    """
    if loaded.unguessed.empty:
        return None
    plain = loaded.unguessed[["sample_id", "stratum"]].rename(columns={"stratum": "plain"})
    both = loaded.samples[["sample_id", "task", "pism_stratum"]].merge(plain, on="sample_id")
    assert len(both) == len(loaded.samples), f"{len(plain)} plain labels for {len(loaded.samples)}"
    changed = both[both["plain"] != both["pism_stratum"]].sort_values("sample_id")
    shown = changed.head(CHANGED_SHOWN).rename(columns={"pism_stratum": "chance_aware"})
    return {
        "samples": len(both),
        "changed": len(changed),
        "labels": counted(both, "plain", "pism_stratum"),
        "changed_by_task": {
            str(task): {"changed": int((own["plain"] != own["pism_stratum"]).sum()), "n": len(own)}
            for task, own in both.groupby("task")
        },
        "first_changed": shown.to_dict("records"),
    }


def counted(both: pd.DataFrame, outer: str, inner: str) -> dict[str, dict[str, int]]:
    """Rows by the value of one column, then of another."""
    return {
        str(name): {str(key): int(n) for key, n in own[inner].value_counts().items()}
        for name, own in both.groupby(outer)
    }


def shown_strata(found: dict[str, Any]) -> list[str]:
    """The strata in their order, as far as they occur in either label."""
    there = {*found["labels"], *(key for own in found["labels"].values() for key in own)}
    return [stratum for stratum in STRATUM_COLOURS if stratum in there]


def both_labels(report: dict[str, Any]) -> Table:
    """The paper's stratum by row, the chance-aware one by column."""
    found = report["guessing"]
    strata = shown_strata(found)
    rows = [
        [stratum, *(f"{found['labels'].get(stratum, {}).get(other, 0):,}" for other in strata)]
        for stratum in strata
    ]
    return Table(["as the paper has it", *(f"chance-aware: {each}" for each in strata)], rows)


def changed_by_task(report: dict[str, Any]) -> Table:
    """How many samples of each family change their stratum when guessing is accounted for."""
    found = report["guessing"]["changed_by_task"]
    order = sorted(found, key=lambda task: -found[task]["changed"] / found[task]["n"])
    return Table(
        ["task", "samples", "changed", "share"],
        [
            [task, f"{own['n']:,}", f"{own['changed']:,}", share(own["changed"], own["n"])]
            for task in order
            if (own := found[task])
        ],
    )


def steadiness(report: dict[str, Any]) -> Table:
    """The share of samples that keep their label when asked again with other seeds."""
    rows, found = [], report["reliability"]["measures"]
    for measure in (each for each in NAMES if each in found):
        own = found[measure]
        low, high = percent(own["low"]), percent(own["high"])
        told = f"{share_of(own['share'])} [{low}, {high}]"
        said = "above luck" if own["low"] > own["by_chance"] else "not shown to be above luck"
        rows.append([NAMES[measure], f"{own['n']:,}", told, share_of(own["by_chance"]), said])
    return Table(["measure", "samples", "keep their label", "by luck alone", "so it is"], rows)


def overlap_in_words(report: dict[str, Any]) -> str:
    """What the two choices among the samples that were asked again have in common."""
    own = report["reliability"]["chosen"]
    told = (
        f"Choosing among these {own['pool']:,} samples alone takes {own['first']:,} with the first "
        f"draws and {own['second']:,} with the second; {own['common']:,} are in both "
        f"(by luck alone {own['common_by_chance']:.1f} would be)."
    )
    if own["first"] + own["second"] < FEW:
        return told + " Too few to judge the choice by: raise probe.retest_samples."
    return told


def funnel_in_words(report: dict[str, Any]) -> list[str]:
    """What a reader should know of the funnel beside its numbers."""
    found, told = report["funnel"], []
    if "ace" in found["steps"] and found["after_ace"] == found["after_cde"]:
        told.append(f"ACE dropped none of the {found['after_cde']:,} samples it was asked about.")
    if found["without_bias"]:
        told.append(
            f"{found['without_bias']:,} responses of the pool are too short for an ACE value. They "
            "are not called biased."
        )
    if found["removed_easy"] > found["brought_in"]:
        told.append(
            f"{found['removed_easy']:,} easy samples were removed, but only "
            f"{found['candidates']:,} could be brought in; all of these were."
        )
    return told


def title(report: dict[str, Any]) -> str:
    """The measures that chose, in words."""
    return listed([NAMES[step] for step in report["funnel"]["steps"]])


def bars(found: dict[str, Any]) -> list[tuple[str, int, int, str]]:
    """(step, samples left, of these brought in, what became of the others), pool to chosen."""
    left = found["after_ace"] - found["removed_easy"]
    by_cde, by_ace = found["pool"] - found["after_cde"], found["after_cde"] - found["after_ace"]
    prior, hangs = "the picture does not add enough", "the response hangs on one token"
    came = f"{found['brought_in']:,} of {found['candidates']:,} candidates brought in"
    rows = {
        "cde": [("CDE: the picture helps", found["after_cde"], 0, f"{by_cde:,} dropped: {prior}")],
        "ace": [("ACE: not biased", found["after_ace"], 0, f"{by_ace:,} dropped: {hangs}")],
        "drm": [
            ("DRM: not easy", left, 0, f"{found['removed_easy']:,} removed: always right"),
            ("DRM: replaced", found["chosen"], found["brought_in"], came),
        ],
    }
    return [
        ("pool", found["pool"], 0, ""),
        *(row for step in ("cde", "ace", "drm") if step in found["steps"] for row in rows[step]),
        ("trained on", found["chosen"], found["brought_in"], ""),
    ]


@picture
def funnel_picture(report: dict[str, Any]) -> Figure | None:
    """One bar a step, from the pool to what is trained on, with the counts."""
    found = report["funnel"]
    if found is None:
        return None
    rows = bars(found)
    figure, grid = blank(8.6, 0.5 + 0.42 * len(rows))
    axes, pool = grid[0, 0], max(found["pool"], 1)
    for place, (_, left, brought, gone) in enumerate(rows):
        axes.barh(place, pool, height=0.66, color=GONE, alpha=0.55)
        axes.barh(place, left - brought, height=0.66, color=LEFT)
        axes.barh(place, brought, left=left - brought, height=0.66, color=IN)
        inside = left > 0.12 * pool
        axes.text(left - 0.01 * pool if inside else left + 0.01 * pool, place, f"{left:,}",
                  ha="right" if inside else "left", va="center", fontweight="bold",
                  color="white" if inside else INK)  # fmt: skip
        axes.text(1.015 * pool, place, gone, va="center", color=FAINT, fontsize=8.5)
    axes.set_yticks(range(len(rows)), [row[0] for row in rows])
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.set_xticks([])
    axes.set_xlim(0, 1.62 * pool)
    axes.invert_yaxis()
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
    return figure
