"""The files of an evaluation: item results, scores, the harness's tables, a page, predictions.

`part-*.parquet` (ItemResult), summary.json, breakdown.json, scores.md, predictions/*.tsv and, last
of all, manifest.json. Not here: how results (grade.py) and scores (summary.py) are computed.
"""

import csv
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from difftrain.config.evaluate import (
    OFFICIAL,
    TSV_FILES,
    AnswerTags,
    EvaluateConfig,
    HarnessOverrides,
    SystemPrompt,
)
from difftrain.config.fingerprint import counted_settings
from difftrain.config.judge import JudgeKind, by_rules_alone, model_name, server_hash
from difftrain.config.model import EngineKind
from difftrain.evaluate import BENCHMARKS, benchmark_named, last_answer, summary
from difftrain.evaluate.harness import Table, TableRow
from difftrain.evaluate.judge import format_usage
from difftrain.evaluate.loading import BenchmarkItem, describe_source
from difftrain.model.engines.types import read_engine_info
from difftrain.pipeline import manifest, parquet
from difftrain.records import ItemResult, ItemStatus

logger = logging.getLogger(__name__)

PRINTED_SCALE = {"MMMU": 1, "MMStar": 1}
"""The papers' tables print these two as fractions and the others as percentages."""
LIMITED_TITLE = "subsets (no fAcc, qAcc and average: evaluate.limit leaves figures incomplete)"
"""Title of HallusionBench's table where a limit took some of the items."""
SCORED_OUTCOMES = ("rule", "judge", "undecided", "drawn")
UNSCORED_OUTCOMES = ("judge_failed", "skipped", "no_response")
COUNT_COLUMNS = ("n", "right", "by_rule", "norm", "figures_left_out", "questions_left_out")


def is_final(content: Mapping[str, Any]) -> bool:
    """Whether a manifest leaves nothing to the next run: no engine and no judge failed."""
    counts = content["counts"]
    return not counts.get("no_response") and not counts.get("judge", {}).get("failed_items")


def is_done(folder: Path) -> bool:
    """Whether every item has a result; where the engine or judge failed, the next run retries."""
    content = manifest.read_manifest(folder)
    return content is not None and is_final(content)


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
    conditions: Sequence[Sequence[str]],
) -> None:
    """Write all files of the folder anew, but its manifest.

    summary.json has the score and 95 % interval of each benchmark and of their mean, fractions of
    1; `rules_only` there says that no judge was used.
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
    rules_only = any(score["rules_only"] for score in scores.values())
    mean = asdict(summary.summarize_mean(groups, resamples=config.resamples))
    scores["mean"] = mean | {"rules_only": rules_only}
    manifest.write_json(folder / "summary.json", scores)
    for name, score in scores.items():
        if score["reason"]:
            logger.warning("%s: no score: %s", name, score["reason"])
    breakdowns = {
        name: {
            "outcomes": outcomes(group),
            "tables": breakdown(name, group, is_limited(name, len(group), config)),
        }
        for name, group in groups.items()
        if group
    }
    manifest.write_json(folder / "breakdown.json", breakdowns)
    blocks = [
        f"# Benchmarks of {checkpoint}",
        scores_table(scores, breakdowns),
        markdown_table(["setting", "value"], conditions),
    ]
    for name, content in breakdowns.items():
        blocks.append(f"## {name}")
        blocks += [f"{title}\n\n{table_text(table)}" for title, table in content["tables"].items()]
    manifest.write_text(folder / "scores.md", "\n\n".join(blocks) + "\n")
    write_predictions(folder / "predictions", checkpoint, items, results, config)


def counts_of(
    results: Sequence[ItemResult], responses: Path, judge_counts: Mapping[str, Any]
) -> dict[str, Any]:
    """The manifest's counts; `responses` is the folder that says which engines responded."""
    no_response = summary.count_no_response(results)
    if no_response:
        message = "%d items got no response from the engine; the same command requests them again"
        logger.warning(message, no_response)
    return {
        "items": len(results),
        "unscored": sum(result.score is None for result in results),
        "no_response": no_response,
        "judge": dict(judge_counts),
        "engines": read_engine_info(responses),
    }


def settings_of(config: EvaluateConfig, responses: Path, dtype: str) -> dict[str, Any]:
    """The manifest's settings; `dtype` is that of engines in this process."""
    engines = read_engine_info(responses)
    return counted_settings(config, "evaluate") | {
        "judge": model_name(config.judge, config.benchmarks),
        "judge_server": server_hash(config.judge),
        "engine": engine_kinds(engines),
        "dtype": dtype_of(engines, dtype),
    }


def is_limited(name: str, count: int, config: EvaluateConfig) -> bool:
    """Whether a limit left items of an official benchmark out; a miniature is drawn to measure."""
    return name in OFFICIAL and count == config.limit and count < BENCHMARKS[name].count


def breakdown(
    benchmark: str, results: Sequence[ItemResult], limited: bool = False
) -> dict[str, Table]:
    """The harness's tables of a benchmark, by title; none where nothing was decided.

    `limited`: a limit took some of the items, so that HallusionBench's figures and questions are
    not complete and only aAcc is meaningful. Raises ValueError for an unknown benchmark.
    """
    kind = benchmark_named(benchmark)
    if summary.no_score_reason(benchmark, results):
        return {}
    tables = kind.tables(results)
    if kind.name != "HallusionBench" or not limited:
        return tables
    rows = tables["subsets"].items()
    return {LIMITED_TITLE: {name: {key: row[key] for key in ("n", "aAcc")} for name, row in rows}}


def outcomes(results: Sequence[ItemResult]) -> dict[str, int]:
    """How the items came by their scores; every item is in exactly one of the first seven.

    `undecided` counts as wrong (where the reference draws an option at random, too); `drawn` had
    its option drawn (fallback=random); `judge_failed`, `skipped` (no image) and `no_response` (of
    the engine) have no score. `empty` counts responses of blanks alone.
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
    names = (*SCORED_OUTCOMES, *UNSCORED_OUTCOMES)
    return {**{name: counts[name] for name in names}, "empty": empty}


def printed_score(benchmark: str, score: float) -> str:
    """A score as the papers' tables print it: 68.300, but 0.547 for MMMU and MMStar."""
    return f"{score * PRINTED_SCALE.get(benchmark_named(benchmark).name, 100):.3f}"


def scores_table(scores: Mapping[str, Any], breakdowns: Mapping[str, Any]) -> str:
    """The printed score of each benchmark, its interval, and the outcomes of its items."""
    head = ["benchmark", "score", "95 % interval", "items", "rule", "judge", "undecided", "drawn"]
    head += ["judge failed", "skipped", "no response", "empty"]
    lines = []
    for name, content in breakdowns.items():
        printed, interval = "none", ""
        if scores[name]["score"] is not None:
            keys = ("score", "low", "high")
            printed, low, high = (printed_score(name, scores[name][key]) for key in keys)
            interval = f"{low} to {high}"
        whole = BENCHMARKS[name].count if name in OFFICIAL else None
        n = sum(content["outcomes"][outcome] for outcome in SCORED_OUTCOMES)
        count = f"{n} of {whole}" if whole not in (None, n) else str(n)
        lines.append([name, printed, interval, count, *map(str, content["outcomes"].values())])
    note = (
        "As the papers' tables print them: percent, but fractions for MMMU and MMStar; "
        "HallusionBench is aAcc. Undecided items count as wrong, also where the reference would "
        "draw an option at random; drawn ones count by the option drawn "
        "(evaluate.harness_overrides.fallback=random); items whose judge failed, that were skipped "
        "(no image) or got no response from the engine have no score."
    )
    reasons = [
        f"{name} has no score: {scores[name]['reason']}."
        for name in breakdowns
        if scores[name]["reason"]
    ]
    return "\n\n".join([markdown_table(head, lines), note, *reasons])


def engine_kinds(engines: Sequence[Mapping[str, Any]]) -> str:
    """The kinds of the engines: `hf`, and maybe others, such as `hf, http`."""
    return ", ".join(sorted({engine["engine"] for engine in engines}))


def dtype_of(engines: Sequence[Mapping[str, Any]], dtype: str) -> str | None:
    """The dtype of the responses: ours, or None where a server has its own."""
    ours = all(engine["engine"] in (EngineKind.hf, EngineKind.vllm) for engine in engines)
    return dtype if ours else None


def engine_lines(engines: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Each engine with its version, once, and how many tokens a server makes of an image."""
    lines = []
    for engine in engines:
        description = [engine["engine"], engine.get("version", "")]
        description += [f"served as {engine['served']}"] if "served" in engine else []
        lines.append(["engine", " ".join(filter(None, description))])
        if tokens := engine.get("image_tokens"):
            side, server, expected = (tokens[key] for key in ("side", "server", "expected"))
            text = f"{server} for an image of {side} x {side}, where {expected} are expected"
            resized = ": the server shrinks images" if server < expected else ""
            lines.append(["image tokens", text + resized])
    return [line for i, line in enumerate(lines) if line not in lines[:i]]


def conditions_of(
    config: EvaluateConfig,
    counts: Mapping[str, Any],
    dtype: str,
    data_pixels: tuple[int, int],
) -> list[list[str]]:
    """The settings that a score depends on, as lines of the page; `counts` are the manifest's."""
    system = "none" if config.system is SystemPrompt.none else "think (with answer tags)"
    judge = model_name(config.judge, config.benchmarks)
    if config.judge is JudgeKind.endpoint:
        judge = format_usage(judge, counts["judge"])
        logger.info("judge %s", judge)
    engines = counts["engines"]
    known_dtype = dtype_of(engines, dtype)
    usual = asdict(HarnessOverrides())
    changed = [
        f"{name}={value}"
        for name, value in asdict(config.harness_overrides).items()
        if value != usual[name]
    ]
    lines = [
        ["system prompt", system],
        ["answer tags", str(config.answer_tags)],
        ["rules", config.rules],
        ["judge", judge],
        *engine_lines(engines),
        ["decoding", f"greedy, {config.max_new_tokens} new tokens"],
        *([["dtype", known_dtype]] if known_dtype else []),
        ["limit", "none" if config.limit is None else f"{config.limit} of each"],
        ["harness overrides", ", ".join(changed) or "none, but no random fallback"],
    ]
    for name in config.benchmarks:
        low, high = config.pixels(name, data_pixels)
        lines.append([name, f"{describe_source(name, config)}; {low:,} to {high:,} pixels"])
    return lines


def table_text(table: Table) -> str:
    """A results table in markdown: counts as they are, fractions in percent."""
    columns = list(dict.fromkeys(column for row in table.values() for column in row))

    def cell(row: TableRow, column: str) -> str:
        if (value := row.get(column)) is None:
            return ""
        return f"{value:g}" if column in COUNT_COLUMNS else f"{100 * value:.2f}"

    lines = [[name, *(cell(row, column) for column in columns)] for name, row in table.items()]
    return markdown_table(["", *(column.replace("_", " ") for column in columns)], lines)


def markdown_table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table in markdown; the first column is aligned left, the others right."""
    rows = [head, ["---", *["--:"] * (len(head) - 1)], *lines]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows
    )


def prediction(response: str | None, config: EvaluateConfig) -> str:
    """What the scorer is given: the text in <answer>, or the whole response (answer_tags=raw)."""
    if response is None:
        return ""
    return last_answer(response) if config.answer_tags is AnswerTags.strip else response


def prediction_file(checkpoint: str, benchmark: str) -> str:
    """The harness's name of a prediction file; a miniature keeps its own name."""
    model = "".join(c if c.isalnum() or c in "._-" else "-" for c in Path(checkpoint).name)
    official = benchmark in OFFICIAL
    return f"{model}_{TSV_FILES[benchmark] if official else benchmark.replace('/', '-') + '.tsv'}"


def write_predictions(
    folder: Path,
    checkpoint: str,
    items: Sequence[BenchmarkItem],
    results: Sequence[ItemResult],
    config: EvaluateConfig,
) -> list[Path]:
    """One table of predictions for each benchmark, for the harness's own scorer; returns the files.

    The columns are those of the harness's data file, but the image, and `prediction`. The harness
    takes it with PRED_FORMAT=tsv. It finds items by `index`, so the items must have come from its
    own TSV (evaluate.source=tsv).
    """
    responses = {(result.benchmark, result.item_id): result.response for result in results}
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name in config.benchmarks:
        rows = [
            dict(item.item) | {"prediction": prediction(responses[item.key], config)}
            for item in items
            if item.benchmark == name and item.key in responses
        ]
        seen = dict.fromkeys(column for row in rows for column in row)
        columns = [column for column in seen if column not in ("image", "sample_id")]
        paths.append(folder / prediction_file(checkpoint, name))
        with paths[-1].open("w", newline="", encoding="utf-8", errors="replace") as file:
            # Every cell is quoted, as in the harness's own files.
            writer = csv.writer(file, delimiter="\t", quoting=csv.QUOTE_ALL, lineterminator="\n")
            writer.writerow(columns)
            for row in rows:
                cells = ("" if row.get(column) is None else str(row[column]) for column in columns)
                # A table's reader stops at a zero byte.
                writer.writerow([cell.replace("\0", "") for cell in cells])
    return paths
