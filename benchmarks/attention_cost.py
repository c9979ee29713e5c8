"""What it costs to measure where a response looked, against not measuring and against matrices.

    python benchmarks/attention_cost.py [--tokens 512 1024 ...] [--repeats N]

One teacher-forced pass over a picture, a text and a response, by a decoder of 8 layers with random
weights: plain (nothing measured), masses (CMAB's), masses_and_bias (ACE's too), output_attentions
(eager, every matrix kept, as the papers' releases do it). Seconds are medians over interleaved
repeats in one process; peak memory is each pass's own, in a process of its own. Matrices are asked
for only where half of the free memory holds them. Writes attention_cost.md, .json and .svg in
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
PICTURE = (1, 32, 32)
"""Patches of the picture, 448 x 448 pixels: 256 tokens."""
PASSES = ("plain", "masses", "masses_and_bias", "output_attentions")
TOLD = 4096
"""The tokens at which the claims are made."""


def model() -> Any:
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


def inputs(made: Any, tokens: int) -> tuple[dict[str, torch.Tensor], list[torch.Tensor]]:
    """A picture, text and a response of an eighth of the tokens, and their three indicators."""
    generator = torch.Generator().manual_seed(tokens)
    shown = PICTURE[1] * PICTURE[2] // 4
    ids = torch.randint(4, 400, (1, tokens), generator=generator)
    ids[:, 8 : 8 + shown] = made.config.image_token_id
    image = ids == made.config.image_token_id
    response = torch.arange(tokens)[None] >= tokens - tokens // 8
    patches = torch.randn(PICTURE[1] * PICTURE[2], 1176, generator=generator)
    found = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "mm_token_type_ids": image.long(),
        "pixel_values": patches,
        "image_grid_thw": torch.tensor([PICTURE]),
    }
    return found, [image, ~image & ~response, response]


@torch.inference_mode()
def run(name: str, made: Any, tokens: int) -> float:
    """Seconds of one pass."""
    asked, marks = inputs(made, tokens)
    made.set_attn_implementation("eager" if name == "output_attentions" else "sdpa")
    started = time.perf_counter()
    if name == "plain":
        made.base_model(**asked, use_cache=False)
    elif name == "output_attentions":
        made.base_model(**asked, use_cache=False, output_attentions=True)
    else:
        ace = AceConfig() if name == "masses_and_bias" else None
        attention.summarize(made, asked, *marks, ace)
    return time.perf_counter() - started


def free_bytes() -> int:
    """Memory that can be had."""
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def holds(tokens: int) -> bool:
    """Whether half of the free memory holds the matrices and two layers' copies of them."""
    return HEADS * tokens**2 * 4 * (LAYERS + 4) < free_bytes() / 2


def peak(name: str, tokens: int) -> float:
    """MiB that a pass adds to a process that holds the model, in a process of its own."""
    words = [sys.executable, __file__, "--child", name, "--tokens", str(tokens)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def child(name: str, tokens: int) -> None:
    """Print the MiB by which the resident size grew at most during one pass (Linux)."""
    made = model()
    with torch.inference_mode():
        made.base_model(input_ids=torch.full((1, 8), 5), use_cache=False)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = resident("VmRSS")
    run(name, made, tokens)
    print(resident("VmHWM") - before)


def resident(what: str) -> float:
    """Resident MiB of this process: VmRSS now, VmHWM at most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = [each for each in lines if each.startswith(f"{what}:")]
    return int(line.split()[1]) / 1024


def measured(sizes: list[int], repeats: int, told: Callable[[str], None]) -> list[dict[str, Any]]:
    """Median seconds and peak MiB of every pass at every size."""
    made, found = model(), []
    for tokens in sizes:
        names = [name for name in PASSES if name != "output_attentions" or holds(tokens)]
        seconds: dict[str, list[float]] = {name: [] for name in names}
        for repeat in range(repeats + 1):
            for name in names:
                took = run(name, made, tokens)
                if repeat:  # the first round warms up
                    seconds[name].append(took)
        row = {
            "tokens": tokens,
            "seconds": {name: statistics.median(each) for name, each in seconds.items()},
            "all_seconds": seconds,
            "mib": {name: peak(name, tokens) for name in names},
        }
        found.append(row)
        told(json.dumps({key: row[key] for key in ("tokens", "seconds", "mib")}))
    return found


def picture(rows: list[dict[str, Any]], path: Path) -> None:
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
    found: dict[str, float] = {}
    for row in rows:
        seconds, mib = row["seconds"], row["mib"]
        if row["tokens"] == TOLD:
            found["masses_by_plain"] = seconds["masses"] / seconds["plain"]
            found["masses_and_bias_by_plain"] = seconds["masses_and_bias"] / seconds["plain"]
            if "output_attentions" in seconds:
                found["output_attentions_by_masses"] = (
                    seconds["output_attentions"] / seconds["masses"]
                )
                found["memory_output_attentions_by_masses"] = (
                    mib["output_attentions"] / mib["masses"]
                )
    first, last = rows[0], rows[-1]
    found["tokens_grow"] = last["tokens"] / first["tokens"]
    found["memory_of_masses_grows"] = last["mib"]["masses"] / first["mib"]["masses"]
    return found


def page(result: dict[str, Any]) -> str:
    """The result as a Markdown page."""
    lines = [
        "# What it costs to know where a response looked",
        "",
        f"`{result['command']}`: {LAYERS} layers, {HEADS} heads of {HIDDEN // HEADS} sharing "
        f"{KEY_HEADS} key heads, float32, random weights; one picture of 256 tokens, text, and a "
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
    told = [f"* {key.replace('_', ' ')}: {value:.2f}" for key, value in result["claims"].items()]
    lines += ["", f"At {TOLD} tokens, and from the smallest to the largest size:", "", *told, ""]
    lines += ["![seconds and memory over tokens](attention_cost.svg)", ""]
    return "\n".join(lines)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, nargs="+", default=[512, 1024, 2048, 4096, 8192])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--child", choices=PASSES)
    parser.add_argument("--results", type=Path, default=RESULTS)
    asked = parser.parse_args()
    if asked.child:
        return child(asked.child, asked.tokens[0])
    rows = measured(asked.tokens, asked.repeats, lambda line: print(line, flush=True))
    result = {
        "command": "python benchmarks/attention_cost.py " + " ".join(sys.argv[1:]),
        "repeats": asked.repeats,
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
        "rows": rows,
        "claims": claims(rows),
        "versions": manifest.versions(),
        "git": manifest.git_revision(),
    }
    asked.results.mkdir(parents=True, exist_ok=True)
    manifest.write_json(asked.results / "attention_cost.json", result)
    (asked.results / "attention_cost.md").write_text(page(result))
    picture(rows, asked.results / "attention_cost.svg")
    print(page(result))


if __name__ == "__main__":
    main()
