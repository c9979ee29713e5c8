"""What a run would ask, take and hold: samples, answers, tokens, hours, memory. No torch."""

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

from difftrain.config.data import TOKEN_PIXELS
from difftrain.config.difficulty import Until
from difftrain.config.engine import EngineKind
from difftrain.config.model import Dtype
from difftrain.config.run_config import RunConfig
from difftrain.data.prompts import SYSTEM
from difftrain.difficulty.pism import min_correct
from difftrain.model import resolve
from difftrain.pipeline import manifest, parquet
from difftrain.pipeline.paths import RunPaths
from difftrain.plan import generations, memory
from difftrain.plan.generations import Ladder
from difftrain.probe.state import requirements
from difftrain.records import TaskSet, TrainStage

MIX = "the first paper's stratum mix"
"""What answers are reckoned from without a pilot."""
LETTERS_PER_TOKEN = 4
"""English words in Qwen's tokenizer, roughly."""


@dataclass(frozen=True, slots=True)
class Pool:
    """What the data stage says: samples by task set, and tokens of one prompt on average."""

    counts: dict[str, Any]
    task_sets: dict[TaskSet, int]
    image_tokens: float
    text_tokens: float

    @property
    def prompt(self) -> int:
        """Tokens of one prompt with its pictures."""
        return round(self.image_tokens + self.text_tokens)


def estimate(config: RunConfig, places: RunPaths) -> list[str]:
    """The plan in lines: samples, answers, tokens, hours, memory."""
    known = counted(places)
    pilot, source = pilot_of(config)
    asked = answers(config, known, pilot)
    return [
        f"samples: {known.counts['samples']:,} of {known.counts['rows']:,} rows, "
        f"{known.counts['quarantined']:,} quarantined ({by_task_set(known)})",
        *asked_in_words(config, known, pilot, asked, source),
        hours(config, known.counts["samples"], pilot),
        *memory_lines(config, known),
    ]


def counted(places: RunPaths) -> Pool:
    """What the finished data stage holds."""
    made = manifest.read_manifest(places.data)
    assert made is not None
    task_sets, letters = Counter[TaskSet](), 0
    for part in parquet.parts(places.data):
        names, questions = parquet.columns(part, ("task_set", "question"))
        task_sets.update(map(TaskSet, names))
        letters += sum(map(len, questions))
    samples = made["counts"]["samples"]
    pictures = made["counts"].get("images", {}).get("tokens")
    least = places.config.data.min_pixels
    shapes = max(least, TOKEN_PIXELS * 16) / TOKEN_PIXELS
    return Pool(
        counts=made["counts"],
        task_sets=dict(task_sets),
        image_tokens=shapes if pictures is None else pictures / samples,
        text_tokens=(letters / samples + len(SYSTEM)) / LETTERS_PER_TOKEN,
    )


def by_task_set(known: Pool) -> str:
    """The samples by task set, in words."""
    return ", ".join(f"{name.value} {number:,}" for name, number in sorted(known.task_sets.items()))


def pilot_of(config: RunConfig) -> tuple[dict[str, Any] | None, str]:
    """What a finished probe on plan.pilot samples noted, and what answers are reckoned from.

    None where it was asked for anything else than these settings need: the counts are of all that.
    """
    small = replace(config, data=replace(config.data, limit=config.plan.pilot))
    made = manifest.read_manifest(RunPaths(small).probe)
    if made is None or not made["counts"]["generations"]:  # no answer says nothing of others
        return None, MIX
    counts = made["counts"]
    wanted, settled = (
        requirements(config.difficulty, config.probe).describe(counts["samples"]),
        counts["settled"],
    )
    if settled != [wanted]:
        was = "; ".join(settled)
        return None, f"{MIX}, because the pilot was for ({was}) and not just for ({wanted})"
    return counts | {"seconds": made["seconds"]}, f"a pilot of {counts['samples']:,} samples"


def answers(config: RunConfig, known: Pool, pilot: dict[str, Any] | None) -> float:
    """Answers that the probe is expected to ask for, those of probe.retest_samples included."""
    samples = known.counts["samples"]
    again = 1 + min(config.probe.retest_samples, samples) / samples
    if pilot:
        return pilot["generations"] / pilot["samples"] * samples * again
    ladder = ladder_of(config)
    return generations.expected(ladder, config.difficulty.measure, known.task_sets) * again


def ladder_of(config: RunConfig) -> Ladder:
    """The probe's needs in plain numbers."""
    probe, pism = config.probe, config.difficulty.pism
    required = requirements(config.difficulty, probe)
    return Ladder(
        percents=probe.mask_percents,
        draws=probe.draws,
        least=max(1, min_correct(probe.draws, pism.tau)),
        hard_upto=pism.hard_max,
        easy_from=pism.easy_min,
        climbs=required.pism is not None,
        full=required.until is Until.grid,
        first_right=required.first_correct,
        whole=required.full_image,
        text_only=required.text_only,
    )


def asked_in_words(
    config: RunConfig, known: Pool, pilot: dict[str, Any] | None, asked: float, source: str
) -> list[str]:
    """Answers and tokens, and what they are reckoned from."""
    grid = known.counts["samples"] * config.probe.draws * len(config.probe.mask_percents)
    measures = ", ".join(config.difficulty.measures)
    if config.probe.retest_samples:
        measures += f" and probe.retest_samples={config.probe.retest_samples}"
    if pilot:
        each = pilot["tokens"] / pilot["generations"]
        spoken = f"{asked * each:,.0f} answer tokens ({each:.0f} each in the pilot)"
    else:
        most = config.probe.max_new_tokens
        spoken = f"at most {asked * most:,.0f} answer tokens ({most:,} each)"
    return [
        f"answers: about {asked:,.0f} for {measures}, by {source}; the full grid alone has "
        f"{grid:,} ({asked / grid:.1%})",
        f"answers for each measure by itself, by the paper's mix: {each_alone(config, known)}",
        f"tokens: {spoken}; prompts of about {known.prompt:,} tokens, "
        f"{known.image_tokens:,.0f} of them pictures",
    ]


def each_alone(config: RunConfig, known: Pool) -> str:
    """What each wanted measure would ask without the others, which share its answers."""
    told = []
    for measure in config.difficulty.measures:
        alone = replace(
            config, difficulty=replace(config.difficulty, measure=measure, extra_measures=[])
        )
        number = generations.expected(ladder_of(alone), measure, known.task_sets)
        told.append(f"{measure} {number:,.0f}")
    return ", ".join(told)


def hours(config: RunConfig, samples: int, pilot: dict[str, Any] | None) -> str:
    """How long the probe takes at a stated speed, else at the pilot's."""
    stated = config.plan.samples_per_second
    if stated is None and pilot and pilot["seconds"]:
        stated = pilot["samples"] / pilot["seconds"]
        source = f"the pilot's {stated:.3g} samples a second"
    elif stated is None:
        how = f"a pilot with data.limit={config.plan.pilot} (plan.pilot; one not used for others)"
        return f"hours: unknown; state plan.samples_per_second, or run {how}"
    else:
        source = f"{stated:g} samples a second"
    return f"hours: {samples / stated / 3600:.2f} for the probe, at {source}"


def answering(config: RunConfig, prompt: int) -> memory.Batch:
    """What a process answers at once where each prompt has so many tokens and answers are longest.

    In this process within model.batch_tokens or, with fixed shapes, in slots of a power of two.
    """
    model, answer = config.model, config.probe.max_new_tokens
    rows = model.at_once
    if model.deterministic:
        answer = (1 << (prompt + answer - 1).bit_length()) - prompt
    elif model.engine is EngineKind.hf:
        rows = min(rows, max(1, model.batch_tokens // (prompt + answer)))
    return memory.Batch(rows=rows, prompt=prompt, answer=answer, pixels=config.data.max_pixels)


def memory_lines(config: RunConfig, known: Pool) -> list[str]:
    """Memory of one GPU while scoring, and while training under each ZeRO stage."""
    shape = memory.shape_of(resolve.source(config.model.name))
    if shape is None:
        told = f"memory: unknown, because {config.model.name} has no config.json at hand"
        return [f"{told}; name a local folder"]
    size = 4 if config.model.dtype is Dtype.float32 else 2
    text = round(known.text_tokens)
    budget = config.data.max_pixels
    asked = answering(config, budget // TOKEN_PIXELS + text)
    here = config.model.engine is EngineKind.hf
    scoring = memory.scoring(shape, asked, size, config.model.at_once * here)
    parts = ", ".join(f"{name} {gib(number)}" for name, number in scoring.items() if number)
    where = {
        EngineKind.hf: "GPU",
        EngineKind.vllm: f"copy of the model ({config.model.vllm.tensor_parallel_size} GPUs)",
        EngineKind.http: "server",
    }[config.model.engine]
    return [
        f"memory, scoring: {gib(sum(scoring.values()))} a {where} at the pixel budget of "
        f"{budget:,} with {asked.rows} answers at once: {parts}",
        *(training_line(config, stage, shape, asked.prompt) for stage in config.stages),
    ]


def training_line(config: RunConfig, name: TrainStage, shape: memory.Shape, prompt: int) -> str:
    """Memory of one GPU while a stage trains. SFT is told at its longest sample, whose scores TRL
    takes in parts."""
    grpo, stage = config.grpo, getattr(config, name)
    lengths = (config.sft.cutoff_tokens, 0)
    if name is TrainStage.grpo:
        lengths = (prompt, grpo.max_completion_length)
    lora = stage.lora
    added = memory.additions(shape, lora.rank, lora.targets, lora.vision)
    found = memory.training(
        shape,
        memory.Batch(
            rows=stage.per_device_train_batch_size,
            prompt=lengths[0],
            answer=lengths[1],
            pixels=config.data.max_pixels,
        ),
        config.plan.gpus,
        memory.Learned(frozen_tower=stage.freeze_vision, additions=added if lora.rank else None),
        name is TrainStage.grpo and grpo.beta > 0,
        stage.gradient_checkpointing,
    )
    how = f" by LoRA ({added / 1e6:,.3g} million additions)" if lora.rank else ""
    each = ", ".join(f"ZeRO {zero} {gib(number)}" for zero, number in found.items())
    return f"memory, training {name.upper()}{how} on {config.plan.gpus} GPUs, each: {each}"


def gib(number: float) -> str:
    """Bytes in words."""
    return f"{number / memory.GIB:,.3g} GiB"
