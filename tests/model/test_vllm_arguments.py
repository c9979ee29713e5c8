"""Every argument passed to vLLM exists in the pinned release. Slow lane; needs the registry.

vLLM's wheel does not run without a GPU, so its source is read instead of imported.
"""

import ast
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from difftrain.config.model import ModelConfig
from difftrain.model.engines import vllm
from difftrain.model.engines.types import Completion, GenerationError, Request

ROOT = Path(__file__).resolve().parents[2]
OUR_FILE = ROOT / "difftrain" / "model" / "engines" / "vllm.py"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    """The wheel of the release that pyproject.toml names, without its dependencies."""
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


def class_in(module: ast.Module, name: str) -> ast.ClassDef:
    (result,) = [
        node for node in ast.walk(module) if isinstance(node, ast.ClassDef) and node.name == name
    ]
    return result


def members(class_node: ast.ClassDef) -> set[str]:
    """The annotated fields and the methods of a class."""
    result = {node.target.id for node in class_node.body if isinstance(node, ast.AnnAssign)}
    return result | {node.name for node in class_node.body if isinstance(node, ast.FunctionDef)}


def parameters(class_node: ast.ClassDef, method: str) -> list[str]:
    (result,) = [
        node
        for node in class_node.body
        if isinstance(node, ast.FunctionDef) and node.name == method
    ]
    return [node.arg for node in (*result.args.args, *result.args.kwonlyargs)]


REQUEST = Request(parts=("x",), seed=3, temperature=0.7, max_new_tokens=9)


@pytest.mark.slow
def test_every_keyword_we_pass_is_in_the_source(wheel: zipfile.ZipFile) -> None:
    arguments = set(vllm.engine_arguments(ModelConfig(), (784, 7840)))
    llm = class_in(parse_source(wheel, "entrypoints/llm.py"), "LLM")
    engine_members = members(class_in(parse_source(wheel, "engine/arg_utils.py"), "EngineArgs"))
    assert arguments <= {*parameters(llm, "__init__"), *engine_members}
    assert {"max_model_len", "enable_prefix_caching"} <= engine_members
    sampling_params_class = class_in(parse_source(wheel, "sampling_params.py"), "SamplingParams")
    assert {*vllm.sampling_arguments(REQUEST, {}), "output_kind"} <= members(sampling_params_class)
    output_kinds = class_in(parse_source(wheel, "sampling_params.py"), "RequestOutputKind")
    assert "FINAL_ONLY" in {
        node.targets[0].id for node in output_kinds.body if isinstance(node, ast.Assign)
    }


@pytest.mark.slow
def test_every_name_we_use_is_in_the_source(wheel: zipfile.ZipFile) -> None:
    engine = class_in(parse_source(wheel, "v1/engine/llm_engine.py"), "LLMEngine")
    assert parameters(engine, "add_request")[1:4] == ["request_id", "prompt", "params"]
    assert parameters(engine, "abort_request")[1] == "request_ids"
    assert {"step"} <= members(engine)
    client = class_in(parse_source(wheel, "v1/engine/core_client.py"), "EngineCoreClient")
    assert "shutdown" in members(client)
    outputs = parse_source(wheel, "outputs.py")
    assert {"text", "token_ids", "finish_reason"} <= members(class_in(outputs, "CompletionOutput"))
    fields = parameters(class_in(outputs, "RequestOutput"), "__init__")
    assert {"request_id", "outputs", "finished"} <= set(fields)
    prompt = parse_source(wheel, "inputs/llm.py")
    assert "prompt" in members(class_in(prompt, "TextPrompt"))
    assert "multi_modal_data" in members(class_in(prompt, "_PromptOptions"))
    qwen = wheel.read("vllm/model_executor/models/qwen2_vl.py").decode()
    assert 'mm_kwargs.get("size")' in qwen


@pytest.mark.slow
def test_completions_of_one_vllm_request_have_consecutive_seeds_so_each_draw_is_a_request(
    wheel: zipfile.ZipFile,
) -> None:
    source = wheel.read("vllm/v1/engine/parallel_sampling.py").decode()
    assert "child_sampling_params.seed = seed + index" in source
    assert vllm.sampling_arguments(REQUEST, {})["n"] == 1


def test_vllm_gets_the_draws_seed_and_no_model_defaults() -> None:
    arguments = vllm.sampling_arguments(REQUEST, {500: vllm.BANNED_LOGIT_BIAS})
    assert (arguments["seed"], arguments["temperature"], arguments["max_tokens"]) == (3, 0.7, 9)
    assert (arguments["top_p"], arguments["top_k"], arguments["min_p"]) == (1.0, 0, 0.0)
    assert arguments["repetition_penalty"] == 1.0
    assert arguments["logit_bias"] == {500: -1e4}


def test_vllms_processor_gets_the_pixel_budget() -> None:
    arguments = vllm.engine_arguments(ModelConfig(), (784, 7840))
    assert arguments["mm_processor_kwargs"] == {
        "size": {"shortest_edge": 784, "longest_edge": 7840}
    }
    assert arguments["trust_remote_code"] is False


def test_each_ranks_engine_sees_only_its_gpus_and_the_variable_is_restored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import os

    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    with vllm.visible_gpus(2):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "6,7"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "4,5,6,7"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    with vllm.visible_gpus(1):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "1"
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


class ScriptedEngine:
    """Replaces vLLM's engine, which needs a GPU; completes requests with their seed, last first."""

    def __init__(self) -> None:
        self.open: list[tuple[str, dict]] = []
        self.aborted: list[str] = []

    def add_request(self, name: str, prompt: dict, params: dict) -> None:
        if "long" in prompt["prompt"]:
            raise ValueError("longer than the model takes")
        self.open.append((name, params))

    def step(self) -> list:
        from types import SimpleNamespace

        name, params = self.open.pop()
        output = SimpleNamespace(
            text=f"seed {params['seed']}", token_ids=[1, 2], finish_reason="stop"
        )
        return [SimpleNamespace(request_id=name, finished=True, outputs=[output])]

    def abort_request(self, request_ids: list[str]) -> None:
        self.aborted += request_ids


def scripted_engine(processor, room: int = 3) -> vllm.VllmEngine:
    from types import SimpleNamespace

    result = object.__new__(vllm.VllmEngine)
    result.llm = SimpleNamespace(llm_engine=ScriptedEngine())
    result.processor, result.sampling_params = processor, lambda **arguments: arguments
    result.output_kind, result.banned, result.max_open, result._request_count = 2, {}, room, 0
    return result


def test_results_are_in_the_order_of_the_requests_and_rejections_are_errors(tiny) -> None:
    from difftrain.model.engines.types import generate_all

    image = Image.new("RGB", (56, 56))
    texts = ["a", "b", "too long", "c", "<|image_pad|>", "d", "e"]
    requests = [
        Request(parts=(image, text), seed=number, max_new_tokens=4)
        for number, text in enumerate(texts)
    ]
    results = generate_all(scripted_engine(tiny.processor), requests)
    assert results[2] == GenerationError("longer than the model takes")
    assert isinstance(results[4], GenerationError)
    assert all(results[i] == Completion(f"seed {i}", (1, 2), True) for i in (0, 1, 3, 5, 6))


def test_a_closed_stream_aborts_its_requests(tiny) -> None:
    engine = scripted_engine(tiny.processor)
    requests = iter([Request(parts=("x",), seed=number, max_new_tokens=4) for number in range(9)])
    stream = engine.stream(lambda room: list(zip(range(room), requests, strict=False)))
    next(stream)
    stream.close()
    assert len(engine.llm.llm_engine.aborted) == 2


def test_vllm_claims_only_that_seeds_are_passed_on(tiny) -> None:
    engine = scripted_engine(tiny.processor)
    engine.version = "1"
    assert engine.info == {"engine": "vllm", "version": "1", "seeds": "passed on"}
