"""Settings of SFT and GRPO; TRL's other arguments are `+grpo.trl.KEY` and `+sft.trl.KEY`."""

import ast
import importlib.util
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from enum import StrEnum
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from difftrain.config.fingerprint import setting
from difftrain.records import TrainStage

TRL_CONFIG = {TrainStage.grpo: "GRPOConfig", TrainStage.sft: "SFTConfig"}
"""TRL's argument dataclass of each stage; its fields are the keys that may be given."""
SHARED_KEYS = {
    **dict.fromkeys(("output_dir", "seed", "report_to"), "{key}"),
    **dict.fromkeys(
        (
            "learning_rate", "lr_scheduler_type", "num_train_epochs", "max_steps", "save_steps",
            "per_device_train_batch_size", "gradient_checkpointing",
        ),
        "{stage}.{key}",
    ),
    **dict.fromkeys(("save_total_limit", "logging_steps", "use_cpu"), ""),
    "warmup_steps": "{stage}.warmup_ratio",
    "model_init_kwargs": "model.dtype or model.revision",
    "bf16": "model.dtype",
}  # fmt: skip
"""TRL keys that difftrain sets itself (trl_args.py), with the setting that decides each."""
SFT_KEYS = {
    **SHARED_KEYS,
    **dict.fromkeys(
        ("packing", "padding_free", "completion_only_loss", "remove_unused_columns"), ""
    ),
    "gradient_accumulation_steps": "sft.samples_per_step",
    "max_length": "sft.cutoff_tokens",
    "eval_strategy": "",
}
GRPO_KEYS = {
    **SHARED_KEYS,
    **dict.fromkeys(
        ("num_generations", "temperature", "beta", "max_completion_length", "eval_steps"),
        "grpo.{key}",
    ),
    **dict.fromkeys(("loss_type", "generation_kwargs", "num_generations_eval"), ""),
    "gradient_accumulation_steps": "grpo.prompts_per_step",
    "reward_weights": "grpo.format_weight or grpo.overlong_weight",
    "eval_strategy": "grpo.eval_samples",
    "per_device_eval_batch_size": "grpo.per_device_train_batch_size",
    "use_vllm": "grpo.vllm.mode",
    "vllm_mode": "grpo.vllm.mode",
    "vllm_gpu_memory_utilization": "grpo.vllm.gpu_memory_utilization",
    "vllm_tensor_parallel_size": "grpo.vllm.tensor_parallel_size",
    "vllm_max_model_length": "grpo.vllm.max_model_length",
    "vllm_enable_sleep_mode": "grpo.vllm.enable_sleep_mode",
    "vllm_server_base_url": "grpo.vllm.server_base_url",
}


@cache
def trl_fields(stage: TrainStage) -> frozenset[str]:
    """The fields of TRL's argument dataclass, read from its source without importing it."""
    classes: dict[str, ast.ClassDef] = {}
    for package, file in (
        ("trl", "trainer/grpo_config.py"),
        ("trl", "trainer/sft_config.py"),
        ("trl", "trainer/base_config.py"),
        ("transformers", "training_args.py"),
    ):
        spec = importlib.util.find_spec(package)
        assert spec is not None
        assert spec.submodule_search_locations
        tree = ast.parse((Path(spec.submodule_search_locations[0]) / file).read_text("utf-8"))
        classes |= {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}

    def fields_of(name: str) -> set[str]:
        names = {
            statement.target.id
            for statement in classes[name].body
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)
        }
        bases = [base.id for base in classes[name].bases if isinstance(base, ast.Name)]
        return names.union(*(fields_of(base) for base in bases))

    return frozenset(fields_of(TRL_CONFIG[stage]))


def forbidden_key(key: str) -> str | None:
    """Why a TRL key is never allowed, or None: no secrets, nothing published."""
    if key == "hub_token":
        return "is a secret: use HF_TOKEN"
    if key == "trust_remote_code":
        return "is always off"
    if key.startswith("hub_") or key in ("push_to_hub", "log_completions_hub_repo"):
        return "is never set: a run does not publish what it makes"
    return None


def trl_key_problems(
    stage: TrainStage, given: Mapping[str, Any], managed: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """Keys of a stage's `trl` that TRL does not know, or that difftrain manages."""
    for key in given:
        if reason := forbidden_key(key):
            yield f"trl.{key}", reason
        elif key in managed:
            setting = managed[key].format(stage=stage, key=key)
            advice = f"set {setting} instead" if setting else "it cannot be changed"
            yield f"trl.{key}", f"managed by difftrain; {advice}"
        elif key not in trl_fields(stage):
            allowed = [k for k in trl_fields(stage) - managed.keys() if not forbidden_key(k)]
            nearest = get_close_matches(key, sorted(allowed), 1, 0.6)
            hint = f"; did you mean {stage}.trl.{nearest[0]}?" if nearest else ""
            trl = f"TRL {version('trl')}'s {TRL_CONFIG[stage]}"
            yield f"trl.{key}", f"{trl} has no such key{hint}"


def nearest_numbers(number: int, fits: Callable[[int], bool]) -> list[int]:
    """The three positive numbers nearest to `number` that fit, in ascending order."""
    nearest: list[int] = []
    for distance in range(4 * number + 4096):
        candidates = sorted({number - distance, number + distance})
        nearest += [n for n in candidates if n >= 1 and fits(n)]
        if len(nearest) >= 3:
            break
    return sorted(nearest[:3])


def at_least(settings: Any, minimum: int, *names: str) -> Iterator[tuple[str, str]]:
    """A problem for each of these settings that is below the minimum."""
    rule = f"must be at least {minimum}" if minimum else "must not be negative"
    yield from ((name, rule) for name in names if getattr(settings, name) < minimum)


def shared_problems(settings: Any) -> Iterator[tuple[str, str]]:
    """Problems with the settings that SFT and GRPO share, as (field, rule)."""
    counts = ("per_device_train_batch_size", "num_train_epochs", "save_steps")
    yield from at_least(settings, 1, *counts)
    if settings.max_steps is not None and settings.max_steps < 1:
        yield "max_steps", "must be at least 1, or null to follow num_train_epochs"
    if settings.lora.rank and settings.lora.vision and settings.freeze_vision:
        yield "lora.vision", "needs freeze_vision=false: frozen parts get no adapter"
    if not 0 < settings.learning_rate < 1:
        yield "learning_rate", "must lie strictly between 0 and 1"
    if not 0 <= settings.warmup_ratio < 1:
        yield "warmup_ratio", "must be at least 0 and below 1"


class RateSchedule(StrEnum):
    """The learning rate after warm-up."""

    linear = "linear"
    cosine = "cosine"
    constant = "constant"


LORA_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""Attention and feed-forward projections of the language model."""


@dataclass(kw_only=True, slots=True)
class LoraConfig:
    """Low-rank adaptation (peft). Both papers train all weights, so it is off."""

    rank: int = 0
    """Rank of the adapters; 0 trains all weights."""
    alpha: float = 32.0
    """Adapters are scaled by alpha / rank."""
    targets: list[str] = field(default_factory=lambda: list(LORA_TARGETS))
    """Last names of the modules that get an adapter."""
    vision: bool = False
    """Also adapt vision tower and projector, where they have modules of these names."""

    def check(self) -> Iterator[tuple[str, str]]:
        """Problems as (field, rule)."""
        if self.rank < 0:
            yield "rank", "must be at least 1, or 0 to train all weights"
        if not self.alpha > 0:
            yield "alpha", "must be above 0"
        if not self.targets:
            yield "targets", f"must name at least one module, such as {', '.join(LORA_TARGETS[:4])}"
        if any("head" in name for name in self.targets):
            yield "targets", "may not name the head: TRL reads its weights without the adapter"


class VllmMode(StrEnum):
    """What generates the rollouts."""

    none = "none"
    colocate = "colocate"
    server = "server"


@dataclass(kw_only=True, slots=True)
class RolloutVllmConfig:
    """GRPO rollouts by vLLM, through TRL."""

    mode: VllmMode = VllmMode.none
    """none generates with transformers; colocate shares the training GPUs; server uses one that
    runs: VLLM_SERVER_DEV_MODE=1 vllm serve MODEL --logprobs-mode processed_logprobs
    --weight-transfer-config '{"backend": "nccl"}'"""
    gpu_memory_utilization: float = 0.3
    """Share of a GPU's memory for vLLM (colocate)."""
    tensor_parallel_size: int = 1
    """GPUs that share one copy of the model (colocate)."""
    max_model_length: int | None = None
    """Limit of prompt and completion in tokens; null takes the model's own (colocate)."""
    enable_sleep_mode: bool = False
    """Free the memory while weights are trained; costs a reload each step (colocate)."""
    server_base_url: str | None = None
    """The server's address; null is port 8000 of this machine (server)."""

    def check(self) -> Iterator[tuple[str, str]]:
        """Problems as (field, rule)."""
        if not 0 < self.gpu_memory_utilization <= 0.95:
            yield "gpu_memory_utilization", "must lie above 0 and at or below 0.95"
        yield from at_least(self, 1, "tensor_parallel_size")
        if self.max_model_length is not None and self.max_model_length < 1:
            yield "max_model_length", "must be at least 1, or null for the model's own limit"
        url = self.server_base_url
        if url is not None and not url.startswith(("http://", "https://")):
            yield "server_base_url", "must start with http:// or https://"


class SftTargets(StrEnum):
    """What SFT trains the model to respond."""

    rationale = "rationale"
    rollouts = "rollouts"


class Dropped(StrEnum):
    """Why a sample is left out of SFT."""

    no_rationale = "no_rationale"
    no_correct_rollout = "no_correct_rollout"
    no_format = "no_format"
    not_correct = "not_correct"
    too_long = "too_long"


DROP_REASONS = {
    Dropped.no_rationale: "the data has no rationale (sft.targets=rollouts needs none)",
    Dropped.no_correct_rollout: "the probe has no correct response to the full image",
    Dropped.no_format: "it cannot be split into thought and answer",
    Dropped.not_correct: "the grader does not accept it",
    Dropped.too_long: "it is longer than sft.cutoff_tokens",
}


@dataclass(kw_only=True, slots=True)
class SftConfig:
    """Supervised fine-tuning before GRPO, with loss on the completion alone."""

    targets: SftTargets = setting(SftTargets.rationale, fingerprint=("train", "select_sft"))
    """rationale: the data's own rationale and answer, which only shapes and mulberry have;
    rollouts: a correct response of the probe."""
    learning_rate: float = 1e-6
    """Qi et al. 2026: 1e-6."""
    lr_scheduler_type: RateSchedule = RateSchedule.cosine
    """Qi et al. 2026: cosine."""
    warmup_ratio: float = 0.1
    """Share of the steps that warm up (Qi et al. 2026: 0.1)."""
    samples_per_step: int = 128
    """Samples in one optimizer step, over all processes (Qi et al. 2026: 4 x 4 on 8 GPUs)."""
    per_device_train_batch_size: int = 4
    """Largest number of samples in one backward pass of a device (Qi et al. 2026: 4)."""
    num_train_epochs: int = 5
    """Passes over the selected samples (Qi et al. 2026: 5); ignored if max_steps is set."""
    max_steps: int | None = None
    """Optimizer steps; null follows num_train_epochs."""
    cutoff_tokens: int = 8192
    """Longer samples, images included, are dropped before training with their count; none is
    truncated (Qi et al. 2026 truncate at 8192)."""
    freeze_vision: bool = setting(True, fingerprint=("train", "preflight"))
    """Do not train vision tower and projector (Qi et al. 2026)."""
    gradient_checkpointing: bool = True
    """Recompute activations in the backward pass to save memory."""
    save_steps: int = 100
    """Optimizer steps between checkpoints that a killed run resumes from."""
    lora: LoraConfig = setting(default_factory=LoraConfig, fingerprint=("train", "preflight"))
    trl: dict[str, Any] = field(default_factory=dict)
    """Any other field of TRL's SFTConfig: +sft.trl.KEY=VALUE."""

    @property
    def needs_rationale(self) -> bool:
        """Whether the data must have a rationale for each answer."""
        return self.targets is SftTargets.rationale

    def step_problem(self, processes: int) -> str | None:
        """Why this many processes cannot share a step, with the nearest settings that work."""
        if self.samples_per_step % processes == 0:
            return None
        nearest = nearest_numbers(self.samples_per_step, lambda n: n % processes == 0)
        return (
            f"sft.samples_per_step={self.samples_per_step}: must divide by the {processes} "
            f"processes; nearest: {nearest}"
        )

    def check(self) -> Iterator[tuple[str, str]]:
        """Problems as (field, rule)."""
        yield from shared_problems(self)
        yield from at_least(self, 1, "samples_per_step", "cutoff_tokens")
        yield from trl_key_problems(TrainStage.sft, self.trl, SFT_KEYS)


@dataclass(kw_only=True, slots=True)
class GrpoConfig:
    """Group-relative policy optimization."""

    learning_rate: float = 1e-6
    """Qi et al. 2026: 5e-7; their reasoning runs mostly 1e-6."""
    lr_scheduler_type: RateSchedule = RateSchedule.linear
    """TRL's default, which the released scripts keep."""
    warmup_ratio: float = 0.01
    """Share of the steps that warm up (Qi et al. 2026: 0.01)."""
    num_generations: int = 8
    """Completions of a group, G (Qi et al. 2026: 8)."""
    prompts_per_step: int = 8
    """Different prompts in one optimizer step, over all processes (Qi et al. 2026: 4 x 2 on 8
    GPUs / G)."""
    per_device_train_batch_size: int = 4
    """Largest number of completions in one backward pass of a device (Qi et al. 2026: 4)."""
    temperature: float = 1.0
    """Sampling temperature of the rollouts (Qi et al. 2026: 1.0)."""
    beta: float = 0.001
    """Weight of the KL term (Qi et al. 2026: 0.001)."""
    max_completion_length: int = 1024
    """Token limit of a completion (Qi et al. 2026: 1024)."""
    num_train_epochs: int = 1
    """Passes over the selected samples (Qi et al. 2026: 1); ignored if max_steps is set."""
    max_steps: int | None = None
    """Optimizer steps; null follows num_train_epochs. Arms compared at equal steps set this."""
    format_weight: float = 0.1
    """Weight of the format reward; the accuracy reward has 1 (V-Triune: 0.1)."""
    overlong_weight: float = 0.0
    """Weight of the overlong penalty: 0 for short completions, falling to -1 at
    max_completion_length (DAPO, Eq. 13). The papers have none; 0 leaves it out."""
    overlong_free_share: float = 0.8
    """Share of max_completion_length without penalty."""
    grading_timeout_s: float = 5.0
    """Wall-clock limit for grading one answer; a worker that overruns is killed and replaced."""
    reward_workers: int = setting(1, fingerprint=())
    """Grading processes for each training process; their number changes only the speed."""
    eval_samples: int = 64
    """Held-out samples on which training is evaluated; 0 for none."""
    eval_steps: int = 50
    """Optimizer steps between evaluations on the held-out samples."""
    freeze_vision: bool = setting(False, fingerprint=("train", "preflight"))
    """Do not train vision tower and projector (Qi et al. 2026 train all weights in GRPO)."""
    gradient_checkpointing: bool = True
    """Recompute activations in the backward pass to save memory."""
    save_steps: int = 100
    """Optimizer steps between checkpoints that a killed run resumes from."""
    lora: LoraConfig = setting(default_factory=LoraConfig, fingerprint=("train", "preflight"))
    vllm: RolloutVllmConfig = field(default_factory=RolloutVllmConfig)
    trl: dict[str, Any] = field(default_factory=dict)
    """Any other field of TRL's GRPOConfig: +grpo.trl.KEY=VALUE."""

    @property
    def reward_weights(self) -> dict[str, float]:
        """The rewards by name with their weights; an overlong penalty of weight 0 is left out."""
        weights = {"accuracy": 1.0, "format": self.format_weight}
        return weights | ({"overlong": self.overlong_weight} if self.overlong_weight else {})

    def step_problem(self, processes: int) -> str | None:
        """Why this many processes cannot share a step, with the nearest settings that work."""
        prompts, group = self.prompts_per_step, self.num_generations
        if prompts * group % processes:
            return (
                f"grpo.prompts_per_step={prompts}: times num_generations={group} must divide by "
                f"the {processes} processes; nearest: "
                f"{nearest_numbers(prompts, lambda n: n * group % processes == 0)}, or "
                "num_generations "
                f"{nearest_numbers(group, lambda n: n > 1 and n * prompts % processes == 0)}"
            )
        gpus = self.vllm.tensor_parallel_size
        if self.vllm.mode is VllmMode.colocate and processes % gpus:
            nearest = nearest_numbers(gpus, lambda n: n <= processes and processes % n == 0)
            return (
                f"grpo.vllm.tensor_parallel_size={gpus}: must divide the {processes} processes; "
                f"nearest: {nearest}"
            )
        return None

    def check(self) -> Iterator[tuple[str, str]]:
        """Problems as (field, rule)."""
        if self.num_generations < 2:
            yield "num_generations", "GRPO needs at least two completions to compare"
        yield from shared_problems(self)
        yield from at_least(
            self, 1, "prompts_per_step", "reward_workers", "eval_steps", "max_completion_length"
        )
        yield from at_least(self, 0, "beta", "format_weight", "overlong_weight", "eval_samples")
        if not 0 < self.temperature <= 2:
            yield "temperature", "must lie above 0 and at or below 2"
        if not 0 <= self.overlong_free_share < 1:
            yield "overlong_free_share", "must be at least 0 and below 1"
        if not 0 < self.grading_timeout_s <= 600:
            yield "grading_timeout_s", "must lie above 0 and at or below 600"
        yield from trl_key_problems(TrainStage.grpo, self.trl, GRPO_KEYS)


class TrainStages(StrEnum):
    """The training stages of a recipe."""

    grpo = "grpo"
    sft_then_grpo = "sft_then_grpo"


STAGES = {
    TrainStages.grpo: (TrainStage.grpo,),
    TrainStages.sft_then_grpo: (TrainStage.sft, TrainStage.grpo),
}
"""The stages that each value trains, in order; each has its settings under its own name."""
