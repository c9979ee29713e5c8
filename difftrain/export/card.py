"""The data card: README.md with what a stranger needs to judge and use the folder; a figure."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from difftrain.config.export import ExportFormat
from difftrain.export.chosen import Chosen
from difftrain.pipeline import manifest
from difftrain.records import Measure, Stratum

METHODS = {
    Measure.pism: "the share of the picture that must be hidden before the model fails",
    Measure.cmab: "how the model's attention is balanced between picture and words",
    Measure.cde: "how much more often the model is right with the picture than without it",
    Measure.ace: "how much the model's attention sticks to single tokens of its own answer",
    Measure.drm: "how often the model is wrong with the picture",
}
USE = {
    ExportFormat.trl: '`load_dataset("parquet", data_files="trl/train.parquet")`, for GRPOTrainer',
    ExportFormat.ms_swift: "`swift rlhf --dataset train.jsonl`, started in `ms_swift/`",
    ExportFormat.easyr1: "`data.train_files=easyr1/train.parquet`",
    ExportFormat.verl: "`data.train_files=verl/train.parquet`, with your own reward function",
    ExportFormat.llama_factory: "`dataset_dir: llama_factory`, `dataset: difftrain_picks`",
}
COLOURS = {
    "easy": "#8cc5e3",
    "medium": "#2f78b4",
    "hard": "#d1542b",
    "unsolved": "#55585e",
    "none": "#d5d5d5",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What the card tells of the run: settings as settings.plain(RunConfig) gives them."""

    settings: dict[str, Any]
    model: str
    measure: Measure
    formats: Sequence[ExportFormat]
    quarantined: int


def counts(rows: Sequence[Chosen]) -> dict[str, Counter[str]]:
    """Task -> stratum -> samples; `none` where the measure could not place a sample."""
    found: dict[str, Counter[str]] = {}
    for row in rows:
        found.setdefault(row.sample.task, Counter())[row.stratum or "none"] += 1
    return dict(sorted(found.items()))


def strata(found: dict[str, Counter[str]]) -> list[str]:
    """The strata that occur, easy first."""
    known = [*(each.value for each in Stratum), "none"]
    return [name for name in known if any(own[name] for own in found.values())]


def table(rows: Sequence[Chosen]) -> str:
    """Samples and picks by task and stratum, in Markdown."""
    found = counts(rows)
    picked = Counter(row.sample.task for row in rows if row.pick)
    names = strata(found)
    lines = [f"| task | {' | '.join(names)} | samples | picked |"]
    lines.append("|---" + "|--:" * (len(names) + 2) + "|")
    for task, own in found.items():
        cells = [str(own[name]) for name in names]
        lines.append(f"| {task} | {' | '.join(cells)} | {own.total()} | {picked[task]} |")
    sums = [str(sum(own[name] for own in found.values())) for name in names]
    lines.append(f"| **all** | {' | '.join(sums)} | {len(rows)} | {picked.total()} |")
    return "\n".join(lines)


def figure(rows: Sequence[Chosen], path: Path) -> None:
    """strata.png: the share of each stratum by task."""
    found = counts(rows)
    page = Figure(figsize=(7, 1 + 0.35 * len(found)), layout="constrained")
    axes = page.add_subplot()
    left = [0.0] * len(found)
    for name in strata(found):
        shares = [own[name] / own.total() for own in found.values()]
        axes.barh(list(found), shares, left=left, color=COLOURS[name], label=name)
        left = [before + share for before, share in zip(left, shares, strict=True)]
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xlabel("share of samples")
    page.legend(loc="outside upper center", ncols=5, frameon=False)
    FigureCanvasAgg(page).print_png(path)


def front_matter(formats: Sequence[ExportFormat]) -> str:
    """What the hub reads: the configurations that open as tables."""
    tables = [("scores", "scores.parquet")]
    tables += [
        (each.value, f"{each.value}/train.parquet")
        for each in formats
        if each not in (ExportFormat.ms_swift, ExportFormat.llama_factory)
    ]
    lines = ["---", "tags: [difftrain, difficulty, vision-language]", "configs:"]
    for name, file in tables:
        lines += [f"- config_name: {name}", f"  data_files: {file}"]
    return "\n".join([*lines, "---"])


def text(about: About, rows: Sequence[Chosen]) -> str:
    """The whole card."""
    measures = [each for each in METHODS if any(each in row.scores for row in rows)]
    method = [f"* `{each.value}`: {METHODS[each]}." for each in measures]
    formats = [f"* `{each.value}/`: {USE[each]}" for each in about.formats]
    settings = {
        key: about.settings[key] for key in ("data", "probe", "difficulty", "select", "seed")
    }
    return f"""{front_matter(about.formats)}

# {about.settings["name"]}: samples scored by difficulty, and a selection

{len(rows)} samples with the difficulty they have for `{about.model}`, of which
{sum(row.pick is not None for row in rows)} were picked for training. {about.quarantined} rows of
the source could not be used and are not here. Difficulty is relative to that model: score again
for another one.

## Method

{chr(10).join(method)}

Strata follow `{about.measure.value}`. Made with difftrain (`python launch/export.py
recipe={about.settings["recipe"]}`), revision `{manifest.git_revision() or "unknown"}`.

## Counts

{table(rows)}

![share of each stratum by task](strata.png)

## Files

* `scores.parquet`: every sample with its scores, its strata, its pick, its pictures, and in
  `original` the source's own row as JSON
{chr(10).join(formats)}

Pictures are those that the model saw: at most {about.settings["data"]["max_pixels"]} pixels
({about.settings["data"]["max_pixels"] // 784} image tokens of 28 x 28). Boxes count pixels of these
pictures, so use the same budget in training, or a larger one.

## Settings

```json
{json.dumps(settings, indent=2, sort_keys=True)}
```

## Limits

Licences of the source and of its pictures apply. A selection is a claim that these samples are
worth training on; compare it with an equal number of random ones before believing it.
"""


def write(folder: Path, about: About, rows: Sequence[Chosen]) -> None:
    """Write README.md and strata.png."""
    figure(rows, folder / "strata.png")
    (folder / "README.md").write_text(text(about, rows), encoding="utf-8")
