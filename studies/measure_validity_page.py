"""Write the page of measure_validity.py: figures (SVG), tables and text, from its results.

The truth of a generated sample is "needs the image", "prior" (the text alone gives the answer) or
"noise" (nobody can answer). "Solved" samples are those that the model answers correctly at least
once. A stratum (easy, medium, hard, unsolved) is a range of a measure's values. The difficulty
measures, with the symbols of their values on the page, are

* PISM (λ*): the first share of the image, if masked, at which the model fails (Qi et al. 2026)
* CMAB (ρ̄): attention to the image, relative to attention to the text (Qi et al. 2026)
* CDE (D): accuracy with the image minus accuracy without it (the paper RAP)
* ACE (log ψ): how biased attention is towards one token of the response (RAP)
* DRM (D_diff): one minus the accuracy with the image (RAP)
* pass rate (p): the accuracy with the image, as a posterior mean (ours)
* image gain: log-probability of the gold answer with the image minus without (ours)

RAP selects samples by CDE, ACE and DRM.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from measure_validity_stats import ANSWER_GROUPS, CAVEATS, MASK_KINDS, TITLES, Statistic

from difftrain.report.plots import FAINT, INK, NO_METADATA, STRATUM_COLORS, STYLE_FILE, new_figure

SAMPLE_SETS = (("all", "#2f78b4", 0.14, "o"), ("solved", "#d1542b", -0.14, "D"))
"""A row for each set in plot_separation: its name, color, vertical shift and marker."""
TRUTH_COLORS = {"needs the image": "#2f78b4", "prior": "#d1542b", "noise": "#55585e"}
MASK_LINE_STYLES = {"pixels": "-", "rectangle": "--", "patches": ":"}


def save(figure: Figure, path: Path) -> None:
    """Write the figure on white. Equal numbers give equal bytes, because there is no metadata."""
    figure.savefig(path, format="svg", facecolor="white", metadata=NO_METADATA)


def plot_separation(by_measure: dict[str, dict[str, Statistic]], path: Path) -> None:
    """Plot the AUC of each measure with its interval, over all samples and over solved ones."""
    with mpl.rc_context(fname=STYLE_FILE):
        names = list(reversed(by_measure))
        figure, axes = new_figure(7.6, 0.9 + 0.42 * len(names))
        axes.axvline(0.5, color=FAINT, linewidth=0.9, linestyle=(0, (3, 3)))
        for sample_set, color, shift, marker in SAMPLE_SETS:
            value = np.array([by_measure[name][sample_set].value for name in names])
            low = value - np.array([by_measure[name][sample_set].low for name in names])
            high = np.array([by_measure[name][sample_set].high for name in names]) - value
            label = (
                "all samples"
                if sample_set == "all"
                else "only samples that the model solves at least once"
            )
            axes.errorbar(
                value, np.arange(len(names)) + shift, xerr=[low, high], fmt=marker, color=color,
                markersize=5, elinewidth=1.4, label=label, clip_on=False,
            )  # fmt: skip
        axes.set_yticks(range(len(names)), [TITLES[name] for name in names], color=INK)
        axes.set_xlim(0, 1)
        axes.set_xlabel("AUC: needs the image against prior (0.5: no separation), 95 % interval")
        axes.grid(axis="x")
        figure.legend(loc="outside upper left", ncols=2)
        save(figure, path)


def plot_matrix(axes: Axes, value: np.ndarray, rows: Sequence[str], columns: Sequence[str]) -> None:
    """Plot correlations as a colored table with the number in each cell; gray if there is none."""
    cold_to_warm = mpl.colormaps["RdBu_r"].with_extremes(bad="#eeeeee")
    axes.imshow(np.ma.masked_invalid(value), cmap=cold_to_warm, vmin=-1, vmax=1, aspect="auto")
    for (row, column), rho in np.ndenumerate(value):
        text = "" if np.isnan(rho) else f"{rho:+.2f}"
        color = "white" if abs(rho) > 0.6 else INK  # the cells of strong correlations are dark
        axes.text(column, row, text, ha="center", va="center", fontsize=8.5, color=color)
    axes.set_xticks(range(len(columns)), columns, rotation=35, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(rows)), rows)
    axes.tick_params(length=0, labelcolor=INK)
    axes.spines[:].set_visible(False)


def plot_difficulty(
    pooled: dict[str, Statistic], families: dict[str, dict[str, float]], path: Path
) -> None:
    """Plot rank correlations with gen_difficulty, the difficulty that the generator used."""
    with mpl.rc_context(fname=STYLE_FILE):
        names = list(pooled)
        tasks = sorted({task for by_task in families.values() for task in by_task})
        value = np.array(
            [
                [*(families[name].get(task, np.nan) for task in tasks), pooled[name].value]
                for name in names
            ]
        )
        figure, axes = new_figure(8.6, 1.1 + 0.36 * len(names))
        plot_matrix(axes, value, [TITLES[name] for name in names], [*tasks, "pooled"])
        axes.axvline(len(tasks) - 0.5, color="white", linewidth=5)
        save(figure, path)


def plot_agreement(
    names: Sequence[str], rho: np.ndarray, counts: dict[str, pd.DataFrame], path: Path
) -> None:
    """Plot rank correlations between measures, and PISM's strata against those of others."""
    with mpl.rc_context(fname=STYLE_FILE):
        titles = [TITLES[name].replace(" (pixels)", "") for name in names]
        widths = [0.3 * len(names), *[1] * len(counts)]
        figure, panels = new_figure(
            2.5 * sum(widths), 4.4, 1, len(widths), width_ratios=widths, squeeze=False
        )
        plot_matrix(panels[0, 0], rho, titles, titles)
        panels[0, 0].set_title("rank correlation of the values")
        for axes, (title, table) in zip(panels[0, 1:], counts.items(), strict=True):
            axes.imshow(table.to_numpy(), cmap="Blues", aspect="auto")
            largest = table.to_numpy().max()
            for (row, column), count in np.ndenumerate(table.to_numpy()):
                color = "white" if count > 0.55 * largest else INK  # large counts: dark cells
                axes.text(column, row, str(count), ha="center", va="center", color=color)
            axes.set_xticks(
                range(4), table.columns, rotation=35, ha="right", rotation_mode="anchor"
            )
            axes.set_yticks(range(4), table.index if axes is panels[0, 1] else [""] * 4)
            axes.tick_params(length=0, labelcolor=INK)
            axes.spines[:].set_visible(False)
            axes.set_title(f"PISM down,\n{title.removeprefix('PISM, ')} across")
        save(figure, path)


def plot_answer_spaces(frame: pd.DataFrame, path: Path) -> None:
    """Plot PISM's strata by the number of possible answers.

    Each group has two bars: without the correction for correct guesses, and with it.
    """
    with mpl.rc_context(fname=STYLE_FILE):
        needs_image = frame[frame["truth"] == "needs the image"]
        groups = [name for name in ANSWER_GROUPS if (needs_image["group"] == name).any()]
        figure, axes = new_figure(8.2, 0.8 + 0.62 * len(groups))
        labels, positions = [], []
        for index, group in enumerate(groups):
            rows = needs_image[needs_image["group"] == group]
            for shift, name in ((-0.2, "pism"), (0.2, "pism_chance")):
                start, position = 0.0, index + shift
                positions.append(position)
                labels.append(f"{group} answers ({len(rows)})" if shift < 0 else "chance-aware")
                for stratum in ("easy", "medium", "hard", "unsolved"):
                    size = int((rows[f"{name}_stratum"] == stratum).sum())
                    bar = axes.barh(position, size / len(rows), left=start, height=0.36,
                                    color=STRATUM_COLORS[stratum], edgecolor="white",
                                    label=None if index or shift > 0 else stratum)  # fmt: skip
                    label_color = INK if stratum == "easy" else "white"
                    text = str(size) if size / len(rows) > 0.03 else ""
                    axes.bar_label(bar, [text], label_type="center", fontsize=8, color=label_color)
                    start += size / len(rows)
        axes.set_yticks(positions, labels, color=INK)
        axes.invert_yaxis()
        axes.xaxis.set_major_formatter(PercentFormatter(1, 0, " %"))
        axes.set_xlim(0, 1)
        axes.tick_params(axis="y", length=0)
        figure.legend(loc="outside upper left", ncols=4, handlelength=1, handleheight=1)
        save(figure, path)


def plot_solved_share(frame: pd.DataFrame, ratios: Sequence[float], path: Path) -> None:
    """Plot the share of samples that are still solved, by truth, mask kind and masked share.

    Here a sample is solved if one of its ten draws (responses) at the mask ratio is correct.
    """
    with mpl.rc_context(fname=STYLE_FILE):
        figure, axes = new_figure(7.6, 3.3)
        for truth, color in TRUTH_COLORS.items():
            rows = frame[frame["truth"] == truth]
            for name, kind in MASK_KINDS.items():
                # 1e-9 lets equal ratios differ by rounding.
                share = [float((rows[name] > ratio + 1e-9).mean()) for ratio in ratios]
                axes.plot(ratios, share, color=color, linestyle=MASK_LINE_STYLES[kind],
                          linewidth=1.6, label=f"{truth}, {kind}")  # fmt: skip
        axes.set_ylim(0, 1.02)
        axes.grid(axis="y")
        axes.xaxis.set_major_formatter(PercentFormatter(1, 0, " %"))
        axes.yaxis.set_major_formatter(PercentFormatter(1, 0, " %"))
        axes.set_xlabel("share of the image that is masked")
        axes.set_ylabel("samples correct at least once in ten")
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1))
        save(figure, path)


def write_figures(result: dict[str, Any], frame: pd.DataFrame, folder: Path) -> None:
    """Write all figures into the folder of the page."""
    folder.mkdir(parents=True, exist_ok=True)
    prefix = folder / "measure_validity"
    plot_separation(result["separation"], Path(f"{prefix}_separation.svg"))
    plot_difficulty(
        result["gen_difficulty"],
        result["gen_difficulty_by_family"],
        Path(f"{prefix}_gen_difficulty.svg"),
    )
    plot_agreement(
        result["compared"], result["rho"], result["confusion"], Path(f"{prefix}_agreement.svg")
    )
    plot_answer_spaces(frame, Path(f"{prefix}_answers.svg"))
    plot_solved_share(frame, result["ratios"], Path(f"{prefix}_masks.svg"))


STRATA = ("easy", "medium", "hard", "unsolved")
EXPECTED_SIGN = {
    "pism": "below 0",
    "pism_chance": "below 0",
    "pism_rectangle": "below 0",
    "pism_patches": "below 0",
    "drm": "above 0",
    "cde": "below 0",
    "cde_readable": "below 0",
    "pass_rate": "below 0",
}
"""The sign that a measure's correlation with gen_difficulty should have: the model fails earlier on
harder samples, and its accuracy is lower. CMAB, ACE and image gain have no expected sign."""
MAX_COST_RATIO = 1.4
"""This study's limit: all measures together need at most this many times PISM's rollouts."""
TARGET_AUC = 0.9
"""The AUC that this study sets as CDE's target."""


def line(cells: Sequence[Any]) -> str:
    """A row of a Markdown table."""
    return "| " + " | ".join(map(str, cells)) + " |"


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """A Markdown table with an empty line before and after it."""
    return ["", line(head), line(["---"] * len(head)), *map(line, rows), ""]


def with_interval(statistic: Statistic, sign: str = "") -> str:
    """A statistic with its interval, such as `0.81 [0.75, 0.86]`."""
    low, high = statistic.low, statistic.high
    return f"{statistic.value:{sign}.2f} [{low:{sign}.2f}, {high:{sign}.2f}]"


def compared_with_chance(auc: Statistic) -> str:
    """Says whether the interval of an AUC is above or below 0.5, or contains it."""
    if auc.low > 0.5:
        return "above chance"
    return "below chance" if auc.high < 0.5 else "no difference from chance shown"


def percent(share: float) -> str:
    """A share as percent."""
    return f"{100 * share:.0f} %"


def strata_counts(counts: dict[str, int]) -> str:
    """The counts of the four strata, such as `12 / 3 / 5 / 0`."""
    return " / ".join(str(counts[stratum]) for stratum in STRATA)


def separation(result: dict[str, Any]) -> list[str]:
    """Section 1: the AUC of each measure."""
    rows = []
    for name, aucs in result["separation"].items():
        all_, solved = aucs["all"], aucs["solved"]
        rows.append(
            [TITLES[name], with_interval(all_), all_.n, all_.left_out, with_interval(solved),
             solved.n, compared_with_chance(solved)]
        )  # fmt: skip
    cde = result["separation"]["cde"]
    reached = {kind: "reached" if cde[kind].value >= TARGET_AUC else "missed" for kind in cde}
    return [
        "## 1. Does it separate samples that need the image from those that do not?",
        "",
        "AUC of samples that need the image over prior samples, which the text alone answers. The",
        "sign of each measure is set so that high means `needs the image`: a low λ* (PISM), a high",
        "ρ̄ (CMAB), a high D (CDE), a low log ψ (ACE), a high D_diff (DRM), a low pass rate, a high",
        "image gain. Noise samples (nobody can answer them) are left out. A measure of responses",
        "says nothing about a sample that the model never answers correctly, so the second AUC",
        "leaves these samples out; CMAB has",
        "no value for them anyway. An AUC below 0.5 means that the measure ranks the other way.",
        "Samples that the model cannot answer raise PISM's AUC (their λ* = 0",
        "counts as needing the image). Chance-aware PISM (with the chance correction) gives λ* = 0",
        "to samples that the text alone answers, so its order must be reversed.",
        *table(
            [
                "measure",
                "AUC, all",
                "n",
                "no value",
                "AUC, solved at least once",
                "n",
                "solved: against chance",
            ],
            rows,
        ),
        "![separation](measure_validity_separation.svg)",
        "",
        f"The target for CDE is {TARGET_AUC}: {reached['all']} over all samples "
        f"({cde['all'].value:.2f}), {reached['solved']} over those solved at least once "
        f"({cde['solved'].value:.2f}). `Parsable only` (for this page; not a setting) is CDE over "
        "the responses that can be parsed; a response that cannot be parsed counts as incorrect. "
        "`Parsable only` has no value for a sample without a parsable response, with or without "
        "the image.",
        *CAVEATS,
        "",
        "Image gain needs no response: it is how much more likely the image makes the gold answer.",
        "Scored is the answer after an empty thought or, with `rationale`",
        "(difficulty.image_gain.target), the generator's rationale and the answer. The tiny model",
        "reads the image while it thinks, so only the second can show that it uses the image.",
        *by_family(result),
    ]


def by_family(result: dict[str, Any]) -> list[str]:
    """The families one by one, beginning with the one that is answered best."""
    rows = [
        [family, values["n"], percent(values["with_image"]), percent(values["text_only"]),
         with_interval(values["cde"]), with_interval(values["pism"])]
        for family, values in result["families"].items()
    ]  # fmt: skip
    prior_shares = [percent(result["prior"][key]) for key in ("with_image", "text_only")]
    return [
        "",
        "Each family against the prior samples, beginning with the family that is answered best.",
        "CDE is high only for what the model answers with the image but not without it.",
        *table(
            [
                "family", "n", "correct with image", "correct without", "AUC of CDE", "AUC of PISM",
            ],
            [*rows, ["prior itself", "", *prior_shares, "", ""]],
        ),
    ]  # fmt: skip


def gen_difficulty(result: dict[str, Any]) -> list[str]:
    """Section 2: rank correlation with the known difficulty."""
    rows = [
        [
            TITLES[name],
            with_interval(rho, "+"),
            EXPECTED_SIGN.get(name, "none"),
            rho.n,
            rho.left_out,
        ]
        for name, rho in result["gen_difficulty"].items()
    ]
    return [
        "## 2. Does it rank samples by their known difficulty?",
        "",
        "Spearman's correlation with gen_difficulty (0 easiest, 1 hardest) within each family.",
        "The pooled value is the correlation of within-family ranks, so that differences between",
        "families cannot help. A family in which a measure is constant counts as uncorrelated.",
        "gen_difficulty is what we think is hard, not what this model finds hard: the size and",
        "contrast of shapes, or how rarely pretraining gave a sign its true name.",
        *table(["measure", "pooled, 95 %", "expected", "n", "no value"], rows),
        "![gen_difficulty](measure_validity_gen_difficulty.svg)",
    ]


def decisions(result: dict[str, Any]) -> list[str]:
    """Section 3: strata and selections by truth."""
    by_truth = result["decisions"]
    names = ("pism", "pism_chance", "pism_rectangle", "pism_patches", "cmab", "drm", "pass_rate")
    rows = [
        [TITLES[name], *(strata_counts(row[name]) for row in by_truth.values())] for name in names
    ]
    for key, title in (
        ("cde_kept", "CDE keeps (D > λ_c)"),
        ("ace_kept", "ACE keeps (max ψ ≤ λ_a)"),
        ("rap", "RAP selects"),
    ):
        rows.append([title, *(f"{row[key]} of {row['n']}" for row in by_truth.values())])
    shares = [percent(row["correct_text_only"]) for row in by_truth.values()]
    rows.append(["correct without the image", *shares])
    heads = [f"{truth} ({row['n']})" for truth, row in by_truth.items()]
    lines = [
        "## 3. Which samples does it select, and what about noise?",
        "",
        "Strata as easy / medium / hard / unsolved. Nobody can answer a noise sample. λ_c and λ_a",
        "are the thresholds of CDE and ACE.",
        *table(["measure", *heads], rows),
    ]
    if noise := by_truth.get("noise"):
        unsolved = ", ".join(f"{TITLES[name]} {noise[name]['unsolved']}" for name in names)
        lines.append(
            f"Of {noise['n']} noise samples, this many are unsolved: {unsolved}. Samples that the "
            "model cannot answer yet are unsolved, too, so no measure identifies noise."
        )
    length = result["ace_with_length"]
    return [*lines, "", f"Spearman of ACE's value with the response's length: {length:+.2f}."]


def agreement(result: dict[str, Any]) -> list[str]:
    """Section 4: agreement of the measures."""
    titles = [TITLES[name] for name in result["compared"]]
    rows = [
        [title, *(f"{rho:+.2f} ({n})" for rho, n in zip(rhos, sizes, strict=True))]
        for title, rhos, sizes in zip(titles, result["rho"], result["rho_samples"], strict=True)
    ]
    strata = [
        [f"PISM and {name}", percent(pair["same"]), percent(pair["by_chance"]),
         f"{pair['kappa']:+.2f}"]
        for name, pair in result["agreement"].items()
    ]  # fmt: skip
    return [
        "## 4. Do the measures agree?",
        "",
        "Spearman's rank correlation of the values (λ* of PISM, ρ̄ of CMAB, D of CDE, log ψ of ACE,",
        "D_diff of DRM; signs not changed), over the samples for which both measures have a value",
        "(their number in brackets).",
        *table(["", *titles], rows),
        "Agreement of the strata, for measures that have strata:",
        *table(["pair", "same stratum", "expected by chance", "kappa"], strata),
        "![agreement](measure_validity_agreement.svg)",
    ]


def answer_spaces(result: dict[str, Any]) -> list[str]:
    """Section 5: PISM and guessing."""
    rows = [
        [
            group,
            ", ".join(values["families"]),
            values["n"],
            percent(values["chance"]),
            percent(values["text_only"]),
            strata_counts(values["pism"]),
            strata_counts(values["pism_chance"]),
            values["changed"],
        ]
        for group, values in result["answer_spaces"].items()
    ]
    heads = ["answers", "families", "n", "chance", "text only", "PISM", "chance-aware", "changed"]
    return [
        "## 5. PISM and guessing, by the size of the answer space",
        "",
        "Only samples that need the image; without it, nobody can do better than guess. `chance`",
        "is how often ten uniform guesses contain a correct one, so that a mask ratio passes;",
        "`text only` is how often this model is correct without the image. Strata as easy / medium",
        "/ hard / unsolved. With chance correction, unsolved can also mean that correct responses",
        "look like guesses.",
        *table(heads, rows),
        "![answers](measure_validity_answers.svg)",
    ]


def masks(result: dict[str, Any]) -> list[str]:
    """Section 6: mask kinds."""
    rows = []
    for name, kind in MASK_KINDS.items():
        auc = result["separation"][name]
        by_truth = result["decisions"].values()
        counts = {stratum: sum(row[name][stratum] for row in by_truth) for stratum in STRATA}
        rows.append(
            [kind, strata_counts(counts), with_interval(auc["all"]), with_interval(auc["solved"]),
             with_interval(result["gen_difficulty"][name], "+")]
        )  # fmt: skip
    return [
        "## 6. Three mask kinds",
        "",
        "The full-image rollouts are the same for all. Strata as easy / medium / hard / unsolved.",
        *table(["mask", "strata", "AUC, all", "AUC, solved", "with gen_difficulty"], rows),
        "![masks](measure_validity_masks.svg)",
    ]


def costs(result: dict[str, Any]) -> list[str]:
    """Section 7: rollouts and seconds."""
    rows = [
        [name, f"{cost['rollouts']:.0f}", f"{cost['per_sample']:.1f}",
         f"{cost['forward_passes']:.0f}", f"{cost['seconds']:.0f}", f"{cost['ratio']:.2f}"]
        for name, cost in result["cost"].items()
    ]  # fmt: skip
    ratio = result["cost"]["all together"]["ratio"]
    verdict = "within" if ratio <= MAX_COST_RATIO else "above"
    minutes = sum(step["cpu"] for step in result["step_cost"].values()) / 60
    heads = ["measure", "rollouts", "per sample", "forward passes", "processor seconds"]
    return [
        "## 7. What it costs",
        "",
        "Rollouts are those that each measure alone needs; forward passes are teacher-forced, over",
        "one response (CMAB, ACE) or one gold answer (image gain, with and without the image).",
        "Seconds are processor seconds on one thread, from the measured average cost of a rollout",
        "and of an attention pass; those of the image gain are measured. Beside other measures the",
        "pass rate needs no rollout of its own.",
        *table([*heads, "times PISM's rollouts"], rows),
        f"All together (PISM, CMAB, CDE, ACE and DRM) need {ratio:.2f} times the rollouts of PISM "
        f"alone, {verdict} the limit of {MAX_COST_RATIO}. Probing for this page took "
        f"{minutes:.0f} processor minutes.",
    ]


def page(result: dict[str, Any], samples: int, command: str) -> str:
    """The whole page."""
    lines = [
        "# What do the difficulty measures measure?",
        "",
        f"`{command}`",
        "",
        f"{samples} generated samples (data=shapes) whose truth is known: whether the image is",
        "needed, how difficult it is (gen_difficulty), and how many answers are possible. One",
        "family can be answered by nobody (noise), one from the text alone (prior). One tiny",
        "model, one seed, temperature 0.7, ten draws at each mask ratio, M = 5 draws without the",
        "image. Intervals are 95 % bootstrap",
        "intervals over samples. Other models and data may give other results; the command takes",
        "any setting.",
        "",
    ]
    sections = (
        separation, gen_difficulty, decisions, agreement, answer_spaces, masks, costs
    )  # fmt: skip
    for section in sections:
        lines += [*section(result), ""]
    return "\n".join(lines)
