"""Measure what it costs to record a model's attention during a forward pass, in three ways.

    python benchmarks/attention_cost.py [--tokens 512 1024 ...] [--repeats N]

A decoder of 8 layers with random weights runs over an image, a text and a given response. There are
four kinds of pass:

* plain: records nothing
* masses: how much attention the response pays to the image and to the text, as the difficulty
  measure CMAB of Qi et al. 2026 needs it
* masses_and_bias: also how much attention single tokens get, as the difficulty measure ACE of the
  paper RAP needs it
* output_attentions: eager attention that keeps every attention matrix, as the code released with
  both papers does; only for lengths at which the matrices fit into half of the free memory

Seconds are medians over repeats in one process, in which the passes take turns. Peak memory is
measured with one process per pass. Writes attention_cost.md, .json and .svg in benchmarks/results.
About ten minutes on two cores.
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
"""attention_cost.md states ratios of seconds and memory for this number of tokens."""


def build_model() -> Any:
    """A Qwen2.5-VL with random weights: 8 layers, 8 heads of width 64 that share 2 key heads.

    All other dimensions are those of the tiny model that comes with difftrain.
    """
    torch.manual_seed(1)
    config = AutoConfig.from_pretrained(SHIPPED["tiny"])
    text = config.text_config
    text.hidden_size, text.intermediate_size = HIDDEN_SIZE, 1408  # 1408 is 2.75 * HIDDEN_SIZE
    text.num_hidden_layers, text.layer_types = NUM_LAYERS, ["full_attention"] * NUM_LAYERS
    text.num_attention_heads, text.num_key_value_heads = NUM_HEADS, NUM_KEY_HEADS
    rope_sections = [8, 12, 12]  # they must sum to half of the head size, which is 64
    text.rope_parameters = {**text.rope_parameters, "mrope_section": rope_sections}
    text.max_position_embeddings = 16384  # twice the largest number of tokens measured by default
    config.vision_config.out_hidden_size = HIDDEN_SIZE
    return AutoModelForImageTextToText.from_config(config, dtype=torch.float32).eval()


def build_inputs(model: Any, tokens: int) -> tuple[dict[str, torch.Tensor], attention.TokenSpans]:
    """Model inputs (an image, text, a response of an eighth of the tokens) and their spans."""
    generator = torch.Generator().manual_seed(tokens)
    image_tokens = IMAGE_GRID[1] * IMAGE_GRID[2] // 4  # the model merges 2 x 2 patches to a token
    ids = torch.randint(4, 400, (1, tokens), generator=generator)  # ordinary, not special tokens
    # The image begins after 8 tokens of text.
    ids[:, 8 : 8 + image_tokens] = model.config.image_token_id
    image = ids == model.config.image_token_id
    response = torch.arange(tokens)[None] >= tokens - tokens // 8
    patch_values = 3 * 2 * 14 * 14  # colors, frames, height and width in pixels
    patches = torch.randn(IMAGE_GRID[1] * IMAGE_GRID[2], patch_values, generator=generator)
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
    """Run one of PASSES and return its seconds."""
    tensors, spans = build_inputs(model, tokens)
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
    """Whether the attention matrices of all layers, in float32, fit into half the free memory.

    The temporary copies during a pass count as the matrices of four more layers.
    """
    return NUM_HEADS * tokens**2 * 4 * (NUM_LAYERS + 4) < free_bytes() / 2


def peak_mib(name: str, tokens: int) -> float:
    """The MiB that print_peak_mib() prints in a new process."""
    command = [sys.executable, __file__, "--child", name, "--tokens", str(tokens)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def print_peak_mib(name: str, tokens: int) -> None:
    """Run one pass; print by how many MiB it raised this process's peak memory (Linux)."""
    model = build_model()
    with torch.inference_mode():  # a short pass, so that one-time allocations do not count
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
    figure.savefig(path, metadata={"Date": None})  # no date: equal results give equal files


def claims(rows: list[dict[str, Any]]) -> dict[str, float]:
    """The ratios that attention_cost.md states; those of passes that did not fit are left out.

    `X_by_Y` is the seconds (or `memory_`: the memory) of pass X divided by those of pass Y.
    """
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
        "|--:" * (1 + 2 * len(PASSES)) + "|",
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
    parser.add_argument("--child", choices=PASSES, help="for peak_mib(): run this pass only")
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
