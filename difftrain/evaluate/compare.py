"""Compares two finished evaluations item by item: is the second checkpoint better?"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from difftrain.evaluate import summary
from difftrain.evaluate.summary import paired_difference, scored_units
from difftrain.evaluate.write_results import render
from difftrain.pipeline import manifest, parquet
from difftrain.pipeline.parquet import MissingArtifact, SchemaError
from difftrain.records import ItemResult
from difftrain.stats import Estimate

MUST_AGREE = (
    *("rules", "answer_tags", "system", "harness_overrides", "judge", "judge_server"),
    *("max_new_tokens", "min_pixels", "max_pixels", "limit", "allow_count_mismatch"),
    *("engine", "dtype"),
)
"""The settings that must be equal in both evaluations."""
ITEMS_PREFIX = "items of "  # manifest.json has an input `items of NAME`, a hash of NAME's items


@dataclass(frozen=True, slots=True)
class BenchmarkComparison:
    """Means over the items scored in both evaluations. An item is won if its score rose.

    WeMath's problems count instead of its items.
    """

    benchmark: str
    before: float
    after: float
    difference: Estimate
    won: int
    lost: int
    tied: int


def compare_evaluations(first: Path, second: Path, output: Path | None = None) -> Path:
    """Write comparison.md, comparison.json and item_diffs.jsonl; returns their folder.

    Raises MissingArtifact or SchemaError if a folder holds no finished evaluation, and ValueError
    if the settings or the items of the two evaluations differ.
    """
    manifests = [_read_manifest(folder) for folder in (first, second)]
    settings, inputs = ([content[key] for content in manifests] for key in ("settings", "inputs"))
    values = {key: [section.get(key) for section in settings] for key in MUST_AGREE}
    if differing := [f"  {key}: {a} and {b}" for key, (a, b) in values.items() if a != b]:
        raise ValueError("\n".join(["the two evaluations have different settings:", *differing]))
    if benchmarks := ", ".join(changed_benchmarks(*inputs)):
        problem = f"the two evaluations have different items of {benchmarks}"
        raise ValueError(f"{problem}: their number, texts or images differ")
    before, after = (parquet.read_rows(folder, ItemResult) for folder in (first, second))
    rows = compare_results(before, after)
    checkpoints = [names["checkpoint"] for names in inputs]
    # The default is beside the folder `evaluate`, which holds the evaluations.
    folder = output or second.parent.parent / "compare" / f"{first.name}-{second.name}"
    lines = [json.dumps(diff) + "\n" for diff in item_diffs(before, after)]
    comparisons = [asdict(row) | {"difference": row.difference.to_json()} for row in rows]
    content = {"checkpoints": checkpoints, "benchmarks": comparisons}
    manifest.write_text(folder / "item_diffs.jsonl", "".join(lines))
    manifest.write_json(folder / "comparison.json", content)
    manifest.write_text(folder / "comparison.md", markdown(checkpoints, rows, settings[0]))
    return folder


def _read_manifest(folder: Path) -> dict[str, Any]:
    content = manifest.read_manifest(folder)
    if content is None or not parquet.parts(folder):
        raise MissingArtifact(f"no evaluation at {folder}: run  python launch/evaluate.py")
    if not any(key.startswith(ITEMS_PREFIX) for key in content["inputs"]):
        raise SchemaError(
            f"{folder}: its manifest.json does not say which items were evaluated. Delete that "
            "file and repeat the evaluation's command: it grades the stored responses again"
        )
    return content


def changed_benchmarks(first: Mapping[str, str], second: Mapping[str, str]) -> list[str]:
    """Benchmarks whose items (number, texts or images) differ between two manifests' inputs."""
    keys = sorted(key for key in {*first, *second} if key.startswith(ITEMS_PREFIX))
    return [key.removeprefix(ITEMS_PREFIX) for key in keys if first.get(key) != second.get(key)]


def pair_results(
    before: Sequence[ItemResult], after: Sequence[ItemResult]
) -> list[tuple[ItemResult, ItemResult]]:
    """The two results of every item that has a score in both, in the order of `before`."""
    by_key = {(result.benchmark, result.item_id): result for result in after}
    pairs = [(result, by_key[result.benchmark, result.item_id]) for result in before]
    return [(a, b) for a, b in pairs if a.score is not None and b.score is not None]


def compare_results(
    before: Sequence[ItemResult], after: Sequence[ItemResult], resamples: int = 2000
) -> list[BenchmarkComparison]:
    """Compare benchmark by benchmark. Raises ValueError if items differ or a score is missing."""
    paired_difference(before, after, resamples=1)  # raises if the items differ
    rows = []
    for name in dict.fromkeys(result.benchmark for result in before):
        sides = [[r for r in side if r.benchmark == name] for side in (before, after)]
        for side, results in zip(("first", "second"), sides, strict=True):
            if reason := summary.no_score_reason(name, results):
                raise ValueError(f"{name} of the {side} has no score to compare: {reason}")
        pairs = pair_results(*map(scored_units, sides))
        scores = [(a.score or 0.0, b.score or 0.0) for a, b in pairs]  # never None
        before_mean, after_mean = (sum(side) / len(side) for side in zip(*scores, strict=True))
        difference = paired_difference(*sides, resamples=resamples)
        won, lost = sum(b > a for a, b in scores), sum(b < a for a, b in scores)
        counts = (won, lost, len(scores) - won - lost)
        rows.append(BenchmarkComparison(name, before_mean, after_mean, difference, *counts))
    return rows


def item_diffs(before: Sequence[ItemResult], after: Sequence[ItemResult]) -> list[dict[str, Any]]:
    """The items whose two scores differ, with both scores and both responses."""
    return [
        {"benchmark": a.benchmark, "item_id": a.item_id, "before": a.score, "after": b.score}
        | {"response_before": a.response or "", "response_after": b.response or ""}
        for a, b in pair_results(before, after)
        if a.score != b.score
    ]


def markdown(
    checkpoints: Sequence[str], rows: Sequence[BenchmarkComparison], settings: Mapping[str, Any]
) -> str:
    """comparison.md: scores in percent, differences in percentage points with 95 % intervals."""
    shared = {key: settings[key] for key in MUST_AGREE if settings.get(key) is not None}
    values = {"checkpoints": list(checkpoints), "rows": rows, "settings": shared}
    return render("comparison.md.jinja", **values)
