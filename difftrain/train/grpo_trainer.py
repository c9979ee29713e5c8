"""TRL's GRPOTrainer, at a lower cost for groups with images: the results stay TRL's.

* A prompt is computed once for its group in each log-probability pass (shared_prompt.py).
* An image is processed once, and encoded once if the vision tower is frozen (image_cache.py).
* Rollouts come from the probe's engine: one prefill a prompt, ended rows leave the batch.
* Seconds by phase and the tokens computed are logged with every step.

No method of TRL is copied; each override calls TRL's own.
"""

import logging
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from accelerate.utils import gather_object
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor
from trl.models.utils import unwrap_model_for_generation
from trl.trainer.grpo_trainer import GRPOTrainer

from difftrain import seeds
from difftrain.config.model import ModelConfig
from difftrain.model import family
from difftrain.model.engines.hf import HfEngine, eos_token_ids
from difftrain.model.engines.kv_cache import encode
from difftrain.model.engines.types import Completion, GenerationError, Request, generate_all
from difftrain.model.loading import LoadedModel
from difftrain.train import shared_prompt
from difftrain.train.callbacks import CompletionLog
from difftrain.train.image_cache import ImageCache
from difftrain.train.rewards import text_of
from difftrain.train.rollout_log import RolloutLog
from difftrain.train.shared_prompt import SharedPromptModel, pretrained_model

logger = logging.getLogger(__name__)


NEUTRAL_SAMPLING = {"top_p": (None, 1.0), "top_k": (None, 0), "min_p": (None,),
                    "repetition_penalty": (None, 1.0)}  # fmt: skip
"""Values of TRL's settings with which tokens are sampled from the model's own distribution."""


class SharedPromptTrainer(GRPOTrainer):
    """TRL's GRPOTrainer for groups with images."""

    args: Any
    model: Any
    model_wrapped: Any
    max_completion_length: Any

    shares_prompts: bool = True
    engine_config: ModelConfig | None = None
    """The engine's batch; None generates with transformers' `generate`."""
    image_cache: ImageCache | None = None
    rollout_log: RolloutLog | None = None
    completion_log: CompletionLog | None = None
    """What trackers show; only the first process has one."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._seconds: dict[str, float] = defaultdict(float)
        self._tokens: dict[str, int] = defaultdict(int)
        self._explained: set[str] = set()
        self._image_token: int | None = None
        self._prompts: Sequence[Any] = ()
        self._prompt_is_checked = False
        self._prompt_mismatch: str | None = None
        self._rollout_batch: tuple[str, int] | None = None
        self._num_rollouts = 0  # of this step, on all processes
        self._step_end: float | None = None
        super().__init__(*args, **kwargs)
        self._image_token = family.image_token_id(pretrained_model(self.model).config)

    def _explain_once(self, setting: str, reason: str) -> None:
        if reason not in self._explained:
            logger.warning("%s: not used: %s", setting, reason)
            self._explained.add(reason)

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        """Adds the seconds of the block to a phase, without those of a phase inside it.

        Does nothing during evaluation.
        """
        if not self.model.training:
            yield
            return
        before, start = sum(self._seconds.values()), synchronized_time()
        try:
            yield
        finally:
            inner = sum(self._seconds.values()) - before
            self._seconds[name] += synchronized_time() - start - inner

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: Tensor,
        attention_mask: Tensor,
        logits_to_keep: int,
        **inputs: Any,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        scored: Any = model
        # LLaVA-OneVision's processor gives it, TRL does not know it; it is needed only for prompts
        # with several images, which grpo.py refuses.
        inputs.pop("batch_num_images", None)
        inputs |= aligned_token_types(inputs, input_ids, self._image_token)
        if self.shares_prompts:
            reason = shared_prompt.fallback_reason(shared_prompt.text_config(model), inputs)
            if reason is None:
                scored = SharedPromptModel(model, logits_to_keep, inputs.get("num_images"))
            else:
                self._explain_once("grpo.shared_prompt", reason)
        phase = "policy"
        if not torch.is_grad_enabled():
            phase = "reference_logps" if self._is_reference(model) else "old_logps"
        with self._phase(phase):
            results = super()._get_per_token_logps_and_entropies(
                scored, input_ids, attention_mask, logits_to_keep, **inputs
            )
        computed_tokens = input_ids.numel()
        if isinstance(scored, SharedPromptModel):
            computed_tokens = scored.computed_tokens
            if scored.fallback:
                self._explain_once("grpo.shared_prompt", scored.fallback)
        if self.model.training:
            self._tokens["plain"] += input_ids.numel()
            self._tokens["computed"] += computed_tokens
        return results

    def _is_reference(self, model: Any) -> bool:
        """Whether this is the reference model, or the trained one with its adapter exchanged."""
        return model is self.ref_model or any(
            module.disable_adapters or module.active_adapters == ["ref"]
            for module in model.modules()
            if isinstance(module, BaseTunerLayer)
        )

    def _prepare_inputs(self, generation_batch: Any) -> dict[str, Any]:
        before = self._buffered_inputs
        inputs = super()._prepare_inputs(generation_batch)
        batches = self._buffered_inputs
        if not self.shares_prompts or not self.model.training or batches is before:
            return inputs
        # One optimizer step sums the gradients of all these batches, in whatever order, unless the
        # loss of a row depends on the others in its batch.
        is_one_step = len(batches) == self.current_gradient_accumulation_steps
        is_sum = self.top_entropy_quantile == 1 and not self._entropy_bonus_enabled
        if is_one_step and is_sum and self.num_iterations == 1:
            self._buffered_inputs = shared_prompt.keep_groups_together(batches)
        return self._buffered_inputs[self._step % self.args.steps_per_generation]

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        if self.image_cache is not None:
            self.image_cache.start_batch("train" if self.model.training else "eval")
        with self._phase("image_processing"):  # and whatever has no phase of its own
            return super()._generate_and_score_completions(inputs)

    def _generate(self, prompts: list[Any]) -> Any:
        self._prompts = prompts
        with self._phase("rollouts"):
            return super()._generate(prompts)

    def _tokenize_prompts(self, prompts: list[Any]) -> Any:
        with self._phase("image_processing"):
            prompt_ids, images, fields = super()._tokenize_prompts(prompts)
        # TRL gives None for a row without images, which processors refuse beside rows with images.
        return prompt_ids, images and [row or [] for row in images], fields

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, ids: Any) -> Tensor:
        with self._phase("grading"):
            rewards_NF = super()._calculate_rewards(inputs, prompts, completions, ids)
        if self.model.training:
            self._log_completions(inputs, completions, rewards_NF)
        return rewards_NF

    def _log_completions(self, inputs: Any, completions: Any, rewards_NF: Tensor) -> None:
        """Hand completions to the logs. `rewards_NF` are those of all processes, in their order."""
        step, sample_ids = self.state.global_step + 1, [row["sample_id"] for row in inputs]
        texts = [text_of(completion) for completion in completions]
        start = self.accelerator.process_index * len(texts)
        own_NF = rewards_NF[start : start + len(texts)]
        if self.completion_log is not None:
            self.completion_log.add(step, sample_ids, texts, own_NF)
        if self.rollout_log is not None:
            scores_NF = own_NF.nan_to_num()
            total_N = scores_NF @ self.reward_weights.to(scores_NF)
            accuracy_N = scores_NF[:, 0]
            self.rollout_log.record(step, sample_ids, texts, total_N.tolist(), accuracy_N.tolist())

    def _generate_single_turn(
        self,
        prompt_ids: Any,
        images: Any,
        fields: Any,
        num_generations: int,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        if self.engine_config is not None:
            reason = self._engine_problem() or self._prompt_problem(prompt_ids)
            if reason is None:
                return self._generate_with_engine(), None
            self._explain_once("grpo.rollouts=engine", reason)
        if self.use_vllm:
            images = images and [row or None for row in images]
        return super()._generate_single_turn(
            prompt_ids, images, fields, num_generations, *args, **kwargs
        )

    def _engine_problem(self) -> str | None:
        """Why the engine would not sample as TRL's settings say; None if it does."""
        for name, neutral in NEUTRAL_SAMPLING.items():
            if getattr(self.args, name) not in neutral:
                return f"grpo.trl.{name} is set"
        if others := {*(self.args.generation_kwargs or {})} - {"suppress_tokens"}:
            return f"grpo.trl.generation_kwargs has {', '.join(sorted(others))}"
        if not self.args.ds3_gather_for_generation:
            return "grpo.trl.ds3_gather_for_generation=false"
        model = self.accelerator.unwrap_model(self.model)
        if eos_token_ids(LoadedModel(model, self.processing_class)) != {*self.eos_token_ids}:
            return "the tokenizer's EOS token is not the model's"
        return None

    def _generate_with_engine(self) -> list[list[int]]:
        """A completion of each prompt as token ids. Raises RuntimeError, on all processes together,
        if a prompt of any process gets none."""
        requests = [
            self._request(prompt, seed)
            for prompt, seed in zip(self._prompts, self._next_seeds(), strict=True)
        ]
        with (
            unwrap_model_for_generation(
                self.model_wrapped,
                self.accelerator,
                gather_deepspeed3_params=True,
                gradient_checkpointing_kwargs=self.args.gradient_checkpointing_kwargs,
            ) as unwrapped,
            torch.no_grad(),
            self.accelerator.autocast(),
        ):
            model: Any = unwrapped
            was_training = model.training
            base = model.get_base_model() if hasattr(model, "get_base_model") else model
            loaded = LoadedModel(base.eval(), self.processing_class)
            assert self.engine_config is not None
            results = generate_all(HfEngine(loaded, self.engine_config), requests)
            model.train(was_training)
        completions = [result for result in results if isinstance(result, Completion)]
        failures = [result.reason for result in results if isinstance(result, GenerationError)]
        if failures := gather_object(failures):
            raise RuntimeError(f"a rollout failed: {failures[0]}; grpo.rollouts=generate may help")
        return [list(completion.token_ids) for completion in completions]

    def _next_seeds(self) -> list[int]:
        """Seeds of this process's rollouts, by their numbers among those of the step."""
        mode = "rollout" if self.model.training else "evaluation rollout"
        step = self.state.global_step
        if self._rollout_batch != (mode, step):
            self._rollout_batch, self._num_rollouts = (mode, step), 0
        first = self._num_rollouts + self.accelerator.process_index * len(self._prompts)
        self._num_rollouts += self.accelerator.num_processes * len(self._prompts)
        return [
            seeds.derive(self.args.seed, mode, step, number)
            for number in range(first, first + len(self._prompts))
        ]

    def _prompt_problem(self, prompt_ids: Sequence[list[int]]) -> str | None:
        """Why the engine's tokens of a prompt are not TRL's, the same on all processes; or None.

        Checked once, for a prompt with an image if there is one.
        """
        if not self._prompt_is_checked:
            self._prompt_is_checked = True
            requests = [self._request(prompt, seed=0) for prompt in self._prompts]
            row = next((i for i, request in enumerate(requests) if request.images), 0)
            model = self.accelerator.unwrap_model(self.model)
            problem = None
            try:
                encoded = encode(LoadedModel(model, self.processing_class), [requests[row]])
                if encoded["input_ids"][0].tolist() != list(prompt_ids[row]):
                    problem = "its prompt differs from TRL's"
            except ValueError as error:
                problem = str(error)
            problems = [text for text in gather_object([problem]) if text]
            self._prompt_mismatch = problems[0] if problems else None
        return self._prompt_mismatch

    def _request(self, messages: list[dict[str, Any]], seed: int) -> Request:
        parts: dict[str, list[Any]] = {"system": [], "user": []}
        for message in messages:
            content = message["content"]
            parts[message["role"]] += (
                [content]
                if isinstance(content, str)
                else [part["image" if part["type"] == "image" else "text"] for part in content]
            )
        view = [part if isinstance(part, str) else id(part) for part in parts["user"]]
        return Request(
            parts=tuple(parts["user"]),
            system="".join(parts["system"]) or None,
            seed=seed,
            temperature=self.temperature,
            max_new_tokens=self.max_completion_length,
            view=str(view),
        )

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        self.model.train()  # as TRL's own step does, but before the seconds count
        with self._phase("policy"):
            loss = super().training_step(*args, **kwargs)
        self._step_end = synchronized_time()
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if self.model.training and self._step_end is not None:
            self._seconds["optimizer"] += synchronized_time() - self._step_end
            self._step_end = None
            for name, seconds in self._seconds.items():
                self._metrics["train"][f"seconds/{name}"] = [seconds]
            for name, tokens in self._tokens.items():
                self._metrics["train"][f"tokens/{name}"] = [tokens]
            self._seconds.clear()
            self._tokens.clear()
        super().log(logs, start_time)


def aligned_token_types(
    inputs: Mapping[str, Any], input_ids: Tensor, image_token: int | None
) -> dict[str, Tensor]:
    """The types of the tokens (1: image), B S as the ids, where the processor gives any.

    TRL processes the rendered prompt a second time, and a tokenizer that adds a BOS token then adds
    another one, so each type would count for the next token. Prompts are padded on the left, so the
    last columns are the right ones. Raises RuntimeError if the types are not those of the ids.
    """
    aligned = {}
    for key in ("token_type_ids", "mm_token_type_ids"):
        if (types := inputs.get(key)) is None:
            continue
        aligned[key] = types[:, -input_ids.size(1) :]
        if not torch.equal(aligned[key] == 1, input_ids == image_token):
            raise RuntimeError(f"{key} of the processor do not mark the image tokens of the prompt")
    return aligned


def synchronized_time() -> float:
    """The time in seconds, once the GPU has finished what was started."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
