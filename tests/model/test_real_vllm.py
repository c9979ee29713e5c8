"""vLLM's offline engine and `vllm serve` answer as the hf engine does (lane `vllm`)."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from difftrain.config.judge import JudgeKind
from difftrain.config.model import Dtype, EngineKind, ModelConfig
from difftrain.config.run_config import RunConfig
from difftrain.data import prompts
from difftrain.model import family
from difftrain.model.engines import server_check
from difftrain.model.engines.hf import HfEngine
from difftrain.model.engines.types import Completion, Request, generate_all
from difftrain.model.engines.vllm import VllmEngine
from difftrain.model.loading import LoadedModel, load
from difftrain.model.resolve import SHIPPED
from difftrain.pipeline import parquet
from difftrain.records import GradedBy, Sample, Score
from tests.conftest import MAX_PIXELS, MIN_PIXELS
from tests.evaluate.judge.test_real_server import grade_items
from tests.real_vllm import ENVIRONMENT, MARKS, serving_vllm
from tests.train.test_merged_lora import merged_checkpoint

pytestmark = MARKS
ROOT = Path(__file__).resolve().parents[2]
HOT = 2.0  # the highest temperature that vLLM takes
SIZES = ((112, 112), (56, 84), (84, 56))  # multiples of 28 within the limits of the area


@contextmanager
def offline_engine(name: str) -> Iterator[VllmEngine]:
    """vLLM's offline engine with this model in a `with` block."""
    config = ModelConfig(name=name, dtype=Dtype.float32, engine=EngineKind.vllm)
    config.vllm.max_model_len, config.vllm.max_num_seqs = 1024, 32
    with pytest.MonkeyPatch.context() as patch:
        for variable, value in ENVIRONMENT.items():
            patch.setenv(variable, value)
        result = VllmEngine(config, (MIN_PIXELS, MAX_PIXELS))
        try:
            yield result
        finally:
            result.close()


@pytest.fixture(scope="module")
def engine() -> Iterator[VllmEngine]:
    """The engine with the tiny model."""
    with offline_engine("tiny") as result:
        yield result


def make_requests(samples: list[Sample], temperature: float, max_new_tokens: int) -> list[Request]:
    return [
        Request(
            parts=(
                Image.open(BytesIO(sample.images[0])).convert("RGB"),
                prompts.user_text(sample.question, sample.options),
            ),
            seed=seed,
            temperature=temperature,
            max_new_tokens=max_new_tokens,
        )
        for seed, sample in enumerate(samples)
    ]


def completions_of(engine, requests: list[Request]) -> list[Completion]:
    results = generate_all(engine, requests)
    assert all(isinstance(result, Completion) for result in results), results
    return [result for result in results if isinstance(result, Completion)]


def test_greedy_responses_of_vllm_are_those_of_the_hf_engine(
    engine: VllmEngine, tiny: LoadedModel, shapes_samples: list[Sample]
) -> None:
    requests = make_requests(shapes_samples, 0.0, 72)
    black = [Image.new("RGB", request.images[0].size) for request in requests[:4]]
    requests += [
        replace(request, parts=(image, request.text), view=None)
        for image, request in zip(black, requests, strict=False)
    ]
    requests += [replace(request, parts=(request.text,)) for request in requests[:4]]
    expected = completions_of(HfEngine(tiny, ModelConfig(batch_size=8)), requests)
    assert completions_of(engine, requests) == expected
    assert expected[: len(black)] != expected[-8:-4]  # the image matters


def test_vllm_counts_the_tokens_of_an_image_as_our_processor_does(
    engine: VllmEngine, tiny: LoadedModel
) -> None:
    count = family.image_token_counter(tiny.processor)
    placeholder = tiny.processor.image_token_id
    for size in SIZES:
        request = Request(parts=(Image.new("RGB", size, "red"), "What?"), max_new_tokens=1)
        prompt = {
            "prompt": request.chat_text(tiny.processor),
            "multi_modal_data": {"image": request.images},
        }
        (output,) = engine.llm.generate([prompt], use_tqdm=False)
        assert output.prompt_token_ids.count(placeholder) == count(size)


def test_equal_seeds_give_equal_responses_and_others_give_others(
    engine: VllmEngine, shapes_samples: list[Sample]
) -> None:
    requests = make_requests(shapes_samples[:8], HOT, 30)
    first = completions_of(engine, requests)
    assert completions_of(engine, requests) == first
    other = completions_of(engine, [replace(r, seed=r.seed + 100) for r in requests])
    assert other != first


def test_vllm_never_samples_a_placeholder_and_would_without_the_ban(
    engine: VllmEngine, shapes_samples: list[Sample]
) -> None:
    def sampled(repeats: int) -> set[int]:
        requests = [
            replace(request, temperature=HOT, seed=seed)
            for seed, request in enumerate(make_requests(shapes_samples, HOT, 200) * repeats)
        ]
        responses = completions_of(engine, requests)
        return {token for response in responses for token in response.token_ids} & banned

    bans, banned = engine.banned, set(engine.banned)
    assert sampled(4) == set()
    try:
        for token in banned:
            engine.banned = {token: 30.0}  # such a bias makes it certain
            assert sampled(1) == {token}
    finally:
        engine.banned = bans


def test_vllm_loads_a_checkpoint_with_a_merged_lora_adapter(
    tmp_path: Path, tiny: LoadedModel, shapes_samples: list[Sample]
) -> None:
    _, checkpoint = merged_checkpoint(SHIPPED["tiny"], tmp_path)
    requests = make_requests(shapes_samples[:8], 0.0, 30)
    config = ModelConfig(name=str(checkpoint), dtype=Dtype.float32, batch_size=8)
    expected = completions_of(HfEngine(load(config, MIN_PIXELS, MAX_PIXELS), config), requests)
    with offline_engine(str(checkpoint)) as merged:
        assert completions_of(merged, requests) == expected
    assert completions_of(HfEngine(tiny, config), requests) != expected  # the adapter matters


def strata(folder: Path, *overrides: str) -> dict[str, str]:
    """The stratum of each sample by the measure PISM, from launch/score.py."""
    command = [sys.executable, str(ROOT / "launch" / "score.py"), "difficulty=pism",
               "data.num_samples=48", "probe.mask_percents=[0,40,80]", "probe.draws=6",
               "probe.max_new_tokens=72", f"output_dir={folder}", *overrides]  # fmt: skip
    run = subprocess.run(command, capture_output=True, text=True, env=os.environ | ENVIRONMENT)
    assert run.returncode == 0, run.stderr[-4000:]
    (scores,) = folder.glob("score/*")
    return {row.sample_id: str(row.stratum) for row in parquet.read_rows(scores, Score)}


def test_strata_of_vllm_differ_from_hfs_no_more_than_two_seeds_of_hf_do(tmp_path: Path) -> None:
    hf, other_seed = (strata(tmp_path / str(seed), f"seed={seed}") for seed in (0, 1))
    vllm = strata(tmp_path / "vllm", "model.engine=vllm", "model.vllm.max_model_len=1024")
    assert hf.keys() == other_seed.keys() == vllm.keys()
    ids = sorted(hf)

    def disagreement(first: dict[str, str], second: dict[str, str]) -> float:
        return float(np.mean([first[id_] != second[id_] for id_ in ids]))

    expected = (disagreement(hf, other_seed), len(ids))
    seen = [disagreement(hf, vllm), disagreement(other_seed, vllm)]
    print(expected, seen)  # shown if the test fails
    share = (expected[0] + sum(seen)) / 3
    error = (2 * share * (1 - share) / len(ids)) ** 0.5  # of a difference of two shares
    assert np.mean(seen) <= expected[0] + 3 * error


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of `vllm serve` with the tiny model."""
    with serving_vllm(tmp_path_factory.mktemp("served")) as address:
        yield address


def test_vllm_serve_passes_the_server_check_and_answers_as_the_hf_engine(
    url: str, tiny: LoadedModel, shapes_samples: list[Sample]
) -> None:
    config = ModelConfig(engine=EngineKind.http, url=url)
    config.server.name, config.server.max_concurrency = str(SHIPPED["tiny"]), 8
    engine = server_check.connect(config, max_pixels=MAX_PIXELS)
    try:
        print(engine.info)  # shown if the test fails
        assert engine.info["seeds"] == "honored"
        assert engine.info["image_tokens"] == {"side": 112, "server": 18, "expected": 16}
        requests = make_requests(shapes_samples, 0.0, 72)
        results = completions_of(engine, requests)
    finally:
        engine.close()
    expected = completions_of(HfEngine(tiny, ModelConfig(batch_size=8)), requests)
    assert [(r.text, r.num_tokens, r.hit_eos) for r in results] == [
        (r.text, r.num_tokens, r.hit_eos) for r in expected
    ]


def test_vllm_serve_is_a_judge(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_BASE_URL", url)
    monkeypatch.setenv("JUDGE_MODEL", str(SHIPPED["tiny"]))
    config = RunConfig(output_dir=str(tmp_path))
    config.data.min_pixels, config.data.max_pixels = MIN_PIXELS, MAX_PIXELS
    config.evaluate.judge, config.evaluate.limit = JudgeKind.endpoint, 4
    config.evaluate.benchmarks = ["shapes/MathVista", "shapes/MMVet"]
    results, counts = grade_items(config)
    assert (counts["failed_items"], counts["stopped"]) == (0, None)
    assert counts["replies"] >= 8  # four items of two benchmarks
    # MathVista's rules read some answers without it; the tiny model's replies may decide nothing.
    mmvet = [result.graded_by for result in results if result.benchmark == "shapes/MMVet"]
    assert len(mmvet) == 4
    assert GradedBy.rule not in mmvet
    assert all(result.score is not None for result in results)
    second_results, second_counts = grade_items(config)
    assert (second_results, second_counts["calls"]) == (results, 0)
