"""Compare the cost of measuring attention with a plain forward pass and with output_attentions.

    python benchmarks/attention_cost.py [--tokens 512 1024 ...] [--repeats N]

Each pass is teacher-forced over an image, a text and a response, by a decoder of 8 layers with
random weights. There are four kinds of pass:

* plain: measures nothing
* masses: the attention mass on image and on text, which CMAB needs
* masses_and_bias: also the bias towards single tokens, which ACE needs
* output_attentions: eager attention that keeps every matrix, as the code released with Qi et al.
  2026 and RAP does; only for lengths at which the matrices fit into half of the free memory

Seconds are medians over alternating repeats in one process; peak memory is measured with one
process per pass. Writes attention_cost.md, .json and .svg in benchmarks/results. About ten minutes
on two cores.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import torch
from matplotlib import pyplot
from transformers import AutoConfig, AutoModelForImageTextToText

from difftrain.config.difficulty import AceConfig
from difftrain.model import attention
from difftrain.model.resolve import SHIPPED
from difftrain.pipeline import manifest

RESULTS = Path(__file__).parent / "results"
NUM_LAYERS, NUM_HEADS, NUM_KEY_HEADS, HIDDEN_SIZE = 8, 8, 2, 512
IMAGE_GRID = (1, 32, 32)
"""Frames, rows and columns of patches: an image of 448 x 448 pixels gives 256 tokens."""
PASSES = ("plain", "masses", "masses_and_bias", "output_attentions")
CLAIM_TOKENS = 4096
"""The number of tokens for which the page states ratios."""


def build_model() -> Any:
    """A Qwen2.5-VL with random weights: 8 layers, 8 heads of width 64 that share 2 key heads."""
    torch.manual_seed(1)
    config = AutoConfig.from_pretrained(SHIPPED["tiny"])
    text = config.text_config
    text.hidden_size, text.intermediate_size = HIDDEN_SIZE, 1408
    text.num_hidden_layers, text.layer_types = NUM_LAYERS, ["full_attention"] * NUM_LAYERS
    text.num_attention_heads, text.num_key_value_heads = NUM_HEADS, NUM_KEY_HEADS
    text.rope_parameters = {**text.rope_parameters, "mrope_section": [8, 12, 12]}
    text.max_position_embeddings = 16384
    config.vision_config.out_hidden_size = HIDDEN_SIZE
    return AutoModelForImageTextToText.from_config(config, dtype=torch.float32).eval()


def inputs(model: Any, tokens: int) -> tuple[dict[str, torch.Tensor], attention.TokenSpans]:
    """Model inputs (an image, text, a response of an eighth of the tokens) and their spans."""
    generator = torch.Generator().manual_seed(tokens)
    image_tokens = IMAGE_GRID[1] * IMAGE_GRID[2] // 4
    ids = torch.randint(4, 400, (1, tokens), generator=generator)
    ids[:, 8 : 8 + image_tokens] = model.config.image_token_id
    image = ids == model.config.image_token_id
    response = torch.arange(tokens)[None] >= tokens - tokens // 8
    patches = torch.randn(IMAGE_GRID[1] * IMAGE_GRID[2], 1176, generator=generator)
    tensors = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "mm_token_type_ids": image.long(),
        "pixel_values": patches,
        "image_grid_thw": torch.tensor([IMAGE_GRID]),
    }
    return tensors, attention.TokenSpans(image, ~image & ~response, response)


@torch.inference_mode()
def run_pass(name: str, model: Any, tokens: int) -> float:
    """Run one of PASSES; returns its seconds."""
    tensors, spans = inputs(model, tokens)
    model.set_attn_implementation("eager" if name == "output_attentions" else "sdpa")
    started = time.perf_counter()
    if name == "plain":
        model.base_model(**tensors, use_cache=False)
    elif name == "output_attentions":
        model.base_model(**tensors, use_cache=False, output_attentions=True)
    else:
        ace = AceConfig() if name == "masses_and_bias" else None
        attention.summarize(model, tensors, spans, ace)
    return time.perf_counter() - started


def free_bytes() -> int:
    """The machine's free memory."""
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def matrices_fit(tokens: int) -> bool:
    """Whether all attention matrices, and copies of two layers', fit into half the free memory."""
    return NUM_HEADS * tokens**2 * 4 * (NUM_LAYERS + 4) < free_bytes() / 2


def peak_mib(name: str, tokens: int) -> float:
    """The MiB that print_peak_mib() prints in a new process."""
    command = [sys.executable, __file__, "--child", name, "--tokens", str(tokens)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def print_peak_mib(name: str, tokens: int) -> None:
    """Run one pass; print by how many MiB it raised this process's peak memory (Linux)."""
    model = build_model()
    with torch.inference_mode():
        model.base_model(input_ids=torch.full((1, 8), 5), use_cache=False)
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM, the peak
    before = resident_mib("VmRSS")
    run_pass(name, model, tokens)
    print(resident_mib("VmHWM") - before)


def resident_mib(field: str) -> float:
    """Resident memory of this process: `VmRSS` is the current value, `VmHWM` the peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (match,) = [line for line in lines if line.startswith(f"{field}:")]
    return int(match.split()[1]) / 1024


def measure(
    lengths: list[int], repeats: int, report: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Median seconds and peak MiB of every pass at every number of tokens."""
    model, rows = build_model(), []
    for tokens in lengths:
        names = [name for name in PASSES if name != "output_attentions" or matrices_fit(tokens)]
        seconds: dict[str, list[float]] = {name: [] for name in names}
        for repeat in range(repeats + 1):
            for name in names:
                pass_seconds = run_pass(name, model, tokens)
                if repeat:  # the first round warms up
                    seconds[name].append(pass_seconds)
        row = {
            "tokens": tokens,
            "seconds": {name: statistics.median(times) for name, times in seconds.items()},
            "all_seconds": seconds,
            "mib": {name: peak_mib(name, tokens) for name in names},
        }
        rows.append(row)
        report(json.dumps({key: row[key] for key in ("tokens", "seconds", "mib")}))
    return rows


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Seconds and memory over tokens, both axes logarithmic."""
    matplotlib.use("svg")
    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for axis, key, label in ((axes[0], "seconds", "seconds a pass"), (axes[1], "mib", "peak MiB")):
        for name in PASSES:
            points = [(row["tokens"], row[key][name]) for row in rows if name in row[key]]
            axis.plot(*zip(*points, strict=True), marker="o", label=name.replace("_", " "))
        axis.set(xscale="log", yscale="log", xlabel="tokens", ylabel=label)
        axis.set_xticks([row["tokens"] for row in rows], [str(row["tokens"]) for row in rows])
        axis.minorticks_off()
    axes[0].legend(frameon=False)
    figure.savefig(path, metadata={"Date": None})


def claims(rows: list[dict[str, Any]]) -> dict[str, float]:
    """The ratios that the page states, as far as their passes were measured."""
    ratios: dict[str, float] = {}
    for row in rows:
        seconds, mib = row["seconds"], row["mib"]
        if row["tokens"] == CLAIM_TOKENS:
            ratios["masses_by_plain"] = seconds["masses"] / seconds["plain"]
            ratios["masses_and_bias_by_plain"] = seconds["masses_and_bias"] / seconds["plain"]
            if "output_attentions" in seconds:
                ratios["output_attentions_by_masses"] = (
                    seconds["output_attentions"] / seconds["masses"]
                )
                ratios["memory_output_attentions_by_masses"] = (
                    mib["output_attentions"] / mib["masses"]
                )
    first, last = rows[0], rows[-1]
    ratios["tokens_grow"] = last["tokens"] / first["tokens"]
    ratios["memory_of_masses_grows"] = last["mib"]["masses"] / first["mib"]["masses"]
    return ratios


def page(result: dict[str, Any]) -> str:
    """The content of attention_cost.md."""
    lines = [
        "# Cost of measuring attention masses",
        "",
        f"`{result['command']}`: {NUM_LAYERS} layers, {NUM_HEADS} heads of "
        f"{HIDDEN_SIZE // NUM_HEADS} sharing {NUM_KEY_HEADS} key heads, float32, random weights; "
        f"one image of 256 tokens, text, and a response of an eighth of the tokens. Medians of "
        f"{result['repeats']} alternating repeats; "
        f"{result['threads']} thread(s) on {result['machine']}.",
        "",
        "| tokens | " + " | ".join(f"{name}, s" for name in PASSES) + " | "
        + " | ".join(f"{name}, MiB" for name in PASSES) + " |",
        "|--:" * 9 + "|",
    ]  # fmt: skip
    for row in result["rows"]:
        cells = [f"{row['seconds'][n]:.2f}" if n in row["seconds"] else "-" for n in PASSES]
        cells += [f"{row['mib'][n]:.0f}" if n in row["mib"] else "-" for n in PASSES]
        lines.append(f"| {row['tokens']} | " + " | ".join(cells) + " |")
    claim_lines = [
        f"* {key.replace('_', ' ')}: {value:.2f}" for key, value in result["claims"].items()
    ]
    lines += [
        "",
        f"At {CLAIM_TOKENS} tokens, and from the smallest to the largest size:",
        "",
        *claim_lines,
        "",
    ]
    lines += ["![seconds and memory over tokens](attention_cost.svg)", ""]
    return "\n".join(lines)


def main() -> None:
    """Measure, write and print the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, nargs="+", default=[512, 1024, 2048, 4096, 8192])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--child", choices=PASSES)
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    if arguments.child:
        return print_peak_mib(arguments.child, arguments.tokens[0])
    rows = measure(arguments.tokens, arguments.repeats, lambda line: print(line, flush=True))
    result = {
        "command": "python benchmarks/attention_cost.py " + " ".join(sys.argv[1:]),
        "repeats": arguments.repeats,
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
        "rows": rows,
        "claims": claims(rows),
        "versions": manifest.versions(),
        "git": manifest.git_revision(),
    }
    arguments.results.mkdir(parents=True, exist_ok=True)
    manifest.write_json(arguments.results / "attention_cost.json", result)
    (arguments.results / "attention_cost.md").write_text(page(result))
    plot(rows, arguments.results / "attention_cost.svg")
    print(page(result))


if __name__ == "__main__":
    main()
