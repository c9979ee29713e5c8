"""What stands beside a checkpoint's marks: breakdowns, a page to read, predictions to export."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from difftrain.config.engine import EngineKind
from difftrain.config.evaluate import OFFICIAL, EvaluateConfig, HarnessOverrides, SystemPrompt
from difftrain.config.run_config import RunConfig, plain
from difftrain.evaluate import export, sources
from difftrain.evaluate.asking import Asked
from difftrain.evaluate.breakdown import Table, breakdown, outcomes, printed
from difftrain.evaluate.official import OFFICIAL as FACTS
from difftrain.pipeline import manifest
from difftrain.records import ItemResult

SCORED = ("rule", "judge", "undecided", "drawn")
"""Outcomes of items that have a score."""


@dataclass(frozen=True, slots=True)
class Who:
    """Who judged, in words, and who answered, as makers.read has it."""

    judge: str
    engines: Sequence[Mapping[str, Any]]

    @property
    def kinds(self) -> str:
        """The kinds of the engines: `hf`, and maybe others, such as `hf, http`."""
        return ", ".join(sorted({each["engine"] for each in self.engines}))

    def dtype(self, config: RunConfig) -> str | None:
        """The number format of the answers; None where a server has its own."""
        here = (EngineKind.hf, EngineKind.vllm)
        known = all(each["engine"] in here for each in self.engines)
        return str(config.model.dtype) if known else None

    def lines(self) -> list[list[str]]:
        """Each engine in words, once, and what a server makes of pictures."""
        found = []
        for each in self.engines:
            about = [each["engine"], each.get("version", "")]
            about += [f"served as {each['served']}"] if "served" in each else []
            found.append(["engine", " ".join(filter(None, about))])
            if tokens := each.get("picture_tokens"):
                side, server, wanted = (tokens[key] for key in ("side", "server", "expected"))
                told = f"{server} for a picture of {side} x {side}, where {wanted} are counted here"
                smaller = ": the server makes pictures smaller" if server < wanted else ""
                found.append(["picture tokens", told + smaller])
        return [line for place, line in enumerate(found) if line not in found[:place]]


def write(
    folder: Path,
    checkpoint: str,
    who: Who,
    asked: Sequence[Asked],
    marks: Sequence[ItemResult],
    config: RunConfig,
) -> None:
    """Write breakdown.json, scores.md and predictions/ into a folder that has its summary.json."""
    evaluate = config.evaluate
    found = {
        name: {
            "outcomes": outcomes(own),
            "tables": breakdown(name, own, is_thinned(name, len(own), evaluate)),
        }
        for name in evaluate.benchmarks
        if (own := [mark for mark in marks if mark.benchmark == name])
    }
    manifest.write_json(folder / "breakdown.json", found)
    summary = json.loads((folder / "summary.json").read_text())
    blocks = [
        f"# Benchmarks of {checkpoint}",
        headlines(summary, found, config),
        table(["setting", "value"], conditions(who, config)),
    ]
    for name, each in found.items():
        blocks.append(f"## {name}")
        blocks += [f"{title}\n\n{shown(rows)}" for title, rows in each["tables"].items()]
    manifest.write_text(folder / "scores.md", "\n\n".join(blocks) + "\n")
    export.write(folder / "predictions", checkpoint, asked, marks, evaluate)


def is_thinned(name: str, found: int, config: EvaluateConfig) -> bool:
    """Whether a limit left items of an official benchmark out; a miniature is drawn to measure."""
    return name in OFFICIAL and found == config.limit and found < FACTS[name].count


def headlines(summary: dict[str, Any], found: dict[str, Any], config: RunConfig) -> str:
    """The printed figure of each benchmark, its interval, and how the items were settled."""
    head = ["benchmark", "score", "95 % interval", "items", "rule", "judge"]
    head += ["undecided", "drawn", "judge failed", "not asked", "no answer", "empty"]
    lines = []
    for name, each in found.items():
        score, low, high = (summary[name][key] for key in ("score", "low", "high"))
        interval = "" if score is None else f"{printed(name, low)} to {printed(name, high)}"
        whole = FACTS[name].count if name in OFFICIAL else None
        n = sum(each["outcomes"][how] for how in SCORED)
        items = f"{n} of {whole}" if whole not in (None, n) else str(n)
        figure = "none" if score is None else printed(name, score)
        lines.append([name, figure, interval, items, *map(str, each["outcomes"].values())])
    told = (
        "As the papers' tables print them: percent, but fractions for MMMU and MMStar; "
        "HallusionBench is aAcc. Undecided items count as wrong, also where the reference would "
        "draw an option at random; drawn ones count as their draw falls "
        "(evaluate.harness_overrides.fallback=random); items whose judge failed, that were not "
        "asked (no picture) or that the engine did not answer have no score."
    )
    whys = [
        f"{name} has no score: {summary[name]['reason']}."
        for name in found
        if summary[name]["reason"]
    ]
    return "\n\n".join([table(head, lines), told, *whys])


def conditions(who: Who, config: RunConfig) -> list[list[str]]:
    """The settings that a score depends on, in words."""
    evaluate = config.evaluate
    system = "none" if evaluate.system is SystemPrompt.none else "think (tags asked for)"
    lines = [
        ["system prompt", system],
        ["answer tags", str(evaluate.answer_tags)],
        ["rules", evaluate.rules],
        ["judge", who.judge],
        *who.lines(),
        ["decoding", f"greedy, {evaluate.max_new_tokens} new tokens"],
        *([["number format", dtype]] if (dtype := who.dtype(config)) else []),
        ["limit", "none" if evaluate.limit is None else f"{evaluate.limit} of each"],
    ]
    usual, chosen = plain(HarnessOverrides()), plain(evaluate.harness_overrides)
    other = [f"{key}={value}" for key, value in chosen.items() if value != usual[key]]
    lines.append(["deviations", ", ".join(other) or "none, but no random fallback"])
    drawn = config.data.min_pixels, config.data.max_pixels
    for name in evaluate.benchmarks:
        low, high = evaluate.pixels(name, drawn)
        lines.append([name, f"{sources.origin(name, evaluate)}; {low:,} to {high:,} pixels"])
    return lines


def shown(rows: Table) -> str:
    """A breakdown as a table: counts as they are, fractions in percent."""
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    counts = ("n", "right", "by_rule", "norm", "figures_left_out", "questions_left_out")

    def cell(column: str, value: Any) -> str:
        if value is None:
            return ""
        return f"{value:g}" if column in counts else f"{100 * value:.2f}"

    lines = [[name, *(cell(c, row.get(c)) for c in columns)] for name, row in rows.items()]
    return table(["", *(each.replace("_", " ") for each in columns)], lines)


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table in markdown; the first column is aligned left, the others right."""
    every = [head, ["---", *["--:"] * (len(head) - 1)], *lines]
    return "\n".join(
        "| " + " | ".join(c.replace("|", "\\|") for c in line) + " |" for line in every
    )
