"""Writes an evaluation's files: results, scores, and VLMEvalKit's tables and prediction files.

`part-*.parquet` (ItemResult), summary.json, breakdown.json, scores.md and predictions/*.tsv.
grade.py computes the results and writes manifest.json last; summary.py computes the scores. "The
harness" is VLMEvalKit. The benchmarks shapes/NAME are built in and drawn by difftrain/shapes.
"""

import csv
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jinja2

from difftrain.config.evaluate import OFFICIAL, TSV_FILES, AnswerTags, EvaluateConfig
from difftrain.config.judge import JudgeKind, by_rules_alone, model_name, server_hash
from difftrain.config.model import EngineKind
from difftrain.config.setting import hashed_settings
from difftrain.evaluate import BENCHMARKS, benchmark_named, summary
from difftrain.evaluate.harness import Table, TableRow
from difftrain.evaluate.judge import format_usage
from difftrain.evaluate.loading import BenchmarkItem, describe_source
from difftrain.grade import extract
from difftrain.model.engines.types import read_engine_info
from difftrain.pipeline import manifest, parquet
from difftrain.records import ItemResult, ItemStatus

logger = logging.getLogger(__name__)

# Title of HallusionBench's table if evaluate.limit left items out.
LIMITED_TITLE = "subsets (no fAcc, qAcc and average: evaluate.limit leaves figures incomplete)"
TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("difftrain", "evaluate/templates"),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
OUTCOMES = ("rule", "judge", "undecided", "drawn", "judge_failed", "skipped", "no_response")
COUNT_COLUMNS = ("n", "right", "by_rule", "norm", "figures_left_out", "questions_left_out")
"""Columns that are not fractions; `norm` is OCRBench's Final Score Norm."""
COUNT_SUFFIX = " n"  # of WeMath's columns of counts


def has_nothing_to_retry(content: Mapping[str, Any]) -> bool:
    """Whether neither the engine nor the judge failed on any item, by a manifest's content."""
    counts = content["counts"]
    return not counts.get("no_response") and not counts.get("judge", {}).get("failed_items")


def is_finished(folder: Path) -> bool:
    """Whether a folder has a manifest that satisfies has_nothing_to_retry."""
    content = manifest.read_manifest(folder)
    return content is not None and has_nothing_to_retry(content)


def by_benchmark(
    results: Sequence[ItemResult], names: Iterable[str]
) -> dict[str, list[ItemResult]]:
    """The results of each benchmark, in the order of the names."""
    return {name: [result for result in results if result.benchmark == name] for name in names}


def write(
    folder: Path,
    checkpoint: str,
    items: Sequence[BenchmarkItem],
    results: Sequence[ItemResult],
    config: EvaluateConfig,
    scores_md: Mapping[str, Any],
) -> None:
    """Write all files of the folder except manifest.json, replacing older ones.

    summary.json has the score and 95 % interval of each benchmark and of their mean, as fractions
    of 1; `rules_only` is true if no judge was used. `scores_md` is what scores_md_values returns.
    """
    for path in parquet.parts(folder):
        path.unlink()
    parquet.write_all(folder, results)
    groups = by_benchmark(results, config.benchmarks)
    scores = {
        name: asdict(summary.summarize(name, group, resamples=config.resamples))
        | {"rules_only": by_rules_alone(config.judge, name)}
        for name, group in groups.items()
    }
    rules_only = any(score["rules_only"] for score in scores.values())  # one is enough
    mean = asdict(summary.summarize_mean(groups, resamples=config.resamples))
    scores["mean"] = mean | {"rules_only": rules_only}
    manifest.write_json(folder / "summary.json", scores)
    for name, score in scores.items():
        if score["reason"]:
            logger.warning("%s: no score: %s", name, score["reason"])
    breakdowns = {}
    for name, group in groups.items():
        if group:
            tables = breakdown(name, group, is_limited(name, len(group), config))
            breakdowns[name] = {"outcomes": outcomes(group), "tables": tables}
    manifest.write_json(folder / "breakdown.json", breakdowns)
    values = {"checkpoint": checkpoint, "scores": scores, "breakdowns": breakdowns, **scores_md}
    manifest.write_text(folder / "scores.md", render("scores.md.jinja", **values))
    write_predictions(folder / "predictions", checkpoint, items, results, config)


def settings_of(config: EvaluateConfig, responses: Path, dtype: str) -> dict[str, Any]:
    """Settings for manifest.json. `dtype` is the configured one; a server's may differ."""
    engines = read_engine_info(responses)
    return hashed_settings(config, "evaluate") | {
        "judge": model_name(config.judge, config.benchmarks),
        "judge_server": server_hash(config.judge),
        "engine": ", ".join(sorted({engine["engine"] for engine in engines})),
        "dtype": dtype_of(engines, dtype),
    }


def is_limited(name: str, count: int, config: EvaluateConfig) -> bool:
    """Whether evaluate.limit left items out of an official benchmark (shapes/ has any size)."""
    return name in OFFICIAL and count == config.limit and count < BENCHMARKS[name].num_items


def breakdown(
    benchmark: str, results: Sequence[ItemResult], limited: bool = False
) -> dict[str, Table]:
    """The harness's tables of a benchmark, by title. Empty if the benchmark has no score.

    `limited`: evaluate.limit left items out. HallusionBench then has only aAcc, because some
    figures and questions are incomplete. Raises ValueError for an unknown benchmark.
    """
    definition = benchmark_named(benchmark)
    if summary.no_score_reason(benchmark, results):
        return {}
    tables = definition.tables(results)
    if definition.name != "HallusionBench" or not limited:
        return tables
    rows = tables["subsets"].items()
    return {LIMITED_TITLE: {name: {key: row[key] for key in ("n", "aAcc")} for name, row in rows}}


def outcomes(results: Sequence[ItemResult]) -> dict[str, int]:
    """The number of items with each of OUTCOMES, and of blank responses (`empty`).

    A `rule` or the `judge` graded the item. `undecided` items count as wrong. `drawn` items got a
    random option, as in the harness (fallback=random). `judge_failed`, `skipped` (no image) and
    `no_response` (the engine failed) items have no score.
    """

    def outcome(result: ItemResult) -> str:
        match result.status:
            case ItemStatus.skipped:
                return "skipped"
            case ItemStatus.failed:
                return "no_response" if result.response is None else "judge_failed"
        if result.graded_by is not None:
            return result.graded_by.value
        return "undecided" if result.extracted is None else "drawn"

    counts = Counter(map(outcome, results))
    empty = sum(result.response is not None and not result.response.strip() for result in results)
    return {**{name: counts[name] for name in OUTCOMES}, "empty": empty}


def printed_score(benchmark: str, score: float) -> str:
    """A score as in Qi et al. 2026: 68.300 (percent), but 0.547 (fraction) for MMMU and MMStar."""
    scale = 1 if benchmark_named(benchmark).name in ("MMMU", "MMStar") else 100
    return f"{score * scale:.3f}"


def dtype_of(engines: Sequence[Mapping[str, Any]], dtype: str) -> str | None:
    """`dtype` if all engines ran in this process, else None: a server's dtype is unknown."""
    in_process = all(engine["engine"] in (EngineKind.hf, EngineKind.vllm) for engine in engines)
    return dtype if in_process else None


def engine_lines(engines: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Rows for scores.md: each engine with its version, and a server's number of image tokens."""
    lines = []
    for engine in engines:
        served_as = f"served as {engine['served']}" if "served" in engine else ""
        words = filter(None, (engine["engine"], engine.get("version"), served_as))
        lines.append(("engine", " ".join(words)))
        if tokens := engine.get("image_tokens"):
            text = "{server} for an image of {side} x {side}, where {expected} are expected"
            shrinks = tokens["server"] < tokens["expected"]
            note = ": the server shrinks images" if shrinks else ""
            lines.append(("image tokens", text.format(**tokens) + note))
    return list(dict.fromkeys(lines))


def scores_md_values(
    config: EvaluateConfig, counts: Mapping[str, Any], dtype: str, data_pixels: tuple[int, ...]
) -> dict[str, Any]:
    """The values of scores.md.jinja that are not results. `counts` are those of manifest.json."""
    judge = model_name(config.judge, config.benchmarks)
    if config.judge is JudgeKind.endpoint:
        judge = format_usage(judge, counts["judge"])
        logger.info("judge %s", judge)
    defaults = asdict(EvaluateConfig().harness_overrides)
    overrides = asdict(config.harness_overrides).items()
    return {
        "config": config,
        "judge": judge,
        "engine_lines": engine_lines(counts["engines"]),
        "dtype": dtype_of(counts["engines"], dtype),
        "overrides": [f"{name}={value}" for name, value in overrides if value != defaults[name]],
        "sources": {name: describe_source(name, config) for name in config.benchmarks},
        "data_pixels": data_pixels,
        "official": {name: BENCHMARKS[name].num_items for name in OFFICIAL},
        "printed_score": printed_score,
        "table_lines": _table_lines,
    }


def render(template: str, **values: Any) -> str:
    """The text of a template in templates/, filled with these values."""
    return TEMPLATES.get_template(template).render(**values)


def _table_lines(table: Table) -> list[list[str]]:
    """A results table as rows of text, the header first; fractions are printed in percent."""
    columns = list(dict.fromkeys(column for row in table.values() for column in row))

    def cell(row: TableRow, column: str) -> str:
        if (value := row.get(column)) is None:
            return ""
        is_count = column in COUNT_COLUMNS or column.endswith(COUNT_SUFFIX)
        return f"{value:g}" if is_count else f"{100 * value:.2f}"

    rows = [[name, *(cell(row, column) for column in columns)] for name, row in table.items()]
    return [["", *(column.replace("_", " ") for column in columns)], *rows]


def prediction(response: str | None, config: EvaluateConfig) -> str:
    """The text to grade: inside the last <answer> tag, or everything (no tag, answer_tags=raw)."""
    if response is None or config.answer_tags is AnswerTags.raw:
        return response or ""
    tagged = extract.tag_content(response)
    return response if tagged is None else tagged.strip()


def prediction_file(checkpoint: str, benchmark: str) -> str:
    """The name of a prediction file: the harness's, or `shapes-NAME` for shapes/NAME."""
    model = "".join(c if c.isalnum() or c in "._-" else "-" for c in Path(checkpoint).name)
    data_set = TSV_FILES.get(benchmark, f"{benchmark.replace('/', '-')}.tsv")
    return f"{model}_{data_set}"


def write_predictions(
    folder: Path,
    checkpoint: str,
    items: Sequence[BenchmarkItem],
    results: Sequence[ItemResult],
    config: EvaluateConfig,
) -> list[Path]:
    """Write a file of predictions per benchmark that the harness can score; returns the files.

    The columns are those of the harness's data file without the image, and `prediction`. The
    harness reads the file with PRED_FORMAT=tsv and finds an item by the `index` in its data file.
    """
    responses = {(result.benchmark, result.item_id): result.response for result in results}
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name in config.benchmarks:
        rows = [
            {**item.row, "prediction": prediction(responses[item.key], config)}
            for item in items
            if item.benchmark == name and item.key in responses
        ]
        columns = dict.fromkeys(column for row in rows for column in row)
        columns = [column for column in columns if column not in ("image", "sample_id")]
        paths.append(folder / prediction_file(checkpoint, name))
        with paths[-1].open("w", newline="", encoding="utf-8", errors="replace") as file:
            # Every cell is quoted, as in the harness's own files.
            writer = csv.writer(file, delimiter="\t", quoting=csv.QUOTE_ALL, lineterminator="\n")
            writer.writerow(columns)
            for row in rows:
                cells = ["" if row.get(column) is None else str(row[column]) for column in columns]
                # A reader of the file would stop at a zero byte.
                writer.writerow([cell.replace("\0", "") for cell in cells])
    return paths
