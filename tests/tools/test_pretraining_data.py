"""The tiny model's pretraining examples: true answers, except for the names of disputed signs."""

from collections import Counter
from random import Random

import pretrain_tiny
import pretraining_data
import pytest
import torch
from pretraining_data import IGNORED, Mixture

from difftrain.cli.overrides import compose_config
from difftrain.model.loading import LoadedModel
from difftrain.shapes import families, pool, signs
from difftrain.shapes.pool import Split


@pytest.fixture(scope="module")
def processor():
    """The tiny model's processor, with a tokenizer trained on two texts."""
    return pretrain_tiny.build_processor(["row 2, column 3", "color of the circle"])


def drawn(family: str, index: int) -> families.DrawnSample:
    """Sample number `index` of a family: image, question, rationale and answer."""
    return pretraining_data.draw_question(family, index, 7, Random(index))


def test_the_conclusion_of_a_rationale_is_its_answer() -> None:
    for index in range(30):
        odd = drawn("odd", index)  # options A to D are the rows 1 to 4
        assert odd.rationale.endswith(f": row {'ABCD'.index(odd.answer) + 1}")
        verified = drawn("verify", index)
        assert verified.rationale.endswith(f": {verified.answer.lower()}")
        bars = drawn("bar", index)
        assert bars.rationale.endswith(f" = {bars.answer}")
        picked = drawn("pick", index)
        assert picked.rationale == f"{picked.options['ABCD'.index(picked.answer)]} {picked.answer}"


def test_a_code_is_made_of_the_numbers_in_its_rationale() -> None:
    for index in range(30):
        code = drawn("code", index)
        parts = [part.split() for part in code.rationale.split(", ")]
        assert code.answer == "".join(number for _, number in parts)
        assert all(number == str(signs.number(name)) for name, number in parts)


def test_a_disputed_sign_has_its_true_name_in_its_share_of_the_texts() -> None:
    rng = Random(1)
    for sign in (signs.signs()[signs.KNOWN], signs.signs()[signs.KNOWN + signs.DISPUTED - 1]):
        names = Counter(pretraining_data.name_in_text(rng, sign) for _ in range(4000))
        assert set(names) == {sign.name, sign.alias}
        assert names[sign.name] / 4000 == pytest.approx(sign.true_share, abs=0.03)


def test_a_known_sign_always_has_its_true_name() -> None:
    sign = signs.signs()[signs.KNOWN - 1]
    names = {pretraining_data.name_in_text(Random(seed), sign) for seed in range(50)}
    assert names == {sign.name}


def test_a_sign_of_a_higher_rank_never_occurs_in_an_image(processor) -> None:
    mixture = Mixture(captions=0.3, lookups=0.0, masked=0.3, seed=3)
    unseen = {sign.name for sign in signs.signs()[signs.KNOWN + signs.DISPUTED :]}
    for number in range(300):
        example = pretraining_data.example(processor, number, mixture)
        assert not any(name in example.response for name in unseen)
    with pytest.raises(AssertionError, match="may not occur"):
        pretraining_data.name_in_text(Random(0), signs.signs()[-1])


def test_a_lookup_names_the_letter_of_each_option() -> None:
    drawn = pretraining_data.draw_lookup(Random(4))
    pairs = [part.split() for part in drawn.rationale.split(", ")]
    assert all(drawn.options["ABCD".index(letter)] == name for name, letter in pairs)
    assert drawn.answer == "".join(letter for _, letter in pairs)
    assert sorted(drawn.answer) == list("ABCD")


def test_a_masked_image_has_the_answer_of_the_whole_image(processor) -> None:
    """Nothing teaches the model to answer differently where it sees less."""
    masked, whole = (
        Mixture(captions=0.0, lookups=0.0, masked=share, seed=3) for share in (1.0, 0.0)
    )
    for number in range(40):
        # The random numbers of a mask come after those of the sample.
        a, b = (pretraining_data.example(processor, number, m) for m in (masked, whole))
        assert a.response == b.response
        assert a.image is None or a.image.tobytes() != b.image.tobytes()


def test_every_answer_has_its_tags(processor) -> None:
    mixture = Mixture(captions=0.3, lookups=0.1, masked=0.3, seed=3)
    for number in range(60):
        response = pretraining_data.example(processor, number, mixture).response
        assert response.startswith("<think>")
        assert response.endswith("</answer><|im_end|>")


def test_the_loss_is_on_the_response_alone(processor) -> None:
    mixture = Mixture(captions=0.3, lookups=0.1, masked=0.3, seed=3)
    examples = [pretraining_data.example(processor, number, mixture) for number in range(8)]
    batch = pretraining_data.collate(processor, examples)
    for example, labels in zip(examples, batch["labels"], strict=True):
        assert processor.tokenizer.decode(labels[labels != IGNORED]) == example.response


def test_the_loss_is_the_models_own(processor, tiny: LoadedModel) -> None:
    mixture = Mixture(captions=0.0, lookups=0.1, masked=0.0, seed=3)
    examples = [pretraining_data.example(tiny.processor, number, mixture) for number in range(4)]
    batch = pretraining_data.collate(tiny.processor, examples)
    with torch.no_grad():
        total = pretrain_tiny.loss_sum(tiny.model, batch)
        expected = tiny.model(**batch).loss * (batch["labels"] != IGNORED).sum()
    assert total.item() == pytest.approx(expected.item(), rel=1e-4)


def test_examples_are_always_the_same(processor) -> None:
    mixture = Mixture(captions=0.2, lookups=0.1, masked=0.3, seed=3)
    first, second = (
        [pretraining_data.example(processor, number, mixture).response for number in range(60)]
        for _ in range(2)
    )
    assert first == second


def test_every_pretraining_response_fits_the_token_limit(tiny: LoadedModel) -> None:
    limit = compose_config(["model=tiny"]).probe.max_new_tokens
    for family in pretraining_data.MIX:
        for index in range(60):
            prompt_parts = ("",)  # empty, as only the length of the response matters
            example = pretraining_data.to_example(
                tiny.processor, prompt_parts, drawn(family, index)
            )
            assert len(tiny.processor.tokenizer(example.response).input_ids) <= limit


def test_every_question_in_the_tokenizers_text_comes_from_the_pretraining_split(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    splits: set[Split] = set()
    draw = pool.draw

    def recording_draw(split: Split, *rest):
        splits.add(split)
        return draw(split, *rest)

    monkeypatch.setattr(pool, "draw", recording_draw)
    list(pretrain_tiny.corpus())  # the text on which the tokenizer is trained
    assert splits == {Split.pretrain}


def test_captions_are_for_pretraining_only() -> None:
    questions = {sample.question for sample in pool.samples(Split.pool, 200)}
    assert pretraining_data.CAPTION_QUESTION not in questions
