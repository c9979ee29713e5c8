"""Other model families are read correctly, or refused with the reason before weights are read.

The models are tiny and random: tools/tiny_families.py makes them with the families' own classes.
"""

import re
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from difftrain.config.difficulty import BoxCoordinates, TextSpan
from difftrain.config.model import Dtype, ModelConfig
from difftrain.config.run_config import ConfigError
from difftrain.model import attention, chat_format, family, family_check
from difftrain.model.engines import hf, kv_cache
from difftrain.model.engines.types import Request
from difftrain.model.loading import LoadedModel, load
from difftrain.probe.attention_pass import append_responses
from difftrain.records import Sample
from difftrain.train import sft
from tests.model.answering import generate

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))  # not a package

import tiny_families  # noqa: E402

PIXELS = 56 * 56, 224 * 224
FAST = ("qwen3_vl", "qwen3_5", "glm4v", "internvl", "gemma3", "idefics3")
"""The families whose differences to Qwen2.5-VL matter most; the slow test has all of them."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("families")


@pytest.fixture(scope="module")
def load_family(folder: Path):
    """A function from a family's name to its tiny model, built and loaded once."""
    loaded: dict[str, LoadedModel] = {}

    def get(name: str) -> LoadedModel:
        if name not in loaded:
            source = tiny_families.build(name, folder / name)
            loaded[name] = load(ModelConfig(name=str(source), dtype=Dtype.float32), *PIXELS)
        return loaded[name]

    return get


@pytest.mark.parametrize("name", FAST)
def test_engine_and_attention_of_a_family_equal_those_of_transformers(
    name: str, load_family, shapes_samples: list[Sample]
) -> None:
    # Random weights magnify the rounding of Qwen3.5's linear attention on some images, such as the
    # 24th one: there the masses differ by 3e-4 on some CPUs, by 4e-5 in float64.
    results = family_check.run(load_family(name), shapes_samples[:8])
    failed = {key: result.detail for key, result in results.items() if not result.passed}
    assert not failed


def test_an_engine_that_reads_a_family_wrongly_is_refused_before_scoring(
    load_family, shapes_samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_family("gemma3")
    requests = family_check.view_requests(shapes_samples)

    def plain_inputs(model, inputs):  # as if image tokens were causal and all layers full
        passed = attention.decoder_inputs(model, inputs)
        return {k: v for k, v in passed.items() if k not in ("attention_mask", "token_type_ids")}

    with monkeypatch.context() as patch:
        patch.setattr(kv_cache, "decoder_inputs", plain_inputs)
        assert not family_check.check_tokens(loaded, requests).passed
        with pytest.raises(ConfigError, match=r"model.name=x: is read wrongly, engine equals"):
            family_check.require_known(loaded, shapes_samples, "x")
    with monkeypatch.context() as patch:
        original = attention._attend
        patch.setattr(attention, "_attend", lambda *a, **k: original(*a[:6], None, **k))
        assert not family_check.check_masses(loaded, requests).passed
    with monkeypatch.context() as patch:
        patch.setattr(family, "_VISION_TOKEN", re.compile("nothing"))
        patch.setattr(family, "_VISION_ID", re.compile("nothing"))
        assert not family_check.check_bans(loaded, requests).passed


@pytest.mark.parametrize("name", ["llama4", "mllama"])
def test_a_family_that_cannot_be_used_is_refused_before_its_weights_are_read(
    name: str, folder: Path
) -> None:
    source = tiny_families.build(name, folder / name)
    (source / "model.safetensors").unlink()
    reason = tiny_families.FAMILIES[name].refused
    assert reason is not None
    with pytest.raises(ConfigError, match=reason):
        load(ModelConfig(name=str(source)), *PIXELS)


def test_measures_of_attention_are_refused_without_a_layer_to_measure() -> None:
    config = tiny_families.FAMILIES["qwen3_5"].config(lambda token: 0, 512)
    assert family.layers_text(family.balance_layers(config), config) == "1 of 8 layers"
    assert family.attention_refusal(config, {"cmab", "ace"}) is None
    config.text_config.layer_types = ["linear_attention"] * 7 + ["full_attention"]
    assert family.attention_refusal(config, {"ace"}) is None
    problem = family.attention_refusal(config, {"cmab"})
    assert problem is not None
    assert problem.startswith("cmab needs a layer with full attention between")


def test_image_blocks_that_attend_both_ways_keep_their_masses_in_a_batch(load_family) -> None:
    """The first row's response begins where the second row still has image tokens."""
    loaded = load_family("gemma3")
    image = Image.effect_noise((56, 56), 80).convert("RGB")
    texts = [(image, "A"), ("A much longer text before the image. " * 3, image, "B")]
    requests = [Request(parts=parts, max_new_tokens=4) for parts in texts]
    responses, pad = [(5, 6, 7), (8, 9)], loaded.processor.tokenizer.pad_token_id

    def masses(rows: list[int]) -> list:
        encoded = kv_cache.encode(loaded, [requests[row] for row in rows])
        inputs = append_responses(encoded, [responses[row] for row in rows], pad)
        lengths = [len(responses[row]) for row in rows]
        spans = attention.token_spans(inputs, lengths, loaded.image_token, TextSpan.prompt)
        return attention.masses(
            loaded.model, inputs, spans.image_BS, spans.text_BS, spans.response_BS
        )

    for together, alone in zip(masses([0, 1]), [masses([0])[0], masses([1])[0]], strict=True):
        torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_linear_attention_is_sampled_with_the_same_noise_as_transformers_generate(
    load_family, shapes_samples: list[Sample]
) -> None:
    loaded = load_family("qwen3_5")
    parts = family_check.view_requests(shapes_samples)["image"].parts
    requests = [
        Request(parts=parts, seed=seed, temperature=1.0, max_new_tokens=5) for seed in range(4)
    ]
    together = generate(loaded, requests, 4)
    alone = [generate(loaded, [request], 1)[0] for request in requests]
    assert together == alone
    assert len({result.token_ids for result in together}) > 1
    assert hf.HfEngine(loaded, ModelConfig()).batch_class is hf.GenerateBatch


def test_image_tokens_are_counted_as_the_processor_counts_them(load_family) -> None:
    for name, size, expected in (
        ("qwen3_vl", (448, 448), 196),  # 14 x 14 tokens of 32 x 32 pixels
        ("glm4v", (448, 448), 256),  # its budget counts two frames
        ("gemma3", (448, 448), 4),  # one size for all images
        ("internvl", (56, 56), 6),  # with its start and its end
    ):
        loaded = load_family(name)
        processor = loaded.processor
        family.set_pixel_budget(processor.image_processor, 56 * 56, 448 * 448)
        assert family.image_token_counter(processor)(size) == expected, name
        family.set_pixel_budget(processor.image_processor, *PIXELS)


def test_the_tower_is_recognized_whatever_it_is_called(load_family) -> None:
    for name in ("qwen3_vl", "internvl", "gemma3", "idefics3"):
        model = load_family(name).model
        parts = family.parts(model)
        assert {part for key, part in parts.items() if "language_model" in key} <= {family.LANGUAGE}
        assert {*parts.values()} >= {*family.PARTS[:3]}
        pattern = "|".join(map(re.escape, family.vision_modules(model)))
        inside = {part for key, part in parts.items() if re.match(pattern, key)}
        assert inside == {*family.VISION_PARTS}


def test_a_prompt_that_opens_the_thought_counts_for_the_format(load_family) -> None:
    processors = {name: load_family(name).processor for name in ("glm4v", "qwen3_5", "qwen3_vl")}
    prefixes = {name: chat_format.thought_prefix(p) for name, p in processors.items()}
    assert prefixes == {"glm4v": "<think>", "qwen3_5": "<think>", "qwen3_vl": ""}
    target = "<think>a</think><answer>b</answer>"
    glm = chat_format.completion_text(processors["glm4v"], target)
    assert glm == "a</think><answer>b</answer><|user|>"  # the template writes no end, so EOS
    assert chat_format.completion_text(processors["qwen3_vl"], target) == f"{target}<|im_end|>\n"
    for name in processors:
        assert chat_format.tag_problem(load_family(name)) is None


def test_sft_rows_are_rendered_where_the_template_would_change_them(
    load_family, shapes_samples: list[Sample]
) -> None:
    target = "<think>a</think><answer>b</answer>"
    row = sft.trl_row(shapes_samples[0], target, load_family("qwen3_vl").processor)
    assert row["completion"] == [{"role": "assistant", "content": target}]
    for name, end in (("glm4v", "<|user|>"), ("qwen3_5", "<|im_end|>\n")):
        row = sft.trl_row(shapes_samples[0], target, load_family(name).processor)
        assert row["prompt"].rstrip().endswith("<think>")
        assert row["completion"] == f"a</think><answer>b</answer>{end}"


def test_a_token_that_does_not_end_a_response_is_reported(load_family) -> None:
    loaded = load_family("internvl")
    processor = loaded.processor
    before = processor.chat_template
    processor.chat_template = before.replace("<|im_end|>", "</s>")
    problem = chat_format.tag_problem(loaded)
    processor.chat_template = before
    assert problem is not None
    assert "is not an EOS token" in problem


def test_coordinates_and_token_sides_follow_from_the_model(folder: Path) -> None:
    for name, side, boxes in (
        ("qwen3_vl", 32, BoxCoordinates.relative),
        ("qwen2_5_vl", 28, BoxCoordinates.pixels),
        ("gemma3", 28, None),
    ):
        path = folder / name
        source = path if path.is_dir() else tiny_families.build(name, path)
        config = family.read_config(str(source))
        assert config is not None
        assert family.side_from_config(config) == side
        assert family.facts(config["model_type"]).boxes == boxes
        assert family.is_calibrated(config["model_type"]) == (name == "qwen2_5_vl")


@pytest.mark.slow
def test_the_support_matrix_in_the_docs_is_what_this_machine_shows(tmp_path: Path) -> None:
    import support_matrix

    support_matrix.allow_without_num2words()
    rows = {name: support_matrix.run(name, tmp_path) for name in tiny_families.FAMILIES}
    documented = (ROOT / "docs" / "support_matrix.md").read_text()
    assert support_matrix.table(rows) == documented
