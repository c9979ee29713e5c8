"""Rows per second and peak memory of the data stage, against plain `datasets` iteration.

    python benchmarks/load_data.py [--rows 50000] [--folder FOLDER]

Writes synthetic EasyR1 rows with a JPEG each (224 x 168) to parquet, then measures each method of
reading in a process of its own, over a tenth of the rows and over all: memory must not grow with
the rows. The result goes to benchmarks/results/load_data.md.

    datasets   for row in load_dataset("parquet", streaming=True): images decoded, nothing else
    stage      data.build: decoded, resized, PNG; gold answers checked, duplicates searched; written
    read back  the stage's samples, every image of them read once
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import load_dataset
from PIL import Image, ImageDraw

from difftrain.config.data import DataConfig, Source
from difftrain.data import build
from difftrain.pipeline import parquet
from difftrain.pipeline.manifest import versions
from difftrain.records import Sample

RESULT = Path(__file__).parent / "results" / "load_data.md"
ROWS_PER_FILE = 1000
SIZE = (224, 168)


def draw_jpeg(rng: Random) -> bytes:
    """A JPEG with a few colored shapes."""
    image = Image.new("RGB", SIZE, "white")
    canvas = ImageDraw.Draw(image)
    for _ in range(6):
        x, y, side = rng.randrange(SIZE[0]), rng.randrange(SIZE[1]), rng.randrange(10, 60)
        canvas.ellipse((x, y, x + side, y + side), fill=tuple(rng.randrange(256) for _ in range(3)))
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def write(folder: Path, rows: int) -> None:
    """The synthetic rows, ROWS_PER_FILE a file."""
    folder.mkdir(parents=True, exist_ok=True)
    for start in range(0, rows, ROWS_PER_FILE):
        path = folder / f"rows_{start:07d}.parquet"
        if path.exists():
            continue
        table = [
            {
                "problem": f"<image>Question {number}: how many shapes?",
                "images": [{"bytes": draw_jpeg(Random(number)), "path": None}],
                "answer": str(number % 7),
            }
            for number in range(start, min(start + ROWS_PER_FILE, rows))
        ]
        pq.write_table(pa.Table.from_pylist(table), path, row_group_size=100)


def config(folder: Path, rows: int) -> DataConfig:
    """The data settings that read these rows."""
    return DataConfig(source=Source.easyr1, path=str(folder), limit=rows)


def iterate_datasets(folder: Path, _: Path, rows: int) -> int:
    """Plain iteration."""
    files = sorted(map(str, folder.glob("*.parquet")))
    stream = load_dataset("parquet", data_files=files, split="train", streaming=True)
    number = 0
    for row in stream.take(rows):
        for image in row["images"]:
            Image.open(BytesIO(image["bytes"])).load()
        number += 1
    return number


def run_data_stage(folder: Path, data_folder: Path, rows: int) -> int:
    """The data stage."""
    return build.build_dataset(config(folder, rows), data_folder)["counts"]["samples"]


def read_back(_: Path, data_folder: Path, rows: int) -> int:
    """What the later stages do."""
    samples = parquet.read_finished(data_folder, Sample, "python launch/probe.py")
    return sum(len(each.images[0]) > 0 for each in samples)


METHODS: dict[str, Callable[[Path, Path, int], int]] = {
    "datasets": iterate_datasets,
    "stage": run_data_stage,
    "read back": read_back,
}


def measure_in_process(method: str, folder: Path, data_folder: Path, rows: int) -> dict[str, float]:
    """Seconds and memory of one method, in a process of its own."""
    command = [sys.executable, __file__, "--method", method, "--folder", str(folder)]
    command += ["--data-folder", str(data_folder), "--rows", str(rows)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def measure(method: str, folder: Path, data_folder: Path, rows: int) -> None:
    """Measure this process."""
    before = resource.getrusage(resource.RUSAGE_SELF)
    started = time.perf_counter()
    number = METHODS[method](folder, data_folder, rows)
    after = resource.getrusage(resource.RUSAGE_SELF)
    assert number == rows, (method, number, rows)
    measured = {
        "seconds": time.perf_counter() - started,
        "cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "peak": after.ru_maxrss / 1024,
        "start": before.ru_maxrss / 1024,
    }
    print(json.dumps(measured))


def report(rows: int, results: dict[str, dict[int, dict[str, float]]], size: int) -> str:
    """The result as Markdown."""
    few = rows // 10
    lines = [
        "# Loading data\n",
        f"{rows} rows with a JPEG of {SIZE[0]} x {SIZE[1]} each ({size >> 20} MiB of parquet).",
        "Each line is a process of its own; peak memory includes imports. The",
        "machine was shared, so CPU seconds say more than the clock.\n",
        f"| method | rows/s | rows/CPU s | peak MiB, {few} rows | peak MiB, {rows} rows | growth |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for method, by_rows in results.items():
        all_rows, tenth = by_rows[rows], by_rows[few]
        lines.append(
            f"| {method} | {rows / all_rows['seconds']:.0f} | {rows / all_rows['cpu']:.0f} "
            f"| {tenth['peak']:.0f} | {all_rows['peak']:.0f} "
            f"| {all_rows['peak'] - tenth['peak']:+.0f} MiB |"
        )
    plain, ours = results["datasets"][rows], results["stage"][rows]
    more = results["read back"][rows]["peak"] - results["read back"][few]["peak"]
    back = more * 2**20 / (rows - few)
    lines.append(
        f"\nFor each row, `stage` needs {ours['cpu'] / plain['cpu']:.1f} times the CPU of plain "
        "decoding: it also resizes, encodes PNG,\nhashes pixels, checks the gold answer, finds "
        "duplicates and writes. `read back` holds all samples\nat once, text included "
        f"({back:.0f} bytes of memory a row), but none of their images."
    )
    package_versions = ", ".join(f"{name} {version}" for name, version in versions().items())
    lines.append(
        f"\nVersions: {package_versions}. Made by `python benchmarks/load_data.py --rows {rows}`."
    )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the rows, measure every method at two sizes, write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--data-folder", type=Path)
    parser.add_argument("--method", choices=list(METHODS))
    args = parser.parse_args()
    if args.method:
        return measure(args.method, args.folder, args.data_folder, args.rows)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with TemporaryDirectory() as scratch:
        folder = (args.folder or Path(scratch)) / "rows"
        write(folder, args.rows)
        size = sum(path.stat().st_size for path in folder.iterdir())
        results: dict[str, dict[int, dict[str, float]]] = {}
        for method in METHODS:
            for rows in (args.rows // 10, args.rows):
                data_folder = Path(scratch) / f"data-{rows}"
                results.setdefault(method, {})[rows] = measure_in_process(
                    method, folder, data_folder, rows
                )
                print(method, rows, results[method][rows], flush=True)
    RESULT.write_text(report(args.rows, results, size))
    print(RESULT.read_text())


if __name__ == "__main__":
    main()
