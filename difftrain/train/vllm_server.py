"""Weights for a vLLM server through a folder, for machines where TRL's own way does not work.

TRL sends weights by NCCL, which needs a GPU of its own for the trainer. Without one it raises an
error. Here the trainer writes the weights as a file, and the server reads them; it must see the
same folder. Everything else is TRL's.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from trl.generation import vllm_generation
from trl.generation.vllm_client import VLLMClient

FOLDER = "vllm_weights"  # in the stage's folder, while it trains


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
        weights = {name: weight.detach().cpu().contiguous() for name, weight in named_params}
        save_file(weights, self.folder / "model.safetensors", metadata={"format": "pt"})
        body = {"method": "reload_weights", "kwargs": {"weights_path": str(self.folder.absolute())}}
        self._post(f"{self.base_url}/collective_rpc", json=body)
        shutil.rmtree(self.folder)


@contextmanager
def weights_by_folder(folder: Path) -> Iterator[None]:
    """Inside the block, TRL's trainer gets a FolderClient if there is no GPU."""
    client = vllm_generation.VLLMClient
    if not torch.cuda.is_available():
        vllm_generation.VLLMClient = partial(FolderClient, folder=folder / FOLDER)
    try:
        yield
    finally:
        vllm_generation.VLLMClient = client
