"""Answers from vLLM's offline engine in this process (the extra vllm, 0.31.0; needs a GPU).

Seeds: with n > 1, vLLM gives the answers of one request the seeds s, s + 1, ... A draw's seed is a
hash of what the draw is (seeds.py), so no request of several answers can carry them; and requests
must not depend on which draws happen to be asked together. So each draw is a request of its own
with its own SamplingParams. What they share is still computed once: vLLM knows a picture by its
hash (processor and encoder cache) and a prompt by its tokens (prefix cache), so the second draw of
a view costs its own answer and no more. Requests are added as others end, so the GPU stays full.

Float ties between batches remain, as everywhere. Pictures come inside the pixel budget, and the
processor is bound to it, so nothing is resized again. Placeholders are never produced.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from difftrain.config.model import ModelConfig
from difftrain.config.run_config import ConfigError
from difftrain.data import prompts
from difftrain.model import locate
from difftrain.model.generate.chat import CONTROL
from difftrain.model.generate.hf import PLACEHOLDERS
from difftrain.model.generate.request import Answer, Found, K, NoAnswer, Request
from difftrain.model.load import load_processor

BANNED = -1e4
"""Added to a placeholder's score: far below any other."""


def engine_arguments(config: ModelConfig, pixels: tuple[int, int]) -> dict[str, Any]:
    """What vllm.LLM is made with."""
    least, most = pixels
    return {
        "model": locate.source(config.name),
        "revision": config.revision,
        "dtype": config.dtype.value,
        "trust_remote_code": False,
        "tensor_parallel_size": config.vllm.tensor_parallel_size,
        "gpu_memory_utilization": config.vllm.gpu_memory_utilization,
        "max_model_len": config.vllm.max_model_len,
        "max_num_seqs": config.vllm.max_num_seqs,
        "enable_prefix_caching": True,
        "mm_processor_kwargs": {"size": {"shortest_edge": least, "longest_edge": most}},
        "limit_mm_per_prompt": {"video": 0},
        "disable_log_stats": True,
    }


def sampling(request: Request, banned: Mapping[int, float]) -> dict[str, Any]:
    """What vllm.SamplingParams is made with; nothing is inherited from the model's defaults."""
    return {
        "n": 1,
        "temperature": request.temperature,
        "seed": request.seed,
        "max_tokens": request.max_new_tokens,
        "top_p": 1.0,
        "top_k": 0,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "logit_bias": dict(banned),
        "skip_special_tokens": True,
    }


@contextmanager
def own_gpus(number: int) -> Iterator[None]:
    """Show the engine's process this rank's GPUs alone while it starts; ours sees all again."""
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    rank = int(os.environ.get("LOCAL_RANK", "0"))
    wanted = range(rank * number, (rank + 1) * number)
    known = before.split(",") if before else [str(each) for each in range(wanted.stop)]
    if wanted.stop > len(known):
        told = f"rank {rank} needs GPUs {list(wanted)} of CUDA_VISIBLE_DEVICES={before}"
        raise ConfigError([f"model.vllm.tensor_parallel_size={number}: {told}"])
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(known[each] for each in wanted)
    try:
        yield
    finally:
        if before is None:
            del os.environ["CUDA_VISIBLE_DEVICES"]
        else:
            os.environ["CUDA_VISIBLE_DEVICES"] = before


class Vllm:
    """The engine: requests join as others end."""

    def __init__(self, config: ModelConfig, pixels: tuple[int, int]) -> None:
        vllm = imported()
        self.processor = load_processor(config, *pixels)
        with own_gpus(config.vllm.tensor_parallel_size):
            self.llm: Any = vllm.LLM(**engine_arguments(config, pixels))
        self.params = vllm.SamplingParams
        self.final = vllm.sampling_params.RequestOutputKind.FINAL_ONLY
        self.version = vllm.__version__
        # As many as run at once wait behind them, so that a freed place is taken without a pause.
        self.room = 2 * config.vllm.max_num_seqs
        known = self.processor.tokenizer.get_vocab()
        self.banned = {known[name]: BANNED for name in PLACEHOLDERS if name in known}
        self._number = 0

    @property
    def about(self) -> dict[str, Any]:
        """Each request has a generator of its own, with its seed; what comes of it is vLLM's."""
        return {"engine": "vllm", "version": self.version, "seeds": "passed on"}

    def stream(
        self,
        more: Callable[[int], Sequence[tuple[K, Request]]],
        alive: Callable[[], None] = lambda: None,
    ) -> Iterator[tuple[K, Found]]:
        """As Engine.stream."""
        engine = self.llm.llm_engine
        opened: dict[str, K] = {}
        try:
            while (wanted := more(self.room - len(opened))) or opened:
                for key, request in wanted:
                    name = f"difftrain-{self._number}"
                    self._number += 1
                    if why := self._add(name, request):
                        yield key, NoAnswer(why)
                    else:
                        opened[name] = key
                if not opened:
                    continue
                for output in engine.step():
                    if output.finished and output.request_id in opened:
                        yield opened.pop(output.request_id), read(output.outputs[0])
                alive()
        finally:
            if opened:
                engine.abort_request(list(opened))

    def _add(self, name: str, request: Request) -> str | None:
        """Hand a request over; why it cannot be asked, or None."""
        if found := CONTROL.search(request.text):
            return f"the words hold {found.group()}, which stands for a token of the model's own"
        prompt: dict[str, Any] = {
            "prompt": self.processor.apply_chat_template(
                prompts.messages(request.parts, request.system),
                add_generation_prompt=True,
                tokenize=False,
            )
        }
        if request.images:
            prompt["multi_modal_data"] = {"image": request.images}
        params = self.params(**sampling(request, self.banned), output_kind=self.final)
        try:
            self.llm.llm_engine.add_request(name, prompt, params)
        except ValueError as error:  # too long for the model, or more pictures than it takes
            return str(error)
        return None

    def close(self) -> None:
        """End the engine's process, which frees its GPU memory."""
        self.llm.llm_engine.engine_core.shutdown()


def read(output: Any) -> Found:
    """One of vLLM's outputs as an Answer; an aborted one is none."""
    if output.finish_reason not in ("stop", "length"):
        return NoAnswer(f"vLLM ended the answer with {output.finish_reason}")
    return Answer(output.text, tuple(output.token_ids), output.finish_reason == "stop")


def imported() -> Any:
    """The package. Imported here and nowhere else, when it is asked: it needs a GPU machine.

    Raises ConfigError where it is not installed.
    """
    try:
        import vllm  # pyright: ignore[reportMissingImports]
        import vllm.sampling_params  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        told = f"model.engine=vllm: vLLM cannot be imported ({error}); install the extra vllm"
        raise ConfigError([told]) from error
    return vllm
