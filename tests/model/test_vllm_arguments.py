"""Every argument passed to vLLM exists in the pinned release.

vLLM's wheel does not run without a GPU. The slow tests download it and read its source instead of
importing it; the others replace vLLM's engine by a fake.
"""

import ast
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from difftrain.config.model import ModelConfig
from difftrain.config.run_config import ConfigError
from difftrain.model.engines import vllm
from difftrain.model.engines.types import Completion, GenerationError, Request, generate_all
from difftrain.train import vllm_rollouts

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    """The wheel of the release that pyproject.toml requires, without its dependencies."""
    (requirement,) = re.findall(r'"(vllm==[\d.]+)"', (ROOT / "pyproject.toml").read_text())
    folder = tmp_path_factory.mktemp("wheel")
    arguments = ["pip", "download", "--no-deps", "--only-binary", ":all:", "--dest", str(folder)]
    process = subprocess.run(
        [sys.executable, "-m", *arguments, "--quiet", requirement], capture_output=True, text=True
    )
    if process.returncode:
        pytest.skip(f"the registry does not have {requirement}")
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as result:
        yield result


def parse_source(wheel: zipfile.ZipFile, path: str) -> ast.Module:
    return ast.parse(wheel.read(f"vllm/{path}"))


def find_class(module: ast.Module, name: str) -> ast.ClassDef:
    (result,) = [
        node for node in ast.walk(module) if isinstance(node, ast.ClassDef) and node.name == name
    ]
    return result


def members(class_node: ast.ClassDef) -> set[str]:
    """The annotated fields and the methods of a class."""
    result = {node.target.id for node in class_node.body if isinstance(node, ast.AnnAssign)}
    return result | {node.name for node in class_node.body if isinstance(node, ast.FunctionDef)}


def parameters(class_node: ast.ClassDef, method: str) -> list[str]:
    """The parameter names of a method, beginning with self."""
    (result,) = [
        node
        for node in class_node.body
        if isinstance(node, ast.FunctionDef) and node.name == method
    ]
    return [node.arg for node in (*result.args.args, *result.args.kwonlyargs)]


REQUEST = Request(parts=("x",), seed=3, temperature=0.7, max_new_tokens=9)
PIXELS = (784, 7840)  # smallest and largest area of an image


@pytest.mark.slow
def test_vllm_has_every_keyword_argument_that_we_pass(wheel: zipfile.ZipFile) -> None:
    arguments = set(vllm.engine_arguments(ModelConfig(), PIXELS))
    llm = find_class(parse_source(wheel, "entrypoints/llm.py"), "LLM")
    engine_members = members(find_class(parse_source(wheel, "engine/arg_utils.py"), "EngineArgs"))
    assert arguments <= {*parameters(llm, "__init__"), *engine_members}
    assert {"max_model_len", "enable_prefix_caching"} <= engine_members
    sampling_params_class = find_class(parse_source(wheel, "sampling_params.py"), "SamplingParams")
    assert {*vllm.sampling_arguments(REQUEST, {}), "output_kind"} <= members(sampling_params_class)
    output_kinds = find_class(parse_source(wheel, "sampling_params.py"), "RequestOutputKind")
    assert "FINAL_ONLY" in {
        node.targets[0].id for node in output_kinds.body if isinstance(node, ast.Assign)
    }


@pytest.mark.slow
def test_vllm_has_every_method_and_attribute_that_we_use(wheel: zipfile.ZipFile) -> None:
    engine = find_class(parse_source(wheel, "v1/engine/llm_engine.py"), "LLMEngine")
    # Index 0 is self.
    assert parameters(engine, "add_request")[1:4] == ["request_id", "prompt", "params"]
    assert parameters(engine, "abort_request")[1] == "request_ids"
    assert {"step"} <= members(engine)
    client = find_class(parse_source(wheel, "v1/engine/core_client.py"), "EngineCoreClient")
    assert "shutdown" in members(client)
    outputs = parse_source(wheel, "outputs.py")
    assert {"text", "token_ids", "finish_reason"} <= members(
        find_class(outputs, "CompletionOutput")
    )
    fields = parameters(find_class(outputs, "RequestOutput"), "__init__")
    assert {"request_id", "outputs", "finished"} <= set(fields)
    prompt = parse_source(wheel, "inputs/llm.py")
    assert "prompt" in members(find_class(prompt, "TextPrompt"))
    assert "multi_modal_data" in members(find_class(prompt, "_PromptOptions"))
    # The limits of the image area are passed as mm_processor_kwargs["size"].
    qwen = wheel.read("vllm/model_executor/models/qwen2_vl.py").decode()
    assert 'mm_kwargs.get("size")' in qwen


@pytest.mark.slow
def test_vllms_limits_of_banned_tokens_are_those_that_we_know(wheel: zipfile.ZipFile) -> None:
    source = wheel.read("vllm/v1/worker/gpu/sample/logit_bias.py").decode()
    assert f"MAX_NUM_LOGIT_BIAS_TOKENS = {vllm.MAX_BANNED}\n" in source
    variables = wheel.read("vllm/envs.py").decode()
    for name, default in vllm_rollouts.BAN_LIMITS.items():
        assert f"{name}: int = {default}\n" in variables


@pytest.mark.slow
def test_vllm_gives_a_requests_completions_consecutive_seeds_so_we_set_n_to_1(
    wheel: zipfile.ZipFile,
) -> None:
    source = wheel.read("vllm/v1/engine/parallel_sampling.py").decode()
    assert "child_sampling_params.seed = seed + index" in source
    assert vllm.sampling_arguments(REQUEST, {})["n"] == 1


def test_vllm_gets_the_requests_seed_and_no_defaults_of_the_model() -> None:
    banned_token = 500  # any token id
    arguments = vllm.sampling_arguments(REQUEST, {banned_token: vllm.BANNED_LOGIT_BIAS})
    assert (arguments["seed"], arguments["temperature"], arguments["max_tokens"]) == (3, 0.7, 9)
    assert (arguments["top_p"], arguments["top_k"], arguments["min_p"]) == (1.0, 0, 0.0)
    assert arguments["repetition_penalty"] == 1.0
    assert arguments["logit_bias"] == {banned_token: -1e4}


def test_more_image_tokens_than_vllm_bans_are_refused(
    tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert {*vllm.banned_biases(tiny.processor, ModelConfig()).values()} == {-1e4}
    monkeypatch.setattr(vllm, "MAX_BANNED", 2)
    with pytest.raises(ConfigError, match=r"tokens stand for images, but vLLM bans at most 2; use"):
        vllm.banned_biases(tiny.processor, ModelConfig())


def test_vllms_processor_gets_the_limits_of_the_image_area() -> None:
    arguments = vllm.engine_arguments(ModelConfig(), PIXELS)
    assert arguments["mm_processor_kwargs"] == {
        "size": {"shortest_edge": 784, "longest_edge": 7840}
    }
    assert arguments["trust_remote_code"] is False


def test_each_ranks_engine_sees_only_its_gpus_and_the_variable_is_restored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    with vllm.visible_gpus(2):  # two GPUs per rank
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "6,7"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "4,5,6,7"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    with vllm.visible_gpus(1):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "1"
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


class ScriptedEngine:
    """A fake of vLLM's engine: each step completes the newest request with the text of its seed."""

    def __init__(self) -> None:
        self.open: list[tuple[str, dict]] = []
        self.aborted: list[str] = []

    def add_request(self, name: str, prompt: dict, params: dict) -> None:
        if "long" in prompt["prompt"]:
            raise ValueError("longer than the model takes")
        self.open.append((name, params))

    def step(self) -> list:
        name, params = self.open.pop()
        output = SimpleNamespace(
            text=f"seed {params['seed']}", token_ids=[1, 2], finish_reason="stop"
        )
        return [SimpleNamespace(request_id=name, finished=True, outputs=[output])]

    def abort_request(self, request_ids: list[str]) -> None:
        self.aborted += request_ids


def scripted_engine(processor, max_open: int = 3) -> vllm.VllmEngine:
    """A VllmEngine with a ScriptedEngine; its constructor is skipped, because it imports vLLM."""
    result = object.__new__(vllm.VllmEngine)
    result.llm = SimpleNamespace(llm_engine=ScriptedEngine())
    result.processor, result.sampling_params = processor, lambda **arguments: arguments
    result.output_kind, result.banned = "FINAL_ONLY", {}
    result.max_open, result._request_count = max_open, 0
    return result


def test_results_are_in_the_order_of_the_requests_and_rejections_are_errors(tiny) -> None:
    image = Image.new("RGB", (56, 56))
    texts = ["a", "b", "too long", "c", "<|image_pad|>", "d", "e"]
    requests = [
        Request(parts=(image, text), seed=number, max_new_tokens=4)
        for number, text in enumerate(texts)
    ]
    # Index 2 is rejected by the engine, index 4 for its special token.
    results = generate_all(scripted_engine(tiny.processor), requests)
    assert results[2] == GenerationError("longer than the model takes")
    assert isinstance(results[4], GenerationError)
    for i in (0, 1, 3, 5, 6):
        assert results[i] == Completion(f"seed {i}", token_ids=(1, 2), hit_eos=True)


def test_a_closed_stream_aborts_its_requests(tiny) -> None:
    engine = scripted_engine(tiny.processor)
    requests = iter([Request(parts=("x",), seed=number, max_new_tokens=4) for number in range(9)])
    stream = engine.stream(lambda room: list(zip(range(room), requests, strict=False)))
    next(stream)
    stream.close()
    # Of three open requests (max_open), one is completed.
    assert len(engine.llm.llm_engine.aborted) == 2


def test_the_engine_info_says_that_seeds_are_passed_on(tiny) -> None:
    engine = scripted_engine(tiny.processor)
    engine.version = "1"
    assert engine.info == {"engine": "vllm", "version": "1", "seeds": "passed on"}
