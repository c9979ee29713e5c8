"""Rows per second and peak memory of the data stage, against plain `datasets` iteration.

    python benchmarks/load_data.py [--rows 50000] [--folder FOLDER]

Writes synthetic EasyR1 rows with a JPEG each (224 x 168) to parquet, then measures each way of
reading in a process of its own, over a tenth of the rows and over all: memory must not grow with
the rows. The result goes to benchmarks/results/load_data.md.

    datasets   for row in load_dataset("parquet", streaming=True): pictures decoded, nothing else
    stage      data.build: decoded, resized, PNG; golds checked, duplicates sought; written
    read back  the stage's samples, every picture of them fetched once
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


def drawn(rng: Random) -> bytes:
    """A JPEG with a few coloured shapes."""
    image = Image.new("RGB", SIZE, "white")
    page = ImageDraw.Draw(image)
    for _ in range(6):
        x, y, side = rng.randrange(SIZE[0]), rng.randrange(SIZE[1]), rng.randrange(10, 60)
        page.ellipse((x, y, x + side, y + side), fill=tuple(rng.randrange(256) for _ in range(3)))
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
        found = [
            {
                "problem": f"<image>Question {number}: how many shapes?",
                "images": [{"bytes": drawn(Random(number)), "path": None}],
                "answer": str(number % 7),
            }
            for number in range(start, min(start + ROWS_PER_FILE, rows))
        ]
        pq.write_table(pa.Table.from_pylist(found), path, row_group_size=100)


def config(folder: Path, rows: int) -> DataConfig:
    """The data settings that read these rows."""
    return DataConfig(source=Source.easyr1, path=str(folder), limit=rows)


def by_datasets(folder: Path, _: Path, rows: int) -> int:
    """Plain iteration."""
    files = sorted(map(str, folder.glob("*.parquet")))
    stream = load_dataset("parquet", data_files=files, split="train", streaming=True)
    number = 0
    for row in stream.take(rows):
        for picture in row["images"]:
            Image.open(BytesIO(picture["bytes"])).load()
        number += 1
    return number


def by_stage(folder: Path, made: Path, rows: int) -> int:
    """Our data stage, whole."""
    return build.build_dataset(config(folder, rows), made)["counts"]["samples"]


def by_reading_back(_: Path, made: Path, rows: int) -> int:
    """What the later stages do."""
    samples = parquet.read_finished(made, Sample, "python launch/probe.py")
    return sum(len(each.images[0]) > 0 for each in samples)


WAYS: dict[str, Callable[[Path, Path, int], int]] = {
    "datasets": by_datasets,
    "stage": by_stage,
    "read back": by_reading_back,
}


def measured(way: str, folder: Path, made: Path, rows: int) -> dict[str, float]:
    """Seconds and memory of one way, in a process of its own."""
    command = [sys.executable, __file__, "--way", way, "--folder", str(folder)]
    command += ["--made", str(made), "--rows", str(rows)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def one(way: str, folder: Path, made: Path, rows: int) -> None:
    """Measure this process."""
    before = resource.getrusage(resource.RUSAGE_SELF)
    began = time.perf_counter()
    number = WAYS[way](folder, made, rows)
    after = resource.getrusage(resource.RUSAGE_SELF)
    assert number == rows, (way, number, rows)
    found = {
        "seconds": time.perf_counter() - began,
        "cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "peak": after.ru_maxrss / 1024,
        "start": before.ru_maxrss / 1024,
    }
    print(json.dumps(found))


def report(rows: int, found: dict[str, dict[int, dict[str, float]]], size: int) -> str:
    """The result as Markdown."""
    few = rows // 10
    lines = [
        "# Loading data\n",
        f"{rows} rows with a JPEG of {SIZE[0]} x {SIZE[1]} each ({size >> 20} MiB of parquet).",
        "Each line is a process of its own; peak memory is the most it held, imports included. The",
        "machine was shared, so CPU seconds say more than the clock.\n",
        f"| way | rows/s | rows/CPU s | peak MiB, {few} rows | peak MiB, {rows} rows | growth |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for way, own in found.items():
        all_rows, tenth = own[rows], own[few]
        lines.append(
            f"| {way} | {rows / all_rows['seconds']:.0f} | {rows / all_rows['cpu']:.0f} "
            f"| {tenth['peak']:.0f} | {all_rows['peak']:.0f} "
            f"| {all_rows['peak'] - tenth['peak']:+.0f} MiB |"
        )
    plain, ours = found["datasets"][rows], found["stage"][rows]
    more = found["read back"][rows]["peak"] - found["read back"][few]["peak"]
    back = more * 2**20 / (rows - few)
    lines.append(
        f"\nFor each row, `stage` needs {ours['cpu'] / plain['cpu']:.1f} times the CPU of plain "
        "decoding: it also resizes, encodes PNG,\nhashes pixels and look, checks the gold, seeks "
        "duplicates and writes. `read back` holds all samples\nat once, words and all "
        f"({back:.0f} bytes of memory a row), but none of their pictures."
    )
    told = ", ".join(f"{name} {version}" for name, version in versions().items())
    lines.append(f"\nVersions: {told}. Made by `python benchmarks/load_data.py --rows {rows}`.")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the rows, measure every way at two sizes, write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--made", type=Path)
    parser.add_argument("--way", choices=list(WAYS))
    words = parser.parse_args()
    if words.way:
        return one(words.way, words.folder, words.made, words.rows)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with TemporaryDirectory() as scratch:
        folder = (words.folder or Path(scratch)) / "rows"
        write(folder, words.rows)
        size = sum(path.stat().st_size for path in folder.iterdir())
        found: dict[str, dict[int, dict[str, float]]] = {}
        for way in WAYS:
            for rows in (words.rows // 10, words.rows):
                made = Path(scratch) / f"made-{rows}"
                found.setdefault(way, {})[rows] = measured(way, folder, made, rows)
                print(way, rows, found[way][rows], flush=True)
    RESULT.write_text(report(words.rows, found, size))
    print(RESULT.read_text())


if __name__ == "__main__":
    main()
