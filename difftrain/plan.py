"""The plan command: the samples, responses, tokens, hours and memory of a run. Needs no torch."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from difftrain.config.data import SHAPES_PIXELS, DataConfig
from difftrain.config.difficulty import DifficultyConfig, PismConfig, ProbeConfig, Until
from difftrain.config.evaluate import OFFICIAL, EvaluateConfig
from difftrain.config.judge import by_rules_alone, model_name
from difftrain.config.model import Dtype, EngineKind, ModelConfig
from difftrain.config.run_config import Control, RunConfig, format_value
from difftrain.config.train import GrpoConfig, Rollouts, SftConfig, VllmMode
from difftrain.data.build import build_dataset
from difftrain.data.prompts import SYSTEM
from difftrain.difficulty.pism import min_correct
from difftrain.evaluate import benchmark_named
from difftrain.evaluate.loading import NUM_SHAPES_ITEMS
from difftrain.model import resolve
from difftrain.pipeline import manifest, parquet
from difftrain.pipeline.coordination import World
from difftrain.pipeline.paths import RunPaths, round_paths
from difftrain.probe.schedule import requirements
from difftrain.records import Measure, Stratum, TaskSet

PAPER_MIX = "the stratum shares of Qi et al. 2026"  # the estimate's source if there is no pilot
LETTERS_PER_TOKEN = 4  # roughly, for English text in Qwen's tokenizer
PASS_CHANCE = 0.5  # assumed probability that a response is correct at a mask ratio that passes
PAPER_STRATA = {
    Measure.pism: {  # the masked share of the image at which the model fails
        TaskSet.perception: (7827, 4872, 1454, 6480),
        TaskSet.reasoning: (5048, 1061, 1618, 19406),
    },
    Measure.cmab: {  # attention to the image, relative to the text
        TaskSet.perception: (6753, 6029, 1001, 6850),
        TaskSet.reasoning: (2170, 3604, 2166, 19193),
    },
}
"""Samples in each stratum, from easy to unsolved (Qi et al. 2026, section 4; Qwen2.5-VL-7B)."""
PATCH_PIXELS = 14 * 14
PATCH_VALUES = 1176  # numbers in one patch: 3 colors, 2 frames, 14 x 14 pixels
MLP_MODULES = ("gate_proj", "up_proj", "down_proj")
"""Feed-forward projections of a layer of the language model or of the vision tower."""


@dataclass(frozen=True, slots=True)
class DatasetSummary:
    """The counts of the data stage, samples by task set, and average tokens of a prompt."""

    counts: dict[str, Any]
    task_sets: dict[TaskSet, int]
    image_tokens: float
    text_tokens: float


def show(config: RunConfig, world: World, recipe_settings: list[str]) -> Path:
    """Print settings, samples, responses, tokens, hours and memory; returns the plan's folder.

    Runs the data stage first, as any run does.
    """
    paths, run = RunPaths(config), round_paths(config)[-1].run
    folder = run.parent.parent / "plan" / run.name
    build_dataset(config.data, paths.data, world)
    if world.is_first:
        settings = asdict(config)
        dataset = _summarize(paths.data, config.data)
        pilot, source = find_pilot(config)
        templates = Environment(trim_blocks=True, undefined=StrictUndefined, autoescape=False)
        templates.filters["gib"] = _gib
        template = templates.from_string(Path(__file__).with_suffix(".txt.jinja").read_text())
        text = template.render(
            config=config,
            settings=_setting_lines(settings),
            dataset=dataset,
            pilot=pilot,
            source=source,
            recipe_settings=recipe_settings,
            **_responses(config, dataset, pilot),
            **_memory(config, round(dataset.text_tokens)),
            evaluation=evaluation_cost(config),
            step_rollouts=step_rollouts(config.grpo),
            step_tokens=step_tokens(config.grpo, dataset.image_tokens + dataset.text_tokens),
        )
        print(text)
        manifest.write_json(folder / "settings.json", settings)
        manifest.write_text(folder / "plan.txt", text + "\n")
    return folder


def _setting_lines(node: dict[str, Any], prefix: str = "") -> list[str]:
    """Every setting as `full.key=value`, as on the command line."""
    lines = []
    for key, value in node.items():
        if isinstance(value, dict) and value:
            lines += _setting_lines(value, f"{prefix}{key}.")
        else:
            lines.append(f"{prefix}{key}={format_value(value)}")
    return lines


def _summarize(folder: Path, data: DataConfig) -> DatasetSummary:
    data_manifest = manifest.read_manifest(folder)
    assert data_manifest is not None
    task_sets, letters = Counter[TaskSet](), 0
    for part in parquet.parts(folder):
        names, questions = parquet.read_columns(part, ("task_set", "question"))
        task_sets.update(map(TaskSet, names))
        letters += sum(map(len, questions))
    counts = data_manifest["counts"]
    samples, image_tokens = counts["samples"], counts.get("images", {}).get("tokens")
    # Generated samples (data=shapes) have no image counts; their images have 4 x 4 tokens.
    shapes_tokens = max(data.min_pixels, SHAPES_PIXELS) / data.side**2
    return DatasetSummary(
        counts=counts,
        task_sets=dict(task_sets),
        image_tokens=shapes_tokens if image_tokens is None else image_tokens / samples,
        text_tokens=(letters / samples + len(SYSTEM)) / LETTERS_PER_TOKEN,
    )


# The probe draws up to K responses at each mask ratio (the masked share of the image), until PISM's
# label is certain: the sample's first ratio f that fails. A ratio before f passes as soon as it has
# m correct responses; the ratio f costs all K draws. At a ratio that passes, a response is assumed
# to be correct with p = 1/2, so m correct responses take min(K, m / p) draws.


def first_failing(
    stratum: Stratum, mask_percents: Sequence[int], pism: PismConfig
) -> list[int | None]:
    """Indices of the ratios that a sample of this stratum may fail first; None: it fails none."""
    ratios = [percent / 100 for percent in mask_percents]
    if stratum is Stratum.unsolved:
        return [0]
    if stratum is Stratum.hard:
        return [i for i, ratio in enumerate(ratios) if 0 < ratio <= pism.hard_max] or [0]
    if stratum is Stratum.medium:
        return [i for i, x in enumerate(ratios) if pism.hard_max < x < pism.easy_min] or [None]
    return [None]


def responses_of(stratum: Stratum, difficulty: DifficultyConfig, probe: ProbeConfig) -> float:
    """Expected number of responses for a sample of a stratum, shared by all measures."""
    needs, pism, percents = requirements(difficulty, probe), difficulty.pism, probe.mask_percents
    if needs.until is Until.stratum:  # an easy sample needs no draws at the easy ratios
        percents = [percent for percent in percents if percent < 100 * pism.easy_min]
    draws_to_pass = min(probe.draws, max(1, min_correct(probe.draws, pism.tau)) / PASS_CHANCE)
    if needs.until is Until.grid:
        at_all_ratios, at_ratio_0 = probe.draws * len(percents), probe.draws
    elif needs.pism is not None:
        failing = first_failing(stratum, percents, pism)
        all_pass = draws_to_pass * len(percents)
        costs = [all_pass if i is None else draws_to_pass * i + probe.draws for i in failing]
        at_all_ratios = sum(costs) / len(costs)
        at_ratio_0 = probe.draws if failing == [0] else draws_to_pass
    else:
        is_solved = stratum is not Stratum.unsolved
        until_correct = min(probe.draws, 1 / PASS_CHANCE) if is_solved else probe.draws
        at_all_ratios = at_ratio_0 = until_correct * needs.first_correct  # first_correct: for CMAB
    full_image = max(at_ratio_0, needs.full_image)  # responses to the unmasked image
    return at_all_ratios - at_ratio_0 + full_image + needs.text_only


def expected_responses(
    difficulty: DifficultyConfig, probe: ProbeConfig, samples: Mapping[TaskSet, int]
) -> float:
    """Expected responses for these numbers of samples, with Qi et al.'s stratum shares."""
    strata = PAPER_STRATA[Measure.cmab if difficulty.measure is Measure.cmab else Measure.pism]
    responses = [responses_of(stratum, difficulty, probe) for stratum in Stratum]
    total = 0.0
    for task_set, count in samples.items():
        mix = strata[task_set]
        weighted = sum(n * share for n, share in zip(responses, mix, strict=True))
        total += count * weighted / sum(mix)
    return total


def find_pilot(config: RunConfig) -> tuple[dict[str, Any] | None, str]:
    """The counts of the pilot (a finished probe of plan.pilot samples), and the estimate's source.

    The counts are None without a pilot, or if it also generated responses for other settings.
    """
    pilot = replace(config, data=replace(config.data, limit=config.plan.pilot))
    probed = manifest.read_manifest(RunPaths(pilot).probe)
    if probed is None or not probed["counts"]["generations"]:  # no rate without a response
        return None, PAPER_MIX
    counts = probed["counts"]
    needs = requirements(config.difficulty, config.probe).describe(counts["samples"])
    if counts["settled"] != [needs]:  # for which measures and settings it generated responses
        settled = "; ".join(counts["settled"])
        return None, f"{PAPER_MIX}, because the pilot was for ({settled}), not just ({needs})"
    return counts | {"seconds": probed["seconds"]}, f"a pilot of {counts['samples']:,} samples"


def _responses(
    config: RunConfig, dataset: DatasetSummary, pilot: dict[str, Any] | None
) -> dict[str, Any]:
    """The probe's number of responses, including the retest's, and the tokens of one response.

    Every round is taken to need as many responses as the first.
    """
    samples, probe, difficulty = dataset.counts["samples"], config.probe, config.difficulty
    by_measure = {}  # responses if only this measure were scored; together, measures share some
    for measure in difficulty.measures:
        alone = replace(difficulty, measure=measure, extra_measures=[])
        by_measure[measure] = expected_responses(alone, probe, dataset.task_sets)
    if pilot:
        responses = pilot["generations"] / pilot["samples"] * samples
        response_tokens = pilot["tokens"] / pilot["generations"]
    else:
        responses = expected_responses(difficulty, probe, dataset.task_sets)
        response_tokens = probe.max_new_tokens
    return {
        "responses": responses * (config.rounds + min(probe.retest_samples, samples) / samples),
        "response_tokens": response_tokens,
        "by_measure": by_measure,
        "grid": samples * probe.draws * len(probe.mask_percents) * config.rounds,
        "steps": [config.of_round(n).grpo.max_steps for n in range(1, config.rounds + 1)],
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationCost:
    """What the evaluation of one checkpoint costs, and how many checkpoints there are.

    `judge_calls`: the judge's replies if the rules grade all that they may, if they grade nothing,
    and if no reply is usable. They are for JUDGE_MODEL; shapes/ benchmarks need none.
    """

    num_items: dict[str, int]  # by benchmark
    checkpoints: tuple[str, ...]
    max_tokens: int  # of the responses to all items
    judge: str
    is_judged: bool  # whether these settings call JUDGE_MODEL
    judge_calls: tuple[int, int, int]
    exceeds_max_calls: bool


def evaluation_cost(config: RunConfig) -> EvaluationCost:
    """The items, response tokens and judge's replies of the run's evaluation."""
    evaluate = config.evaluate
    num_items = {name: _num_items(name, evaluate) for name in evaluate.benchmarks}
    calls = [
        sum(benchmark_named(name).judge_calls[i] * num_items[name] for name in evaluate.official)
        for i in range(3)
    ]
    max_calls = evaluate.judge_client.max_calls
    control = ("control",) if config.control is Control.random else ()
    return EvaluationCost(
        num_items=num_items,
        checkpoints=("base", "tuned", *control),
        max_tokens=sum(num_items.values()) * evaluate.max_new_tokens,
        judge=model_name(evaluate.judge, evaluate.benchmarks),
        is_judged=not all(by_rules_alone(evaluate.judge, name) for name in evaluate.official),
        judge_calls=(calls[0], calls[1], calls[2]),
        exceeds_max_calls=max_calls is not None and calls[1] > max_calls,
    )


def _num_items(name: str, evaluate: EvaluateConfig) -> int:
    if name not in OFFICIAL:
        return evaluate.limit or NUM_SHAPES_ITEMS
    return min(evaluate.limit or benchmark_named(name).num_items, benchmark_named(name).num_items)


# Memory of one GPU. With P parameters (T of them trained), b bytes per weight, L layers of width H,
# K key heads of size D, vocabulary V, B rows of S tokens, N GPUs:
#
#   weights       b P
#   KV cache      2 L K D b  for each of the B S tokens of prompt and response; the engine in this
#                 process also holds cached prompts, and B prompts that are being prefilled
#   images        4 * 1176 bytes for each patch of 14 x 14 pixels, and in the vision tower's layers
#                 b (8 Hv + 2 Fv) for each (width Hv, feed-forward Fv), one layer at a time
#   logits        4 V for each row while generating
#
#   training, bf16 weights and gradients with Adam in float32 (4 + 4 + 4 bytes):
#   stage 0       2 P + 2 T + 12 T
#   stage 1       2 P + 2 T + 12 T / N
#   stage 2       2 P + (2 + 12) T / N
#   stage 3       2 P / N + (2 + 12) T / N
#   reference     2 P more (2 P / N under stage 3) if the KL term has a weight
#   LoRA          P includes the adapters, rank x (in + out) per target; T counts only adapters.
#                 Their weights and gradients are float32, so also 16 T. The reference model is the
#                 model without adapters, so it needs no memory
#   activations   with checkpointing 2 L B S H, one layer's 34 B S H (Korthikanti et al. 2022), and
#                 the responses' logits 2 * 4 B A V (A tokens of a response); else 34 L B S H
#   shared prompt a group's prompt and images count once in B S, and the tree mask has two bytes for
#                 each pair of tokens of a packed row
#   rollouts      by the engine: its cache, images and logits instead of the activations, if larger
#
# Estimates: fragmentation, the runtime itself (1 to 2 GiB) and ZeRO's buffers are not included.


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDims:
    """Dimensions of a model that decide its memory; `parameters` include `vision_parameters`."""

    parameters: float
    vision_parameters: float
    layers: int
    width: int
    mlp_width: int
    heads: int
    key_heads: int
    head_size: int
    vocabulary: int
    vision_layers: int
    vision_width: int
    vision_mlp_width: int

    @property
    def cache_values(self) -> int:
        """How many numbers the KV cache holds for one token."""
        return 2 * self.layers * self.key_heads * self.head_size


KNOWN_DIMS = {
    "Qwen/Qwen2.5-VL-7B-Instruct": ModelDims(
        parameters=8.29e9, vision_parameters=0.68e9, layers=28, width=3584, mlp_width=18_944,
        heads=28, key_heads=4, head_size=128, vocabulary=152_064, vision_layers=32,
        vision_width=1280, vision_mlp_width=3420,
    ),
    "Qwen/Qwen2.5-VL-3B-Instruct": ModelDims(
        parameters=3.75e9, vision_parameters=0.67e9, layers=36, width=2048, mlp_width=11_008,
        heads=16, key_heads=2, head_size=128, vocabulary=151_936, vision_layers=32,
        vision_width=1280, vision_mlp_width=3420,
    ),
}  # fmt: skip
"""Dimensions by hub id, for plans on a machine without the weights."""


def model_dims(source: str) -> ModelDims | None:
    """The dimensions of a known hub id or of a folder's config.json; None for anything else."""
    if source in KNOWN_DIMS:
        return KNOWN_DIMS[source]
    try:
        return dims_from_config(json.loads((Path(source) / "config.json").read_text()))
    except (FileNotFoundError, NotADirectoryError, KeyError):
        return None


def dims_from_config(config: Mapping[str, Any]) -> ModelDims:
    """The dimensions in a config.json, and the numbers of parameters that follow from them.

    Raises KeyError for a config of another architecture.
    """
    text: Mapping[str, Any] = config.get("text_config") or config
    vision: Mapping[str, Any] = config.get("vision_config") or {}
    width, layers, vocabulary = text["hidden_size"], text["num_hidden_layers"], text["vocab_size"]
    heads, mlp_width = text["num_attention_heads"], text["intermediate_size"]
    key_heads = text.get("num_key_value_heads") or heads
    head_size = text.get("head_dim") or width // heads
    attention = 2 * width * heads * head_size + 2 * width * key_heads * head_size
    is_tied = config.get("tie_word_embeddings", text.get("tie_word_embeddings", False))
    embeddings = vocabulary * width * (1 if is_tied else 2)
    language = embeddings + layers * (attention + 3 * width * mlp_width + 2 * width)
    vision_width, vision_mlp_width = vision["hidden_size"], vision["intermediate_size"]
    vision_layers = vision.get("depth") or vision["num_hidden_layers"]
    merged_width = vision_width * vision.get("spatial_merge_size", 2) ** 2
    tower = vision_layers * (4 * vision_width**2 + 3 * vision_width * vision_mlp_width)
    tower += PATCH_VALUES * vision_width + merged_width**2 + merged_width * width
    return ModelDims(
        parameters=float(language + tower),
        vision_parameters=float(tower),
        layers=layers,
        width=width,
        mlp_width=mlp_width,
        heads=heads,
        key_heads=key_heads,
        head_size=head_size,
        vocabulary=vocabulary,
        vision_layers=vision_layers,
        vision_width=vision_width,
        vision_mlp_width=vision_mlp_width,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenBatch:
    """Rows computed at once, and the tokens of prompt and response and the pixels of one row.

    `prompts`: how many prompts are computed if rows share them; 0 means one for each row.
    """

    rows: int
    prompt: int
    response: int
    pixels: int
    prompts: int = 0

    @property
    def images(self) -> int:
        """How many prompts' images are computed."""
        return self.prompts or self.rows

    @property
    def tokens(self) -> int:
        """Tokens that are computed."""
        return self.images * self.prompt + self.rows * self.response

    @property
    def mask_bytes(self) -> int:
        """Bytes of the tree mask in bf16: two for each pair of tokens of a packed row."""
        length = self.tokens // self.images
        return 2 * self.prompts * length * length


def generation_memory(
    dims: ModelDims, batch: TokenBatch, weight_bytes: int, cached_prompts: int = 0
) -> dict[str, float]:
    """Bytes of weights, KV cache, images and logits of one GPU that generates.

    `cached_prompts`: prompts whose keys and values the engine hf keeps in addition to its batch; it
    may prefill one more per row. 0 for the engines http and vllm, which have a single cache.
    """
    prompt = dims.cache_values * weight_bytes * batch.prompt
    patches = batch.rows * batch.pixels / PATCH_PIXELS
    tower = weight_bytes * (8 * dims.vision_width + 2 * dims.vision_mlp_width)
    return {
        "weights": weight_bytes * dims.parameters,
        "KV cache": dims.cache_values * weight_bytes * batch.tokens,
        "cached prompts": prompt * cached_prompts,
        "prefill": prompt * batch.rows * bool(cached_prompts),
        "images": patches * (4 * PATCH_VALUES + tower),
        "logits": 4 * dims.vocabulary * batch.rows,
    }


def lora_parameters(dims: ModelDims, rank: int, targets: Sequence[str], vision: bool) -> float:
    """Parameters that LoRA adds to the language model and, with `vision`, to the vision tower."""
    width, mlp_width = dims.width, dims.mlp_width
    queries, keys = dims.heads * dims.head_size, dims.key_heads * dims.head_size
    language = {"q_proj": width + queries, "k_proj": width + keys, "v_proj": width + keys,
                "o_proj": queries + width}  # fmt: skip
    language |= dict.fromkeys(MLP_MODULES, width + mlp_width)
    tower = {"qkv": 4 * dims.vision_width, "proj": 2 * dims.vision_width}
    tower |= dict.fromkeys(MLP_MODULES, dims.vision_width + dims.vision_mlp_width)
    total = dims.layers * sum(language.get(name, 0) for name in targets)
    total += dims.vision_layers * sum(tower.get(name, 0) for name in targets) * vision
    return float(rank * total)


def training_memory(
    dims: ModelDims,
    batch: TokenBatch,
    gpus: int,
    *,
    reference: bool,
    checkpointing: bool,
    frozen_vision: bool = False,
    lora_parameters: float | None = None,
    rollouts: float = 0,
) -> dict[int, float]:
    """Bytes on one GPU, by ZeRO stage. With `lora_parameters` only the adapters are trained.

    `rollouts`: bytes that generating them takes before the activations are computed.
    """
    parameters = dims.parameters
    trained = parameters - dims.vision_parameters * frozen_vision
    if lora_parameters is not None:
        trained, reference = lora_parameters, False
        parameters += trained
    one_layer = 34 * batch.tokens * dims.width
    if checkpointing:
        activations = 2 * dims.layers * batch.tokens * dims.width + one_layer
    else:
        activations = one_layer * dims.layers
    activations += 8 * batch.rows * batch.response * dims.vocabulary
    activations += batch.images * batch.pixels / PATCH_PIXELS * 4 * PATCH_VALUES
    activations += batch.mask_bytes
    states = {
        0: 2 * parameters + 14 * trained,
        1: 2 * parameters + 2 * trained + 12 * trained / gpus,
        2: 2 * parameters + 14 * trained / gpus,
        3: (2 * parameters + 14 * trained) / gpus,
    }
    copies = {zero: 2 * parameters * reference / (gpus if zero == 3 else 1) for zero in states}
    activations = max(activations, rollouts)
    return {zero: size + copies[zero] + activations for zero, size in states.items()}


def generation_batch(
    model: ModelConfig, prompt: int, max_new_tokens: int, pixels: int
) -> TokenBatch:
    """The batch that one process generates at once, with responses of the maximal length.

    model.batch_tokens limits the engine hf. If deterministic, rows are padded to a power of 2.
    """
    rows, response = model.max_concurrency, max_new_tokens
    if model.deterministic:
        response = (1 << (prompt + response - 1).bit_length()) - prompt
    elif model.engine is EngineKind.hf:
        rows = min(rows, max(1, model.batch_tokens // (prompt + response)))
    return TokenBatch(rows=rows, prompt=prompt, response=response, pixels=pixels)


def step_rollouts(grpo: GrpoConfig) -> tuple[int, int]:
    """The fewest and the most completions that are generated for a GRPO step."""
    fewest = grpo.prompts_per_step * grpo.num_generations
    return fewest, fewest * (1 + grpo.max_rounds * grpo.dynamic_sampling)


def step_tokens(grpo: GrpoConfig, prompt: float) -> tuple[float, float]:
    """Tokens of a GRPO step in a log-probability pass (policy, old and reference are one each).

    The first number is what is computed, the second what it is if every completion repeats its
    prompt of `prompt` tokens. Completions count with their maximal length.
    """
    completions = grpo.prompts_per_step * grpo.num_generations
    parts = -(-grpo.num_generations // grpo.per_device_train_batch_size)  # of a group, in passes
    prompts = grpo.prompts_per_step * parts if grpo.shares_prompts else completions
    responses = completions * grpo.max_completion_length
    return prompts * prompt + responses, completions * prompt + responses


def _memory(config: RunConfig, text_tokens: int) -> dict[str, Any]:
    """Memory of one GPU while generating, and while training under each ZeRO stage."""
    model, pixels = config.model, config.data.max_pixels
    dims = model_dims(resolve.source(model.name))
    if dims is None:
        return {"memory": None}
    prompt = pixels // config.data.side**2 + text_tokens
    batch = generation_batch(model, prompt, config.probe.max_new_tokens, pixels)
    cached_prompts = model.max_concurrency if model.engine is EngineKind.hf else 0
    weight_bytes = 4 if model.dtype is Dtype.float32 else 2
    devices = {
        EngineKind.hf: "GPU",
        EngineKind.vllm: f"copy of the model ({model.vllm.tensor_parallel_size} GPUs)",
        EngineKind.http: "server",
    }
    training = []
    for stage in config.stages:
        settings = getattr(config, stage)
        training.append((stage, *_stage_memory(settings, dims, prompt, config)))
    return {
        "memory": generation_memory(dims, batch, weight_bytes, cached_prompts),
        "device": devices[model.engine],
        "rows": batch.rows,
        "training": training,
    }


def _stage_memory(
    stage: SftConfig | GrpoConfig,
    dims: ModelDims,
    prompt: int,
    config: RunConfig,
) -> tuple[float | None, dict[int, float]]:
    """LoRA's number of parameters (or None), and one GPU's memory with rows of maximal length.

    SFT's logits are left out, because TRL computes its loss in chunks.
    """
    is_grpo = isinstance(stage, GrpoConfig)
    pixels, gpus = config.data.max_pixels, config.plan.gpus
    lora, rows = stage.lora, stage.per_device_train_batch_size
    adapters = lora_parameters(dims, lora.rank, lora.targets, lora.vision) if lora.rank else None
    batch = TokenBatch(
        rows=rows,
        prompt=prompt if is_grpo else stage.cutoff_tokens,
        response=stage.max_completion_length if is_grpo else 0,
        pixels=pixels,
        prompts=-(-rows // stage.num_generations) if is_grpo and stage.shares_prompts else 0,
    )
    return adapters, training_memory(
        dims,
        batch,
        gpus,
        reference=is_grpo and stage.beta > 0,
        checkpointing=stage.gradient_checkpointing,
        frozen_vision=stage.freeze_vision,
        lora_parameters=adapters,
        rollouts=rollout_memory(stage, config, dims, prompt) if is_grpo else 0,
    )


def rollout_memory(grpo: GrpoConfig, config: RunConfig, dims: ModelDims, prompt: int) -> float:
    """Bytes on one GPU that the engine takes for rollouts, besides the model; 0 with vLLM."""
    if grpo.rollouts is not Rollouts.engine or grpo.vllm.mode is not VllmMode.none:
        return 0
    model = replace(config.model, engine=EngineKind.hf)
    batch = generation_batch(model, prompt, grpo.max_completion_length, config.data.max_pixels)
    completions = -(-grpo.prompts_per_step * grpo.num_generations // config.plan.gpus)
    batch = replace(batch, rows=min(batch.rows, completions))
    value_bytes = 2 if grpo.lora.rank else 4  # without LoRA the weights are trained in float32
    prompts = -(-batch.rows // grpo.num_generations)
    sizes = generation_memory(dims, batch, value_bytes, cached_prompts=prompts)
    return sum(sizes.values()) - sizes["weights"]


def _gib(size: float) -> str:
    return f"{size / 2**30:,.3g} GiB"
