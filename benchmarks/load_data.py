"""Compare difftrain's data stage with plain iteration over `datasets`: speed and peak memory.

    python benchmarks/load_data.py [--rows 50000] [--folder FOLDER]

Writes synthetic rows, each with a JPEG of 224 x 168 pixels, to parquet files in the format of the
training framework EasyR1. Each method below runs in its own process, once over a tenth of the rows
and once over all of them, to show whether memory grows with the number of rows. Writes
benchmarks/results/load_data.md.

    datasets   streams load_dataset("parquet") and only decodes the images
    stage      runs the data stage (difftrain/data/build.py): decodes and resizes images, encodes
               PNG, checks gold answers, removes duplicates, writes samples
    read back  reads the samples that the data stage wrote, each image once
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
IMAGE_SIZE = (224, 168)


def draw_jpeg(rng: Random) -> bytes:
    """A JPEG with a few colored shapes."""
    image = Image.new("RGB", IMAGE_SIZE, "white")
    canvas = ImageDraw.Draw(image)
    for _ in range(6):
        x, y = rng.randrange(IMAGE_SIZE[0]), rng.randrange(IMAGE_SIZE[1])
        side = rng.randrange(10, 60)
        canvas.ellipse((x, y, x + side, y + side), fill=tuple(rng.randrange(256) for _ in range(3)))
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def write_rows(folder: Path, num_rows: int) -> None:
    """Write the synthetic rows, ROWS_PER_FILE in each parquet file; existing files are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    for start in range(0, num_rows, ROWS_PER_FILE):
        path = folder / f"rows_{start:07d}.parquet"
        if path.exists():
            continue
        table = [
            {
                "problem": f"<image>Question {number}: how many shapes?",
                "images": [{"bytes": draw_jpeg(Random(number)), "path": None}],
                "answer": str(number % 7),  # any number; this answer does not fit the image
            }
            for number in range(start, min(start + ROWS_PER_FILE, num_rows))
        ]
        pq.write_table(pa.Table.from_pylist(table), path, row_group_size=100)


def data_config(folder: Path, num_rows: int) -> DataConfig:
    """The data settings that read these rows."""
    return DataConfig(source=Source.easyr1, path=str(folder), limit=num_rows)


def iterate_datasets(folder: Path, _: Path, num_rows: int) -> int:
    """Method `datasets`: stream the rows and decode the images; returns the number of rows."""
    files = sorted(map(str, folder.glob("*.parquet")))
    stream = load_dataset("parquet", data_files=files, split="train", streaming=True)
    num_read = 0
    for row in stream.take(num_rows):
        for image in row["images"]:
            Image.open(BytesIO(image["bytes"])).load()
        num_read += 1
    return num_read


def run_data_stage(folder: Path, data_folder: Path, num_rows: int) -> int:
    """Method `stage`: run the data stage; returns the number of samples."""
    config = data_config(folder, num_rows)
    return build.build_dataset(config, data_folder)["counts"]["samples"]


def read_back(_: Path, data_folder: Path, num_rows: int) -> int:
    """Method `read back`: read the samples as the later stages do; returns their number."""
    command = "python launch/probe.py"  # the error names it if the data stage has not finished
    samples = parquet.read_finished(data_folder, Sample, command)
    return sum(len(sample.images[0]) > 0 for sample in samples)


# A method gets the folder of the rows, the data stage's folder and the number of rows.
METHODS: dict[str, Callable[[Path, Path, int], int]] = {
    "datasets": iterate_datasets,
    "stage": run_data_stage,
    "read back": read_back,
}


def measure_in_process(
    method: str, folder: Path, data_folder: Path, num_rows: int
) -> dict[str, float]:
    """Run one method in its own process; returns what measure() prints there."""
    command = [sys.executable, __file__, "--method", method, "--folder", str(folder)]
    command += ["--data-folder", str(data_folder), "--rows", str(num_rows)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def measure(method: str, folder: Path, data_folder: Path, num_rows: int) -> None:
    """Run one method in this process; print its seconds, CPU seconds and memory (MiB) as JSON."""
    before = resource.getrusage(resource.RUSAGE_SELF)
    started = time.perf_counter()
    num_read = METHODS[method](folder, data_folder, num_rows)
    after = resource.getrusage(resource.RUSAGE_SELF)
    assert num_read == num_rows, (method, num_read, num_rows)
    measured = {
        "seconds": time.perf_counter() - started,
        "cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "peak": after.ru_maxrss / 1024,
        "start": before.ru_maxrss / 1024,
    }
    print(json.dumps(measured))


def report(num_rows: int, results: dict[str, dict[int, dict[str, float]]], num_bytes: int) -> str:
    """The content of load_data.md, from what measure() prints, by method and number of rows."""
    tenth = num_rows // 10
    lines = [
        "# Loading data\n",
        f"{num_rows} rows with a JPEG of {IMAGE_SIZE[0]} x {IMAGE_SIZE[1]} each, "
        f"{num_bytes // 2**20} MiB of parquet.",
        "Each method was measured in its own process; peak memory includes imports. The machine",
        "was shared with other work, so CPU seconds say more than elapsed time.\n",
        f"| method | rows/s | rows/CPU s | peak MiB, {tenth} rows | peak MiB, {num_rows} rows "
        "| growth |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for method, by_rows in results.items():
        at_all, at_tenth = by_rows[num_rows], by_rows[tenth]
        lines.append(
            f"| {method} | {num_rows / at_all['seconds']:.0f} | {num_rows / at_all['cpu']:.0f} "
            f"| {at_tenth['peak']:.0f} | {at_all['peak']:.0f} "
            f"| {at_all['peak'] - at_tenth['peak']:+.0f} MiB |"
        )
    plain, ours = results["datasets"][num_rows], results["stage"][num_rows]
    growth = results["read back"][num_rows]["peak"] - results["read back"][tenth]["peak"]
    bytes_per_row = growth * 2**20 / (num_rows - tenth)
    lines.append(
        f"\nFor each row, `stage` needs {ours['cpu'] / plain['cpu']:.1f} times the CPU of plain "
        "decoding: it also resizes, encodes PNG,\nhashes pixels, checks the gold answer, finds "
        "duplicates and writes. `read back` holds all samples\nat once, text included "
        f"({bytes_per_row:.0f} bytes of memory per row), but none of their images."
    )
    package_versions = ", ".join(f"{name} {version}" for name, version in versions().items())
    lines.append(
        f"\nVersions: {package_versions}. Written by "
        f"`python benchmarks/load_data.py --rows {num_rows}`."
    )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the rows, measure each method over a tenth of them and over all, write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--folder", type=Path)
    # The next two are for measure_in_process().
    parser.add_argument("--data-folder", type=Path)
    parser.add_argument("--method", choices=list(METHODS))
    args = parser.parse_args()
    if args.method:
        return measure(args.method, args.folder, args.data_folder, args.rows)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with TemporaryDirectory() as scratch:
        folder = (args.folder or Path(scratch)) / "rows"
        write_rows(folder, args.rows)
        num_bytes = sum(path.stat().st_size for path in folder.iterdir())
        results: dict[str, dict[int, dict[str, float]]] = {}
        for method in METHODS:
            for num_rows in (args.rows // 10, args.rows):
                data_folder = Path(scratch) / f"data-{num_rows}"
                results.setdefault(method, {})[num_rows] = measure_in_process(
                    method, folder, data_folder, num_rows
                )
                print(method, num_rows, results[method][num_rows], flush=True)
    RESULT.write_text(report(args.rows, results, num_bytes))
    print(RESULT.read_text())


if __name__ == "__main__":
    main()
