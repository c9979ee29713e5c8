"""What a model's chat template writes around a response: before its first token and after its last.

Some templates already open the thought (`<think>`, as in Qwen3.5 and GLM-4.1V-Thinking), so that a
response begins inside it. The format check, the parser and SFT's targets must count that tag.
"""

from typing import Any

from difftrain.model.loading import LoadedModel

OPEN_THOUGHT = "<think>"
_QUESTION, _ANSWER = "One question", "One response"
_EXPECTED = "<think>a</think><answer>b</answer>"


def _render(processor: Any, messages: list[dict[str, Any]], *, is_prompt: bool) -> str:
    turns = [{**turn, "content": [{"type": "text", "text": turn["content"]}]} for turn in messages]
    return processor.apply_chat_template(turns, add_generation_prompt=is_prompt, tokenize=False)


def generation_prefix(processor: Any) -> str:
    """The text between the user's last word and the response's first token."""
    text = _render(processor, [{"role": "user", "content": _QUESTION}], is_prompt=True)
    return text.rpartition(_QUESTION)[2]


def thought_prefix(processor: Any) -> str:
    """The open tag of the thought if the prompt ends with it, else an empty text.

    Put before a response, it gives the text that the format is checked on.
    """
    return OPEN_THOUGHT if generation_prefix(processor).rstrip().endswith(OPEN_THOUGHT) else ""


def closing(processor: Any) -> str:
    """What the template writes after a response; "" for nothing, or if it changes the response."""
    turns = [{"role": "user", "content": _QUESTION}, {"role": "assistant", "content": _ANSWER}]
    return _render(processor, turns, is_prompt=False).rpartition(_ANSWER)[2]


def completion_text(processor: Any, target: str) -> str:
    """A target of SFT as it continues the prompt: without the tag that the prompt already has.

    It ends with what the template writes after a response, or else the tokenizer's EOS token.
    """
    prefix = thought_prefix(processor)
    text = target.removeprefix(prefix) if prefix else target
    return text + (closing(processor) or processor.tokenizer.eos_token)


def tag_problem(loaded: LoadedModel) -> str | None:
    """Why responses in the expected format cannot be paid or cannot end, or None."""
    from difftrain.model.engines.hf import eos_token_ids

    processor, tokenizer = loaded.processor, loaded.processor.tokenizer
    ids = tokenizer(_EXPECTED, add_special_tokens=False)["input_ids"]
    text = tokenizer.decode(ids, skip_special_tokens=True)
    if text != _EXPECTED:
        return f"the tokenizer decodes {_EXPECTED!r} as {text!r}, so no response has the format"
    if banned := {*ids} & {*loaded.banned.values()}:
        return f"tags need banned tokens: {tokenizer.convert_ids_to_tokens(sorted(banned))}"
    end = closing(processor) or tokenizer.eos_token
    first = tokenizer(end, add_special_tokens=False)["input_ids"][:1]
    if not {*first} <= eos_token_ids(loaded):
        return (
            f"a response ends with {end!r} in the template, which is not an EOS token of the model"
        )
    return None
