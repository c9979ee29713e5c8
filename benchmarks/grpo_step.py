"""A GRPO step of difftrain against a plain TRL script's: seconds by phase and peak memory.

    python benchmarks/grpo_step.py [--steps N] [--json]

Two settings of the tiny model: `short`, the demo's (prompts of about 60 tokens, 8 x 8 completions
of up to 72), and `long` (images of 784 tokens, 2 x 8 completions of 128). Each trainer runs in a
process of its own, so that each has a peak of memory, and they take turns, one optimizer step each,
so that other load on the machine affects both alike. A third, `full`, needs a GPU and only runs if
it is asked for: Qwen2.5-VL-7B's sizes with random weights in bf16, images of about 1,000 tokens,
one trainer after the other, without a reference model. Ratios are ours / TRL's, of medians:

    step     the whole step, from one to the next
    rollouts generating the completions, with the image processor's work before it
    logps    the log-probability passes (reference and policy, with the backward pass)
    memory   peak of the process above what it held before its first step

The last line with --json is {"short": {"step": r, "rollouts": r, "logps": r, "memory": r},
"long": {...}}.
Writes benchmarks/results/grpo_step.json. About six minutes on two free cores.
"""

import argparse
import importlib.util
import json
import resource
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from difftrain.pipeline import manifest

RESULTS = Path(__file__).parent / "results"
WARM_UP = 2
SETTINGS: dict[str, dict[str, int]] = {
    "short": {"prompts": 8, "completion": 72, "side": 112, "steps": 12},
    "long": {"prompts": 2, "completion": 128, "side": 784, "steps": 5},
    "full": {"prompts": 1, "completion": 128, "side": 896, "steps": 3},
}
GROUP = 8
TRAINERS = ("plain", "ours")
TEXT_7B = {
    "vocab_size": 152064,
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "layer_types": ["full_attention"] * 28,
}
VISION_7B = {
    "depth": 32,
    "hidden_size": 1280,
    "intermediate_size": 3420,
    "num_heads": 16,
    "out_hidden_size": 3584,
    "fullatt_block_indexes": [7, 15, 23, 31],
    "window_size": 112,
}
"""Qwen/Qwen2.5-VL-7B-Instruct's sizes, from its config.json."""


def timed(base: type) -> type:
    """The trainer with the seconds of its log-probability passes and of its rollouts."""
    import torch

    from difftrain.train.grpo_trainer import synchronized_time

    class Timed(base):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self.seconds: dict[str, float] = defaultdict(float)
            super().__init__(*args, **kwargs)

        @contextmanager
        def timer(self, name: str) -> Iterator[None]:
            start = synchronized_time()
            yield
            self.seconds[name] += synchronized_time() - start

        def _generate(self, prompts: Any) -> Any:
            with self.timer("rollouts"):
                return super()._generate(prompts)

        def _get_per_token_logps_and_entropies(self, *args: Any, **kwargs: Any) -> Any:
            with nullcontext() if torch.is_grad_enabled() else self.timer("logps"):
                return super()._get_per_token_logps_and_entropies(*args, **kwargs)

        def _prepare_inputs(self, batch: Any) -> Any:
            with self.timer("preparation"):
                return super()._prepare_inputs(batch)

        def training_step(self, *args: Any, **kwargs: Any) -> Any:
            before = self.seconds["preparation"]
            with self.timer("logps"):
                loss = super().training_step(*args, **kwargs)
            self.seconds["logps"] -= self.seconds["preparation"] - before
            return loss

    return Timed


def memory(on_gpu: bool) -> int:
    """The most bytes that this process has held so far."""
    if on_gpu:
        import torch

        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def full_size_model(attention: str) -> Any:
    """A model of Qwen2.5-VL-7B's sizes with random weights, on the GPU, for the tiny tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText

    from difftrain.model import resolve

    config = AutoConfig.from_pretrained(resolve.source("tiny"))
    for sizes, part in ((TEXT_7B, config.text_config), (VISION_7B, config.vision_config)):
        for name, value in sizes.items():
            setattr(part, name, value)
    config.text_config.rope_parameters |= {"mrope_section": [16, 24, 24]}
    config.tie_word_embeddings = config.text_config.tie_word_embeddings = False
    with torch.device("cuda"):
        return AutoModelForImageTextToText.from_config(
            config, dtype=torch.bfloat16, attn_implementation=attention
        )


def child(name: str, setting: str, steps: int) -> None:
    """Train, one step for each line on standard input; answers each with a line of numbers."""
    import torch
    from transformers import PrinterCallback, ProgressCallback, TrainerCallback
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.grpo_trainer import GRPOTrainer

    from difftrain import images
    from difftrain.config.model import ModelConfig
    from difftrain.model import family, loading, resolve
    from difftrain.shapes import pool
    from difftrain.train import image_cache
    from difftrain.train.dataset import to_dataset
    from difftrain.train.grpo_trainer import SharedPromptTrainer, synchronized_time

    torch.set_num_threads(1)
    shape = SETTINGS[setting]
    samples = list(pool.samples(pool.Split.pool, 64))
    side = (shape["side"], shape["side"])
    samples = [
        replace(s, images=tuple(images.to_png(images.from_png(p).resize(side)) for p in s.images))
        for s in samples
    ]
    processor = loading.load_processor(ModelConfig(), side[0] ** 2, side[0] ** 2)
    banned = list(family.banned_tokens(processor).values())

    def reward(completion_ids: list[list[int]], **_: Any) -> list[float]:
        return [float(sum(ids) % 7) for ids in completion_ids]

    is_full = setting == "full"
    model: Any = resolve.source("tiny")
    arguments: dict[str, Any] = {
        "beta": 0.001,
        "use_cpu": True,
        "gradient_checkpointing": False,
        "model_init_kwargs": {"dtype": "float32"},
    }
    if is_full:
        has_flash = name == "plain" and importlib.util.find_spec("flash_attn") is not None
        model = full_size_model("flash_attention_2" if has_flash else "sdpa")
        arguments = {"beta": 0.0, "optim": "sgd"}
    with tempfile.TemporaryDirectory() as folder:
        rows = shape["prompts"] * GROUP
        trainer: Any = timed(SharedPromptTrainer if name == "ours" else GRPOTrainer)(
            model=model,
            reward_funcs=reward,
            args=GRPOConfig(
                output_dir=folder,
                per_device_train_batch_size=rows,
                num_generations=GROUP,
                max_completion_length=shape["completion"],
                max_steps=WARM_UP + steps,
                learning_rate=1e-6,
                loss_type="grpo",
                report_to="none",
                save_strategy="no",
                logging_steps=1,
                bf16=False,  # the full size's weights are bf16 themselves
                generation_kwargs={"suppress_tokens": banned},
                **arguments,
            ),
            train_dataset=to_dataset(samples),
            processing_class=processor,
        )
        if name == "ours":
            trainer.engine_config = ModelConfig()
            trainer.image_cache = image_cache.attach(trainer, Path(folder) / "features")
        trainer.remove_callback(ProgressCallback)
        trainer.remove_callback(PrinterCallback)
        before = memory(is_full)

        class Turns(TrainerCallback):
            def __init__(self) -> None:
                self.start, self.before = 0.0, dict[str, float]()

            def on_train_begin(self, *_: Any, **__: Any) -> None:
                if setting != "short":  # completions of full length: only a banned token ends them
                    trainer.model.generation_config.eos_token_id = banned[0]
                    trainer.eos_token_ids = [banned[0]]
                    trainer.generation_config.eos_token_id = banned[0]

            def on_step_begin(self, *_: Any, **__: Any) -> None:
                sys.stdin.readline()
                self.start, self.before = synchronized_time(), dict(trainer.seconds)

            def on_step_end(self, *_: Any, **__: Any) -> None:
                seconds = {
                    name: trainer.seconds[name] - self.before.get(name, 0.0)
                    for name in ("rollouts", "logps")
                }
                numbers = {
                    "step": synchronized_time() - self.start,
                    **seconds,
                    "memory": memory(is_full) - before,
                }
                print("STEP", json.dumps(numbers), flush=True)

        trainer.add_callback(Turns())
        trainer.train()


def measure(setting: str, steps: int) -> dict[str, dict[str, float]]:
    """Medians of both trainers at one setting, and the ratios."""
    numbers: dict[str, list[dict[str, float]]] = {name: [] for name in TRAINERS}
    # Both at once, in turns; a GPU has room for one model of the full size.
    for trainers in [[name] for name in TRAINERS] if setting == "full" else [TRAINERS]:
        processes = {
            name: subprocess.Popen(
                [sys.executable, __file__, "--child", name, setting, "--steps", str(steps)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for name in trainers
        }
        for _ in range(WARM_UP + steps):
            for name, process in processes.items():
                assert process.stdin is not None
                assert process.stdout is not None
                process.stdin.write("go\n")
                process.stdin.flush()
                line = next(line for line in process.stdout if line.startswith("STEP "))
                numbers[name].append(json.loads(line.removeprefix("STEP ")))
        for process in processes.values():
            process.communicate()
    medians = {
        name: {key: statistics.median(row[key] for row in rows[WARM_UP:]) for key in rows[0]}
        for name, rows in numbers.items()
    }
    for name, rows in numbers.items():
        medians[name]["memory"] = rows[-1]["memory"]
    ratio = {key: medians["ours"][key] / medians["plain"][key] for key in medians["ours"]}
    return medians | {"ratio": ratio}


def main() -> None:
    """Measure both settings, print the ratios, write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, help="counted steps of each setting")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--setting", choices=SETTINGS, help="only this one")
    arguments = parser.parse_args()
    if arguments.child:
        return child(*arguments.child, arguments.steps)
    settings = [arguments.setting] if arguments.setting else ["short", "long"]
    results = {}
    for setting in settings:
        results[setting] = measure(setting, arguments.steps or SETTINGS[setting]["steps"])
        print(setting, json.dumps(results[setting], indent=2))
    path = RESULTS / "grpo_step.json"
    earlier = json.loads(path.read_text()) if path.exists() else {}
    source = {"git": manifest.git_revision(), "versions": manifest.versions()}
    stored = {setting: result | source for setting, result in results.items()}
    path.write_text(json.dumps(earlier | stored, indent=2) + "\n")
    if arguments.json:
        ratios = {
            setting: {key: round(value, 3) for key, value in result["ratio"].items()}
            for setting, result in results.items()
        }
        print(json.dumps(ratios))


if __name__ == "__main__":
    main()
