"""source=jsonl: rows in the formats of Qi et al. and of messages become Samples or are rejected."""

import base64
import json
from io import BytesIO
from typing import Any

import pytest
from PIL import Image

from difftrain import images
from difftrain.config.data import BoxFormat, DataConfig, Source
from difftrain.data import dataset
from difftrain.data.quarantine import RejectedRow
from difftrain.grade import grade
from difftrain.records import AnswerKind, Sample, TaskSet, Verdict

RED = "images/red.png"
# A row in the format that Qi et al. 2026 released, and one in the format of chat messages.
RELEASED = {
    "ability": "math",
    "prompt": "<image>Perimeter of a square with side 13?",
    "ground_truth": "\\boxed{52}",
    "image_paths": [RED],
}
MESSAGES = {
    "images": [RED],
    "messages": [{"role": "user", "content": "<image>\nHow many squares are there?"}],
    "solution": "\\boxed{1}",
}
BOX = "<answer>\n[{'bbox_2d': [200, 150, 400, 450], 'label': 'red square'}]\n</answer>"


def read(path, **settings) -> list[Any]:
    """A Sample or RejectedRow for each row of a jsonl file."""
    config = DataConfig(source=Source.jsonl, path=str(path), **settings)
    return list(dataset.load_samples(config))


@pytest.fixture
def convert_row(write_rows):
    """A function that writes one row and reads it: `base` with changes; None removes a key."""

    def convert(base=RELEASED, **changes):
        row = {key: value for key, value in {**base, **changes}.items() if value is not None}
        (result,) = read(write_rows(row))
        return result

    return convert


def test_a_row_as_qi_et_al_released_it_becomes_a_sample(convert_row):
    result = convert_row()
    assert isinstance(result, Sample)
    assert result.question == "Perimeter of a square with side 13?"
    assert (result.answer, result.answer_kind) == ("52", AnswerKind.number)
    assert (result.task, result.task_set) == ("math", TaskSet.reasoning)
    assert (result.source, result.options, result.gen_difficulty) == ("my.jsonl:1", (), None)
    with Image.open(BytesIO(result.images[0])) as image:
        # 800 x 600, with both sides rounded to multiples of 28.
        assert (image.format, image.mode, image.size) == ("PNG", "RGB", (812, 588))


def test_a_messages_row_becomes_a_sample(convert_row):
    result = convert_row(MESSAGES)
    assert isinstance(result, Sample)
    assert (result.question, result.answer) == ("How many squares are there?", "1")
    assert (result.answer_kind, result.task) == (AnswerKind.count, "unknown")


def test_both_formats_may_be_in_one_file(write_rows):
    result = read(write_rows(RELEASED, MESSAGES))
    assert [type(row) for row in result] == [Sample, Sample]


@pytest.mark.parametrize(
    ("ability", "gold", "kind", "response"),
    [
        ("cv_detection", BOX, AnswerKind.boxes, None),
        ("cv_grounding", BOX, AnswerKind.boxes, None),
        ("ocr", "\\boxed{open}", AnswerKind.text, "Open"),
        ("counting", "<answer>1</answer>", AnswerKind.count, "1"),
        ("math", "\\boxed{52}", AnswerKind.number, "52 cm"),
    ],
)
def test_the_gold_answer_of_each_ability_is_graded_correct(
    convert_row, ability, gold, kind, response
):
    result = convert_row(ability=ability, ground_truth=gold)
    assert isinstance(result, Sample)
    assert (result.answer_kind, result.task) == (kind, ability)
    text = f"<think>.</think><answer>{response or result.answer}</answer>"
    assert grade(text, result) is Verdict.correct


def test_the_sample_id_is_a_digest_of_the_stored_pixels_and_texts(convert_row):
    result = convert_row()
    with Image.open(BytesIO(result.images[0])) as image:
        pixels = [(image.size, image.tobytes())]
    assert result.sample_id == images.sample_id(pixels, result.question, result.answer)


def test_the_system_turn_and_the_final_assistant_turn_are_not_in_the_question(convert_row):
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "How many?"}]},
        {"role": "assistant", "content": "One."},
    ]
    result = convert_row(MESSAGES, messages=turns)
    assert isinstance(result, Sample)
    assert result.question == "How many?"


def test_messages_with_several_questions_are_rejected(convert_row):
    turns = [{"role": role, "content": "Hm?"} for role in ("user", "assistant", "user")]
    reason = convert_row(MESSAGES, messages=turns).reason
    assert reason == "unusable question: needs exactly one user turn, found user, assistant, user"


def test_images_may_be_paths_bytes_or_data_uris(write_rows, tmp_path):
    path = write_rows(RELEASED)
    encoded = base64.b64encode((tmp_path / RED).read_bytes()).decode()
    references = [
        RED,
        str(tmp_path / RED),
        f"file://{tmp_path / RED}",
        f"data:image/png;base64,{encoded}",
        {"bytes": encoded, "path": None},
        {"bytes": None, "path": RED},
    ]
    rows = [
        {**MESSAGES, "images": [reference], "solution": str(i)}
        for i, reference in enumerate(references)
    ]
    samples = read(write_rows(*rows, name=path.name))
    assert [type(row) for row in samples] == [Sample] * len(references)
    assert len({row.images for row in samples}) == 1


def test_paths_are_relative_to_the_file_and_not_to_the_working_folder(
    write_rows, tmp_path, monkeypatch
):
    path = write_rows(RELEASED)
    monkeypatch.chdir("/")
    assert isinstance(read(path)[0], Sample)


def test_image_placeholders_are_optional_and_removed(convert_row):
    assert convert_row(prompt="<image>\nHow much?").question == "How much?"
    assert convert_row(prompt="How much?<image>").question == "How much?"
    assert convert_row(prompt="How much?").question == "How much?"


@pytest.mark.parametrize("prompt", ["<image><image>\nHow much?", "<image>a <image>b <image>"])
def test_a_row_with_another_number_of_placeholders_than_images_is_rejected(convert_row, prompt):
    marks = prompt.count("<image>")
    expected = f"placeholder mismatch: {marks} <image>, but 1 images"
    assert convert_row(prompt=prompt).reason == expected


def test_two_images_keep_their_order(write_rows, tmp_path, encode):
    path = write_rows({**RELEASED, "prompt": "<image><image>Same?", "image_paths": [RED, "b.png"]})
    (tmp_path / "b.png").write_bytes(encode(Image.new("RGB", (84, 56), "blue")))
    (result,) = read(path)
    assert [Image.open(BytesIO(png)).size for png in result.images] == [(812, 588), (84, 56)]


def test_with_an_options_column_the_gold_answer_becomes_a_letter(convert_row):
    result = convert_row(options=["A. 50", "B. 52"], ground_truth="52")
    assert (result.options, result.answer) == (("50", "52"), "B")
    assert result.answer_kind is AnswerKind.choice
    assert convert_row(choices=[50, 52], ground_truth="B").options == ("50", "52")


def test_options_inside_the_question_text_stay_there(convert_row):
    question = "Which is it?\n(A) red\n(B) blue"
    result = convert_row(prompt=question, ground_truth="\\boxed{\\text{(B)}}")
    assert (result.question, result.options, result.answer) == (question, (), "B")
    assert grade("<answer>B</answer>", result) is Verdict.correct


def test_the_answer_kind_column_overrides_the_inferred_kind(convert_row):
    assert convert_row(answer_kind="text").answer_kind is AnswerKind.text
    assert convert_row(answer_kind="words").reason.startswith(
        "unknown answer_kind: 'words'; allowed: choice"
    )
    assert convert_row(answer_kind=["text"]).reason.startswith("unknown answer_kind")


def test_gold_answers_may_be_numbers_or_lists_of_boxes(convert_row):
    assert convert_row(ground_truth=52).answer == "52"
    assert convert_row(ground_truth=52.0).answer == "52"
    gold = [{"bbox_2d": [200, 150, 400, 450], "label": "red"}]
    assert (
        json.loads(convert_row(ability="detection", ground_truth=gold).answer)[0]["label"] == "red"
    )


def test_boxes_are_converted_from_data_box_format(write_rows):
    gold = "<answer>[{'bbox_2d': [250, 250, 500, 750], 'label': 'red square'}]</answer>"
    row = {**RELEASED, "ability": "cv_detection", "ground_truth": gold}
    (result,) = read(write_rows(row), box_format=BoxFormat.relative)
    # Per thousand of 812 x 588 pixels, the size of the resized image.
    assert json.loads(result.answer) == [{"bbox_2d": [203, 147, 406, 441], "label": "red square"}]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"image_paths": ["images/none.png"]}, "missing file: images/none.png"),
        ({"image_paths": ["images"]}, "missing file: images"),
        ({"image_paths": ["a\0b.png"]}, "missing file: a\0b.png"),
        ({"image_paths": ["x" * 5000]}, "missing file: xxx"),
        # /dev/zero is not a regular file, and endless.
        ({"image_paths": ["/dev/zero"]}, "missing file: /dev/zero"),
        ({"image_paths": ["https://a.example/b.png"]}, "missing file: images are not downloaded"),
        ({"image_paths": ["data:image/png;base64,@@@"]}, "broken image: not base64"),
        ({"image_paths": ["data:image/png,abc"]}, "broken image: a data: URI"),
        # "hello" in base64
        ({"image_paths": ["data:image/png;base64,aGVsbG8="]}, "broken image: no readable"),
        ({"image_paths": [7]}, "no image: an entry must be"),
        ({"image_paths": []}, "no image: image_paths is absent or empty"),
        ({"image_paths": None}, "no image: image_paths is absent or empty; keys found: ability"),
        ({"prompt": "<image>\n "}, "empty question"),
        ({"prompt": 7}, "empty question"),
        ({"prompt": None}, "missing keys: prompt (or messages, images, solution); found: ability"),
        ({"ground_truth": ""}, "unusable gold answer: it is empty"),
        ({"ground_truth": "\\boxed{}"}, "unusable gold answer: it is empty"),
        (
            {"ground_truth": "a few", "ability": "counting"},
            "unusable gold answer: 'a few' is not one number",
        ),
        ({"ground_truth": "E", "options": ["1", "2"]}, "unusable gold answer: 'E' is outside"),
        (
            {"ground_truth": "left", "ability": "cv_grounding"},
            "unusable gold answer: not a list of boxes",
        ),
        (
            {"ground_truth": "red", "answer_kind": "number"},
            "unusable gold answer: 'red' is neither",
        ),
        ({"options": "A B"}, "unusable options: must be a list"),
        ({"options": list(range(27))}, "unusable options: 27"),  # more than there are letters
    ],
)
def test_an_unusable_row_is_rejected_with_its_reason(convert_row, changes, reason):
    result = convert_row(**changes)
    assert isinstance(result, RejectedRow)
    assert result.reason.startswith(reason)
    assert result.source == "my.jsonl:1"


def test_a_messages_row_without_images_or_solution_is_rejected(convert_row):
    assert convert_row(MESSAGES, images=None).short_reason == "no image"
    assert (
        convert_row(MESSAGES, solution=None).reason
        == "missing keys: solution; found: images, messages"
    )


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"prompt": ', "not JSON"),
        ("hello", "not JSON"),
        ("[" * 100_000, "not JSON: nested too deeply"),
        ('{"prompt": "\\ud800"}', "not JSON"),  # half a surrogate pair
        ("[1, 2]", "not an object: the line is a list"),
        ("null", "not an object: the line is a NoneType"),
        ("{}", "missing keys: prompt, ground_truth (or messages, images, solution); found: none"),
    ],
)
def test_a_line_that_is_not_a_row_is_rejected_with_its_reason(write_rows, line, reason):
    (result,) = read(write_rows(line))
    assert isinstance(result, RejectedRow)
    assert result.reason.startswith(reason)


def test_a_line_that_is_not_utf_8_is_rejected_and_the_next_row_is_read(write_rows):
    path = write_rows(RELEASED)
    path.write_bytes(b"\xff\xfe\x00\n" + path.read_bytes())
    bad, good = read(path)
    assert bad.short_reason == "not JSON"
    assert good.source == "my.jsonl:2"


def test_a_byte_order_mark_blank_lines_and_windows_line_ends_are_ignored(write_rows):
    path = write_rows(RELEASED)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n") + b"\r\n\r\n")
    (result,) = read(path)
    assert isinstance(result, Sample)


def test_the_reason_of_a_duplicate_names_the_first_row(write_rows):
    other = {**RELEASED, "id": "another", "image_paths": [f"./{RED}"]}
    first, second, third = read(write_rows(RELEASED, other, {**RELEASED, "ground_truth": "53"}))
    assert isinstance(first, Sample)
    assert second == RejectedRow(
        "my.jsonl:2", "duplicate: the same images, question and answer as my.jsonl:1"
    )
    assert isinstance(third, Sample)


def test_the_same_question_with_other_options_is_another_sample(write_rows):
    rows = [{**RELEASED, "ground_truth": "A", "options": ["52", other]} for other in ("1", "2")]
    assert [type(row) for row in read(write_rows(*rows))] == [Sample, Sample]


def test_rows_are_read_one_by_one(write_rows):
    """Rows that are appended while the file is read are read too, so it is not loaded whole."""
    path = write_rows(*[{**RELEASED, "ground_truth": str(number)} for number in range(50)])
    stream = dataset.load_samples(DataConfig(source=Source.jsonl, path=str(path)))
    first = next(stream)
    assert isinstance(first, Sample)
    assert first.answer == "0"
    with path.open("a") as file:
        file.write("x" * 100_000 + "\nhello\n")
    assert [row.source for row in stream][-1] == "my.jsonl:52"  # 50 rows and the two new lines


def test_a_question_with_a_token_of_the_chat_template_is_rejected(convert_row):
    result = convert_row(prompt="<image>What is <|image_pad|> here?")
    assert result.reason == "control token in the question: <|image_pad|>"
