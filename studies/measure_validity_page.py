"""The page of measure_validity.py: figures (SVG), tables and text, from the results alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as MplFigure
from matplotlib.ticker import PercentFormatter
from measure_validity_stats import FLAWS, GROUPS, MASKS, TITLES, Figure

from difftrain.report.plots import FAINT, INK, NO_METADATA, STRATUM_COLORS, STYLE_FILE, new_figure

SIDES = (("all", "#2f78b4", 0.14, "o"), ("solved", "#d1542b", -0.14, "D"))
TRUTH_COLORS = {"needs the image": "#2f78b4", "prior": "#d1542b", "noise": "#55585e"}
KIND_LINES = {"pixels": "-", "rectangle": "--", "patches": ":"}


def save(figure: MplFigure, path: Path) -> None:
    """Write the figure on white, the same bytes for the same numbers."""
    figure.savefig(path, format="svg", facecolor="white", metadata=NO_METADATA)


def plot_separation(separation_: dict[str, dict[str, Figure]], path: Path) -> None:
    """AUC of each measure with its interval, over all samples and over solved ones."""
    with mpl.rc_context(fname=STYLE_FILE):
        names = list(reversed(separation_))
        figure, axes = new_figure(7.6, 0.9 + 0.42 * len(names))
        axes.axvline(0.5, color=FAINT, linewidth=0.9, linestyle=(0, (3, 3)))
        for kind, color, shift, marker in SIDES:
            value = np.array([separation_[name][kind].value for name in names])
            low = value - np.array([separation_[name][kind].low for name in names])
            high = np.array([separation_[name][kind].high for name in names]) - value
            label = (
                "all samples"
                if kind == "all"
                else "only samples that the model solves at least once"
            )
            axes.errorbar(
                value, np.arange(len(names)) + shift, xerr=[low, high], fmt=marker, color=color,
                markersize=5, elinewidth=1.4, label=label, clip_on=False,
            )  # fmt: skip
        axes.set_yticks(range(len(names)), [TITLES[name] for name in names], color=INK)
        axes.set_xlim(0, 1)
        axes.set_xlabel("AUC: needs the image against prior (0.5: cannot tell), 95 % interval")
        axes.grid(axis="x")
        figure.legend(loc="outside upper left", ncols=2)
        save(figure, path)


def plot_matrix(axes: Axes, value: np.ndarray, rows: Sequence[str], columns: Sequence[str]) -> None:
    """Correlations as a colored table with the number in each cell; gray where there is none."""
    cold_to_warm = mpl.colormaps["RdBu_r"].with_extremes(bad="#eeeeee")
    axes.imshow(np.ma.masked_invalid(value), cmap=cold_to_warm, vmin=-1, vmax=1, aspect="auto")
    for (row, column), rho in np.ndenumerate(value):
        text = "" if np.isnan(rho) else f"{rho:+.2f}"
        color = "white" if abs(rho) > 0.6 else INK
        axes.text(column, row, text, ha="center", va="center", fontsize=8.5, color=color)
    axes.set_xticks(range(len(columns)), columns, rotation=35, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(rows)), rows)
    axes.tick_params(length=0, labelcolor=INK)
    axes.spines[:].set_visible(False)


def plot_difficulty(
    pool: dict[str, Figure], families: dict[str, dict[str, float]], path: Path
) -> None:
    """Spearman with gen_difficulty: each family, and all pooled within families."""
    with mpl.rc_context(fname=STYLE_FILE):
        names = list(pool)
        tasks = sorted({task for by_task in families.values() for task in by_task})
        value = np.array(
            [
                [*(families[name].get(task, np.nan) for task in tasks), pool[name].value]
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
    """Rank correlations between measures, and the strata of PISM against those of others."""
    with mpl.rc_context(fname=STYLE_FILE):
        titles = [TITLES[name].replace(" (pixels)", "") for name in names]
        widths = [1.7, *[1] * len(counts)]
        figure, grid = new_figure(10.4, 3.9, 1, len(widths), width_ratios=widths, squeeze=False)
        plot_matrix(grid[0, 0], rho, titles, titles)
        grid[0, 0].set_title("rank correlation of the values")
        for axes, (title, table) in zip(grid[0, 1:], counts.items(), strict=True):
            axes.imshow(table.to_numpy(), cmap="Blues", aspect="auto")
            largest = table.to_numpy().max()
            for (row, column), n in np.ndenumerate(table.to_numpy()):
                color = "white" if n > 0.55 * largest else INK
                axes.text(column, row, str(n), ha="center", va="center", color=color)
            axes.set_xticks(
                range(4), table.columns, rotation=35, ha="right", rotation_mode="anchor"
            )
            axes.set_yticks(range(4), table.index if axes is grid[0, 1] else [""] * 4)
            axes.tick_params(length=0, labelcolor=INK)
            axes.spines[:].set_visible(False)
            axes.set_title(f"PISM down, {title.removeprefix('PISM, ')} across")
        save(figure, path)


def plot_answer_spaces(frame: pd.DataFrame, path: Path) -> None:
    """PISM's strata by the number of possible answers, as published and chance-aware."""
    with mpl.rc_context(fname=STYLE_FILE):
        needs_image = frame[frame["truth"] == "needs the image"]
        groups = [name for name in GROUPS if (needs_image["group"] == name).any()]
        figure, axes = new_figure(8.2, 0.8 + 0.62 * len(groups))
        labels, positions = [], []
        for number, group in enumerate(groups):
            rows = needs_image[needs_image["group"] == group]
            for shift, name in ((-0.2, "pism"), (0.2, "pism_chance")):
                start, position = 0.0, number + shift
                positions.append(position)
                labels.append(f"{group} answers ({len(rows)})" if shift < 0 else "chance-aware")
                for stratum in ("easy", "medium", "hard", "unsolved"):
                    size = int((rows[f"{name}_stratum"] == stratum).sum())
                    bar = axes.barh(position, size / len(rows), left=start, height=0.36,
                                    color=STRATUM_COLORS[stratum], edgecolor="white",
                                    label=None if number or shift > 0 else stratum)  # fmt: skip
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


def plot_survival(frame: pd.DataFrame, ratios: Sequence[float], path: Path) -> None:
    """Share of samples of each truth that are still solved, by mask kind and masked share."""
    with mpl.rc_context(fname=STYLE_FILE):
        figure, axes = new_figure(7.6, 3.3)
        for truth, color in TRUTH_COLORS.items():
            rows = frame[frame["truth"] == truth]
            for name, kind in MASKS.items():
                share = [float((rows[name] > ratio + 1e-9).mean()) for ratio in ratios]
                axes.plot(ratios, share, color=color, linestyle=KIND_LINES[kind], linewidth=1.6,
                          label=f"{truth}, {kind}")  # fmt: skip
        axes.set_ylim(0, 1.02)
        axes.grid(axis="y")
        axes.xaxis.set_major_formatter(PercentFormatter(1, 0, " %"))
        axes.yaxis.set_major_formatter(PercentFormatter(1, 0, " %"))
        axes.set_xlabel("share of the image that is masked")
        axes.set_ylabel("samples correct at least once in ten")
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1))
        save(figure, path)


def write_figures(result: dict[str, Any], frame: pd.DataFrame, folder: Path) -> None:
    """All figures, beside the page."""
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
    plot_survival(frame, result["ratios"], Path(f"{prefix}_masks.svg"))


STRATA = ("easy", "medium", "hard", "unsolved")
EXPECTED = {
    "pism": "below 0",
    "pism_chance": "below 0",
    "pism_rectangle": "below 0",
    "pism_patches": "below 0",
    "drm": "above 0",
    "cde": "below 0",
    "cde_readable": "below 0",
}
MAX_COST_RATIO = 1.4
"""All measures together may need this many times the rollouts of PISM alone."""
TARGET_AUC = 0.9
"""The AUC that CDE should reach."""


def line(cells: Sequence[Any]) -> str:
    """A row of a Markdown table."""
    return "| " + " | ".join(map(str, cells)) + " |"


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """A Markdown table with an empty line around it."""
    return ["", line(head), line(["---"] * len(head)), *map(line, rows), ""]


def with_interval(figure: Figure, sign: str = "") -> str:
    """A statistic with its interval."""
    return f"{figure.value:{sign}.2f} [{figure.low:{sign}.2f}, {figure.high:{sign}.2f}]"


def compared_with(figure: Figure, middle: float) -> str:
    """What the interval says about the statistic and a middle value."""
    if figure.low > middle:
        return "above"
    return "below" if figure.high < middle else "cannot be told from"


def percent(share: float) -> str:
    """A share as percent."""
    return f"{100 * share:.0f} %"


def strata_counts(counts: dict[str, int]) -> str:
    """Strata as four numbers."""
    return " / ".join(str(counts[stratum]) for stratum in STRATA)


def separation(result: dict[str, Any]) -> list[str]:
    """Section 1: AUC."""
    rows = []
    for name, figures in result["separation"].items():
        all_, solved = figures["all"], figures["solved"]
        rows.append(
            [TITLES[name], with_interval(all_), all_.n, all_.left_out, with_interval(solved),
             solved.n, f"{compared_with(solved, 0.5)} chance"]
        )  # fmt: skip
    cde = result["separation"]["cde"]
    reached = {kind: "reached" if cde[kind].value >= TARGET_AUC else "missed" for kind in cde}
    return [
        "## 1. Does it separate samples that need the image from those that do not?",
        "",
        "AUC of needs-image over prior samples (the text alone gives the answer), each measure",
        "turned so that high means `needs the image`: low λ*, high ρ̄, high D, low log ψ, high",
        "D_diff. The noise family is left out. Of a sample that the model never answers correctly,",
        "measures of answers know nothing, so the second AUC leaves those out; CMAB has no value",
        "for them in any case. An AUC below 0.5 points the other way. PISM gets credit for what",
        "the model cannot answer (λ* = 0 counts as needing the image); its chance-aware form gives",
        "λ* = 0 to what the text alone answers, so it must turn around.",
        *table(
            ["measure", "AUC, all", "n", "no value", "AUC, solved at least once", "n", "of solved"],
            rows,
        ),
        "![separation](measure_validity_separation.svg)",
        "",
        f"The target for CDE is {TARGET_AUC}: {reached['all']} over all samples "
        f"({cde['all'].value:.2f}), {reached['solved']} over those solved at least once "
        f"({cde['solved'].value:.2f}). `Readable only` (ours, not a setting) compares correct "
        "answers among readable ones, with and without the image: this model often leaves out "
        "the answer's tags in count_plus, compare and bar (on purpose, as a base model may), and "
        "an answer without tags counts as incorrect on both sides. A sample without a readable "
        "answer on one side has no value there.",
        *FLAWS,
        *by_family(result),
    ]


def by_family(result: dict[str, Any]) -> list[str]:
    """The families one by one, the best answered first."""
    rows = [
        [family, each["n"], percent(each["with_image"]), percent(each["text_only"]),
         with_interval(each["cde"]), with_interval(each["pism"])]
        for family, each in result["families"].items()
    ]  # fmt: skip
    prior = [percent(result["prior"][key]) for key in ("with_image", "text_only")]
    return [
        "",
        "Each family against the prior samples, the best answered first: CDE sees only what the",
        "model can answer with the image and cannot answer without it.",
        *table(
            [
                "family", "n", "correct with image", "correct without", "AUC of CDE", "AUC of PISM",
            ],
            [*rows, ["prior itself", "", *prior, "", ""]],
        ),
    ]  # fmt: skip


def gen_difficulty(result: dict[str, Any]) -> list[str]:
    """Section 2: Spearman with the difficulty of the drawing."""
    rows = [
        [TITLES[name], with_interval(each, "+"), EXPECTED.get(name, "none"), each.n, each.left_out]
        for name, each in result["gen_difficulty"].items()
    ]
    return [
        "## 2. Does it rank samples by how hard they were drawn?",
        "",
        "Spearman with gen_difficulty (0 easiest, 1 hardest) within each family; pooled, it is the",
        "correlation of within-family ranks, so that differences between families cannot help. A",
        "family in which a measure is constant counts as one without relation. gen_difficulty is",
        "what we think is hard, not what this model finds hard; but it was taught to give up under",
        "masks, sooner on harder drawings, so PISM should find what we put there.",
        *table(["measure", "pooled, 95 %", "expected", "n", "no value"], rows),
        "![gen_difficulty](measure_validity_gen_difficulty.svg)",
    ]


def decisions(result: dict[str, Any]) -> list[str]:
    """Section 3: noise and prior."""
    by_truth = result["decisions"]
    names = ("pism", "pism_chance", "pism_rectangle", "pism_patches", "cmab", "drm")
    rows = [
        [TITLES[name], *(strata_counts(each[name]) for each in by_truth.values())] for name in names
    ]
    for key, title in (
        ("cde_kept", "CDE keeps (D > λ_c)"),
        ("ace_kept", "ACE keeps (max ψ ≤ λ_a)"),
        ("rap", "RAP selects"),
    ):
        rows.append([title, *(f"{each[key]} of {each['n']}" for each in by_truth.values())])
    shares = [percent(each["correct_text_only"]) for each in by_truth.values()]
    rows.append(["correct without the image", *shares])
    heads = [f"{truth} ({each['n']})" for truth, each in by_truth.items()]
    lines = [
        "## 3. What it does with noise, and what it decides",
        "",
        "Strata as easy / medium / hard / unsolved. Nobody can answer a noise sample.",
        *table(["measure", *heads], rows),
    ]
    if noise := by_truth.get("noise"):
        unsolved = ", ".join(f"{TITLES[name]} {noise[name]['unsolved']}" for name in names)
        lines.append(
            f"Noise called unsolved, of {noise['n']}: {unsolved}. A sample that the model cannot "
            "answer yet is called unsolved too, so no measure finds noise as such."
        )
    length = result["ace_with_length"]
    return [*lines, "", f"Spearman of ACE's value with the response's length: {length:+.2f}."]


def agreement(result: dict[str, Any]) -> list[str]:
    """Section 4: agreement."""
    titles = [TITLES[name] for name in result["compared"]]
    rows = [
        [title, *(f"{rho:+.2f} ({n})" for rho, n in zip(rhos, sizes, strict=True))]
        for title, rhos, sizes in zip(titles, result["rho"], result["rho_samples"], strict=True)
    ]
    strata = [
        [f"PISM and {name}", percent(each["same"]), percent(each["by_chance"]),
         f"{each['kappa']:+.2f}"]
        for name, each in result["agreement"].items()
    ]  # fmt: skip
    return [
        "## 4. Do the measures agree?",
        "",
        "Spearman of the values as they are (λ*, ρ̄, D, log ψ, D_diff), over the samples that both",
        "rate (their number in brackets).",
        *table(["", *titles], rows),
        "Strata of the measures that have them:",
        *table(["pair", "same stratum", "expected by chance", "kappa"], strata),
        "![agreement](measure_validity_agreement.svg)",
    ]


def answer_spaces(result: dict[str, Any]) -> list[str]:
    """Section 5: guessing."""
    rows = [
        [
            group,
            ", ".join(each["families"]),
            each["n"],
            percent(each["chance"]),
            percent(each["text_only"]),
            strata_counts(each["pism"]),
            strata_counts(each["pism_chance"]),
            each["changed"],
        ]
        for group, each in result["answer_spaces"].items()
    ]
    heads = ["answers", "families", "n", "chance", "text only", "PISM", "chance-aware", "changed"]
    return [
        "## 5. PISM and guessing, by the size of the answer space",
        "",
        "Needs-image samples only: without the image, nobody can do better than guess. `chance` is",
        "how often ten uniform guesses contain a correct one, which passes a mask ratio;",
        "`text only` is how often this model is correct without the image. Strata as easy / medium",
        "/ hard / unsolved. Chance-aware, unsolved also means: cannot be told from guessing.",
        *table(heads, rows),
        "![answers](measure_validity_answers.svg)",
    ]


def masks(result: dict[str, Any]) -> list[str]:
    """Section 6: mask kinds."""
    rows = []
    for name, kind in MASKS.items():
        auc = result["separation"][name]
        by_truth = result["decisions"].values()
        counts = {stratum: sum(each[name][stratum] for each in by_truth) for stratum in STRATA}
        rows.append(
            [kind, strata_counts(counts), with_interval(auc["all"]), with_interval(auc["solved"]),
             with_interval(result["gen_difficulty"][name], "+")]
        )  # fmt: skip
    return [
        "## 6. Three mask kinds",
        "",
        "The same full-image rollouts, other masks. Strata as easy / medium / hard / unsolved.",
        *table(["mask", "strata", "AUC, all", "AUC, solved", "with gen_difficulty"], rows),
        "![masks](measure_validity_masks.svg)",
    ]


def cost(result: dict[str, Any]) -> list[str]:
    """Section 7: generations and seconds."""
    rows = [
        [name, f"{each['rollouts']:.0f}", f"{each['per_sample']:.1f}",
         f"{each['attention_passes']:.0f}", f"{each['seconds']:.0f}", f"{each['ratio']:.2f}"]
        for name, each in result["cost"].items()
    ]  # fmt: skip
    ratio = result["cost"]["all together"]["ratio"]
    verdict = "within" if ratio <= MAX_COST_RATIO else "above"
    minutes = sum(step["cpu"] for step in result["step_cost"].values()) / 60
    heads = ["measure", "rollouts", "per sample", "attention passes", "processor seconds"]
    return [
        "## 7. What it costs",
        "",
        "Rollouts are counted exactly, by replaying each measure's own schedule; attention passes",
        "are teacher-forced passes over one response. Seconds are processor seconds, on one",
        "thread, at the measured cost of a rollout and of a pass.",
        *table([*heads, "times PISM's rollouts"], rows),
        f"All together (PISM, CMAB, CDE, ACE and DRM) need {ratio:.2f} times the rollouts of PISM "
        f"alone, {verdict} the limit of {MAX_COST_RATIO}. Probing for this page took "
        f"{minutes:.0f} processor minutes.",
    ]


def page(result: dict[str, Any], samples: int, command: str) -> str:
    """The whole page."""
    lines = [
        "# What does each measure measure?",
        "",
        f"`{command}`",
        "",
        f"The shapes world, {samples} samples whose truth was drawn: whether the image is needed,",
        "how hard the drawing is (gen_difficulty), how many answers are possible, and one family",
        "that nobody can answer (noise). One tiny model, one seed, temperature 0.7, ten draws at a",
        "mask ratio, M = 5. Intervals are 95 % bootstrap intervals over samples. What holds for",
        "this model and these drawings need not hold for yours; any setting may be given.",
        "",
    ]
    sections = (
        separation, gen_difficulty, decisions, agreement, answer_spaces, masks, cost
    )  # fmt: skip
    for section in sections:
        lines += [*section(result), ""]
    return "\n".join(lines)
