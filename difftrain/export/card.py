"""The data card: README.md with what a stranger needs to judge and use the folder, and a figure."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from difftrain.config.export import ExportFormat
from difftrain.export.rows import ExportRow
from difftrain.pipeline import manifest
from difftrain.records import Measure, Stratum

METHODS = {
    Measure.pism: "the share of the image that must be masked before the model fails",
    Measure.cmab: "how the model's attention is balanced between image and text",
    Measure.cde: "how much more often the model is correct with the image than without it",
    Measure.ace: "how much the model's attention concentrates on single tokens of its own response",
    Measure.drm: "how often the model is incorrect with the image",
}
USE = {
    ExportFormat.trl: '`load_dataset("parquet", data_files="trl/train.parquet")`, for GRPOTrainer',
    ExportFormat.ms_swift: "`swift rlhf --dataset train.jsonl`, started in `ms_swift/`",
    ExportFormat.easyr1: "`data.train_files=easyr1/train.parquet`",
    ExportFormat.verl: "`data.train_files=verl/train.parquet`, with your own reward function",
    ExportFormat.llama_factory: "`dataset_dir: llama_factory`, `dataset: difftrain_selection`",
}
COLORS = {
    "easy": "#8cc5e3",
    "medium": "#2f78b4",
    "hard": "#d1542b",
    "unsolved": "#55585e",
    "none": "#d5d5d5",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CardInfo:
    """What the card says of the run: `settings` as run_config.plain(RunConfig) gives them."""

    settings: dict[str, Any]
    measure: Measure
    formats: Sequence[ExportFormat]
    rejected: int


def counts_by_task(rows: Sequence[ExportRow]) -> dict[str, Counter[str]]:
    """Task -> stratum -> samples; `none` where the measure gives no stratum."""
    counts: dict[str, Counter[str]] = {}
    for row in rows:
        counts.setdefault(row.sample.task, Counter())[row.stratum or "none"] += 1
    return dict(sorted(counts.items()))


def present_strata(counts: dict[str, Counter[str]]) -> list[str]:
    """The strata that occur, easy first."""
    names = [*(stratum.value for stratum in Stratum), "none"]
    return [name for name in names if any(strata[name] for strata in counts.values())]


def counts_table(rows: Sequence[ExportRow]) -> str:
    """Samples and selected samples by task and stratum, in Markdown."""
    counts = counts_by_task(rows)
    selected = Counter(row.sample.task for row in rows if row.selection)
    names = present_strata(counts)
    lines = [f"| task | {' | '.join(names)} | samples | selected |"]
    lines.append("|---" + "|--:" * (len(names) + 2) + "|")
    for task, strata in counts.items():
        cells = " | ".join(str(strata[name]) for name in names)
        lines.append(f"| {task} | {cells} | {strata.total()} | {selected[task]} |")
    totals = " | ".join(str(sum(strata[name] for strata in counts.values())) for name in names)
    lines.append(f"| **all** | {totals} | {len(rows)} | {selected.total()} |")
    return "\n".join(lines)


def write_figure(rows: Sequence[ExportRow], path: Path) -> None:
    """strata.png: the share of each stratum by task."""
    counts = counts_by_task(rows)
    page = Figure(figsize=(7, 1 + 0.35 * len(counts)), layout="constrained")
    axes = page.add_subplot()
    left = [0.0] * len(counts)
    for name in present_strata(counts):
        shares = [strata[name] / strata.total() for strata in counts.values()]
        axes.barh(list(counts), shares, left=left, color=COLORS[name], label=name)
        left = [start + share for start, share in zip(left, shares, strict=True)]
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xlabel("share of samples")
    page.legend(loc="outside upper center", ncols=5, frameon=False)
    FigureCanvasAgg(page).print_png(path)


def front_matter(formats: Sequence[ExportFormat]) -> str:
    """The YAML header that the hub reads: the configurations that open as tables."""
    tables = [("scores", "scores.parquet")]
    tables += [
        (name.value, f"{name.value}/train.parquet")
        for name in formats
        if name not in (ExportFormat.ms_swift, ExportFormat.llama_factory)
    ]
    lines = ["---", "tags: [difftrain, difficulty, vision-language]", "configs:"]
    for name, file in tables:
        lines += [f"- config_name: {name}", f"  data_files: {file}"]
    return "\n".join([*lines, "---"])


def card_text(info: CardInfo, rows: Sequence[ExportRow]) -> str:
    """The whole card."""
    measures = [measure for measure in METHODS if any(measure in row.scores for row in rows)]
    methods = "\n".join(f"* `{measure.value}`: {METHODS[measure]}." for measure in measures)
    formats = "\n".join(f"* `{name.value}/`: {USE[name]}" for name in info.formats)
    keys = ("data", "probe", "difficulty", "select", "seed")
    settings = {key: info.settings[key] for key in keys}
    max_pixels = info.settings["data"]["max_pixels"]
    return f"""{front_matter(info.formats)}

# {info.settings["name"]}: samples scored by difficulty, and a selection

{len(rows)} samples with the difficulty they have for `{info.settings["model"]["name"]}`, of which
{sum(row.selection is not None for row in rows)} are selected for training. {info.rejected} rows of
the source could not be used and are not here. Difficulty is relative to that model: score again
for another one.

## Method

{methods}

Strata follow `{info.measure.value}`. Made with difftrain (`python launch/export.py
recipe={info.settings["recipe"]}`), revision `{manifest.git_revision() or "unknown"}`.

## Counts

{counts_table(rows)}

![share of each stratum by task](strata.png)

## Files

* `scores.parquet`: every sample with its scores, its strata, its selection, its images, and in
  `original` the source's own row as JSON
{formats}

Images are those that the model saw: at most {max_pixels} pixels
({max_pixels // 784} image tokens of 28 x 28). Boxes count pixels of these
images, so use the same budget in training, or a larger one.

## Settings

```json
{json.dumps(settings, indent=2, sort_keys=True)}
```

## Limits

Licenses of the source and of its images apply. A selection is a claim that these samples are
worth training on; compare it with an equal number of random ones before believing it.
"""


def write(folder: Path, info: CardInfo, rows: Sequence[ExportRow]) -> None:
    """Write README.md and strata.png."""
    write_figure(rows, folder / "strata.png")
    (folder / "README.md").write_text(card_text(info, rows), encoding="utf-8")
