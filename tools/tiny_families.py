"""Make a tiny random model of each family, with the family's own classes, template and processor.

    python tools/tiny_families.py FAMILY OUT_FOLDER

No weights are downloaded: the configuration is built here, and the tokenizer is trained on a few
sentences. Chat templates are those of the published models, as TRL ships them, where it does.
Families that difftrain must refuse are here too, so that tests show that it does.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import torch
import transformers as hf
import trl
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor

from difftrain.config.model import Dtype, ModelConfig
from difftrain.data import prompts
from difftrain.model import chat_format
from difftrain.model.family_check import with_response
from difftrain.model.loading import load
from difftrain.shapes import pool
from difftrain.train import preflight

TEMPLATES = Path(trl.__file__).parent / "chat_templates"
HIDDEN, HEADS, HEAD_SIZE, LAYERS = 32, 2, 16, 4
CHATML = (
    "{{% for message in messages %}}<|im_start|>{{{{ message['role'] }}}}\n"
    "{{% if message['content'] is string %}}{{{{ message['content'] }}}}{{% else %}}"
    "{{% for part in message['content'] %}}{{% if part['type'] == 'image' %}}{image}"
    "{{% elif 'text' in part %}}{{{{ part['text'] }}}}{{% endif %}}{{% endfor %}}{{% endif %}}"
    "<|im_end|>\n{{% endfor %}}{{% if add_generation_prompt %}}<|im_start|>assistant\n{{% endif %}}"
)
GLM = (
    "[gMASK]<sop>{% for message in messages %}<|{{ message['role'] }}|>\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}"
    "<|begin_of_image|><|image|><|end_of_image|>{% elif 'text' in part %}{{ part['text'] }}"
    "{% endif %}{% endfor %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n<think>{% endif %}"
)
"""GLM-4.1V-Thinking: the prompt opens the thought."""
MISTRAL = (
    "<s>{% for message in messages %}{% if message['role'] == 'system' %}[SYSTEM_PROMPT]"
    "{% elif message['role'] == 'user' %}[INST]{% endif %}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}[IMG]"
    "{% elif 'text' in part %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
    "{% if message['role'] == 'system' %}[/SYSTEM_PROMPT]{% elif message['role'] == 'user' %}"
    "[/INST]{% else %}</s>{% endif %}{% endfor %}"
)
QWEN_TOKENS = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>",
    "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip


def template(name: str) -> str:
    """A published model's chat template, from TRL."""
    return (TEMPLATES / f"{name}.jinja").read_text()


@dataclass(frozen=True, slots=True)
class TinyFamily:
    """How to build a family: its special tokens, template, configuration and processor.

    `eos` and `pad` are tokens; `named` are tokens that the tokenizer must know by a name. The
    tokenizer puts `added_bos` before every text, as the published one does.
    `refused`: part of the reason for which difftrain must refuse the family.
    """

    tokens: tuple[str, ...]
    eos: str
    pad: str
    chat_template: str
    config: Callable[[Callable[[str], int], int], Any]
    processor: Callable[[Any, str], Any]
    named: dict[str, str] = field(default_factory=dict)
    added_bos: str | None = None
    refused: str | None = None


def train_tokenizer(family: TinyFamily) -> Any:
    """A byte-level tokenizer with the family's special tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(  # pyright: ignore[reportAttributeAccessIssue]
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([prompts.SYSTEM, "How many red shapes are there?"] * 4, trainer)
    tokenizer.add_special_tokens(list(family.tokens))
    tokenizer.add_tokens(["<think>", "</think>"])
    if bos := family.added_bos:
        single = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))]
        )
        tokenizer.post_processor = single  # pyright: ignore[reportAttributeAccessIssue]
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=family.eos,
        pad_token=family.pad,
        padding_side="left",
        chat_template=family.chat_template,
        extra_special_tokens=family.named,
        model_max_length=4096,
    )


def text_dims(vocabulary: int, **changes: Any) -> dict[str, Any]:
    """The dimensions of every language model here."""
    return {
        "vocab_size": vocabulary,
        "hidden_size": HIDDEN,
        "intermediate_size": 2 * HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": 1,
        "head_dim": HEAD_SIZE,
        "max_position_embeddings": 4096,
        **changes,
    }


def qwen_vision(**changes: Any) -> dict[str, Any]:
    """The dimensions of Qwen's vision towers."""
    return {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_heads": 2,
        "out_hidden_size": HIDDEN,
        "patch_size": 16,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        **changes,
    }


def vit(**changes: Any) -> dict[str, Any]:
    """The dimensions of the other vision towers."""
    return {
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        **changes,
    }


def qwen_ids(ids: Callable[[str], int]) -> dict[str, Any]:
    return {
        "image_token_id": ids("<|image_pad|>"),
        "video_token_id": ids("<|video_pad|>"),
        "vision_start_token_id": ids("<|vision_start|>"),
        "vision_end_token_id": ids("<|vision_end|>"),
    }


def rope(*sections: int, **changes: Any) -> dict[str, Any]:
    """Rotary settings; the sections must sum to half of the rotated part of a head."""
    rotary = {"rope_type": "default", "rope_theta": 10000.0, **changes}
    return rotary | ({"mrope_section": list(sections)} if sections else {})


def qwen2_vl_config(ids: Callable[[str], int], size: int) -> Any:
    text = text_dims(size, rope_parameters=rope(2, 3, 3), tie_word_embeddings=False)
    vision = {"depth": 2, "embed_dim": 32, "hidden_size": HIDDEN, "num_heads": 2, "mlp_ratio": 1,
              "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2}  # fmt: skip
    return hf.Qwen2VLConfig(text_config=text, vision_config=vision, **qwen_ids(ids))


def qwen2_5_vl_config(ids: Callable[[str], int], size: int) -> Any:
    text = text_dims(size, rope_parameters=rope(2, 3, 3), tie_word_embeddings=True)
    vision = qwen_vision(patch_size=14, window_size=56, fullatt_block_indexes=[1])
    return hf.Qwen2_5_VLConfig(
        text_config=text, vision_config=vision, tie_word_embeddings=True, **qwen_ids(ids)
    )


def qwen3_vl_config(ids: Callable[[str], int], size: int) -> Any:
    text = text_dims(size, rope_parameters=rope(4, 2, 2, mrope_interleaved=True))
    vision = qwen_vision(num_position_embeddings=64, deepstack_visual_indexes=[0])
    return hf.Qwen3VLConfig(
        text_config=text, vision_config=vision, tie_word_embeddings=True, **qwen_ids(ids)
    )


def qwen3_5_config(ids: Callable[[str], int], size: int) -> Any:
    rotary = rope(2, 1, 1, mrope_interleaved=True, partial_rotary_factor=0.5)
    text = text_dims(size, num_hidden_layers=8, rope_parameters=rotary)
    text |= {"linear_key_head_dim": 8, "linear_value_head_dim": 8}
    text |= {"linear_num_key_heads": 2, "linear_num_value_heads": 2}
    vision = qwen_vision(num_position_embeddings=64)
    return hf.Qwen3_5Config(text_config=text, vision_config=vision, **qwen_ids(ids))


def glm4v_config(ids: Callable[[str], int], size: int) -> Any:
    rotary = rope(2, 1, 1, partial_rotary_factor=0.5)
    text = text_dims(size, rope_parameters=rotary)
    vision = qwen_vision(image_size=112, patch_size=14)
    return hf.Glm4vConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=ids("<|image|>"),
        video_token_id=ids("<|video|>"),
        image_start_token_id=ids("<|begin_of_image|>"),
        image_end_token_id=ids("<|end_of_image|>"),
        video_start_token_id=ids("<|begin_of_video|>"),
        video_end_token_id=ids("<|end_of_video|>"),
    )


def internvl_config(ids: Callable[[str], int], size: int) -> Any:
    return hf.InternVLConfig(
        text_config=text_dims(size, model_type="qwen2", tie_word_embeddings=False),
        vision_config=vit(image_size=(56, 56), patch_size=(14, 14)),
        image_token_id=ids("<IMG_CONTEXT>"),
        image_seq_length=4,
        tie_word_embeddings=False,
    )


def gemma3_config(ids: Callable[[str], int], size: int) -> Any:
    layer_types = ["sliding_attention", "full_attention"] * 2 + ["sliding_attention"]
    text = text_dims(size, sliding_window=24, layer_types=layer_types, num_hidden_layers=5)
    text |= {"query_pre_attn_scalar": HEAD_SIZE}
    return hf.Gemma3Config(
        text_config=text,
        vision_config=vit(image_size=56, patch_size=14, vision_use_head=False),
        mm_tokens_per_image=4,
        boi_token_index=ids("<start_of_image>"),
        eoi_token_index=ids("<end_of_image>"),
        image_token_index=ids("<image_soft_token>"),
    )


def idefics_config(cls: Any) -> Callable[[Callable[[str], int], int], Any]:
    def build(ids: Callable[[str], int], size: int) -> Any:
        return cls(
            text_config=text_dims(size, model_type="llama", pad_token_id=0),
            vision_config=vit(image_size=56, patch_size=14),
            scale_factor=2,
            image_token_id=ids("<image>"),
            pad_token_id=0,
        )

    return build


def llava_onevision_config(ids: Callable[[str], int], size: int) -> Any:
    return hf.LlavaOnevisionConfig(
        text_config=text_dims(size, model_type="qwen2", tie_word_embeddings=False),
        vision_config=vit(model_type="siglip_vision_model", image_size=56, patch_size=14)
        | {"vision_use_head": False},
        image_token_index=ids("<image>"),
        video_token_index=ids("<video>"),
        image_grid_pinpoints=[[56, 56], [56, 112], [112, 56], [112, 112]],
    )


def mistral3_config(ids: Callable[[str], int], size: int) -> Any:
    text = text_dims(size, model_type="mistral", sliding_window=None)
    vision = vit(model_type="pixtral", image_size=112, patch_size=14, head_dim=16)
    return hf.Mistral3Config(
        text_config=text, vision_config=vision, image_token_index=ids("[IMG]"),
        tie_word_embeddings=False,
    )  # fmt: skip


def llama4_config(ids: Callable[[str], int], size: int) -> Any:
    text = text_dims(size, attention_chunk_size=64, num_local_experts=2)
    text |= {"intermediate_size_mlp": 64, "interleave_moe_layer_step": 2}
    vision = vit(image_size=56, patch_size=14, vision_output_dim=32) | {
        "projector_input_dim": 32, "projector_output_dim": 32, "pixel_shuffle_ratio": 0.5,
    }  # fmt: skip
    return hf.Llama4Config(
        text_config=text,
        vision_config=vision,
        boi_token_index=ids("<|image_start|>"),
        eoi_token_index=ids("<|image_end|>"),
        image_token_index=ids("<|patch|>"),
    )


def mllama_config(ids: Callable[[str], int], size: int) -> Any:
    text = text_dims(size, cross_attention_layers=[1], rope_parameters=rope())
    text |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    vision = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1,
              "num_global_layers": 1, "attention_heads": 2, "image_size": 56, "patch_size": 14,
              "vision_output_dim": 64, "intermediate_layers_indices": [0],
              "supported_aspect_ratios": [[1, 1], [1, 2], [2, 1]]}  # fmt: skip
    return hf.MllamaConfig(
        text_config=text, vision_config=vision, image_token_index=ids("<|image|>")
    )


def qwen_processor(name: str, patch_size: int) -> Callable[[Any, str], Any]:
    def build(tokenizer: Any, chat_template: str) -> Any:
        size = {"shortest_edge": 56 * 56, "longest_edge": 1280 * 28 * 28}
        return getattr(hf, name)(
            image_processor=hf.Qwen2VLImageProcessor(size=size, patch_size=patch_size),
            tokenizer=tokenizer,
            video_processor=Qwen2VLVideoProcessor(size=size, patch_size=patch_size),
            chat_template=chat_template,
        )

    return build


def qwen3_processor(tokenizer: Any, chat_template: str) -> Any:
    from transformers.models.qwen3_vl.video_processing_qwen3_vl import Qwen3VLVideoProcessor

    size = {"shortest_edge": 64 * 64, "longest_edge": 1280 * 32 * 32}
    return hf.Qwen3VLProcessor(
        image_processor=hf.Qwen2VLImageProcessor(size=size, patch_size=16),
        tokenizer=tokenizer,
        video_processor=Qwen3VLVideoProcessor(),
        chat_template=chat_template,
    )


def glm4v_processor(tokenizer: Any, chat_template: str) -> Any:
    from transformers.models.glm4v.video_processing_glm4v import Glm4vVideoProcessor

    return hf.Glm4vProcessor(
        image_processor=hf.Glm4vImageProcessor(),
        tokenizer=tokenizer,
        video_processor=Glm4vVideoProcessor(),
        chat_template=chat_template,
    )


def internvl_processor(tokenizer: Any, chat_template: str) -> Any:
    from transformers.models.internvl.video_processing_internvl import InternVLVideoProcessor

    size = {"height": 56, "width": 56}
    return hf.InternVLProcessor(
        image_processor=hf.GotOcr2ImageProcessor(size=size, crop_to_patches=True, max_patches=4),
        tokenizer=tokenizer,
        video_processor=InternVLVideoProcessor(size=size),
        image_seq_length=4,
        chat_template=chat_template,
    )


def gemma3_processor(tokenizer: Any, chat_template: str) -> Any:
    image_processor = hf.Gemma3ImageProcessor(size={"height": 56, "width": 56})
    return hf.Gemma3Processor(
        image_processor, tokenizer, chat_template=chat_template, image_seq_length=4
    )


def idefics3_processor(tokenizer: Any, chat_template: str) -> Any:
    image_processor = hf.Idefics3ImageProcessor(
        size={"longest_edge": 112}, max_image_size={"longest_edge": 56}
    )
    return hf.Idefics3Processor(
        image_processor, tokenizer, image_seq_len=4, chat_template=chat_template
    )


def smolvlm_processor(tokenizer: Any, chat_template: str) -> Any:
    from transformers.models.smolvlm.video_processing_smolvlm import SmolVLMVideoProcessor

    sizes: dict[str, Any] = {"size": {"longest_edge": 112}, "max_image_size": {"longest_edge": 56}}
    return hf.SmolVLMProcessor(
        hf.SmolVLMImageProcessor(**sizes),
        tokenizer,
        SmolVLMVideoProcessor(),
        image_seq_len=4,
        chat_template=chat_template,
    )


def llava_onevision_processor(tokenizer: Any, chat_template: str) -> Any:
    from transformers.models.llava_onevision.video_processing_llava_onevision import (
        LlavaOnevisionVideoProcessor,
    )

    size = {"height": 56, "width": 56}
    image_processor = hf.LlavaOnevisionImageProcessor(
        size=size, image_grid_pinpoints=[[56, 56], [56, 112], [112, 56], [112, 112]]
    )
    return hf.LlavaOnevisionProcessor(
        image_processor,
        tokenizer,
        LlavaOnevisionVideoProcessor(size=size),
        num_image_tokens=16,
        vision_feature_select_strategy="full",
        chat_template=chat_template,
    )


def mistral3_processor(tokenizer: Any, chat_template: str) -> Any:
    image_processor = hf.PixtralImageProcessor(size={"longest_edge": 112}, patch_size=14)
    return hf.PixtralProcessor(
        image_processor,
        tokenizer,
        patch_size=14,
        spatial_merge_size=2,
        chat_template=chat_template,
    )


def llama4_processor(tokenizer: Any, chat_template: str) -> Any:
    image_processor = hf.Llama4ImageProcessor(size={"height": 56, "width": 56}, max_patches=1)
    return hf.Llama4Processor(
        image_processor, tokenizer, patch_size=14, chat_template=chat_template
    )


def mllama_processor(tokenizer: Any, chat_template: str) -> Any:
    image_processor = hf.MllamaImageProcessor(size={"height": 56, "width": 56})
    return hf.MllamaProcessor(image_processor, tokenizer, chat_template=chat_template)


QWEN_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
SMOL_TOKENS = (
    "<|im_start|>", "<end_of_utterance>", "<fake_token_around_image>", "<image>", "<global-img>",
    *(f"<row_{row}_col_{column}>" for row in range(1, 5) for column in range(1, 5)),
)  # fmt: skip
SMOL_NAMES = {
    "image_token": "<image>",
    "fake_image_token": "<fake_token_around_image>",
    "global_image_token": "<global-img>",
    "end_of_utterance_token": "<end_of_utterance>",
}


def qwen(config: Any, processor: Any, chat_template: str) -> TinyFamily:
    return TinyFamily(QWEN_TOKENS, "<|im_end|>", "<|endoftext|>", chat_template, config, processor)


FAMILIES = {
    "qwen2_vl": qwen(
        qwen2_vl_config, qwen_processor("Qwen2VLProcessor", 14), CHATML.format(image=QWEN_IMAGE)
    ),
    "qwen2_5_vl": qwen(
        qwen2_5_vl_config, qwen_processor("Qwen2_5_VLProcessor", 14), template("qwen2_5_vl")
    ),
    "qwen3_vl": qwen(qwen3_vl_config, qwen3_processor, template("qwen3_vl")),
    "qwen3_5": qwen(qwen3_5_config, qwen3_processor, template("qwen3_5_think")),
    "glm4v": TinyFamily(
        ("<|endoftext|>", "[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>",
         "<|image|>", "<|video|>", "<|begin_of_image|>", "<|end_of_image|>",
         "<|begin_of_video|>", "<|end_of_video|>"),
        "<|user|>", "<|endoftext|>", GLM, glm4v_config, glm4v_processor,
    ),
    "internvl": TinyFamily(
        ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>",
         "<video>"),
        "<|im_end|>", "<|endoftext|>", CHATML.format(image="<IMG_CONTEXT>\n"), internvl_config,
        internvl_processor,
        {"start_image_token": "<img>", "end_image_token": "</img>", "video_token": "<video>",
         "context_image_token": "<IMG_CONTEXT>"},
    ),
    "gemma3": TinyFamily(
        ("<pad>", "<bos>", "<end_of_turn>", "<start_of_turn>", "<start_of_image>",
         "<end_of_image>", "<image_soft_token>"),
        "<end_of_turn>", "<pad>", template("gemma3"), gemma3_config, gemma3_processor,
        {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>",
         "image_token": "<image_soft_token>", "bos_token": "<bos>"},
        added_bos="<bos>",
    ),
    "idefics3": TinyFamily(
        ("<|end_of_text|>", *SMOL_TOKENS), "<end_of_utterance>", "<|end_of_text|>",
        template("idefics3"), idefics_config(hf.Idefics3Config), idefics3_processor, SMOL_NAMES,
    ),
    "smolvlm": TinyFamily(
        ("<|end_of_text|>", *SMOL_TOKENS, "<video>"), "<end_of_utterance>", "<|end_of_text|>",
        template("smolvlm"), idefics_config(hf.SmolVLMConfig), smolvlm_processor, SMOL_NAMES,
    ),
    "llava_onevision": TinyFamily(
        ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>", "<video>"),
        "<|im_end|>", "<|endoftext|>", CHATML.format(image="<image>\n"), llava_onevision_config,
        llava_onevision_processor, {"image_token": "<image>", "video_token": "<video>"},
    ),
    "mistral3": TinyFamily(
        ("<pad>", "<s>", "</s>", "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]",
         "[IMG]", "[IMG_BREAK]", "[IMG_END]"),
        "</s>", "<pad>", MISTRAL, mistral3_config, mistral3_processor, {"bos_token": "<s>"},
        added_bos="<s>",
    ),
    "llama4": TinyFamily(
        ("<|begin_of_text|>", "<|eot|>", "<|pad|>", "<|image|>", "<|image_start|>",
         "<|image_end|>", "<|patch|>", "<|tile_x_separator|>", "<|tile_y_separator|>",
         "<|im_start|>", "<|im_end|>"),
        "<|im_end|>", "<|pad|>", CHATML.format(image="<|image|>"), llama4_config,
        llama4_processor, {"image_token": "<|image|>"}, refused="chunked_attention",
    ),
    "mllama": TinyFamily(
        ("<|end_of_text|>", "<|image|>", "<|im_start|>", "<|im_end|>"),
        "<|im_end|>", "<|end_of_text|>", CHATML.format(image="<|image|>"), mllama_config,
        mllama_processor, {"image_token": "<|image|>", "bos_token": "<|im_start|>"},
        refused="cross attention",
    ),
}  # fmt: skip


def build(name: str, folder: Path, seed: int = 0) -> Path:
    """Write a tiny random model of this family, which from_pretrained loads; returns the folder."""
    family = FAMILIES[name]
    tokenizer = train_tokenizer(family)
    config = family.config(tokenizer.convert_tokens_to_ids, len(tokenizer))
    for part in (config, config.get_text_config()):
        part.eos_token_id = tokenizer.eos_token_id
        part.pad_token_id = tokenizer.pad_token_id
    torch.manual_seed(seed)
    model = hf.AutoModelForImageTextToText.from_config(config).float()
    for parameter in model.parameters():  # so large that another image changes the answer
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    family.processor(tokenizer, family.chat_template).save_pretrained(folder)
    return folder


def teach(folder: Path, steps: int, batch_size: int = 6) -> None:
    """Train the model in this folder to answer questions of the shapes world in the format.

    After some hundred steps it guesses answers of the right kind, so that its samples have several
    strata. Longer answers are left out.
    """
    loaded = load(ModelConfig(name=str(folder), dtype=Dtype.float32), 56 * 56, 112 * 112)
    model, processor, rng = loaded.model, loaded.processor, Random(0)
    examples = []
    for sample in pool.samples(pool.Split.pool, 200):
        if len(sample.answer) < 8:
            prompt = preflight.encode(loaded, [preflight.trl_messages(sample)])
            target = f"<think></think><answer>{sample.answer}</answer>"
            text = chat_format.completion_text(processor, target)
            ids = processor.tokenizer(text, add_special_tokens=False)["input_ids"]
            examples.append((with_response(prompt, ids), torch.tensor(ids)))
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=4e-3)
    for _ in range(steps):
        for inputs, ids in rng.sample(examples, batch_size):
            logits = model(**inputs).logits[0, -len(ids) - 1 : -1]
            (torch.nn.functional.cross_entropy(logits, ids) / batch_size).backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)


def main() -> None:
    name, folder = sys.argv[1:]
    print(build(name, Path(folder)))


if __name__ == "__main__":
    main()
