"""What TRL does not pass to vLLM: precision, limits, and weights where there is no GPU.

* In this process (colocate) TRL gives vLLM only the model's name, so vLLM would take the precision
  and the revision of the folder, not those of the settings: other answers than the trainer's.
* To a server TRL sends weights by NCCL, which needs a GPU of its own for the trainer. Without one
  it raises an error. Here the trainer writes the weights as a file, and the server reads them; it
  must see the same folder.
* In this process TRL loads each weight into vLLM's parameters. On a CPU vLLM packs its weights and
  removes these parameters, so vLLM itself loads all weights anew. It runs without compilation
  there; whether compiled code sees the new weights was not tested. A head that is tied to the
  embedding keeps its packed copy of the old weights, unless it is packed anew; a server cannot be
  made to do that.
* In this process TRL passes prompts in which an image's placeholder is already repeated. vLLM would
  repeat the first one once more, and answer another prompt than the one that is trained on.
* vLLM refuses a request with more than 128 banned tokens, unless an environment variable allows it.
"""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from trl.generation import vllm_generation
from trl.generation.vllm_client import VLLMClient

from difftrain.config.model import Dtype, ModelConfig
from difftrain.config.run_config import ConfigError
from difftrain.config.train import VllmMode
from difftrain.model import loading

FOLDER = "vllm_weights"  # in the stage's folder, while it trains
BAN_LIMITS = {"VLLM_MAX_NUM_BAD_WORDS": 128, "VLLM_MAX_BAD_WORDS_TOTAL_TOKENS": 1024}
"""Environment variables with which vLLM limits a request's banned tokens, and their defaults."""


class FolderClient(VLLMClient):
    """TRL's client of a vLLM server; the server reads new weights from a folder."""

    def __init__(self, *args: Any, folder: Path, **kwargs: Any) -> None:
        self.folder = folder
        super().__init__(*args, **kwargs)

    def init_communicator(self, device: Any = 0) -> None:
        """Nothing is to be connected."""

    def update_named_params(
        self, metadata: Any, named_params: Iterator[tuple[str, Tensor]]
    ) -> None:
        """Write the weights, let the server load them, and remove them."""
        self.folder.mkdir(parents=True, exist_ok=True)
        # A copy: after the last weight, TRL takes the merged adapters out of them again.
        weights = {
            name: weight.detach().to("cpu", copy=True).contiguous() for name, weight in named_params
        }
        save_file(weights, self.folder / "model.safetensors", metadata={"format": "pt"})
        body = {"method": "reload_weights", "kwargs": {"weights_path": str(self.folder.absolute())}}
        self._post(f"{self.base_url}/collective_rpc", json=body)
        shutil.rmtree(self.folder)


@contextmanager
def completed_arguments(model: ModelConfig, folder: Path, num_banned: int) -> Iterator[None]:
    """Inside the block, TRL's trainer gives vLLM the settings' precision and revision, and gets a
    FolderClient in `folder` if there is no GPU. vLLM in this process takes `num_banned` bans."""
    for name, needed in exceeded_limits(os.environ, num_banned).items():
        os.environ[name] = str(needed)
    originals = {name: vllm_generation.__dict__.get(name) for name in ("LLM", "VLLMClient")}
    if originals["LLM"] is not None:  # vLLM is installed
        arguments: dict[str, Any] = {"dtype": model.dtype.value, "revision": model.revision}
        if not torch.cuda.is_available():
            arguments["enforce_eager"] = True
        vllm_generation.__dict__["LLM"] = partial(originals["LLM"], **arguments)
    if originals["VLLMClient"] is not None and not torch.cuda.is_available():
        vllm_generation.__dict__["VLLMClient"] = partial(FolderClient, folder=folder / FOLDER)
    try:
        yield
    finally:
        vllm_generation.__dict__.update({k: v for k, v in originals.items() if v is not None})


def reload_packed_weights(generation: Any) -> None:
    """Make a VLLMGeneration in this process reload vLLM's weights if there is no GPU."""
    if generation.mode != "colocate" or torch.cuda.is_available():
        return

    def sync_weights() -> None:
        # A copy, as in FolderClient: vLLM reads some weights only after the last one.
        weights = [(name, weight.clone()) for name, weight in generation._iter_named_params()]
        arguments = {"weights_iterator": iter(weights)}
        generation.llm.collective_rpc("reload_weights", kwargs=arguments)
        worker = generation.llm.llm_engine.model_executor.driver_worker
        for layer in worker.model_runner.model.modules():
            if type(layer).__name__ == "ParallelLMHead":
                layer.quant_method.process_weights_after_loading(layer)
        generation.llm.reset_prefix_cache()

    generation.sync_weights = sync_weights


def pass_one_placeholder_per_image(generation: Any, image_token: int | None) -> None:
    """Make a VLLMGeneration in this process pass prompts as vLLM expects them.

    Its `generate` raises RuntimeError if vLLM's prompt then differs from the trainer's.
    """
    if generation.mode != "colocate":
        return
    original = generation.generate

    def generate(prompts: list[list[int]], images: Any, *args: Any, **kwargs: Any) -> Any:
        short = [without_repeats(prompt, image_token) for prompt in prompts] if images else prompts
        output = original(short, images, *args, **kwargs)
        for expected, seen in zip(prompts, output[0], strict=True):
            if list(expected) != list(seen):
                counts = [sum(i == image_token for i in ids) for ids in (expected, seen)]
                problem = "vLLM's prompt has other tokens than the trainer's"
                detail = f"{counts[1]} of {len(seen)} stand for images, not {counts[0]} of"
                advice = "use grpo.vllm.mode=server or none"
                raise RuntimeError(f"{problem} ({detail} {len(expected)}); {advice}")
        return output

    generation.generate = generate


def without_repeats(ids: Sequence[int], token: int | None) -> list[int]:
    """The token ids with each run of `token` replaced by one."""
    return [id_ for i, id_ in enumerate(ids) if id_ != token or i == 0 or ids[i - 1] != token]


def exceeded_limits(environment: Mapping[str, Any], num_banned: int) -> dict[str, int]:
    """The values that vLLM needs of BAN_LIMITS to ban so many tokens, where they are lower."""
    limits = {name: int(environment.get(name, default)) for name, default in BAN_LIMITS.items()}
    return {name: num_banned for name, limit in limits.items() if limit < num_banned}


def require_ban_limits(generation: Any, num_banned: int) -> None:
    """Raise ConfigError if the server refuses requests that ban so many tokens."""
    if generation.mode != "server" or not generation.accelerator.is_main_process:
        return
    if not exceeded_limits({}, num_banned):
        return
    client = generation.vllm_client
    response = client.session.get(f"{client.base_url}/server_info", timeout=60)
    response.raise_for_status()
    if needed := exceeded_limits(response.json()["vllm_env"], num_banned):
        rule = f"the server must ban the {num_banned} tokens of this model that stand for images"
        advice = " ".join(f"{name}={value}" for name, value in needed.items())
        raise ConfigError([f"grpo.vllm.mode=server: {rule}; start it with {advice}"])


def refuse_tied_head(mode: VllmMode, model: ModelConfig) -> None:
    """Raise ConfigError for a server without a GPU if the model's head is tied to its embedding."""
    if mode is not VllmMode.server or torch.cuda.is_available():
        return
    # The text config of Qwen2.5-VL has no such field, others have one that does not count.
    if getattr(loading.load_architecture(model), "tie_word_embeddings", False):
        rule = "without a GPU, vLLM's head keeps its old weights if it is tied to the embedding"
        raise ConfigError([f"grpo.vllm.mode=server: {rule}; use colocate or none"])


def require_same_dtype(generation: Any, model: ModelConfig) -> None:
    """Raise ConfigError if the server computes in another precision than the settings say."""
    if generation.mode != "server" or not generation.accelerator.is_main_process:
        return
    reported = generation.vllm_client.get_server_info()["model_config"].get("dtype")
    dtype = str(reported).removeprefix("torch.")
    if dtype in {*Dtype} - {model.dtype}:
        rule = f"the server computes in {dtype}, but model.dtype={model.dtype}"
        advice = f"start it with --dtype {model.dtype}"
        raise ConfigError([f"grpo.vllm.mode=server: {rule}; {advice}"])
