"""Cost of measuring attention masses, compared with a plain pass and with full matrices.

    python benchmarks/attention_cost.py [--tokens 512 1024 ...] [--repeats N]

One teacher-forced pass over an image, a text and a response, by a decoder of 8 layers with random
weights: plain (nothing measured), masses (CMAB's), masses_and_bias (ACE's too), output_attentions
(eager, every matrix kept, as the papers' releases do it). Seconds are medians over interleaved
repeats in one process; peak memory is measured in one process per pass. Matrices are computed
only where they fit into half of the free memory. Writes attention_cost.md, .json and .svg in
benchmarks/results. About ten minutes on two cores.
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
LAYERS, HEADS, KEY_HEADS, HIDDEN = 8, 8, 2, 512
IMAGE_GRID = (1, 32, 32)
"""Patches of the image, 448 x 448 pixels: 256 tokens."""
PASSES = ("plain", "masses", "masses_and_bias", "output_attentions")
CLAIM_TOKENS = 4096
"""The number of tokens of the claims."""


def build_model() -> Any:
    """A Qwen2.5-VL of 8 layers, 8 heads of 64 sharing 2 key heads, with random weights."""
    torch.manual_seed(1)
    config = AutoConfig.from_pretrained(SHIPPED["tiny"])
    text = config.text_config
    text.hidden_size, text.intermediate_size = HIDDEN, 1408
    text.num_hidden_layers, text.layer_types = LAYERS, ["full_attention"] * LAYERS
    text.num_attention_heads, text.num_key_value_heads = HEADS, KEY_HEADS
    text.rope_parameters = {**text.rope_parameters, "mrope_section": [8, 12, 12]}
    text.max_position_embeddings = 16384
    config.vision_config.out_hidden_size = HIDDEN
    return AutoModelForImageTextToText.from_config(config, dtype=torch.float32).eval()


def inputs(model: Any, tokens: int) -> tuple[dict[str, torch.Tensor], attention.TokenSpans]:
    """An image, text and a response of an eighth of the tokens, and their spans."""
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
def run(name: str, model: Any, tokens: int) -> float:
    """Seconds of one pass."""
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
    """Available memory."""
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def fits(tokens: int) -> bool:
    """Whether the matrices fit into half of the free memory, with two layers' copies of them."""
    return HEADS * tokens**2 * 4 * (LAYERS + 4) < free_bytes() / 2


def peak(name: str, tokens: int) -> float:
    """MiB that a pass adds to a process that holds the model, in a process of its own."""
    command = [sys.executable, __file__, "--child", name, "--tokens", str(tokens)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def child(name: str, tokens: int) -> None:
    """Print the MiB by which the resident size grew at most during one pass (Linux)."""
    model = build_model()
    with torch.inference_mode():
        model.base_model(input_ids=torch.full((1, 8), 5), use_cache=False)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = resident("VmRSS")
    run(name, model, tokens)
    print(resident("VmHWM") - before)


def resident(field: str) -> float:
    """Resident MiB of this process: VmRSS now, VmHWM at most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (match,) = [line for line in lines if line.startswith(f"{field}:")]
    return int(match.split()[1]) / 1024


def measured(sizes: list[int], repeats: int, report: Callable[[str], None]) -> list[dict[str, Any]]:
    """Median seconds and peak MiB of every pass at every size."""
    model, rows = build_model(), []
    for tokens in sizes:
        names = [name for name in PASSES if name != "output_attentions" or fits(tokens)]
        seconds: dict[str, list[float]] = {name: [] for name in names}
        for repeat in range(repeats + 1):
            for name in names:
                took = run(name, model, tokens)
                if repeat:  # the first round warms up
                    seconds[name].append(took)
        row = {
            "tokens": tokens,
            "seconds": {name: statistics.median(times) for name, times in seconds.items()},
            "all_seconds": seconds,
            "mib": {name: peak(name, tokens) for name in names},
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
    """The ratios that are claimed, where the sizes were measured."""
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
    """The result as a Markdown page."""
    lines = [
        "# Cost of measuring attention masses",
        "",
        f"`{result['command']}`: {LAYERS} layers, {HEADS} heads of {HIDDEN // HEADS} sharing "
        f"{KEY_HEADS} key heads, float32, random weights; one image of 256 tokens, text, and a "
        f"response of an eighth of the tokens. Medians of {result['repeats']} interleaved repeats; "
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
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, nargs="+", default=[512, 1024, 2048, 4096, 8192])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--child", choices=PASSES)
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    if arguments.child:
        return child(arguments.child, arguments.tokens[0])
    rows = measured(arguments.tokens, arguments.repeats, lambda line: print(line, flush=True))
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
