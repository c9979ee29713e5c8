"""vLLM gets the settings' precision, and a server without a GPU its weights through a folder."""

import json
import os
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests
import torch
from safetensors import safe_open
from torch import nn
from trl.generation import vllm_generation
from trl.generation.vllm_client import VLLMClient

from difftrain.config.model import Dtype, ModelConfig
from difftrain.config.run_config import ConfigError
from difftrain.config.train import VllmMode
from difftrain.model.resolve import SHIPPED
from difftrain.train import vllm_rollouts
from difftrain.train.vllm_rollouts import FolderClient
from tests.listening import FakeServer, send


class ReadingServer(FakeServer):
    """Reads the weights while it answers, as vLLM does; `status` is its answer."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder, self.status = folder, 200
        self.paths: list[str] = []
        self.read: list[dict[str, torch.Tensor]] = []

    def respond(self, handler: BaseHTTPRequestHandler, number: int, content: bytes) -> None:
        self.paths.append(handler.path)
        with safe_open(self.folder / "model.safetensors", "pt") as file:
            self.read.append({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
        send(handler, self.status, b"{}")


def client_of(server: ReadingServer, folder: Path) -> FolderClient:
    """A client whose constructor, which imports vLLM, is skipped."""
    client = object.__new__(FolderClient)
    client.base_url, client.session = server.url.removesuffix("/v1"), requests.Session()
    client.folder = folder
    return client


def test_the_server_reads_the_weights_from_the_folder_which_is_then_removed(tmp_path: Path) -> None:
    folder = tmp_path / "weights"
    server = ReadingServer(folder)
    client, model = client_of(server, folder), nn.Linear(3, 2)
    client.init_communicator(device="cpu")
    client.update_named_params([], model.named_parameters())
    server.close()
    assert server.paths == ["/collective_rpc"]
    assert server.bodies == [{"method": "reload_weights", "kwargs": {"weights_path": str(folder)}}]
    assert {*server.read[0]} == {"weight", "bias"}
    assert torch.equal(server.read[0]["weight"], model.weight)
    assert not folder.exists()


def test_the_weights_are_those_that_the_iterator_gave_though_it_changes_them_at_its_end(
    tmp_path: Path,
) -> None:
    """TRL merges an adapter into the weights, gives them, and takes it out of them again."""
    server = ReadingServer(tmp_path / "weights")
    weight = torch.zeros(2, 2)

    def merged_then_unmerged() -> Iterator[tuple[str, torch.Tensor]]:
        weight.add_(1)
        yield "weight", weight
        weight.sub_(1)

    client_of(server, tmp_path / "weights").update_named_params([], merged_then_unmerged())
    server.close()
    assert torch.equal(server.read[0]["weight"], torch.ones(2, 2))


def test_a_server_that_cannot_load_the_weights_ends_the_training(tmp_path: Path) -> None:
    folder = tmp_path / "weights"
    server = ReadingServer(folder)
    server.status = 400
    with pytest.raises(Exception, match="400"):
        client_of(server, folder).update_named_params([], nn.Linear(3, 2).named_parameters())
    server.close()


def test_trl_gets_this_client_only_without_a_gpu_and_only_while_the_trainer_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for has_gpu in (False, True):
        monkeypatch.setattr(torch.cuda, "is_available", lambda has_gpu=has_gpu: has_gpu)
        with vllm_rollouts.completed_arguments(ModelConfig(), tmp_path, 3):
            assert (vllm_generation.VLLMClient is VLLMClient) == has_gpu
        assert vllm_generation.VLLMClient is VLLMClient


def test_vllm_in_this_process_gets_the_precision_and_the_revision_of_the_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise it takes the folder's: bfloat16 for the tiny model, which trains in float32."""
    monkeypatch.setattr(vllm_generation, "LLM", dict, raising=False)  # vLLM may not be installed
    model = ModelConfig(dtype=Dtype.float32, revision="abc")
    with vllm_rollouts.completed_arguments(model, tmp_path, 3):
        arguments = vllm_generation.LLM(model="x")
    eager = {} if torch.cuda.is_available() else {"enforce_eager": True}
    assert arguments == {"model": "x", "dtype": "float32", "revision": "abc"} | eager
    assert vllm_generation.LLM is dict


def test_vllm_in_this_process_may_ban_as_many_tokens_as_the_model_has_for_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count, total = vllm_rollouts.BAN_LIMITS
    monkeypatch.setenv(total, "5000")  # the user's, which is enough
    monkeypatch.delenv(count, raising=False)
    with vllm_rollouts.completed_arguments(ModelConfig(), tmp_path, 128):
        assert count not in os.environ  # vLLM's default is enough
    with vllm_rollouts.completed_arguments(ModelConfig(), tmp_path, 1100):
        assert (os.environ[count], os.environ[total]) == ("1100", "5000")
    monkeypatch.delenv(count)


@pytest.mark.parametrize("limit", [128, 1100])
def test_a_server_that_bans_fewer_tokens_than_the_model_has_for_images_is_refused(
    limit: int,
) -> None:
    environment = {"VLLM_MAX_NUM_BAD_WORDS": limit, "VLLM_MAX_BAD_WORDS_TOTAL_TOKENS": 5000}

    class InfoServer(FakeServer):
        def list_models(self, handler: BaseHTTPRequestHandler) -> None:  # any GET
            assert handler.path == "/server_info"
            send(handler, 200, json.dumps({"vllm_env": environment}).encode())

    server = InfoServer()
    client = SimpleNamespace(base_url=server.url.removesuffix("/v1"), session=requests.Session())
    generation = SimpleNamespace(
        mode="server", vllm_client=client, accelerator=SimpleNamespace(is_main_process=True)
    )
    vllm_rollouts.require_ban_limits(generation, limit)
    with pytest.raises(ConfigError, match=r"1101 tokens.*with VLLM_MAX_NUM_BAD_WORDS=1101"):
        vllm_rollouts.require_ban_limits(generation, 1101)
    server.close()


IMAGE = 500
PROMPT = [1, IMAGE, IMAGE, IMAGE, 2, 3, IMAGE, IMAGE, 4]


def repeating(counts: list[int]) -> SimpleNamespace:
    """A VLLMGeneration that repeats the i-th placeholder of a prompt counts[i] times, as vLLM does,
    and leaves further ones as they are."""

    def generate(prompts: list[list[int]], images: list, num_generations: int) -> tuple:
        results = []
        for prompt in prompts:
            left, result = list(counts), []
            for token in prompt:
                result += [token] * (left.pop(0) if token == IMAGE and left else 1)
            results.append(result)
        return results, [[7]] * len(prompts)

    return SimpleNamespace(mode="colocate", generate=generate)


def test_vllm_in_this_process_gets_one_placeholder_per_image_and_answers_the_trainers_prompt() -> (
    None
):
    generation = repeating([3, 2])
    assert generation.generate([PROMPT], [["x", "y"]], 1)[0] != [PROMPT]  # as TRL passes it
    vllm_rollouts.pass_one_placeholder_per_image(generation, IMAGE)
    assert generation.generate([PROMPT], [["x", "y"]], num_generations=1) == ([PROMPT], [[7]])
    assert generation.generate([[1, 2, 3]], None, num_generations=1) == ([[1, 2, 3]], [[7]])


def test_a_prompt_that_vllm_reads_in_another_way_ends_the_training() -> None:
    generation = repeating([3, 4])
    vllm_rollouts.pass_one_placeholder_per_image(generation, IMAGE)
    with pytest.raises(RuntimeError, match="7 of 11 stand for images, not 5 of 9"):
        generation.generate([PROMPT], [["x", "y"]], num_generations=1)


def test_a_server_of_another_precision_is_refused() -> None:
    info = {"model_config": {"dtype": "torch.bfloat16"}}
    client = SimpleNamespace(get_server_info=lambda: info)
    generation = SimpleNamespace(
        mode="server", vllm_client=client, accelerator=SimpleNamespace(is_main_process=True)
    )
    vllm_rollouts.require_same_dtype(generation, ModelConfig(dtype=Dtype.bfloat16))
    with pytest.raises(ConfigError, match=r"computes in bfloat16.*start it with --dtype float32"):
        vllm_rollouts.require_same_dtype(generation, ModelConfig(dtype=Dtype.float32))


@pytest.mark.parametrize("is_tied", [True, False])
def test_a_server_without_a_gpu_is_refused_for_a_model_with_a_tied_head(
    is_tied: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = json.loads((SHIPPED["tiny"] / "config.json").read_text())
    content["tie_word_embeddings"] = is_tied
    del content["text_config"]["tie_word_embeddings"]  # as in published configs
    (tmp_path / "config.json").write_text(json.dumps(content))
    model = ModelConfig(name=str(tmp_path))
    vllm_rollouts.refuse_tied_head(VllmMode.colocate, model)
    if is_tied:
        with pytest.raises(
            ConfigError, match=r"head keeps its old weights .*; use colocate or none"
        ):
            vllm_rollouts.refuse_tied_head(VllmMode.server, model)
    else:
        vllm_rollouts.refuse_tied_head(VllmMode.server, model)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    vllm_rollouts.refuse_tied_head(VllmMode.server, model)
