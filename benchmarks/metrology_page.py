"""The page of metrology.py: tables, figures and what they mean, from the figures alone."""

from collections.abc import Sequence
from typing import Any

from metrology_truth import MASKS, PLANTED, TITLES, Figure

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
LIMIT = 1.4
"""All measures together may ask this many times what PISM asks alone."""
ENOUGH = 0.9
"""The AUC that CDE should reach."""


def line(cells: Sequence[Any]) -> str:
    """A row of a Markdown table."""
    return "| " + " | ".join(map(str, cells)) + " |"


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """A Markdown table with an empty line around it."""
    return ["", line(head), line(["---"] * len(head)), *map(line, rows), ""]


def told(found: Figure, sign: str = "") -> str:
    """A statistic with its interval."""
    form = f"{{:{sign}.2f}}"
    spread = f"[{form}, {form}]".format(found.low, found.high)
    return f"{form.format(found.value)} {spread}"


def verdict(found: Figure, middle: float) -> str:
    """What the interval allows to say."""
    if found.low > middle:
        return "above"
    return "below" if found.high < middle else "cannot be told from"


def separation(result: dict[str, Any]) -> list[str]:
    """Section 1: AUC."""
    rows = []
    for name, found in result["separation"].items():
        whole, solved = found["all"], found["solved"]
        rows.append(
            [TITLES[name], told(whole), whole.n, whole.left_out, told(solved), solved.n,
             f"{verdict(solved, 0.5)} luck"]
        )  # fmt: skip
    cde = result["separation"]["cde"]
    reached = {kind: "reached" if cde[kind].value >= ENOUGH else "missed" for kind in cde}
    return [
        "## 1. Does it tell samples that need the picture from those that do not?",
        "",
        "AUC of needs-picture over prior samples (the text alone gives the answer), each measure",
        "turned so that high means `needs the picture`: low λ*, high ρ̄, high D, low log ψ, high",
        "D_diff. The noise family is left out. A sample that the model never answers right gives",
        "every measure of answers nothing to hold on to, so the second AUC leaves those out.",
        "CMAB has no value for them in any case. An AUC below 0.5 points the other way. PISM gets",
        "credit for what the model cannot answer (λ* = 0 counts as needing the picture); its",
        "chance-aware form gives λ* = 0 to what the words alone answer, so it must turn around.",
        *table(
            ["measure", "AUC, all", "n", "no value", "AUC, solved at least once", "n", "of solved"],
            rows,
        ),
        "![separation](metrology_separation.svg)",
        "",
        f"CDE was asked to reach {ENOUGH}: {reached['all']} over all samples "
        f"({cde['all'].value:.2f}), {reached['solved']} over those solved at least once "
        f"({cde['solved'].value:.2f}). `Readable only` (ours, not a setting) compares right "
        "answers among readable ones, with and without the picture: this model often "
        "leaves out the answer's tags in count_plus, compare and bar (on purpose, as a base "
        "model may), and an answer without tags counts as wrong on both sides. A sample without "
        "a readable answer on one side has no value there.",
        *PLANTED,
        *by_family(result),
    ]


def by_family(result: dict[str, Any]) -> list[str]:
    """The families one by one, the best answered first."""
    rows = [
        [family, each["n"], f"{100 * each['sighted']:.0f} %", f"{100 * each['blind']:.0f} %",
         told(each["cde"]), told(each["pism"])]
        for family, each in result["families"].items()
    ]  # fmt: skip
    prior = [f"{100 * result['prior'][key]:.0f} %" for key in ("sighted", "blind")]
    return [
        "",
        "Family by family against the prior samples, the best answered first: CDE sees only what",
        "the model can do with the picture and cannot do without.",
        *table(
            ["family", "n", "right with", "right without", "AUC of CDE", "AUC of PISM"],
            [*rows, ["prior itself", "", *prior, "", ""]],
        ),
    ]


def knob(result: dict[str, Any]) -> list[str]:
    """Section 2: Spearman with the knob."""
    rows = [
        [TITLES[name], told(found, "+"), EXPECTED.get(name, "none"), found.n, found.left_out]
        for name, found in result["knob"].items()
    ]
    return [
        "## 2. Does it rank samples by how hard they were drawn?",
        "",
        "Spearman with the knob (0 simplest, 1 hardest) within each family; pooled, it is the",
        "correlation of within-family ranks, so that differences between families cannot help. A",
        "family in which a measure is constant weighs as one without relation. A knob is what we",
        "think is hard, not what this model finds hard; but under masks it was taught to give up",
        "sooner the higher the knob, so PISM should find what we put there.",
        *table(["measure", "pooled, 95 %", "expected", "n", "no value"], rows),
        "![knob](metrology_knob.svg)",
    ]


def share(cell: dict[str, int]) -> str:
    """Strata as four numbers."""
    return " / ".join(str(cell[each]) for each in STRATA)


def decisions(result: dict[str, Any]) -> list[str]:
    """Section 3: noise and prior."""
    groups = result["decisions"]
    names = ("pism", "pism_chance", "pism_rectangle", "pism_patches", "cmab", "drm")
    rows = [[TITLES[name], *(share(each[name]) for each in groups.values())] for name in names]
    for key, title in (
        ("cde_kept", "CDE keeps (D > λ_c)"),
        ("ace_kept", "ACE keeps (max ψ ≤ λ_a)"),
        ("rap", "RAP chooses"),
    ):
        rows.append([title, *(f"{each[key]} of {each['n']}" for each in groups.values())])
    rows.append(
        ["right without the picture"]
        + [f"{100 * each['right_without_picture']:.0f} %" for each in groups.values()]
    )
    noise = groups.get("noise")
    lines = [
        "## 3. What it does with noise, and what it decides",
        "",
        "Strata as easy / medium / hard / unsolved. Nobody can answer a noise sample.",
        *table(["measure", *(f"{name} ({each['n']})" for name, each in groups.items())], rows),
    ]
    if noise:
        unsolved = {name: noise[name]["unsolved"] for name in names}
        caught = ", ".join(f"{TITLES[name]} {number}" for name, number in unsolved.items())
        lines.append(
            f"Noise called unsolved, of {noise['n']}: {caught}. Unsolved is also what a sample "
            "is called that the model cannot answer yet, so no measure finds noise as such."
        )
    length = result["ace_with_length"]
    lines += [
        "",
        f"ACE's value ranks with the length of the response: Spearman {length:+.2f}.",
    ]
    return lines


def agreement(result: dict[str, Any]) -> list[str]:
    """Section 4: agreement."""
    names = result["agreeing"]
    titles = [TITLES[name] for name in names]
    rows = [
        [
            titles[row],
            *(
                f"{result['rho'][row][column]:+.2f} ({result['rho_samples'][row][column]})"
                for column in range(len(names))
            ),
        ]
        for row in range(len(names))
    ]
    strata = [
        [f"PISM and {name}", *(f"{100 * each[key]:.0f} %" for key in ("same", "by_luck")),
         f"{each['kappa']:+.2f}"]
        for name, each in result["agreement"].items()
    ]  # fmt: skip
    return [
        "## 4. Do the measures agree?",
        "",
        "Spearman of the values as they are (λ*, ρ̄, D, log ψ, D_diff), over the samples that both",
        "place (their number in brackets).",
        *table(["", *titles], rows),
        "Strata of the measures that have them:",
        *table(["pair", "same stratum", "by luck alone", "kappa"], strata),
        "![agreement](metrology_agreement.svg)",
    ]


def answer_spaces(result: dict[str, Any]) -> list[str]:
    """Section 5: guessing."""
    rows = [
        [
            group,
            ", ".join(each["families"]),
            each["n"],
            f"{100 * each['luck']:.0f} %",
            f"{100 * each['blind']:.0f} %",
            share(each["pism"]),
            share(each["pism_chance"]),
            each["changed"],
        ]
        for group, each in result["answer_spaces"].items()
    ]
    return [
        "## 5. PISM and guessing, by the size of the answer space",
        "",
        "Needs-picture samples only: with the picture gone, nobody can do better than guess.",
        "`luck` is how often ten even guesses hold a right one, which passes a rung; `blind` is",
        "how often this model is right without the picture. Strata as easy / medium / hard /",
        "unsolved. Chance-aware, unsolved also means: cannot be told from guessing.",
        *table(
            ["answers", "families", "n", "luck", "blind", "PISM", "chance-aware", "changed"], rows
        ),
        "![answers](metrology_answers.svg)",
    ]


def masks(result: dict[str, Any]) -> list[str]:
    """Section 6: mask kinds."""
    rows = []
    for name, kind in MASKS.items():
        whole = result["separation"][name]
        counts = {
            each: sum(group[name][each] for group in result["decisions"].values())
            for each in STRATA
        }
        rows.append(
            [kind, share(counts), told(whole["all"]), told(whole["solved"]),
             told(result["knob"][name], "+")]
        )  # fmt: skip
    return [
        "## 6. Three mask kinds",
        "",
        "The same whole-picture answers, other masks. Strata as easy / medium / hard / unsolved.",
        *table(["mask", "strata", "AUC, all", "AUC, solved", "with the knob"], rows),
        "![masks](metrology_masks.svg)",
    ]


def cost(result: dict[str, Any]) -> list[str]:
    """Section 7: generations and seconds."""
    rows = [
        [name, f"{each['answers']:.0f}", f"{each['per_sample']:.1f}", f"{each['looks']:.0f}",
         f"{each['seconds']:.0f}", f"{each['ratio']:.2f}"]
        for name, each in result["cost"].items()
    ]  # fmt: skip
    ratio = result["cost"]["all together"]["ratio"]
    kept = "kept" if ratio <= LIMIT else "not kept"
    spent = sum(step["cpu"] for step in result["took"].values())
    return [
        "## 7. What it costs",
        "",
        "Answers are counted exactly, by replaying each measure's own schedule; looks are",
        "teacher-forced passes over one answer. Seconds are of the processor, on one thread, at",
        "the measured price of an answer and of a look.",
        *table(
            [
                "measure",
                "answers",
                "a sample",
                "looks",
                "processor seconds",
                "times PISM's answers",
            ],
            rows,
        ),
        f"All together (PISM, CMAB, CDE, ACE and DRM) ask {ratio:.2f} times what PISM asks alone: "
        f"at most {LIMIT} is {kept}. This whole page took {spent / 60:.0f} processor minutes of "
        "asking.",
    ]


def page(result: dict[str, Any], samples: int, command: str) -> str:
    """The whole page."""
    lines = [
        "# What does each measure measure?",
        "",
        f"`{command}`",
        "",
        f"The shapes world, {samples} samples whose truth was drawn: whether the picture is",
        "needed, how hard the drawing was made (knob), how many answers are possible, and one",
        "family that nobody can answer (noise). One tiny model, one seed, temperature 0.7, ten",
        "draws a rung, M = 5. Intervals are 95 % bootstrap intervals over samples. What holds for",
        "this model and these drawings need not hold for yours; any setting may be given.",
        "",
    ]
    sections = (separation, knob, decisions, agreement, answer_spaces, masks, cost)
    for section in sections:
        lines += [*section(result), ""]
    return "\n".join(lines)
