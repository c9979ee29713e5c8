"""Print what a run decided and measured, in a form that survives renamings, as a golden file.

python tests/golden/behavior.py OUTPUT_DIR > tests/golden/NAME.json
"""

import json
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

SCORES, SAMPLE_ORDER = "score", "data"
ITEM_COLUMNS = ("benchmark", "item_id", "score")
REPORT_KEYS = ("counts", "differences")
ARMS = ("base", "tuned", "control")


def rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of a stage folder, without the images."""
    tables = []
    for path in sorted(folder.glob("part-*.parquet")):
        names = [name for name in pq.read_schema(path).names if name != "images"]
        tables.append(pq.read_table(path, columns=names))
    return pa.concat_tables(tables).to_pylist() if tables else []


def only(folder: Path) -> Path:
    """The only folder in a folder."""
    (content,) = folder.iterdir()
    return content


def strata(output_dir: Path, order: list[str]) -> dict[str, list[Any]]:
    """By measure: `[stratum's first letter, value]` of every sample, in the data's order."""
    by_measure: dict[str, dict[str, Any]] = {}
    for row in rows(only(output_dir / SCORES)):
        value = row["value"] if row["value"] is None else round(row["value"], 3)
        by_sample = by_measure.setdefault(row["measure"], {})
        by_sample[row["sample_id"]] = [(row["stratum"] or "-")[0], value]
    return {
        measure: [by_sample.get(id_) for id_ in order] for measure, by_sample in by_measure.items()
    }


def selections(output_dir: Path, order: list[str]) -> list[list[int]]:
    """Every selection as sorted positions in the data's order."""
    position = {sample_id: number for number, sample_id in enumerate(order)}
    folders = (output_dir / "select").iterdir()
    return sorted(sorted(position[row["sample_id"]] for row in rows(path)) for path in folders)


def item_scores(output_dir: Path) -> list[str]:
    """One line per checkpoint: its item scores, benchmark by benchmark."""
    lines = []
    for folder in (output_dir / "evaluate").iterdir():
        items = sorted(tuple(row[name] for name in ITEM_COLUMNS) for row in rows(folder))
        by_benchmark: dict[str, list[str]] = {}
        for benchmark, _, score in items:
            by_benchmark.setdefault(benchmark, []).append(f"{score:g}")
        lines.append("; ".join(f"{name} {' '.join(s)}" for name, s in by_benchmark.items()))
    return sorted(lines)


def figures(output_dir: Path) -> dict[str, Any]:
    """The report's counts, scores with intervals, and differences."""
    report = json.loads((only(output_dir / "run") / "report.json").read_text())
    result: dict[str, Any] = {"strata": report["counts"]["strata"]}
    for arm in ARMS:
        scores = report.get(arm) or {}
        result[arm] = {k: [v["score"], v["low"], v["high"], v["n"]] for k, v in scores.items()}
    result["differences"] = {
        name: [difference["mean"], difference["low"], difference["high"]]
        for name, difference in report["differences"].items()
    }
    return result


def behavior(output_dir: Path) -> dict[str, Any]:
    """Strata, selections, item scores and report figures of the one run in a folder."""
    order = [row["sample_id"] for row in rows(only(output_dir / SAMPLE_ORDER))]
    return {
        "samples": order,
        "strata": strata(output_dir, order),
        "selections": selections(output_dir, order),
        "item_scores": item_scores(output_dir),
        "report": figures(output_dir),
    }


if __name__ == "__main__":
    print(json.dumps(behavior(Path(sys.argv[1])), separators=(",", ":"), sort_keys=True))
