"""Measure what a probe costs: with early stopping, one request at a time, in several processes.

    python benchmarks/probe_cost.py [--pool N] [--alone N] [--only PART ...]

A probe generates several responses (draws) to each question of a pool of samples (here of
difftrain/shapes/pool.py) at growing mask ratios: the share of the image that is masked. A sample's
label is its failure ratio (PISM of Qi et al. 2026): the first mask ratio at which too few draws are
correct. The full grid has every draw at every mask ratio; early stopping leaves out the draws that
cannot change a label.

`--only` selects parts of the measurement. Each writes its results into
benchmarks/results/probe_cost.md and .json, which keep the results of the other parts:

* loop: difftrain probes the pool with early stopping and refilled batches. A plain loop probes the
  first `--alone` samples with transformers' generate, one request at a time, as the code released
  with Qi et al. 2026 and with the paper RAP does. Both use the same model and seeds; the labels are
  compared. Half of the loop runs before difftrain and half after it, so that a machine that slows
  down slows both. The loop's time for the whole pool is extrapolated from its seconds per response.
  About four minutes.
* grid: difftrain probes the pool with and without early stopping; the labels are compared. About
  eight minutes.
* deterministic: difftrain probes the pool with and without the setting model.deterministic. About
  four minutes.
* simulation: the share of the full grid that early stopping draws, computed from the numbers of
  easy, medium, hard and unsolved samples in Qi et al. 2026 (probe_simulation.py). One minute.
* processes: launch/probe.py runs as one process with one thread, as one process with two threads,
  and as two processes with one thread each. The machine must be otherwise idle. About five minutes.

Axes: R mask ratios, K draws.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import probe_simulation
import torch

from difftrain.cli.overrides import compose_config
from difftrain.config.run_config import RunConfig, resolve
from difftrain.difficulty import pism
from difftrain.difficulty.evidence import gather_evidence
from difftrain.model.engines import hf, kv_cache
from difftrain.model.engines.hf import HfEngine
from difftrain.model.engines.types import Completion, Request
from difftrain.model.loading import LoadedModel, load
from difftrain.pipeline import manifest, parquet
from difftrain.pipeline.coordination import World
from difftrain.pipeline.stage import Heartbeat
from difftrain.probe.run import engine_request, graded_rollout, probe_share
from difftrain.probe.schedule import ProbeState
from difftrain.records import Rollout, Sample
from difftrain.shapes import pool

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
OVERRIDES = ("difficulty=pism", "difficulty.extra_measures=[]")


def settings(*overrides: str) -> RunConfig:
    """Settings of a probe for PISM alone, with the tiny model that comes with difftrain."""
    return resolve(compose_config([*OVERRIDES, *overrides]))


def load_model(config: RunConfig) -> LoadedModel:
    """The model of these settings."""
    return load(config.model, config.data.min_pixels, config.data.max_pixels)


Labels = dict[str, float | None]


def labels(rows: Sequence[Rollout], config: RunConfig) -> Labels:
    """By sample id the label: the failure ratio (PISM), or None if the sample never fails."""
    ratio_R = np.array(config.probe.mask_percents) / 100
    evidence = gather_evidence(rows, [], config.probe)  # PISM needs no attention rows
    return {key: pism.failure_ratio(sample.correct_RK, ratio_R) for key, sample in evidence.items()}


def run_difftrain(
    loaded: LoadedModel, samples: Sequence[Sample], config: RunConfig
) -> tuple[list[Rollout], float]:
    """Run difftrain's probe in this process; returns its rollouts and its seconds."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        state = ProbeState(folder, config, samples)
        engine = HfEngine(loaded, config.model)
        started = time.perf_counter()
        # Any rank but the first: it shows no progress bar and writes no file of elapsed seconds.
        heartbeat = Heartbeat(folder, World(rank=1, size=2))
        probe_share(engine, samples, state, config, config.seed, heartbeat)
        return parquet.read_rows(folder, Rollout), time.perf_counter() - started


@torch.inference_mode()
def generate_alone(loaded: LoadedModel, request: Request) -> Completion:
    """The completion of one request by transformers' generate, in a batch of one."""
    inputs = kv_cache.encode(loaded, [request])
    prompt_length = inputs["input_ids"].shape[1]
    banned_ids = list(loaded.banned.values())  # image tokens are no text

    def add_noise(input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Add the engine's seeded Gumbel noise, so that greedy decoding samples its tokens."""
        position = input_ids.shape[1] - prompt_length
        noise_key = request.seed, position, request.temperature
        return hf.noisy_logits(scores, [noise_key], banned_ids)

    output = loaded.model.generate(
        **inputs,
        max_new_tokens=request.max_new_tokens,
        do_sample=False,
        eos_token_id=list(hf.eos_token_ids(loaded)),
        pad_token_id=loaded.processor.tokenizer.pad_token_id,
        logits_processor=[add_noise],
    )
    return hf.to_completion(loaded, output[0, prompt_length:].tolist(), request.max_new_tokens)


def run_loop(
    loaded: LoadedModel, samples: Sequence[Sample], config: RunConfig
) -> tuple[list[Rollout], float]:
    """Run the plain loop with early stopping; returns its rollouts and its seconds."""
    # The loop keeps its rollouts in memory; the state never reads or writes this folder.
    state = ProbeState(Path("nowhere"), config, samples)
    rows: list[Rollout] = []
    started = time.perf_counter()
    for sample in samples:
        while requests := state.next_requests(sample):
            for request in requests:
                completion = generate_alone(
                    loaded, engine_request(request, config.probe, config.seed)
                )
                rows.append(graded_rollout(request, completion, config.seed, config.grade))
                state.add([rows[-1]])
    return rows, time.perf_counter() - started


def compare_loop(arguments: argparse.Namespace) -> dict[str, Any]:
    """Compare difftrain's probe with the plain loop."""
    config = settings()
    loaded = load_model(config)
    # Split.pool is the training part of the built-in samples.
    samples = list(pool.samples(pool.Split.pool, arguments.pool))
    subset = samples[: arguments.alone]
    run_difftrain(loaded, samples[:8], config)  # warm up
    rows_before, seconds_before = run_loop(loaded, subset[::2], config)
    rows, seconds = run_difftrain(loaded, samples, config)
    rows_after, seconds_after = run_loop(loaded, subset[1::2], config)
    loop_rows, loop_seconds = rows_before + rows_after, seconds_before + seconds_after
    loop_labels, our_labels = labels(loop_rows, config), labels(rows, config)
    per_response = loop_seconds / len(loop_rows)
    grid_size = len(samples) * len(config.probe.mask_percents) * config.probe.draws
    return {
        "samples": len(samples),
        "responses": len(rows),
        "responses_of_the_grid": grid_size,
        "share_of_the_grid": len(rows) / grid_size,
        "seconds": seconds,
        "seconds_per_response": seconds / len(rows),
        "loop": {
            "samples": len(subset),
            "responses": len(loop_rows),
            "seconds": loop_seconds,
            "seconds_per_response": per_response,
            "same_labels": sum(our_labels[key] == value for key, value in loop_labels.items()),
            "seconds_early_extrapolated": per_response * len(rows),
            "seconds_grid_extrapolated": per_response * grid_size,
        },
        "times_faster_than_the_loop_with_early_stopping": per_response * len(rows) / seconds,
        "times_faster_than_the_loop_over_the_grid": per_response * grid_size / seconds,
        "threads": torch.get_num_threads(),
    }


def compare_grid(arguments: argparse.Namespace) -> dict[str, Any]:
    """Compare the full grid (probe.until=grid) with early stopping: labels, responses, seconds."""
    early, full = settings(), settings("probe.until=grid")
    loaded = load_model(early)
    samples = list(pool.samples(pool.Split.pool, arguments.pool))
    rows, seconds = run_difftrain(loaded, samples, early)
    full_rows, grid_seconds = run_difftrain(loaded, samples, full)
    early_labels, full_labels = labels(rows, early), labels(full_rows, full)
    return {
        "samples": len(samples),
        "same_labels": sum(early_labels[key] == value for key, value in full_labels.items()),
        "responses": {"early": len(rows), "grid": len(full_rows)},
        "seconds": {"early": seconds, "grid": grid_seconds},
        "share_of_responses": len(rows) / len(full_rows),
        "share_of_seconds": seconds / grid_seconds,
        "threads": torch.get_num_threads(),
    }


def compare_deterministic(arguments: argparse.Namespace) -> dict[str, Any]:
    """Compare the probe with and without model.deterministic, which fixes the tensors' shapes."""
    free, fixed = settings(), settings("model.deterministic=true")
    loaded = load_model(free)
    samples = list(pool.samples(pool.Split.pool, arguments.pool))
    run_difftrain(loaded, samples[:8], free)  # warm up
    rows, seconds = run_difftrain(loaded, samples, free)
    fixed_rows, fixed_seconds = run_difftrain(loaded, samples, fixed)
    return {
        "samples": len(samples),
        "seconds": {"free": seconds, "deterministic": fixed_seconds},
        "times_slower": fixed_seconds / seconds,
        "responses": {"free": len(rows), "deterministic": len(fixed_rows)},
        # repr() contains every field of a rollout: its draw, seed and response, for example.
        "equal_rows": len(set(map(repr, rows)) & set(map(repr, fixed_rows))),
        "threads": torch.get_num_threads(),
    }


def launch_probe(folder: Path, num_processes: int, threads: int, samples: int) -> float:
    """Seconds of the probe stage with `num_processes` processes of `threads` threads each."""
    overrides = [*OVERRIDES, f"data.num_samples={samples}", f"output_dir={folder}"]
    command = [sys.executable, str(ROOT / "launch" / "probe.py"), *overrides]
    environment = {"OMP_NUM_THREADS": str(threads), "WORLD_SIZE": str(num_processes)}
    rank_processes = [
        subprocess.Popen(
            command,
            env={**os.environ, **environment, "RANK": str(rank)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for rank in range(num_processes)
    ]
    exit_codes = [process.wait() for process in rank_processes]
    if any(exit_codes):
        raise SystemExit(f"this command failed: {' '.join(command)}")
    (path,) = folder.glob("probe/*/manifest.json")
    return float(json.loads(path.read_text())["seconds"])


def rows_of(folder: Path) -> list[Rollout]:
    """A finished probe's rollouts, sorted by sample, mask ratio and draw."""
    (probe,) = folder.glob("probe/*")
    rows = parquet.read_rows(probe, Rollout)
    return sorted(rows, key=lambda row: (row.sample_id, row.mask_percent, row.draw))


def compare_processes(arguments: argparse.Namespace) -> dict[str, Any]:
    """Compare the samples per second of one process and of two; the setups take turns."""
    setups = {  # name: (number of processes, threads per process)
        "one_of_one_thread": (1, 1),
        "one_of_two_threads": (1, 2),
        "two_of_one_thread": (2, 1),
    }
    seconds: dict[str, list[float]] = {name: [] for name in setups}
    rows: dict[str, list[Rollout]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for repeat in range(arguments.repeats):
            for name, (num_processes, threads) in setups.items():
                folder = Path(temporary) / f"{name}-{repeat}"
                seconds[name].append(launch_probe(folder, num_processes, threads, arguments.pool))
                rows[name] = rows_of(folder)
    best = {name: min(runs) for name, runs in seconds.items()}
    one_process, two_processes = (
        {(r.sample_id, r.mask_percent, r.draw): (r.seed, r.response) for r in rows[name]}
        for name in ("one_of_one_thread", "two_of_one_thread")
    )
    return {
        "samples": arguments.pool,
        "seconds": seconds,
        "samples_per_second": {name: arguments.pool / fastest for name, fastest in best.items()},
        "speedup_by_a_second_process": best["one_of_one_thread"] / best["two_of_one_thread"],
        "speedup_over_two_threads": best["one_of_two_threads"] / best["two_of_one_thread"],
        "rows": {"one": len(one_process), "two": len(two_processes)},
        "equal_rows": sum(two_processes.get(k) == row for k, row in one_process.items()),
    }


PARTS = {
    "loop": compare_loop,
    "grid": compare_grid,
    "deterministic": compare_deterministic,
    "simulation": lambda _: probe_simulation.shares(),
    "processes": compare_processes,
}


def markdown_list(node: Any, depth: int = 0) -> list[str]:
    """A nested result as a Markdown list."""
    lines = []
    for key, value in node.items():
        text = f"{'  ' * depth}* {key.replace('_', ' ')}"
        if isinstance(value, dict):
            lines += [text, *markdown_list(value, depth + 1)]
        else:
            lines.append(f"{text}: {value:.4g}" if isinstance(value, float) else f"{text}: {value}")
    return lines


def main() -> None:
    """Measure the requested parts and merge them into the results file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pool", type=int, default=400, help="samples of the built-in pool")
    parser.add_argument("--alone", type=int, default=40, help="samples of the plain loop")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--only", choices=list(PARTS), nargs="+", default=list(PARTS))
    parser.add_argument("--note", default="", help="what else the machine was doing")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    path = arguments.results / "probe_cost.json"
    result: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    for name in arguments.only:
        result[name] = PARTS[name](arguments)
        result[name]["command"] = "python benchmarks/probe_cost.py " + " ".join(sys.argv[1:])
        result[name]["machine"] = f"{os.cpu_count()} cores, {platform.machine()} {arguments.note}"
        result[name]["versions"] = manifest.versions()
        arguments.results.mkdir(parents=True, exist_ok=True)
        manifest.write_json(path, result)
        print(json.dumps({name: result[name]}, indent=2), flush=True)
    parts = [
        f"## {name}\n\n" + "\n".join(markdown_list(result[name]))
        for name in PARTS
        if name in result
    ]
    head = "# What a probe costs\n\nThe parts are explained in benchmarks/probe_cost.py.\n\n"
    (arguments.results / "probe_cost.md").write_text(head + "\n\n".join(parts) + "\n")


if __name__ == "__main__":
    main()
