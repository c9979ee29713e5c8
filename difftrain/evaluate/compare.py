"""Two finished evaluations, item by item: is the second checkpoint better?"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from difftrain.evaluate import summary
from difftrain.evaluate.summary import paired_difference
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
"""Settings that must be equal in two evaluations that are compared."""
ITEMS = "items of "  # prefix of the inputs in manifest.json that identify a benchmark's items


@dataclass(frozen=True, slots=True)
class BenchmarkComparison:
    """One benchmark: both means over the paired items, their difference, and items won and lost."""

    benchmark: str
    before: float
    after: float
    difference: Estimate
    won: int
    lost: int
    tied: int


def compare_evaluations(first: Path, second: Path, output: Path | None = None) -> Path:
    """Write comparison.md, comparison.json and item_diffs.jsonl; returns their folder.

    Raises MissingArtifact or SchemaError for a folder that is no finished evaluation, and
    ValueError for two evaluations under other settings or on other items.
    """
    manifests = [_manifest_of(folder) for folder in (first, second)]
    settings, inputs = ([each[key] for each in manifests] for key in ("settings", "inputs"))
    values = {key: [each.get(key) for each in settings] for key in MUST_AGREE}
    if differing := [f"  {key}: {a} and {b}" for key, (a, b) in values.items() if a != b]:
        lines = "\n".join(differing)
        raise ValueError(f"the two evaluations have different settings:\n{lines}")
    if changed := ", ".join(differing_items(*inputs)):
        problem = f"the two evaluations have different items of {changed}"
        raise ValueError(f"{problem}: their number, texts or images differ")
    before, after = (parquet.read_rows(folder, ItemResult) for folder in (first, second))
    rows = compare_results(before, after)
    names = [each["checkpoint"] for each in inputs]
    folder = output or second.parent.parent / "compare" / f"{first.name}-{second.name}"
    lines = [json.dumps(diff) + "\n" for diff in item_diffs(before, after)]
    benchmarks = [asdict(row) | {"difference": row.difference.to_json()} for row in rows]
    content = {"checkpoints": names, "benchmarks": benchmarks}
    manifest.write_text(folder / "item_diffs.jsonl", "".join(lines))
    manifest.write_json(folder / "comparison.json", content)
    manifest.write_text(folder / "comparison.md", markdown(names, rows, settings[0]))
    return folder


def _manifest_of(folder: Path) -> dict[str, Any]:
    content = manifest.read_manifest(folder)
    if content is None or not parquet.parts(folder):
        raise MissingArtifact(f"no evaluation at {folder}: run  python launch/evaluate.py")
    if not any(key.startswith(ITEMS) for key in content["inputs"]):
        raise SchemaError(
            f"{folder}: its manifest.json does not say what its items were. Remove that file and "
            "run the command that made it again; no response is generated anew"
        )
    return content


def differing_items(first: Mapping[str, str], second: Mapping[str, str]) -> list[str]:
    """Benchmarks whose items, texts or images differ, from the inputs in manifest.json."""
    keys = sorted(key for key in {*first, *second} if key.startswith(ITEMS))
    return [key.removeprefix(ITEMS) for key in keys if first.get(key) != second.get(key)]


def pair_results(
    before: Sequence[ItemResult], after: Sequence[ItemResult]
) -> list[tuple[ItemResult, ItemResult]]:
    """Both results of every item that has a score on both sides, in the order of the first."""
    by_key = {(result.benchmark, result.item_id): result for result in after}
    pairs = [(result, by_key[result.benchmark, result.item_id]) for result in before]
    return [(a, b) for a, b in pairs if a.score is not None and b.score is not None]


def compare_results(
    before: Sequence[ItemResult], after: Sequence[ItemResult], resamples: int = 2000
) -> list[BenchmarkComparison]:
    """`after` against `before` on each benchmark. Raises ValueError for other items or no score."""
    paired_difference(before, after, resamples=1)  # raises for unequal sets of items
    rows = []
    for name in dict.fromkeys(result.benchmark for result in before):
        sides = [[each for each in side if each.benchmark == name] for side in (before, after)]
        for side, results in zip(("first", "second"), sides, strict=True):
            if reason := summary.no_score_reason(name, results):
                raise ValueError(f"{name} of the {side} has no score to compare: {reason}")
        scores = [(a.score or 0.0, b.score or 0.0) for a, b in pair_results(*sides)]
        before_mean, after_mean = (sum(side) / len(side) for side in zip(*scores, strict=True))
        difference = paired_difference(*sides, resamples=resamples)
        won, lost = sum(b > a for a, b in scores), sum(b < a for a, b in scores)
        counts = (won, lost, len(scores) - won - lost)
        rows.append(BenchmarkComparison(name, before_mean, after_mean, difference, *counts))
    return rows


def item_diffs(before: Sequence[ItemResult], after: Sequence[ItemResult]) -> list[dict[str, Any]]:
    """The items on which the two scores differ, with both scores and responses."""
    return [
        {"benchmark": a.benchmark, "item_id": a.item_id, "before": a.score, "after": b.score}
        | {"response_before": a.response or "", "response_after": b.response or ""}
        for a, b in pair_results(before, after)
        if a.score != b.score
    ]


def markdown(
    names: Sequence[str], rows: Sequence[BenchmarkComparison], settings: Mapping[str, Any]
) -> str:
    """The comparison as text: percent, and percent points with their 95 % intervals."""
    shared = {key: settings[key] for key in MUST_AGREE if settings.get(key) is not None}
    return render("comparison.md.jinja", names=list(names), rows=rows, settings=shared)
