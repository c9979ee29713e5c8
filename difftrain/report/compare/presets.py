"""The rows of comparison tables: their settings, random controls and published scores.

Each table of Qi et al. 2026 ("the paper" below) has the rows PAPER_ROWS. Table 1 and the ablation
of RAP ("Truth in the Few") have the rows RAP_TITLES. OTHER_ROWS are not in Qi et al. 2026.

A control is trained like its row, but on an equal number of randomly selected samples. If a run
trained its own control (control=random), it is compared with that control. Otherwise it is compared
with the row that `control` names. A row that selects only at random is itself a control. Of
grpo_dynamic it is the row with the same selection and without dynamic sampling.
"""

import csv
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from difftrain.config.judge import JudgeKind

RANDOM = "random"


@dataclass(frozen=True, slots=True)
class RowPreset:
    """One row: its recipe, its title in tables, and the recipe of its control, if it has one.

    `grpo` and `sft` are the strata that it trains on (with `random`: a random set of their size).
    `rap` are the measures by which RAP selects. `selects` is true if a selection depends
    on difficulty; then the row's cost includes that of measuring difficulty (the probe).
    """

    recipe: str
    title: str
    grpo: str = ""
    sft: str = ""
    rap: str = ""
    control: str | None = None
    selects: bool = True

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that a run of this row must have; empty if the row is unknown."""
        if not self.grpo and not self.rap:
            return {}
        grpo, sft = self.grpo.split(), self.sft.split()
        return {
            "train_stages": "sft_then_grpo" if sft else "grpo",
            "select.strata": [name for name in grpo if name != RANDOM],
            "select.random": RANDOM in grpo,
            "select.rap": self.rap.split(),
            "select.sft_strata": [name for name in sft if name != RANDOM],
            "select.sft_random": RANDOM in sft,
        }


ALL_RANDOM_M_H = "sft_rand_m_grpo_rand_h"
ALL_RANDOM_H_M = "sft_rand_h_grpo_rand_m"
PAPER_ROWS = (
    RowPreset("grpo_full", "GRPO-only(fullset)", "easy medium hard unsolved", selects=False),
    RowPreset("grpo_unsolved", "GRPO-only(unsolved)", "unsolved"),
    RowPreset("sft_mid_grpo_hard", "SFT(mid)+GRPO(hard)", "hard", "medium",
              control=ALL_RANDOM_M_H),
    RowPreset("sft_mid_grpo_rand_h", "SFT(mid)+GRPO(rand h)", "random hard", "medium",
              control=ALL_RANDOM_M_H),
    RowPreset("sft_rand_m_grpo_hard", "SFT(rand m)+GRPO(hard)", "hard", "random medium",
              control=ALL_RANDOM_M_H),
    RowPreset(ALL_RANDOM_M_H, "SFT(rand m)+GRPO(rand h)", "random hard", "random medium",
              selects=False),
    RowPreset("sft_hard_grpo_mid", "SFT(hard)+GRPO(mid)", "medium", "hard",
              control=ALL_RANDOM_H_M),
    RowPreset("sft_hard_grpo_rand_m", "SFT(hard)+GRPO(rand m)", "random medium", "hard",
              control=ALL_RANDOM_H_M),
    RowPreset("sft_rand_h_grpo_mid", "SFT(rand h)+GRPO(mid)", "medium", "random hard",
              control=ALL_RANDOM_H_M),
    RowPreset(ALL_RANDOM_H_M, "SFT(rand h)+GRPO(rand m)", "random medium", "random hard",
              selects=False),
    RowPreset("grpo_random", "GRPO-only(random)", "random medium hard", selects=False),
    RowPreset("grpo_mid_hard", "GRPO-only(mid+hard)", "medium hard", control="grpo_random"),
)  # fmt: skip
"""The twelve rows of every table of the paper, in their order. m: medium, h: hard."""
OTHER_ROWS = (
    RowPreset("grpo_mid", "GRPO-only(mid)", "medium"),
    RowPreset("grpo_hard", "GRPO-only(hard)", "hard"),
    RowPreset(
        "grpo_dynamic",
        "GRPO-only(mid+hard), dynamic sampling",
        "medium hard",
        control="grpo_mid_hard",
    ),
    RowPreset("rap_random", "random set of RAP's size", RANDOM, rap="cde ace drm", selects=False),
    RowPreset("rap", "RAP", rap="cde ace drm", control="rap_random"),
    RowPreset("rap_cde", "RAP, CDE alone", rap="cde"),
    RowPreset("rap_ace", "RAP, ACE alone", rap="ace"),
    RowPreset("rap_cde_ace", "RAP, CDE and ACE", rap="cde ace"),
)
"""Further rows; a table shows them below the twelve."""
PRESETS = {row.recipe: row for row in (*PAPER_ROWS, *OTHER_ROWS)}
# No random row has the size of these rows. Their runs need a control of their own: control=random.
NEEDS_OWN_CONTROL = [name for name, row in PRESETS.items() if row.selects and not row.control]


FULL = "grpo_full"
RAP_TITLES = {
    FULL: "full data",
    "rap_random": "random, as many as RAP selects",
    "rap": "RAP",
    "rap_cde": "CDE only",
    "rap_ace": "ACE only",
    "rap_cde_ace": "CDE + ACE",
}
"""Recipe -> title of the row in RAP's Table 1 and ablation, in their order, and a random control of
RAP's size, which RAP does not have."""
RAP_BENCHMARKS = ("MathVista", "MMStar", "MathVerse", "WeMath", "MMVet", "LogicVista")
"""The columns of RAP's Table 1, in its order."""


def preset_of(name: str) -> RowPreset:
    """The preset of this name; for an unknown name, one without settings and control."""
    return PRESETS.get(name, RowPreset(name, name))


def missing_control_reason(name: str) -> str:
    """Why a row is not compared with a control."""
    row = preset_of(name)
    if name == FULL:
        return "none: a random set of this size is the full set"
    if not row.selects:
        return "is a random control itself"
    if row.control is not None:
        return f"none: {row.control} is not among the runs, and control=random was not trained"
    return "none: control=random was not trained"


PAPER_MODEL = "Qwen2.5-VL-7B-Instruct"  # of both papers
# The paper prints these scores in percent, and those of MMMU and MMStar as fractions.
IN_PERCENT = ("MathVista", "MMVet", "OCRBench", "HallusionBench")
TASK_SETS = {
    "reasoning": {"math", "puzzle", "science", "chart"},
    "perception": {"detection", "grounding", "counting", "ocr"},
}


def published(file: str) -> list[dict[str, str]]:
    """The rows of a file with published figures, column -> text; empty text: not known."""
    text = (resources.files("difftrain.report.compare") / file).read_text()
    return list(csv.DictReader(text.splitlines()))


def is_paper_model(settings: dict[str, Any]) -> bool:
    """Whether the run trains the model of both papers, by hub id or from a folder of its name."""
    return Path(str(settings["model"]["name"])).name == PAPER_MODEL


def paper_task_set(data: dict[str, Any]) -> str | None:
    """The name of the paper's task set that these data settings read; None for other settings."""
    if str(data["source"]) != "orsta" or data["limit"] is not None:
        return None
    tasks = set(data["tasks"] or ())
    return next((name for name, members in TASK_SETS.items() if members == tasks), None)


def paper_scores(settings: dict[str, Any], name: str, measure: str) -> dict[str, float]:
    """The paper's scores of a row by benchmark, as fractions; empty for another model or data.

    `measure` selected the samples: pism or cmab. A score is from one run and has no interval.
    """
    task_set = paper_task_set(settings["data"])
    if task_set is None or not is_paper_model(settings):
        return {}
    key = (measure, task_set, preset_of(name).title)
    for row in published("paper_tables.csv"):
        if (row.pop("measure"), row.pop("task_set"), row.pop("row")) == key:
            return {
                benchmark: float(value) / (100 if benchmark in IN_PERCENT else 1)
                for benchmark, value in row.items()
            }
    return {}


def rap_mismatches(settings: dict[str, Any]) -> list[str]:
    """What differs from the runs of RAP's Table 1; if anything does, its figures are not shown."""
    data, limit = settings["data"], settings["evaluate"]["limit"]
    whole_set = str(data["source"]) == "mm_eureka" and data["limit"] is None and not data["tasks"]
    model = settings["model"]["name"]
    differences = [] if is_paper_model(settings) else [f"the model is {model}, not {PAPER_MODEL}"]
    if not whole_set:
        differences.append(f"the data are {data['source']}, not all of MM-Eureka (data=mm_eureka)")
    if limit is not None:
        differences.append(f"evaluate.limit={limit} leaves out benchmark items")
    if str(judge := settings["evaluate"]["judge"]) != JudgeKind.endpoint:
        differences.append(f"no model judged the answers (evaluate.judge={judge}, not endpoint)")
    return differences


def rap_figures(settings: dict[str, Any], name: str) -> dict[str, float]:
    """RAP's figures of a row: its scores by benchmark and `mean`, as fractions, `samples`, `hours`.

    Empty for another model or data. `name` is a recipe of RAP_TITLES, or base. RAP's scores are of
    single runs without an interval. Not known are its ablation, and some scores of other rows.
    """
    if rap_mismatches(settings):
        return {}
    rows = {row.pop("row"): row for row in published("rap_table.csv")}
    return {
        column: float(value) / (1 if column in ("samples", "hours") else 100)
        for column, value in rows.get(name, {}).items()
        if value
    }
