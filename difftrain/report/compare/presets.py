"""The rows of comparison tables: their settings, random controls and published scores.

Each table of the paper (Qi et al. 2026) has the rows PAPER_ROWS. OTHER_ROWS are not in the paper.

A control is trained like its row, but on an equal number of randomly selected samples. If a run
trained its own control (control=random), it is compared with that control. Otherwise it is compared
with the row that `control` names. A row that selects only at random is itself a control.
"""

import csv
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

RANDOM = "random"


@dataclass(frozen=True, slots=True)
class RowPreset:
    """One row: its recipe, its title in tables, and the recipe of its control, if it has one.

    `grpo` and `sft` are the strata that it trains on (with `random`: a random set of their size).
    `rap` are the measures by which the paper RAP selects. `selects` is true if a selection depends
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
    RowPreset("grpo_dynamic", "GRPO-only(mid+hard), dynamic sampling", "medium hard"),
    RowPreset("rap", "RAP", rap="cde ace drm"),
    RowPreset("rap_cde_ace", "RAP, CDE and ACE", rap="cde ace"),
    RowPreset("rap_cde", "RAP, CDE alone", rap="cde"),
    RowPreset("rap_ace", "RAP, ACE alone", rap="ace"),
)
"""Further rows; a table shows them below the twelve."""
PRESETS = {row.recipe: row for row in (*PAPER_ROWS, *OTHER_ROWS)}
# No random row has the size of these rows. Their runs need a control of their own: control=random.
NEEDS_OWN_CONTROL = [name for name, row in PRESETS.items() if row.selects and not row.control]


def preset_of(name: str) -> RowPreset:
    """The preset of this name; for an unknown name, one without settings and control."""
    return PRESETS.get(name, RowPreset(name, name))


def missing_control_reason(name: str) -> str:
    """Why a row is not compared with a control."""
    row = preset_of(name)
    if name == "grpo_full":
        return "none: a random set of this size is the full set"
    if not row.selects:
        return "is a random control itself"
    if row.control is not None:
        return f"none: {row.control} is not among the runs, and control=random was not trained"
    return "none: control=random was not trained"


PAPER_MODEL = "Qwen2.5-VL-7B-Instruct"
# The paper prints these scores in percent, and those of MMMU and MMStar as fractions.
IN_PERCENT = ("MathVista", "MMVet", "OCRBench", "HallusionBench")
TASK_SETS = {
    "reasoning": {"math", "puzzle", "science", "chart"},
    "perception": {"detection", "grounding", "counting", "ocr"},
}


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
    if task_set is None or Path(str(settings["model"]["name"])).name != PAPER_MODEL:
        return {}
    key = (measure, task_set, preset_of(name).title)
    text = (resources.files("difftrain.report.compare") / "paper_tables.csv").read_text()
    for row in csv.DictReader(text.splitlines()):
        if (row.pop("measure"), row.pop("task_set"), row.pop("row")) == key:
            return {
                benchmark: float(value) / (100 if benchmark in IN_PERCENT else 1)
                for benchmark, value in row.items()
            }
    return {}
