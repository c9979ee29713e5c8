"""What closes a folder of marks: the rows, summary.json, manifest.json, the words for a terminal.

Not here: how marks (grading.py) and summaries (summary.py) are made.
"""

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from difftrain.config import run_config
from difftrain.config.evaluate import NEITHER
from difftrain.config.judge import JudgeKind, by_rules_alone, model_name, server_hash
from difftrain.config.run_config import RunConfig
from difftrain.evaluate import compare, results, undecided
from difftrain.evaluate.asking import Asked
from difftrain.evaluate.judge.usage import told
from difftrain.model.engines import types
from difftrain.pipeline import coordination, manifest, parquet
from difftrain.records import ItemResult


@dataclass(frozen=True, slots=True)
class Origin:
    """Where marks come from. `started` is a time.time(), `judge` holds the judge's counts.

    `items` is responses.items_identity.
    """

    config: RunConfig
    checkpoint: str
    responses: str
    started: float
    judge: Mapping[str, Any]
    items: Mapping[str, str]


def is_done(folder: Path) -> bool:
    """Whether every item is marked; one whose engine or judge failed is asked by the next run."""
    made = manifest.read_manifest(folder)
    if made is None or made["counts"].get("unanswered"):
        return False
    return not made["counts"].get("judge", {}).get("failed_items")


def reopen(folder: Path) -> None:
    """Call the folder unfinished, before a failed item is asked again: a kill must not hide it."""
    (folder / "manifest.json").unlink(missing_ok=True)


def close(
    folder: Path,
    asked: Sequence[Asked],
    marks: Sequence[ItemResult],
    found: Mapping[str, Mapping[str, Any]],
    origin: Origin,
) -> None:
    """Write the folder anew: the marks, summary.json, what belongs to them, manifest.json last."""
    reopen(folder)
    for left in parquet.parts(folder):
        left.unlink()
    parquet.write_all(folder, marks)
    evaluate = origin.config.evaluate
    alone = {name: by_rules_alone(evaluate.judge, name) for name in evaluate.benchmarks}
    alone["mean"] = any(alone.values())
    shown = {name: {**each, "rules_only": alone[name]} for name, each in found.items()}
    manifest.write_json(folder / "summary.json", shown)
    judge = words = model_name(evaluate.judge, evaluate.benchmarks)
    if evaluate.judge is JudgeKind.endpoint:
        words = told(judge, origin.judge)
        print(f"judge {words}", file=sys.stderr, flush=True)
    if unanswered := undecided.unanswered(marks):
        without = f"{unanswered} items have no answer of the engine"
        print(f"{without}; the same command asks them again", file=sys.stderr, flush=True)
    for name, each in found.items():
        if each["reason"]:
            print(f"{name}: no score: {each['reason']}", file=sys.stderr, flush=True)
    engines = types.read_engine_info(folder.parent.parent / "responses" / origin.responses)
    who = results.Who(words, engines)
    results.write(folder, origin.checkpoint, who, asked, marks, origin.config)
    own = run_config.plain(evaluate) | {"judge": judge}
    own |= {"judge_server": server_hash(evaluate.judge)}
    own |= {"engine": who.kinds, "dtype": who.dtype(origin.config)}
    manifest.write_manifest(
        folder,
        settings={name: each for name, each in own.items() if name not in NEITHER},
        inputs={
            "checkpoint": origin.checkpoint,
            "responses": origin.responses,
            **{compare.ITEMS + name: each for name, each in origin.items.items()},
        },
        seconds=time.time() - origin.started,
        counts={
            "items": len(marks),
            "unscored": sum(mark.score is None for mark in marks),
            "unanswered": unanswered,
            "judge": dict(origin.judge),
            "engines": engines,
        },
    )
    coordination.remove_heartbeats(folder)
