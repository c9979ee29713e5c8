"""A program: GRPO with rollouts of vLLM on the tiny model, then questions to vLLM and the trainer.

    python tests/train/vllm_training.py FOLDER [SETTING=VALUE ...]

All weights are trained at a high rate with a reward that differs within every group, or with
grpo.dynamic_sampling=true within the groups of every second sample. Prints one
JSON object at last. Its greedy responses are token ids of the first samples, from vLLM or from the
trainer's model (`hf`):

* start: of the untrained model; trained: after training and a sync.
* perturbed: after noise on the vision tower and a sync; stale: the error
  (below) of vLLM in this process if its encoded images are kept, as TRL does.
* error, of each of these: the largest difference between the log-probability that vLLM gives to a
  token of its responses and the trainer's; about 1e-6 if both have the same weights. old_error:
  that of the untrained model's responses after training; noise: that of the trained model's
  responses after the noise.
* sampled: the special tokens that were sampled in training; banned: those that may not be.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from trl.data_utils import prepare_multimodal_messages

from difftrain.cli.overrides import compose_config
from difftrain.config.model import ModelConfig
from difftrain.config.run_config import resolve
from difftrain.grade.pool import GraderPool
from difftrain.model import family, loading
from difftrain.model.engines import kv_cache
from difftrain.model.engines.hf import HfEngine
from difftrain.model.engines.types import Completion, generate_all
from difftrain.model.loading import LoadedModel
from difftrain.pipeline.coordination import World
from difftrain.records import TrainStage
from difftrain.shapes import pool
from difftrain.train import checkpointing, grpo
from difftrain.train.dataset import TrainData, to_dataset
from difftrain.train.trl_args import TrainJob

SETTINGS = ("grpo.vllm.mode=colocate", "grpo.vllm.max_model_length=1024", "grpo.max_steps=3",
            "grpo.save_steps=1", "grpo.prompts_per_step=2", "grpo.num_generations=4",
            "grpo.per_device_train_batch_size=8", "grpo.max_completion_length=40",
            "grpo.eval_samples=0", "grpo.learning_rate=1e-3", "grpo.beta=0",
            "grpo.freeze_vision=false", "grpo.temperature=2")  # fmt: skip
SAMPLES = list(pool.samples(pool.Split.pool, 8))
NUM_ASKED = 6


def alternating(name: str, dead: set[str]) -> Any:
    """A reward that differs within every group but those of `dead`, so that the weights change."""

    def reward(completions: list[Any], sample_id: list[str], **_: Any) -> list[float]:
        return [float(i % 2) if sample_id[i] not in dead else 0.0 for i in range(len(completions))]

    reward.__name__ = name
    return reward


@contextmanager
def kept_encodings(engine: Any) -> Iterator[None]:
    """Inside the block, vLLM keeps its encoded images, as it does after TRL's own sync."""
    resettable = (engine, engine.model_executor.driver_worker.model_runner)
    for part in resettable:
        part.reset_encoder_cache = lambda: None
    try:
        yield
    finally:
        for part in resettable:
            del part.reset_encoder_cache


class Questions:
    """Greedy responses of vLLM and of the trainer's model to the first samples."""

    def __init__(self, trainer: Any, model: ModelConfig, banned: list[int]) -> None:
        self.trainer, self.model_config, self.banned = trainer, model, banned
        rows = [to_dataset(SAMPLES)[i] for i in range(NUM_ASKED)]
        self.prompts = [
            prepare_multimodal_messages(
                row["prompt"], images=row.get("images") or [row.get("image")]
            )
            for row in rows
        ]

    def _loaded(self) -> LoadedModel:
        model = self.trainer.accelerator.unwrap_model(self.trainer.model).eval()
        is_peft = hasattr(model, "get_base_model")
        base = model.get_base_model() if is_peft else model
        return LoadedModel(base, self.trainer.processing_class)

    def hf(self) -> list[list[int]]:
        trainer = self.trainer
        requests = [replace(trainer._request(p, 0), temperature=0.0) for p in self.prompts]
        results = generate_all(HfEngine(self._loaded(), self.model_config), requests)
        return [list(r.token_ids) for r in results if isinstance(r, Completion)]

    def vllm(self) -> tuple[list[list[int]], list[list[float]]]:
        """Token ids and their log-probabilities."""
        generation = self.trainer.vllm_generation
        temperature, generation.temperature = generation.temperature, 0.0
        ids, images, _ = self.trainer._tokenize_prompts(self.prompts)
        _, completions, logps, _ = generation.generate(ids, images, num_generations=1)
        generation.temperature = temperature
        return [list(row) for row in completions], [[values[0] for values in row] for row in logps]

    def error(self, completions: list[list[int]], logps: list[list[float]]) -> float:
        """See above; of these responses under the trainer's present weights."""
        loaded, errors = self._loaded(), []
        for prompt, tokens, expected in zip(self.prompts, completions, logps, strict=True):
            inputs = kv_cache.encode(loaded, [self.trainer._request(prompt, 0)])
            length = inputs["input_ids"].shape[1]
            tokens_T = torch.tensor(tokens)
            added = {"input_ids": tokens_T, "attention_mask": torch.ones_like(tokens_T)}
            for name, value in inputs.items():
                if value.shape[:2] == (1, length):  # one value per token
                    new = added.get(name, torch.zeros_like(tokens_T))
                    inputs[name] = torch.cat([value, new[None].to(value.dtype)], dim=1)
            with torch.no_grad():
                logits_TV = loaded.model(**inputs).logits[0, length - 1 : -1].float()
            logits_TV[:, self.banned] = -torch.inf
            logps_T = logits_TV.log_softmax(1).gather(1, tokens_T[:, None])[:, 0]
            errors.append(float((logps_T - torch.tensor(expected)).abs().max()))
        return max(errors)

    def both(self) -> dict[str, Any]:
        completions, logps = self.vllm()
        error = self.error(completions, logps)
        return {"hf": self.hf(), "vllm": completions, "logps": logps, "error": error}


def main() -> None:
    """Train, ask, and print."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    config = resolve(compose_config([*SETTINGS, *sys.argv[2:]]))
    job = TrainJob(TrainStage.grpo, config, folder, World(), title="test")
    result: dict[str, Any] = {}
    with GraderPool(1, 20.0) as graders:
        trainer = grpo.build_trainer(job, TrainData(SAMPLES), graders)
        dead = {s.sample_id for s in SAMPLES[::2]} if config.grpo.dynamic_sampling else set()
        trainer.reward_funcs = [alternating(f.__name__, dead) for f in trainer.reward_funcs]
        sampled: set[int] = set()
        generate = trainer.vllm_generation.generate

        def remember(*args: Any, **kwargs: Any) -> Any:
            output = generate(*args, **kwargs)
            sampled.update(token for completion in output[1] for token in completion)
            return output

        architecture = loading.load_architecture(config.model)
        bans = family.banned_tokens(trainer.processing_class, architecture)
        questions = Questions(trainer, config.model, list(bans.values()))
        sync = trainer.vllm_generation.sync_weights
        result["start"] = questions.both()
        trainer.vllm_generation.generate = remember
        checkpointing.train(trainer, job, SAMPLES)
        trainer.vllm_generation.generate = generate
        sync()
        result["trained"] = questions.both()
        result["old_error"] = questions.error(result["start"]["vllm"], result["start"]["logps"])
        vision = family.parts(trainer.model)
        torch.manual_seed(0)  # the same noise in every run
        with torch.no_grad():
            for name, weight in trainer.model.named_parameters():
                if vision[name] in family.VISION_PARTS:
                    weight.add_(torch.randn_like(weight) * weight.abs().mean())
        trained = result["trained"]
        result["noise"] = questions.error(trained["vllm"], trained["logps"])
        if trainer.vllm_generation.mode == "colocate":
            with kept_encodings(trainer.vllm_generation.llm.llm_engine):
                sync()
                result["stale"] = questions.error(*questions.vllm())
        sync()
        result["perturbed"] = questions.both()
    result["banned"] = sorted(bans.values())
    result["sampled"] = sorted(sampled & {*bans.values()})
    checkpointing.save(trainer, job)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
