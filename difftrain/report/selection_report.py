"""How reliable the selection is: RAP's funnel, chance correction, and the retest."""

# pandas' stubs make a union of every chain of attributes, so these say nothing here:
# pyright: reportArgumentType=false, reportCallIssue=false

from typing import Any

from matplotlib.figure import Figure

from difftrain.report.inputs import RunData
from difftrain.report.plots import FAINT, INK, STRATUM_COLORS, name_rows, new_figure, svg_figure
from difftrain.report.tables import Table
from difftrain.report.text import join_words, percent, percent_or_unknown, share

MAX_CHANGED_SAMPLES = 50
NOT_RETESTED = (
    "Not measured: probe.retest_samples=N generates responses to N samples again with other seeds "
    "and counts how many keep their label."
)
MIN_OVERLAP_SAMPLES = 20
"""With fewer selected samples than this in both selections together, their overlap says nothing."""
LEFT_COLOR, REMOVED_COLOR, ADDED_COLOR = "#2f78b4", "#e3e4e6", "#0b8068"
MEASURE_NAMES = {"pism": "PISM", "cmab": "CMAB", "cde": "CDE", "ace": "ACE", "drm": "DRM"}


def rap_funnel(data: RunData, settings: dict[str, Any]) -> dict[str, Any] | None:
    """The steps of RAP's selection with their counts; None if RAP did not select."""
    if settings["select"]["random"]:
        return None
    steps = [str(measure) for measure in settings["select"]["rap"]]
    counts = data.manifests["select tuned"]["counts"].get("funnel")
    return None if not steps or counts is None else {"steps": steps, **counts}


def chance_correction(data: RunData) -> dict[str, Any] | None:
    """Strata with and without PISM's chance correction; None if there is none.

    `labels` counts samples by the uncorrected stratum and then the corrected one.
    """
    if data.uncorrected.empty:
        return None
    uncorrected = data.uncorrected[["sample_id", "stratum"]].rename(
        columns={"stratum": "uncorrected"}
    )
    labels = data.samples[["sample_id", "task", "pism_stratum"]].rename(
        columns={"pism_stratum": "corrected"}
    )
    labels = labels.merge(uncorrected, on="sample_id")
    assert len(labels) == len(data.samples), (
        f"{len(uncorrected)} uncorrected labels for {len(data.samples)} samples"
    )
    changed = labels[labels["uncorrected"] != labels["corrected"]].sort_values("sample_id")
    return {
        "samples": len(labels),
        "changed": len(changed),
        "labels": {
            str(stratum): {str(key): int(n) for key, n in rows["corrected"].value_counts().items()}
            for stratum, rows in labels.groupby("uncorrected")
        },
        "changed_by_task": {
            str(task): {
                "changed": int((rows["uncorrected"] != rows["corrected"]).sum()),
                "n": len(rows),
            }
            for task, rows in labels.groupby("task")
        },
        "first_changed": changed.head(MAX_CHANGED_SAMPLES).to_dict("records"),
    }


def label_change_table(report: dict[str, Any]) -> Table:
    """The uncorrected stratum by row, the corrected one by column."""
    labels: dict[str, dict[str, int]] = report["chance_correction"]["labels"]
    present = {*labels, *(stratum for row in labels.values() for stratum in row)}
    strata = [stratum for stratum in STRATUM_COLORS if stratum in present]
    return Table(
        ["without correction", *(f"corrected: {stratum}" for stratum in strata)],
        [
            [row, *(f"{labels.get(row, {}).get(column, 0):,}" for column in strata)]
            for row in strata
        ],
    )


def changed_by_task_table(report: dict[str, Any]) -> Table:
    """How many samples of each task change their stratum by the correction, most affected first."""
    tasks = report["chance_correction"]["changed_by_task"].items()
    return Table(
        ["task", "samples", "changed", "share"],
        [
            [task, f"{row['n']:,}", f"{row['changed']:,}", share(row["changed"], row["n"])]
            for task, row in sorted(tasks, key=lambda item: -item[1]["changed"] / item[1]["n"])
        ],
    )


def retest_table(report: dict[str, Any]) -> Table:
    """The share of samples that keep their label when generated again with other seeds."""
    rows, measures = [], report["retest"]["measures"]
    for measure, name in MEASURE_NAMES.items():
        if row := measures.get(measure):
            kept = f"{percent(row['share'])} % [{percent(row['low'])}, {percent(row['high'])}]"
            above = row["low"] > row["by_chance"]
            result = "above chance" if above else "not shown to be above chance"
            by_chance = percent_or_unknown(row["by_chance"])
            rows.append([name, f"{row['n']:,}", kept, by_chance, result])
    return Table(["measure", "samples", "keep their label", "by chance", "result"], rows)


def overlap_sentence(report: dict[str, Any]) -> str:
    """What the two selections among the retested samples have in common."""
    overlap = report["retest"]["chosen"]
    sentence = (
        f"Selecting from these {overlap['pool']:,} samples only takes {overlap['first']:,} with "
        f"the first responses and {overlap['second']:,} with the second; {overlap['common']:,} "
        f"are in both ({overlap['common_by_chance']:.1f} would be by chance)."
    )
    if overlap["first"] + overlap["second"] < MIN_OVERLAP_SAMPLES:
        sentence += " Too few to judge the selection: raise probe.retest_samples."
    return sentence


def funnel_sentences(report: dict[str, Any]) -> list[str]:
    """What a reader should know of the funnel besides its numbers."""
    funnel, sentences = report["funnel"], []
    if "ace" in funnel["steps"] and funnel["after_ace"] == funnel["after_cde"]:
        sentences.append(f"ACE dropped none of the {funnel['after_cde']:,} samples it examined.")
    if funnel["without_bias"]:
        sentences.append(
            f"{funnel['without_bias']:,} responses are too short for an ACE value. They do not "
            "count as biased."
        )
    if funnel["removed_easy"] > funnel["brought_in"]:
        sentences.append(
            f"{funnel['removed_easy']:,} easy samples were removed, but only "
            f"{funnel['candidates']:,} candidates could replace them; all of these were taken."
        )
    return sentences


def selecting_measures(report: dict[str, Any]) -> str:
    """The measures that selected the samples: `CDE, ACE and DRM`."""
    return join_words([MEASURE_NAMES[step] for step in report["funnel"]["steps"]])


def funnel_rows(funnel: dict[str, Any]) -> list[tuple[str, int, int, str]]:
    """(step, samples left, of these brought in, what happened to the others), in order."""
    left = funnel["after_ace"] - funnel["removed_easy"]
    by_cde = funnel["pool"] - funnel["after_cde"]
    by_ace = funnel["after_cde"] - funnel["after_ace"]
    cde = f"{by_cde:,} dropped: the image does not add enough"
    ace = f"{by_ace:,} dropped: the response depends on one token"
    easy = f"{funnel['removed_easy']:,} removed: always correct"
    added = f"{funnel['brought_in']:,} of {funnel['candidates']:,} candidates brought in"
    rows = {
        "cde": [("CDE: the image helps", funnel["after_cde"], 0, cde)],
        "ace": [("ACE: not biased", funnel["after_ace"], 0, ace)],
        "drm": [
            ("DRM: not easy", left, 0, easy),
            ("DRM: replaced", funnel["chosen"], funnel["brought_in"], added),
        ],
    }
    return [
        ("pool", funnel["pool"], 0, ""),
        *(row for step in rows if step in funnel["steps"] for row in rows[step]),
        ("trained on", funnel["chosen"], funnel["brought_in"], ""),
    ]


@svg_figure
def funnel_figure(report: dict[str, Any]) -> Figure | None:
    """One bar per step, from the pool to the samples that are trained on, with counts."""
    funnel = report["funnel"]
    if funnel is None:
        return None
    rows = funnel_rows(funnel)
    figure, grid = new_figure(8.6, 0.5 + 0.42 * len(rows))
    axes, pool = grid[0, 0], max(funnel["pool"], 1)
    for y, (_, left, added, rest) in enumerate(rows):
        axes.barh(y, pool, height=0.66, color=REMOVED_COLOR, alpha=0.55)
        axes.barh(y, left - added, height=0.66, color=LEFT_COLOR)
        axes.barh(y, added, left=left - added, height=0.66, color=ADDED_COLOR)
        inside = left > 0.12 * pool
        axes.text(left - 0.01 * pool if inside else left + 0.01 * pool, y, f"{left:,}",
                  ha="right" if inside else "left", va="center", fontweight="bold",
                  color="white" if inside else INK)  # fmt: skip
        axes.text(1.015 * pool, y, rest, va="center", color=FAINT, fontsize=8.5)
    name_rows(axes, range(len(rows)), [row[0] for row in rows])
    axes.set_xticks([])
    axes.set_xlim(0, 1.62 * pool)
    axes.spines["bottom"].set_visible(False)
    return figure
