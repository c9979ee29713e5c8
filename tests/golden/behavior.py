"""Prints a run's strata, selections and scores as JSON. Tests compare them with a golden file.

The JSON repeats few names of the code, so that a renaming does not change the golden files.

Usage: python tests/golden/behavior.py OUTPUT_DIR > tests/golden/NAME.json
"""

import json
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

SCORE_FOLDER, DATA_FOLDER = "score", "data"  # in OUTPUT_DIR
ITEM_COLUMNS = ("benchmark", "item_id", "score")
ARMS = ("base", "tuned", "control")  # the models that a run compares, as named in report.json


def rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of a folder's parquet parts, without the column of images."""
    tables = []
    for path in sorted(folder.glob("part-*.parquet")):
        names = [name for name in pq.read_schema(path).names if name != "images"]
        tables.append(pq.read_table(path, columns=names))
    return pa.concat_tables(tables).to_pylist() if tables else []


def only_folder_in(folder: Path) -> Path:
    """The single folder in a folder; ValueError if there are more or none."""
    (path,) = folder.iterdir()
    return path


def strata(output_dir: Path, order: list[str]) -> dict[str, list[Any]]:
    """Difficulty measure -> `[stratum's first letter, value]` of every sample, in this order.

    The stratum is easy, medium, hard or unsolved; a sample without one has "-".
    """
    by_measure: dict[str, dict[str, Any]] = {}
    for row in rows(only_folder_in(output_dir / SCORE_FOLDER)):
        value = row["value"] if row["value"] is None else round(row["value"], 3)
        by_sample = by_measure.setdefault(row["measure"], {})
        by_sample[row["sample_id"]] = [(row["stratum"] or "-")[0], value]
    return {
        measure: [by_sample.get(sample_id) for sample_id in order]
        for measure, by_sample in by_measure.items()
    }


def selections(output_dir: Path, order: list[str]) -> list[list[int]]:
    """The sorted positions in `order` of the samples of every selection."""
    position_of = {sample_id: position for position, sample_id in enumerate(order)}
    folders = (output_dir / "select").iterdir()
    return sorted(sorted(position_of[row["sample_id"]] for row in rows(path)) for path in folders)


def item_scores(output_dir: Path) -> list[str]:
    """One line per checkpoint: `BENCHMARK score score ...; BENCHMARK ...`, by item id."""
    lines = []
    for folder in (output_dir / "evaluate").iterdir():
        items = sorted(tuple(row[name] for name in ITEM_COLUMNS) for row in rows(folder))
        by_benchmark: dict[str, list[str]] = {}
        for benchmark, _, score in items:
            by_benchmark.setdefault(benchmark, []).append(f"{score:g}")
        groups = [f"{name} {' '.join(scores)}" for name, scores in by_benchmark.items()]
        lines.append("; ".join(groups))
    return sorted(lines)


def report_numbers(output_dir: Path) -> dict[str, Any]:
    """The sizes of the strata, the scores of every arm and their differences, from report.json."""
    report = json.loads((only_folder_in(output_dir / "run") / "report.json").read_text())
    result: dict[str, Any] = {"strata": report["counts"]["strata"]}
    for arm in ARMS:
        result[arm] = {
            benchmark: [score["score"], score["low"], score["high"], score["n"]]
            for benchmark, score in (report.get(arm) or {}).items()
        }
    result["differences"] = {
        name: [difference["mean"], difference["low"], difference["high"]]
        for name, difference in report["differences"].items()
    }
    return result


def behavior(output_dir: Path) -> dict[str, Any]:
    """The golden file's content for an OUTPUT_DIR with a single run."""
    order = [row["sample_id"] for row in rows(only_folder_in(output_dir / DATA_FOLDER))]
    return {
        "samples": order,
        "strata": strata(output_dir, order),
        "selections": selections(output_dir, order),
        "item_scores": item_scores(output_dir),
        "report": report_numbers(output_dir),
    }


if __name__ == "__main__":
    print(json.dumps(behavior(Path(sys.argv[1])), separators=(",", ":"), sort_keys=True))
