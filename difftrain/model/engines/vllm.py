"""vLLM's offline engine in this process (vLLM 0.31.0, extra `vllm`; without a GPU: docs/vllm.md).

With n > 1, vLLM gives a request's completions the seeds s, s + 1, ... Here each response has its
own seed, a hash (seeds.py), so each is a request with n = 1. Equal prompts are still computed
once: vLLM caches images by their hash and prompts by their tokens. Another batch changes rounding,
which can change a response despite its seed. vLLM's processor gets the data stage's pixel limits,
so it does not resize images again. Image placeholders are never produced.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from difftrain.config.model import ModelConfig
from difftrain.config.run_config import ConfigError
from difftrain.model import family, resolve
from difftrain.model.engines.types import Completion, Feed, GenerationError, K, Request, Result
from difftrain.model.loading import load_architecture, load_processor

BANNED_LOGIT_BIAS = -1e4  # added to an image placeholder's logit; far below any other
MAX_BANNED = 1024  # more biases in a request end vLLM's engine


def engine_arguments(config: ModelConfig, pixels: tuple[int, int]) -> dict[str, Any]:
    """The arguments of vllm.LLM; `pixels` are the smallest and the largest area of an image."""
    min_pixels, max_pixels = pixels
    return {
        "model": resolve.source(config.name),
        "revision": config.revision,
        "dtype": config.dtype.value,
        "trust_remote_code": False,
        "tensor_parallel_size": config.vllm.tensor_parallel_size,
        "gpu_memory_utilization": config.vllm.gpu_memory_utilization,
        "max_model_len": config.vllm.max_model_len,
        "max_num_seqs": config.vllm.max_num_seqs,
        "enable_prefix_caching": True,
        "mm_processor_kwargs": {"size": {"shortest_edge": min_pixels, "longest_edge": max_pixels}},
        "limit_mm_per_prompt": {"video": 0},  # reserves no memory for videos
        "disable_log_stats": True,
    }


def sampling_arguments(request: Request, banned: Mapping[int, float]) -> dict[str, Any]:
    """Arguments of vllm.SamplingParams that override the model's generation config."""
    return {
        "n": 1,
        "temperature": request.temperature,
        "seed": request.seed,
        "max_tokens": request.max_new_tokens,
        "top_p": 1.0,
        "top_k": 0,  # no limit
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "logit_bias": dict(banned),
        "skip_special_tokens": True,
    }


def banned_biases(processor: Any, config: ModelConfig) -> dict[int, float]:
    """The logit bias of each image placeholder. Raises ConfigError if there are too many."""
    banned = family.banned_tokens(processor, load_architecture(config))
    if len(banned) > MAX_BANNED:
        problem = f"model.name={config.name}: {len(banned)} tokens stand for images"
        rule = f"vLLM bans at most {MAX_BANNED}"
        raise ConfigError([f"model.engine=vllm: {problem}, but {rule}; use model.engine=hf"])
    return dict.fromkeys(banned.values(), BANNED_LOGIT_BIAS)


@contextmanager
def visible_gpus(num_gpus: int) -> Iterator[None]:
    """Inside the block, CUDA_VISIBLE_DEVICES names only this rank's GPUs, for vLLM's process."""
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    rank = int(os.environ.get("LOCAL_RANK", "0"))
    indices = range(rank * num_gpus, (rank + 1) * num_gpus)
    devices = before.split(",") if before else [str(i) for i in range(indices.stop)]
    if indices.stop > len(devices):
        problem = f"rank {rank} needs GPUs {list(indices)}, but CUDA_VISIBLE_DEVICES={before}"
        raise ConfigError([f"model.vllm.tensor_parallel_size={num_gpus}: {problem}"])
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(devices[i] for i in indices)
    try:
        yield
    finally:
        os.environ.pop("CUDA_VISIBLE_DEVICES")
        if before is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = before


class VllmEngine:
    """vLLM's LLM; new requests join as others end. Raises ConfigError if it is not installed."""

    def __init__(self, config: ModelConfig, pixels: tuple[int, int]) -> None:
        try:  # Imported only here, because it is an extra.
            vllm: Any = import_module("vllm")
            import_module("vllm.sampling_params")  # so that vllm.sampling_params exists
        except ImportError as error:
            message = f"vLLM cannot be imported ({error}); install the extra vllm"
            raise ConfigError([f"model.engine=vllm: {message}"]) from error
        self.processor = load_processor(config, *pixels)
        self.banned = banned_biases(self.processor, config)
        with visible_gpus(config.vllm.tensor_parallel_size):
            arguments = engine_arguments(config, pixels)
            if family.takes_area(self.processor.image_processor):
                arguments["mm_processor_kwargs"] = {"size": self.processor.image_processor.size}
            else:
                del arguments["mm_processor_kwargs"]  # its sizes are not areas
            self.llm: Any = vllm.LLM(**arguments)
        self.sampling_params = vllm.SamplingParams
        self.output_kind = vllm.sampling_params.RequestOutputKind.FINAL_ONLY
        self.version = vllm.__version__
        self.max_open = 2 * config.vllm.max_num_seqs  # some always wait for a free slot
        self._request_count = 0

    @property
    def info(self) -> dict[str, Any]:
        """See Engine.info. vLLM gets each request's seed, but does not promise equal responses."""
        return {"engine": "vllm", "version": self.version, "seeds": "passed on"}

    def stream(
        self, next_requests: Feed[K], on_idle: Callable[[], None] = lambda: None
    ) -> Iterator[tuple[K, Result]]:
        """See Engine.stream."""
        engine = self.llm.llm_engine
        open_keys: dict[str, K] = {}
        try:
            while (requests := next_requests(self.max_open - len(open_keys))) or open_keys:
                for key, request in requests:
                    request_id = f"difftrain-{self._request_count}"
                    self._request_count += 1
                    if reason := self._add(request_id, request):
                        yield key, GenerationError(reason)
                    else:
                        open_keys[request_id] = key
                if not open_keys:
                    continue
                for output in engine.step():
                    if not output.finished or output.request_id not in open_keys:
                        continue
                    key, response = open_keys.pop(output.request_id), output.outputs[0]  # n = 1
                    if (reason := response.finish_reason) in ("stop", "length"):
                        ids, hit_eos = tuple(response.token_ids), reason == "stop"
                        yield key, Completion(response.text, ids, hit_eos)
                    else:
                        yield key, GenerationError(f"vLLM ended the completion with {reason}")
                on_idle()
        finally:
            if open_keys:
                engine.abort_request(list(open_keys))

    def _add(self, request_id: str, request: Request) -> str | None:
        """Submit a request; returns why it was rejected, or None."""
        if reason := request.special_token_error():
            return reason
        prompt: dict[str, Any] = {"prompt": request.chat_text(self.processor)}
        if request.images:
            prompt["multi_modal_data"] = {"image": request.images}
        arguments = sampling_arguments(request, self.banned)
        params = self.sampling_params(**arguments, output_kind=self.output_kind)
        try:
            self.llm.llm_engine.add_request(request_id, prompt, params)
        except ValueError as error:  # too long for the model, or too many images
            return str(error)
        return None

    def close(self) -> None:
        """End the engine's process, which frees its GPU memory."""
        self.llm.llm_engine.engine_core.shutdown()
