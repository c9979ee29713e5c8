"""What a run would do and cost: samples, responses, tokens, hours, memory. Needs no torch."""

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from difftrain.config import run_config
from difftrain.config.data import TOKEN_PIXELS, DataConfig
from difftrain.config.difficulty import DifficultyConfig, ProbeConfig, Until
from difftrain.config.engine import EngineKind
from difftrain.config.model import Dtype, ModelConfig
from difftrain.config.plan import PlanConfig
from difftrain.config.run_config import RunConfig, format_value
from difftrain.config.train import GrpoConfig, SftConfig
from difftrain.data.build import build_dataset
from difftrain.data.prompts import SYSTEM
from difftrain.difficulty.pism import min_correct
from difftrain.model import resolve
from difftrain.pipeline import manifest, parquet
from difftrain.pipeline.coordination import World
from difftrain.pipeline.paths import RunPaths
from difftrain.plan import memory
from difftrain.plan.memory import ModelDims, TokenBatch, TrainedPart
from difftrain.plan.probe_cost import ProbeWorkload, expected_responses
from difftrain.probe.schedule import requirements
from difftrain.records import TaskSet

PAPER_MIX = "the first paper's stratum mix"
"""What responses are estimated from without a pilot."""
LETTERS_PER_TOKEN = 4
"""English text in Qwen's tokenizer, roughly."""


@dataclass(frozen=True, slots=True)
class DatasetSummary:
    """What the data stage holds: samples by task set, and tokens of one prompt on average."""

    counts: dict[str, Any]
    task_sets: dict[TaskSet, int]
    image_tokens: float
    text_tokens: float

    @property
    def samples(self) -> int:
        """Usable samples."""
        return self.counts["samples"]


def show(config: RunConfig, world: World, difference: list[str]) -> Path:
    """Print settings, samples, responses, tokens, hours and memory; returns the plan's folder.

    Makes the data stage, as any run would.
    """
    paths = RunPaths(config)
    folder = paths.run.parent.parent / "plan" / paths.run.name
    build_dataset(config.data, paths.data, world)
    if world.is_first:
        settings = run_config.plain(config)
        dataset = summarize(paths.data, config.data)
        lines = [*setting_lines(settings), "", *estimate(config, dataset)]
        lines += ["", "what defines this recipe: " + (", ".join(difference) or "nothing")]
        print("\n".join(lines))
        manifest.write_json(folder / "settings.json", settings)
        manifest.write_text(folder / "plan.txt", "\n".join(lines) + "\n")
    return folder


def setting_lines(node: dict[str, Any], prefix: str = "") -> list[str]:
    """Every setting as `full.key=value`, as one would type it."""
    lines = []
    for key, value in node.items():
        if isinstance(value, dict) and value:
            lines += setting_lines(value, f"{prefix}{key}.")
        else:
            lines.append(f"{prefix}{key}={format_value(value)}")
    return lines


def estimate(config: RunConfig, dataset: DatasetSummary) -> list[str]:
    """The estimate in lines: samples, responses, tokens, hours, memory."""
    pilot, source = find_pilot(config)
    counts = dataset.counts
    task_sets = sorted(dataset.task_sets.items())
    by_task_set = ", ".join(f"{name.value} {count:,}" for name, count in task_sets)
    return [
        f"samples: {counts['samples']:,} of {counts['rows']:,} rows, "
        f"{counts['quarantined']:,} quarantined ({by_task_set})",
        *response_lines(config, dataset, pilot, source),
        probe_hours(config.plan, dataset.samples, pilot),
        *memory_lines(config, round(dataset.text_tokens)),
    ]


def summarize(folder: Path, data: DataConfig) -> DatasetSummary:
    """What the finished data stage in `folder` holds."""
    content = manifest.read_manifest(folder)
    assert content is not None
    task_sets, letters = Counter[TaskSet](), 0
    for part in parquet.parts(folder):
        names, questions = parquet.read_columns(part, ("task_set", "question"))
        task_sets.update(map(TaskSet, names))
        letters += sum(map(len, questions))
    samples = content["counts"]["samples"]
    image_tokens = content["counts"].get("images", {}).get("tokens")
    shapes_tokens = max(data.min_pixels, TOKEN_PIXELS * 16) / TOKEN_PIXELS
    return DatasetSummary(
        counts=content["counts"],
        task_sets=dict(task_sets),
        image_tokens=shapes_tokens if image_tokens is None else image_tokens / samples,
        text_tokens=(letters / samples + len(SYSTEM)) / LETTERS_PER_TOKEN,
    )


def find_pilot(config: RunConfig) -> tuple[dict[str, Any] | None, str]:
    """The counts of a finished probe on plan.pilot samples, and what responses are estimated from.

    None if its settings requested anything else, because the counts are of the whole probe.
    """
    small = replace(config, data=replace(config.data, limit=config.plan.pilot))
    content = manifest.read_manifest(RunPaths(small).probe)
    if content is None or not content["counts"]["generations"]:  # no rate without a response
        return None, PAPER_MIX
    counts = content["counts"]
    required = requirements(config.difficulty, config.probe)
    needed, settled = required.describe(counts["samples"]), counts["settled"]
    if settled != [needed]:
        measured = "; ".join(settled)
        return None, f"{PAPER_MIX}, because the pilot was for ({measured}), not just ({needed})"
    return counts | {"seconds": content["seconds"]}, f"a pilot of {counts['samples']:,} samples"


def probe_workload(difficulty: DifficultyConfig, probe: ProbeConfig) -> ProbeWorkload:
    """What the measures of these settings request of one sample."""
    required, pism = requirements(difficulty, probe), difficulty.pism
    percents = probe.mask_percents
    if required.until is Until.stratum:  # an easy sample is settled before the first easy ratio
        percents = [percent for percent in percents if percent < 100 * pism.easy_min]
    return ProbeWorkload(
        mask_percents=percents,
        draws=probe.draws,
        min_correct=max(1, min_correct(probe.draws, pism.tau)),
        hard_max=pism.hard_max,
        easy_min=pism.easy_min,
        masks=required.pism is not None,
        full_grid=required.until is Until.grid,
        until_first_correct=required.first_correct,
        full_image=required.full_image,
        text_only=required.text_only,
    )


def response_lines(
    config: RunConfig, dataset: DatasetSummary, pilot: dict[str, Any] | None, source: str
) -> list[str]:
    """Responses and tokens of the probe, probe.retest_samples included, and their source."""
    samples, probe = dataset.samples, config.probe
    repeats = 1 + min(probe.retest_samples, samples) / samples
    measures = ", ".join(config.difficulty.measures)
    if probe.retest_samples:
        measures += f" and probe.retest_samples={probe.retest_samples}"
    if pilot:
        responses = pilot["generations"] / pilot["samples"] * samples * repeats
        length = pilot["tokens"] / pilot["generations"]
        tokens = f"{responses * length:,.0f} response tokens ({length:.0f} each in the pilot)"
    else:
        workload = probe_workload(config.difficulty, probe)
        measure = config.difficulty.measure
        responses = expected_responses(workload, measure, dataset.task_sets) * repeats
        limit = probe.max_new_tokens
        tokens = f"at most {responses * limit:,.0f} response tokens ({limit:,} each)"
    grid = samples * probe.draws * len(probe.mask_percents)
    prompt = round(dataset.image_tokens + dataset.text_tokens)
    return [
        f"responses: about {responses:,.0f} for {measures}, by {source}; the full grid alone has "
        f"{grid:,} ({responses / grid:.1%})",
        f"responses for each measure alone, by the paper's mix: {responses_alone(config, dataset)}",
        f"tokens: {tokens}; prompts of about {prompt:,} tokens, "
        f"{dataset.image_tokens:,.0f} of them image tokens",
    ]


def responses_alone(config: RunConfig, dataset: DatasetSummary) -> str:
    """What each measure would request without the others, which share its responses."""
    parts = []
    for measure in config.difficulty.measures:
        difficulty = replace(config.difficulty, measure=measure, extra_measures=[])
        workload = probe_workload(difficulty, config.probe)
        count = expected_responses(workload, measure, dataset.task_sets)
        parts.append(f"{measure} {count:,.0f}")
    return ", ".join(parts)


def probe_hours(plan: PlanConfig, samples: int, pilot: dict[str, Any] | None) -> str:
    """How long the probe takes at the stated speed, else at the pilot's."""
    speed = plan.samples_per_second
    if speed is not None:
        source = f"{speed:g} samples a second"
    elif pilot and pilot["seconds"]:
        speed = pilot["samples"] / pilot["seconds"]
        source = f"the pilot's {speed:.3g} samples a second"
    else:
        return (
            "hours: unknown; set plan.samples_per_second, or first run a pilot, used for nothing "
            f"else, with data.limit={plan.pilot} (plan.pilot)"
        )
    return f"hours: {samples / speed / 3600:.2f} for the probe, at {source}"


def generation_batch(
    model: ModelConfig, prompt: int, max_new_tokens: int, pixels: int
) -> TokenBatch:
    """What a process generates at once with such prompts and the longest responses.

    In this process within model.batch_tokens or, if deterministic, with a power of two of tokens.
    """
    rows, response = model.max_concurrency, max_new_tokens
    if model.deterministic:
        response = (1 << (prompt + response - 1).bit_length()) - prompt
    elif model.engine is EngineKind.hf:
        rows = min(rows, max(1, model.batch_tokens // (prompt + response)))
    return TokenBatch(rows=rows, prompt=prompt, response=response, pixels=pixels)


def memory_lines(config: RunConfig, text_tokens: int) -> list[str]:
    """Memory of one GPU while generating, and while training under each ZeRO stage."""
    model, pixels = config.model, config.data.max_pixels
    dims = memory.model_dims(resolve.source(model.name))
    if dims is None:
        reason = f"{model.name} has no config.json on this machine"
        return [f"memory: unknown, because {reason}; name a local folder"]
    prompt = pixels // TOKEN_PIXELS + text_tokens
    batch = generation_batch(model, prompt, config.probe.max_new_tokens, pixels)
    in_process = model.engine is EngineKind.hf
    weight_bytes = 4 if model.dtype is Dtype.float32 else 2
    sizes = memory.generation_memory(dims, batch, weight_bytes, model.max_concurrency * in_process)
    parts = ", ".join(f"{name} {gib(size)}" for name, size in sizes.items() if size)
    place = {
        EngineKind.hf: "GPU",
        EngineKind.vllm: f"copy of the model ({model.vllm.tensor_parallel_size} GPUs)",
        EngineKind.http: "server",
    }[model.engine]
    return [
        f"memory, generation: {gib(sum(sizes.values()))} a {place} at the pixel budget of "
        f"{pixels:,} with {batch.rows} responses at once: {parts}",
        *(
            training_line(getattr(config, stage), dims, prompt, pixels, config.plan.gpus)
            for stage in config.stages
        ),
    ]


def training_line(
    stage: SftConfig | GrpoConfig, dims: ModelDims, prompt: int, pixels: int, gpus: int
) -> str:
    """Memory of one GPU while a stage trains, each row at its longest.

    SFT's logits are left out, because TRL computes its loss in chunks.
    """
    if isinstance(stage, GrpoConfig):
        name, response, reference = "GRPO", stage.max_completion_length, stage.beta > 0
    else:
        name, prompt, response, reference = "SFT", stage.cutoff_tokens, 0, False
    lora = stage.lora
    adapters = memory.lora_parameters(dims, lora.rank, lora.targets, lora.vision)
    sizes = memory.training_memory(
        dims,
        TokenBatch(
            rows=stage.per_device_train_batch_size,
            prompt=prompt,
            response=response,
            pixels=pixels,
        ),
        gpus,
        TrainedPart(
            frozen_vision=stage.freeze_vision, lora_parameters=adapters if lora.rank else None
        ),
        reference=reference,
        checkpointing=stage.gradient_checkpointing,
    )
    method = f" by LoRA ({adapters / 1e6:,.3g} million parameters)" if lora.rank else ""
    by_stage = ", ".join(f"ZeRO {zero} {gib(size)}" for zero, size in sizes.items())
    return f"memory, training {name}{method} on {gpus} GPUs, each: {by_stage}"


def gib(size: float) -> str:
    """Bytes as text."""
    return f"{size / memory.GIB:,.3g} GiB"
