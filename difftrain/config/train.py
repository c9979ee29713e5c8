"""Settings of SFT and GRPO. Any other TRL argument: `+grpo.trl.KEY=VALUE`, `+sft.trl.KEY=VALUE`."""

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

from difftrain.config.setting import Problems, did_you_mean, setting
from difftrain.records import TrainStage

RateSchedule = StrEnum("RateSchedule", ["linear", "cosine", "constant"])
"""How the learning rate changes after warm-up."""
TrainStages = StrEnum("TrainStages", ["grpo", "sft_then_grpo"])
"""The training stages of a recipe."""
STAGES = {
    TrainStages.grpo: (TrainStage.grpo,),
    TrainStages.sft_then_grpo: (TrainStage.sft, TrainStage.grpo),
}
"""The training stages of each value, in order. The sections sft and grpo configure them."""
VllmMode = StrEnum("VllmMode", ["none", "colocate", "server"])
"""Where vLLM runs to generate rollouts; none: grpo.rollouts says what generates them."""
SharedPrompt = StrEnum("SharedPrompt", ["auto", "never"])
"""Whether a group's prompt is computed once."""
Rollouts = StrEnum("Rollouts", ["engine", "generate"])
"""What generates the rollouts if vLLM does not."""
ZeroVariance = StrEnum("ZeroVariance", ["keep", "drop"])
"""Whether groups whose completions all get the same reward take part in the loss."""
PromptSampler = StrEnum("PromptSampler", [
    "uniform", "learnable", "skip_dead", "curriculum", "mirrored_j",
])  # fmt: skip
"""Which prompts GRPO asks next (select/prompt_history.py)."""
SftTargets = StrEnum("SftTargets", ["rationale", "rollouts"])
"""The responses on which SFT trains."""
Dropped = StrEnum("Dropped", [
    "no_rationale", "no_correct_rollout", "no_format", "not_correct", "too_long",
])  # fmt: skip
"""Why a sample is left out of SFT."""
DROP_REASONS = {
    Dropped.no_rationale: "the data has no rationale (sft.targets=rollouts needs none)",
    Dropped.no_correct_rollout: "the probe has no correct response to the full image",
    Dropped.no_format: "the target cannot be split into thought and answer",
    Dropped.not_correct: "the grader does not accept the target",
    Dropped.too_long: "the sample is longer than sft.cutoff_tokens",
}
LORA_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""Attention and feed-forward projections of the language model."""


@dataclass(kw_only=True, slots=True)
class LoraConfig:
    """Low-rank adaptation (peft). Qi et al. 2026 and RAP train all weights, so it is off."""

    rank: int = setting(0, at_least=0, rule="must be at least 1, or 0 to train all weights")
    """Rank of the adapters; 0 trains all weights."""
    alpha: float = setting(32.0, above=0)
    """Adapters are scaled by alpha / rank."""
    targets: list[str] = field(default_factory=lambda: list(LORA_TARGETS))
    """Modules that get an adapter, by the last part of their name."""
    vision: bool = False
    """true: modules with these names in the vision tower and projector get adapters too."""

    def check(self) -> Problems:
        if not self.targets:
            yield "targets", f"must name at least one module, such as {', '.join(LORA_TARGETS[:4])}"
        if any("head" in name for name in self.targets):
            yield "targets", "may not name the head: TRL reads its weights without the adapter"


@dataclass(kw_only=True, slots=True)
class RolloutVllmConfig:
    """How TRL generates GRPO's rollouts with vLLM."""

    mode: VllmMode = VllmMode.none
    """none: grpo.rollouts generates; colocate runs vLLM on the training GPUs; server uses a
    server that you start: VLLM_SERVER_DEV_MODE=1 vllm serve MODEL --enable-scale-out
    --logprobs-mode processed_logprobs --weight-transfer-config '{"backend": "nccl"}'. Without a
    GPU the weights go through the folder of the run, which the server must see."""
    gpu_memory_utilization: float = setting(0.3, above=0, at_most=0.95)
    """Share of a GPU's memory for vLLM (colocate)."""
    tensor_parallel_size: int = setting(1, at_least=1)
    """GPUs that share one copy of the model (colocate)."""
    max_model_length: int | None = setting(None, at_least=1, or_null="for the model's own limit")
    """Limit of prompt and completion in tokens; null takes the model's own (colocate)."""
    enable_sleep_mode: bool = False
    """Free vLLM's memory during optimizer steps; it reloads at every step (colocate)."""
    server_base_url: str | None = None
    """The server's address; null is port 8000 of this machine (server)."""

    def check(self) -> Problems:
        url = self.server_base_url
        if url is not None and not url.startswith(("http://", "https://")):
            yield "server_base_url", "must start with http:// or https://"


SHARED_KEYS = {
    **dict.fromkeys(("output_dir", "seed", "report_to"), "{key}"),
    **dict.fromkeys(("learning_rate", "lr_scheduler_type", "num_train_epochs"), "{stage}.{key}"),
    **dict.fromkeys(("max_steps", "save_steps", "gradient_checkpointing"), "{stage}.{key}"),
    "per_device_train_batch_size": "{stage}.{key}",
    **dict.fromkeys(("save_total_limit", "logging_steps", "use_cpu"), ""),
    "warmup_steps": "{stage}.warmup_ratio",
    "model_init_kwargs": "model.dtype or model.revision",
    "bf16": "model.dtype",
}
"""TRL keys that trl_args.py sets, each with the setting that decides it ("" if none does)."""
SFT_KEYS = SHARED_KEYS | {
    "gradient_accumulation_steps": "sft.samples_per_step",
    "max_length": "sft.cutoff_tokens",
    **dict.fromkeys(("packing", "padding_free", "completion_only_loss"), ""),
    **dict.fromkeys(("remove_unused_columns", "eval_strategy"), ""),
}
GRPO_KEYS = SHARED_KEYS | {
    "gradient_accumulation_steps": "grpo.prompts_per_step",
    "reward_weights": "grpo.format_weight or grpo.overlong_weight",
    "eval_strategy": "grpo.eval_samples",
    "per_device_eval_batch_size": "grpo.per_device_train_batch_size",
    "use_vllm": "grpo.vllm.mode",
    **{f"vllm_{entry.name}": f"grpo.vllm.{entry.name}" for entry in fields(RolloutVllmConfig)},
    **dict.fromkeys(("num_generations", "temperature", "beta"), "grpo.{key}"),
    **dict.fromkeys(("max_completion_length", "eval_steps"), "grpo.{key}"),
    **dict.fromkeys(("loss_type", "generation_kwargs", "num_generations_eval"), ""),
}

ENTROPY_KEYS = ("entropy_coef", "use_adaptive_entropy")
"""TRL keys that add a term to GRPO's loss which has a denominator of its own."""


@cache
def trl_fields(stage: TrainStage) -> frozenset[str]:
    """The fields of TRL's argument dataclass, read from its source, as its import loads torch."""
    files = (f"trl/trainer/{stage}_config.py", "trl/trainer/base_config.py",
             "transformers/training_args.py")  # fmt: skip
    names: set[str] = set()
    for package, _, file in (path.partition("/") for path in files):
        spec = find_spec(package)
        assert spec is not None
        tree = ast.parse((Path(str(spec.origin)).parent / file).read_text("utf-8"))
        names |= {
            statement.target.id
            for node in tree.body
            if isinstance(node, ast.ClassDef)
            for statement in node.body
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)
        }
    return frozenset(names)


def _reason_forbidden(key: str) -> str | None:
    """Why a TRL key is forbidden (a secret, hub code or publishing), or None."""
    if key == "hub_token":
        return "is a secret: use HF_TOKEN"
    if key == "trust_remote_code":
        return "is always off"
    if key.startswith("hub_") or key in ("push_to_hub", "log_completions_hub_repo"):
        return "is forbidden, because a run must not publish its results"
    return None


def _stage_problems(
    stage: TrainStage, settings: "SftConfig | GrpoConfig", managed: Mapping[str, str]
) -> Problems:
    """Problems of `lora` and `trl`. A key of `trl` must exist in TRL and not be in `managed`."""
    if settings.lora.rank and settings.lora.vision and settings.freeze_vision:
        yield "lora.vision", "needs freeze_vision=false: frozen parts get no adapter"
    for key in settings.trl:
        if reason := _reason_forbidden(key):
            yield f"trl.{key}", reason
        elif key in managed:
            decided_by = managed[key].format(stage=stage, key=key)
            advice = f"set {decided_by} instead" if decided_by else "it cannot be changed"
            yield f"trl.{key}", f"managed by difftrain; {advice}"
        elif key not in trl_fields(stage):
            names = trl_fields(stage) - managed.keys()
            allowed = sorted(name for name in names if not _reason_forbidden(name))
            hint = did_you_mean(key, allowed, f"{stage}.trl.")
            trl = f"TRL {version('trl')}'s {stage.upper()}Config"
            yield f"trl.{key}", f"{trl} has no such key{hint}"


def nearest_numbers(number: int, fits: Callable[[int], bool]) -> list[int]:
    """The three positive numbers nearest to `number` for which `fits` is true, ascending."""
    distances = range(4 * number + 4096)  # finite, so the search ends if too few fit
    nearby = (n for distance in distances for n in sorted({number - distance, number + distance}))
    return sorted(islice((n for n in nearby if n > 0 and fits(n)), 3))


@dataclass(kw_only=True, slots=True)
class SftConfig:
    """Supervised fine-tuning before GRPO; only completion tokens count in the loss."""

    targets: SftTargets = setting(SftTargets.rationale, fingerprint=("train", "select_sft"))
    """rationale: the rationale and answer in the data (only shapes and mulberry have them);
    rollouts: a correct response of the probe."""
    learning_rate: float = setting(1e-6, above=0, below=1)
    """Qi et al. 2026: 1e-6."""
    lr_scheduler_type: RateSchedule = RateSchedule.cosine
    """Qi et al. 2026: cosine."""
    warmup_ratio: float = setting(0.1, at_least=0, below=1)
    """Warm-up steps as a share of all steps (Qi et al. 2026: 0.1)."""
    samples_per_step: int = setting(128, at_least=1)
    """Samples per optimizer step (Qi et al. 2026: 4 per device x 4 accumulated x 8 GPUs)."""
    per_device_train_batch_size: int = setting(4, at_least=1)
    """Largest number of samples in one backward pass of a device (Qi et al. 2026: 4)."""
    num_train_epochs: int = setting(5, at_least=1)
    """Passes over the selected samples (Qi et al. 2026: 5); ignored if max_steps is set."""
    max_steps: int | None = setting(None, at_least=1, or_null="to follow num_train_epochs")
    """Optimizer steps; null follows num_train_epochs."""
    cutoff_tokens: int = setting(8192, at_least=1)
    """Samples with more tokens, images included, are dropped and counted before training, never
    truncated (Qi et al. 2026 truncate at 8192)."""
    freeze_vision: bool = setting(True, fingerprint=("train", "preflight"))
    """Do not train vision tower and projector (Qi et al. 2026)."""
    gradient_checkpointing: bool = True
    """Recompute activations in the backward pass to save memory."""
    save_steps: int = setting(100, at_least=1)
    """Optimizer steps between checkpoints that a killed run resumes from."""
    lora: LoraConfig = setting(default_factory=LoraConfig, fingerprint=("train", "preflight"))
    trl: dict[str, Any] = field(default_factory=dict)
    """Any other field of TRL's SFTConfig: +sft.trl.KEY=VALUE."""

    def step_problem(self, processes: int) -> str | None:
        """The error if a step cannot be divided evenly among the processes, else None."""
        if self.samples_per_step % processes == 0:
            return None
        nearest = nearest_numbers(self.samples_per_step, lambda n: n % processes == 0)
        return (
            f"sft.samples_per_step={self.samples_per_step}: must be divisible by the number of "
            f"processes ({processes}); nearest: {nearest}"
        )

    def check(self) -> Problems:
        return _stage_problems(TrainStage.sft, self, SFT_KEYS)


@dataclass(kw_only=True, slots=True)
class GrpoConfig:
    """Group-relative policy optimization."""

    learning_rate: float = setting(1e-6, above=0, below=1)
    """Qi et al. 2026: 5e-7, but mostly 1e-6 on reasoning tasks."""
    lr_scheduler_type: RateSchedule = RateSchedule.linear
    """TRL's default, as in the scripts of Qi et al. 2026."""
    warmup_ratio: float = setting(0.01, at_least=0, below=1)
    """Warm-up steps as a share of all steps (Qi et al. 2026: 0.01)."""
    num_generations: int = setting(
        8, at_least=2, rule="GRPO needs at least two completions to compare"
    )
    """Completions per prompt (the group size G; Qi et al. 2026: 8)."""
    prompts_per_step: int = setting(8, at_least=1)
    """Prompts per optimizer step (Qi et al. 2026: 4 per device x 2 accumulated x 8 GPUs / G)."""
    per_device_train_batch_size: int = setting(4, at_least=1)
    """Largest number of completions in one backward pass of a device (Qi et al. 2026: 4)."""
    temperature: float = setting(1.0, above=0, at_most=2)
    """Sampling temperature of the rollouts (Qi et al. 2026: 1.0)."""
    beta: float = setting(0.001, at_least=0)
    """Weight of the KL term (Qi et al. 2026: 0.001)."""
    max_completion_length: int = setting(1024, at_least=1)
    """Token limit of a completion (Qi et al. 2026: 1024)."""
    num_train_epochs: int = setting(1, at_least=1)
    """Passes over the selected samples (Qi et al. 2026: 1); ignored if max_steps is set."""
    max_steps: int | None = setting(None, at_least=1, or_null="to follow num_train_epochs")
    """Optimizer steps; null follows num_train_epochs. Set it to compare runs at equal steps."""
    format_weight: float = setting(0.1, at_least=0)
    """Weight of the format reward (0.1 in V-Triune, Orsta's paper); the accuracy reward's is 1."""
    overlong_weight: float = setting(0.0, at_least=0)
    """Weight of the overlong penalty: 0 for short completions, falling to -1 at
    max_completion_length (DAPO, Eq. 13). 0: no penalty, as in Qi et al. 2026 and RAP."""
    overlong_free_share: float = setting(0.8, at_least=0, below=1)
    """Completions up to this share of max_completion_length get no overlong penalty."""
    grading_timeout_s: float = setting(5.0, above=0, at_most=600)
    """Wall-clock limit for grading one answer; a worker that overruns is killed and replaced."""
    reward_workers: int = setting(1, fingerprint=(), at_least=1)
    """Grading processes per training process; their number changes only the speed."""
    eval_samples: int = setting(64, at_least=0)
    """Number of held-out samples on which GRPO is evaluated during training; 0 for none."""
    eval_steps: int = setting(50, at_least=1)
    """Optimizer steps between evaluations on the held-out samples."""
    freeze_vision: bool = setting(False, fingerprint=("train", "preflight"))
    """Do not train vision tower and projector (Qi et al. 2026 train all weights in GRPO)."""
    gradient_checkpointing: bool = True
    """Recompute activations in the backward pass to save memory."""
    save_steps: int = setting(100, at_least=1)
    """Optimizer steps between checkpoints that a killed run resumes from."""
    shared_prompt: SharedPrompt = setting(SharedPrompt.auto, fingerprint=())
    """auto computes a prompt once for the rows of its group in a log-probability pass, and logs
    why where it cannot; never computes it for each row, as TRL does. The results are the same."""
    rollouts: Rollouts = Rollouts.engine
    """engine: the probe's, which prefills a prompt once and seeds each completion; generate:
    transformers' own, on copies of the prompt. Without effect where grpo.vllm.mode is set."""
    dynamic_sampling: bool = False
    """true: sample further prompts instead of zero-variance groups, whose completions all get the
    same reward (DAPO's dynamic sampling)."""
    max_rounds: int = setting(4, at_least=1)
    """Rounds of further prompts for one batch of rollouts, after its first one (dynamic_sampling).
    Then the batch is filled with zero-variance groups."""
    max_carry_steps: int = setting(1, at_least=0)
    """Optimizer steps that a group with unequal rewards may wait if its batch was full
    (dynamic_sampling); it is trained on with the log-probabilities of the policy that generated
    it. 0: it is not trained on."""
    zero_variance: ZeroVariance = ZeroVariance.keep
    """keep: zero-variance groups of a batch are trained on as TRL does, by their KL term (with
    dynamic_sampling or a sampler not if all are such); drop: they leave the loss, its KL term and
    its denominator."""
    sampler: PromptSampler = PromptSampler.uniform
    """Which prompts come next. uniform: each once in random order; learnable: those of a high
    p(1-p), the pass rate p drawn from its posterior; skip_dead: as uniform, but a prompt is skipped
    the more often, the more zero-variance groups it had in a row (GRESO); curriculum: from easy to
    hard by PISM's failure ratio; mirrored_j: mostly prompts of a low pass rate (POLARIS)."""
    history_decay: float = setting(0.5, above=0, at_most=1)
    """Weight of a prompt's earlier answers in its pass rate, each time it is sampled again."""
    retest_share: float = setting(0.1, above=0, at_most=1)
    """Share of draws for the least recently sampled prompt, so that none is left out forever;
    for skip_dead the smallest probability that a prompt is sampled at its turn. Without effect with
    sampler=uniform."""
    task_floor: float = setting(0.02, at_least=0, at_most=1)
    """Smallest share of the sampled prompts that each task gets; without effect with
    sampler=uniform."""
    lora: LoraConfig = setting(default_factory=LoraConfig, fingerprint=("train", "preflight"))
    vllm: RolloutVllmConfig = field(default_factory=RolloutVllmConfig)
    trl: dict[str, Any] = field(default_factory=dict)
    """Any other field of TRL's GRPOConfig: +grpo.trl.KEY=VALUE."""

    @property
    def shares_prompts(self) -> bool:
        """Whether a group's prompt is computed once if the model allows it."""
        return self.shared_prompt is SharedPrompt.auto

    @property
    def chooses_prompts(self) -> bool:
        """Whether our sampler, with a history of each prompt, replaces TRL's."""
        return self.dynamic_sampling or self.sampler is not PromptSampler.uniform

    @property
    def reward_weights(self) -> dict[str, float]:
        """The weight of each reward by its name; without `overlong` if its weight is 0."""
        weights = {"accuracy": 1.0, "format": self.format_weight}
        return weights | ({"overlong": self.overlong_weight} if self.overlong_weight else {})

    def step_problem(self, processes: int) -> str | None:
        """The error if a step cannot be divided evenly among the processes, else None."""
        prompts, group = self.prompts_per_step, self.num_generations
        if prompts * group % processes:
            valid_prompts = nearest_numbers(prompts, lambda n: n * group % processes == 0)
            valid_group = nearest_numbers(group, lambda n: n > 1 and n * prompts % processes == 0)
            return (
                f"grpo.prompts_per_step={prompts}: times num_generations ({group}), it must be "
                f"divisible by the number of processes ({processes}); nearest: {valid_prompts}, "
                f"or num_generations {valid_group}"
            )
        if self.chooses_prompts and prompts % processes:
            key = "dynamic_sampling" if self.dynamic_sampling else "sampler"
            nearest = nearest_numbers(prompts, lambda n: n % processes == 0)
            return (
                f"grpo.prompts_per_step={prompts}: with grpo.{key}={getattr(self, key)} it must be "
                f"divisible by the number of processes ({processes}), because each process holds "
                f"whole groups; nearest: {nearest}"
            )
        gpus = self.vllm.tensor_parallel_size
        if self.vllm.mode is VllmMode.colocate and processes % gpus:
            nearest = nearest_numbers(gpus, lambda n: n <= processes and processes % n == 0)
            return (
                f"grpo.vllm.tensor_parallel_size={gpus}: the number of processes ({processes}) "
                f"must be divisible by it; nearest: {nearest}"
            )
        return None

    def check(self) -> Problems:
        yield from _stage_problems(TrainStage.grpo, self, GRPO_KEYS)
        uses_entropy = [key for key in ENTROPY_KEYS if self.trl.get(key)]
        if self.zero_variance is ZeroVariance.drop and uses_entropy:
            rule = f"drop does not go with grpo.trl.{uses_entropy[0]}, whose term it would rescale"
            yield "zero_variance", f"{rule}; use keep, or grpo.dynamic_sampling=true"
