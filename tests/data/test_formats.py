"""Files in the format of each published dataset become Samples; unusable rows have a reason."""

import inspect
import json
import tarfile
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from difftrain.config.data import WITH_RATIONALE, DataConfig, Duplicates, Source
from difftrain.data import dataset
from difftrain.data.formats import FORMATS
from difftrain.data.quarantine import EmptyDatasetError, RejectedRow
from difftrain.grade import grade
from difftrain.records import AnswerKind, Sample, TaskSet, Verdict
from tests.data.small_files import orsta_file, orsta_row, write_jsonl

BOXES = "[{'bbox_2d': [250, 250, 500, 750], 'label': \"child's kite\"}]"
RED_SQUARE_BOX = [203, 147, 406, 441]
"""The box in BOXES, whose unit is a thousandth of width or height, in pixels of the resized image.

The image of 800 x 600 pixels becomes 812 x 588, as its sides must be multiples of 28."""
# Task -> (gold answer, its kind, the row's `ability`; None: only the file name has the task).
TASKS = {
    "math": ("52", AnswerKind.number, None),
    "puzzle": ("blue", AnswerKind.text, None),
    "science": ("12.5", AnswerKind.number, None),
    "chart": ("2019", AnswerKind.number, None),
    "counting": ("3", AnswerKind.count, "counting"),
    "ocr": ("STOP", AnswerKind.text, "ocr"),
    "detection": (BOXES, AnswerKind.boxes, "cv_detection"),
    "grounding": (BOXES, AnswerKind.boxes, "cv_grounding"),
}


@pytest.fixture
def red_png(encode, red_square) -> bytes:
    """800 x 600 white with a red square from (200, 150) to (400, 450), as PNG."""
    return encode(red_square)


def read(source: Source, path: Path, **settings: Any) -> list[Any]:
    """A Sample or RejectedRow for each row at this path."""
    return list(dataset.load_samples(DataConfig(source=source, path=str(path), **settings)))


def read_sample(source: Source, path: Path, **settings: Any) -> Sample:
    """The sample of the only row at this path."""
    (result,) = read(source, path, **settings)
    assert isinstance(result, Sample), result
    return result


def short_reasons(result: list[Any]) -> list[str]:
    return [row.short_reason for row in result if isinstance(row, RejectedRow)]


def verdict_of(sample: Sample, answer: str) -> Verdict:
    return grade(f"<think>.</think><answer>{answer}</answer>", sample)


@pytest.fixture
def orsta_folder(tmp_path, red_png) -> Path:
    """A folder like Orsta's: one parquet file per task, in train/ and test/."""
    for task, (gold, _, ability) in TASKS.items():
        rows = [orsta_row(red_png, f"A {task} question?", gold, ability, gold is BOXES)]
        orsta_file(tmp_path / "train" / f"train_{task}_syn_{len(rows)}.parquet", rows)
    rows = [orsta_row(red_png, "A test question?", "1", "math")]
    orsta_file(tmp_path / "test" / "test_math_megabench_1.parquet", rows)
    return tmp_path


def test_orstas_tasks_come_from_ability_or_file_name_and_its_test_split_is_not_read(orsta_folder):
    result = read(Source.orsta, orsta_folder)
    assert {row.task: row.answer_kind for row in result} == {
        task: kind for task, (_, kind, _) in TASKS.items()
    }
    perception_tasks = {row.task for row in result if row.task_set is TaskSet.perception}
    assert perception_tasks == {"detection", "grounding", "counting", "ocr"}
    assert all(row.source.startswith("train/train_") for row in result)
    for row in result:
        assert verdict_of(row, row.answer) is Verdict.correct


def test_orstas_boxes_are_relative_even_if_data_box_format_is_pixels(orsta_folder):
    (result,) = read(Source.orsta, orsta_folder / "train" / "train_detection_syn_1.parquet")
    (box,) = json.loads(result.answer)
    assert box == {"bbox_2d": RED_SQUARE_BOX, "label": "child's kite"}


def test_data_tasks_selects_files_and_rows(orsta_folder):
    result = read(Source.orsta, orsta_folder, tasks=["math", "ocr"])
    assert sorted(row.task for row in result) == ["math", "ocr"]
    stats = dataset.DatasetStats()
    config = DataConfig(source=Source.orsta, path=str(orsta_folder), tasks=["puzzle"], split="test")
    with pytest.raises(EmptyDatasetError, match=r"no \.parquet file for source=orsta, split=test"):
        list(dataset.load_samples(config, stats))


def test_rows_of_other_tasks_in_one_file_are_counted(tmp_path, red_png):
    rows = [orsta_row(red_png, "How many?", "1", task) for task in ("math", "counting", "math")]
    path = orsta_file(tmp_path / "rows.parquet", rows)
    stats = dataset.DatasetStats()
    config = DataConfig(source=Source.orsta, path=str(path), tasks=["counting"])
    assert [row.task for row in dataset.load_samples(config, stats)] == ["counting"]
    assert stats.other_tasks == 2


def test_orsta_without_schema_metadata_and_with_null_parameters_is_read(tmp_path, red_png):
    row = orsta_row(red_png, "Perimeter?", "52", "math")
    row["reward_model"]["verifier_parm"] = None
    result = read_sample(Source.orsta, orsta_file(tmp_path / "a.parquet", [row], metadata=False))
    assert (result.answer, result.task) == ("52", "math")


def test_with_duplicates_keep_each_duplicate_has_its_own_stable_id(tmp_path, red_png):
    rows = [orsta_row(red_png, "Which?", "blue", None)] * 3
    path = orsta_file(tmp_path / "train_puzzle_puzzlevqa_3_x3.parquet", rows)
    samples = read(Source.orsta, path, duplicates=Duplicates.keep)
    assert len({row.sample_id for row in samples}) == 3
    assert samples == read(Source.orsta, path, duplicates=Duplicates.keep)
    assert samples[0] == read_sample(Source.orsta, path, limit=1)
    assert short_reasons(read(Source.orsta, path)) == ["duplicate", "duplicate"]


@pytest.fixture
def eureka_folder(tmp_path, red_png, encode) -> Path:
    """A folder like MM-Eureka's: an image in a folder, two in a zip (one broken), a white one."""
    (tmp_path / "K12").mkdir()
    (tmp_path / "K12" / "ab.png").write_bytes(red_png)
    with zipfile.ZipFile(tmp_path / "MMPR.zip", "w") as archive:
        archive.writestr("mnt/far/dataset/report_data/MMPR/images/x/1.png", red_png)
        archive.writestr("mnt/far/dataset/report_data/MMPR/images/y/1.png", b"no image")
    white = encode(Image.new("RGB", (224, 224), "white"))
    (tmp_path / "white.jpg").write_bytes(white)
    return tmp_path


def eureka_row(image: str, answer: str, question: str = "<image>\nQuestion: Area?") -> dict:
    turns = [{"role": "system", "content": "Solve."}, {"role": "user", "content": question}]
    return {"id": "s", "conversations": turns, "answer": answer, "image_urls": [image]}


def test_mm_eureka_images_are_found_in_folders_and_zips_under_any_prefix(eureka_folder):
    chat = [
        {
            "role": "user",
            "content": [
                {"type": "image", "image": "file:///data/K12/ab.png"},
                {"type": "text", "text": "How many?"},
            ],
        }
    ]
    rows = [
        eureka_row("file:///home/other/K12/ab.png", "$169$"),
        eureka_row("/mnt/far/MMPR/images/x/1.png", "$$6$$"),
        {"id": "s", "message": json.dumps(chat), "answer": "1"},  # JSON
        {"id": "s", "message": str(chat), "answer": "2"},  # a Python literal
        eureka_row("K12/ab.png", "30°", "Question: No placeholder?"),
    ]
    result = read(Source.mm_eureka, write_jsonl(eureka_folder / "dataset.jsonl", rows).parent)
    questions = ["Area?", "Area?", "How many?", "How many?", "No placeholder?"]
    assert [row.question for row in result] == questions
    for row, answer in zip(result, ("169", "6", "1", "2", "30"), strict=True):
        assert verdict_of(row, answer) is Verdict.correct
    assert verdict_of(result[1], "7") is Verdict.incorrect


@pytest.mark.parametrize("start", ["<image>\n", "", "<image>"])
def test_mm_eurekas_instruction_before_the_question_is_removed(eureka_folder, start):
    # As in MM-Eureka's training code. Our system prompt also asks for these tags.
    instruction = (
        "You should first thinks about the reasoning process in the mind and then provides the "
        "user with the answer. Your answer must be in latex format and wrapped in $...$.The "
        "reasoning process and answer are enclosed within <think> </think> and <answer> </answer> "
        "tags, respectively, i.e., <think> Since $1+1=2$, so the answer is $2$. </think><answer> "
        "$2$ </answer>, which means your output should start with <think> and end with </answer>."
    )
    rows = [
        eureka_row("K12/ab.png", "$169$", f"{start}{instruction}\nQuestion:\nIts area is ___ ?"),
        eureka_row("K12/ab.png", "$169$", f"{start}{instruction}\n"),
    ]
    folder = write_jsonl(eureka_folder / "dataset.jsonl", rows).parent
    sample, without_question = read(Source.mm_eureka, folder)
    assert sample.question == "Its area is ___ ?"
    assert without_question.reason.startswith("empty question")


@pytest.mark.parametrize(
    ("image", "answer", "reason"),
    [
        ("blank_image.jpg", "7", "no image: only the blank image"),
        ("white.jpg", "7", "no image: only the blank image"),
        ("K12/none.png", "7", "missing file: K12/none.png (looked in"),
        ("MMPR/images/y/1.png", "7", "broken image: no readable"),
        ("K12/ab.png", "(1) 3; (2) 4", "unusable gold answer: must be a number, a letter or few"),
        ("K12/ab.png", "first 3\nthen 4", "unusable gold answer: must be a number"),
        (
            "K12/ab.png",
            "The area of the square is the product of its sides",
            "unusable gold answer",
        ),
    ],
)
def test_an_unusable_mm_eureka_row_is_rejected_with_its_reason(
    eureka_folder, image, answer, reason
):
    (result,) = read(
        Source.mm_eureka, write_jsonl(eureka_folder / "dataset.jsonl", [eureka_row(image, answer)])
    )
    assert isinstance(result, RejectedRow)
    assert result.reason.startswith(reason)


def test_mm_eureka_conversations_may_be_plain_text(eureka_folder):
    row = {**eureka_row("K12/ab.png", "1"), "conversations": "<image>How many?"}
    result = read_sample(Source.mm_eureka, write_jsonl(eureka_folder / "dataset.jsonl", [row]))
    assert result.question == "How many?"


# The beginning of a response in Mulberry, before its final answer.
MULBERRY_STEPS = "### Rationales:\nLook.\n\n### Step 1:\nIt is red.\n\n### The final answer is:\n"
CHOICE_QUESTION = "<image>\nQuestion: What color?\nChoices:\nA: red\nB: blue"


def mulberry_row(question: str, response: str, image: str = "clevr/1.png") -> dict:
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": response}]
    return {"messages": turns, "images": image}


def test_mulberrys_gold_answer_follows_the_last_final_answer_marker(tmp_path, red_png):
    (tmp_path / "mulberry_images" / "clevr").mkdir(parents=True)
    (tmp_path / "mulberry_images" / "clevr" / "1.png").write_bytes(red_png)
    first_attempt = (
        "### The final answer is:\n4\nI think I have made a mistake. Let me rethink it.\n"
    )
    rows = [
        mulberry_row(CHOICE_QUESTION, MULBERRY_STEPS + "A: red"),
        mulberry_row(CHOICE_QUESTION, MULBERRY_STEPS + "blue.", "/clevr/1.png"),
        mulberry_row("<image>How many?", first_attempt + MULBERRY_STEPS + '"5". #'),
        mulberry_row("<image>How many?", "Five, I think."),
        mulberry_row("<image>How many?", MULBERRY_STEPS + "6", "clevr/2.png"),
    ]
    (tmp_path / "mulberry_sft.json").write_text(json.dumps(rows, indent=1))
    result = read(Source.mulberry, tmp_path)
    assert [row.answer for row in result[:3]] == ["A", "B", "5"]
    assert [row.answer_kind for row in result[:3]] == ["choice", "choice", "count"]
    assert result[0].rationale.endswith("It is red.")
    assert short_reasons(result) == ["unusable gold answer", "missing file"]
    assert result[4].source == "mulberry_sft.json:5"


def test_mulberrys_tar_is_read_without_unpacking_and_only_by_full_path(tmp_path, red_png):
    rows = [
        mulberry_row(CHOICE_QUESTION, MULBERRY_STEPS + "A: red", "cauldron/clevr/images/1.png"),
        mulberry_row(CHOICE_QUESTION, MULBERRY_STEPS + "B", "/cauldron/clevr/images/1.png"),
        mulberry_row("<image>How many?", MULBERRY_STEPS + "4", "cauldron/other/images/1.png"),
        mulberry_row("<image>How many?", MULBERRY_STEPS + "5", "cauldron/clevr/images/text.png"),
        mulberry_row("<image>How many?", MULBERRY_STEPS + "6", "../mulberry_sft.json"),
    ]
    (tmp_path / "mulberry_sft.json").write_text(json.dumps(rows))
    root = "mulberry_images/cauldron/clevr/images"
    with tarfile.open(tmp_path / "mulberry_images.tar", "w") as archive:
        for name, content in ((f"{root}/1.png", red_png), (f"./{root}/text.png", b"no image")):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, BytesIO(content))
        # A symbolic link is not followed, so its image counts as missing.
        link = tarfile.TarInfo("mulberry_images/cauldron/other/images/1.png")
        link.type, link.linkname = tarfile.SYMTYPE, f"/{root}/1.png"
        archive.addfile(link)
    result = read(Source.mulberry, tmp_path)
    assert [row.answer for row in result[:2]] == ["A", "B"]
    assert len(result[0].images) == 1
    assert short_reasons(result) == ["missing file", "broken image", "missing file"]
    assert not (tmp_path / "mulberry_images").exists()


def test_the_error_for_a_damaged_tar_names_it_and_says_what_to_do(tmp_path, red_png):
    (tmp_path / "mulberry_sft.json").write_text(
        json.dumps([mulberry_row(CHOICE_QUESTION, MULBERRY_STEPS + "A")])
    )
    (tmp_path / "mulberry_images.tar").write_bytes(b"no tar" * 500)
    with pytest.raises(
        EmptyDatasetError, match=r"images\.tar is not a readable tar .*; download it"
    ):
        read(Source.mulberry, tmp_path)


@pytest.mark.parametrize("is_new_revision", [False, True])
def test_the_gold_answer_of_geometry3k_is_the_value_and_not_the_letter(
    tmp_path, red_png, is_new_revision
):
    row: dict[str, Any] = {"images": [{"bytes": red_png, "path": "img_diagram.png"}]}
    row |= {"problem": "<image>Find x.", "answer": "2\\sqrt{3}"}
    if is_new_revision:
        row |= {"id": 7, "choices": ["2", "2\\sqrt{3}", "4"], "ground_truth": "B"}
    (tmp_path / "data").mkdir()
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "data" / "train-00000-of-00001.parquet")
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "data" / "test-00000-of-00001.parquet")
    result = read_sample(Source.geometry3k, tmp_path)
    assert (result.question, result.answer, result.answer_kind) == (
        "Find x.",
        "2\\sqrt{3}",
        "number",
    )
    assert verdict_of(result, "\\sqrt{12}") is Verdict.correct
    assert verdict_of(result, "2") is Verdict.incorrect


def test_rap_files_written_by_pandas_are_read(tmp_path, red_png):
    """The training set of the paper RAP has the format of EasyR1."""
    rows = [
        {
            "problem": f"<image>Question: Area {gold}?",
            "images": [{"bytes": red_png, "path": None}],
            "answer": gold,
            "onlyid": 1,
            "id": "s",
        }
        for gold in ("$169$", "3.5", "-7", "A")
    ]
    path = tmp_path / "rap.parquet"
    pd.DataFrame(rows).to_parquet(path)
    result = read(Source.easyr1, path)
    assert [row.answer for row in result] == ["$169$", "3.5", "-7", "A"]
    assert verdict_of(result[0], "169") is Verdict.correct
    assert verdict_of(result[2], "-7") is Verdict.correct
    assert verdict_of(result[2], "7") is Verdict.incorrect


@pytest.fixture
def image_folder(tmp_path, red_png, encode) -> Path:
    """A folder with images/a.png and images/b.png."""
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(red_png)
    (tmp_path / "images" / "b.png").write_bytes(encode(Image.new("RGB", (84, 56), "blue")))
    return tmp_path


def test_easyr1_rows_with_none_one_and_two_images(image_folder):
    rows = [
        {"images": ["images/a.png"], "problem": "<image>How many?", "answer": "1"},
        {
            "images": ["images/a.png", "images/b.png"],
            "problem": "<image><image>Which has more?",
            "answer": "first",
        },
        {"images": [], "problem": "What is 3 + 4?", "answer": "7"},
    ]
    one_image, two_images, no_image = read(
        Source.easyr1, write_jsonl(image_folder / "rows.jsonl", rows)
    )
    assert (one_image.answer, two_images.answer, no_image.short_reason) == (
        "1",
        "first",
        "no image",
    )
    # The first has 800 x 600 pixels before its sides are rounded to multiples of 28.
    assert [Image.open(BytesIO(png)).size for png in two_images.images] == [(812, 588), (84, 56)]


def test_verl_rows_are_read(image_folder, red_png):
    row = {
        "data_source": "synthetic/squares",
        "prompt": [{"role": "user", "content": "<image>How many squares?"}],
        "images": [{"bytes": red_png, "path": None}],
        "ability": "counting",
        "reward_model": {"style": "rule", "ground_truth": "1"},
        "extra_info": {"split": "train", "index": 0, "answer": "1", "question": "How many?"},
    }
    path = image_folder / "rows.parquet"
    pq.write_table(pa.Table.from_pylist([row]), path)
    result = read_sample(Source.verl, path)
    assert (result.task, result.answer_kind, result.answer) == ("counting", AnswerKind.count, "1")


def test_trl_rows_are_read_despite_null_keys_that_arrow_adds(image_folder, red_png):
    parts = [{"type": "image"}, {"type": "text", "text": "How many squares?"}]
    completion = [{"role": "assistant", "content": [{"type": "text", "text": "One."}]}]
    row = {
        "prompt": [{"role": "user", "content": parts}],
        "completion": completion,
        "images": [{"bytes": red_png, "path": None}],
        "solution": "1",
    }
    path = image_folder / "rows.parquet"
    without_solution = {key: value for key, value in row.items() if key != "solution"}
    pq.write_table(pa.Table.from_pylist([row, without_solution]), path)
    first, second = read(Source.trl, path)
    assert (first.question, first.answer) == ("How many squares?", "1")
    assert second.answer == "One"
    text_prompt = {**without_solution, "prompt": "How many?", "images": ["images/a.png"]}
    (result,) = read(Source.trl, write_jsonl(image_folder / "a.jsonl", [text_prompt]))
    assert result.reason.startswith("empty question: prompt is text")


def test_ms_swift_boxes_come_from_objects(image_folder):
    objects = {"ref": ["red square", "red square"], "bbox": [[200, 150, 400, 450]]}
    text = '[\n\t{"bbox_2d": <bbox>, "label": "<ref-object>"}\n]'
    row = {
        "messages": [
            {"role": "user", "content": "<image>Locate the <ref-object>."},
            {"role": "assistant", "content": text},
        ],
        "images": ["images/a.png"],
        "objects": objects,
    }
    unit_objects = {**objects, "bbox": [[0.25, 0.25, 0.5, 0.75]], "bbox_type": "norm1"}
    result = read(Source.ms_swift, write_jsonl(image_folder / "a.jsonl", [row]))
    result += read(
        Source.ms_swift, write_jsonl(image_folder / "b.jsonl", [{**row, "objects": unit_objects}])
    )
    for row in result:
        assert row.question == "Locate the red square."
        box = {"bbox_2d": RED_SQUARE_BOX, "label": "red square"}
        assert json.loads(row.answer) == [box]


def test_ms_swift_rows_may_have_query_and_response(image_folder):
    row = {"query": "<image>How many?", "response": "3", "images": "images/a.png"}
    assert (
        read_sample(Source.ms_swift, write_jsonl(image_folder / "rows.jsonl", [row])).answer == "3"
    )


@pytest.mark.parametrize("layout", ["sharegpt", "openai", "alpaca", "dataset_info"])
def test_llama_factory_rows_of_every_layout_are_read(image_folder, layout):
    """dataset_info: dataset_info.json names the columns and tags."""
    row_of_layout: dict[str, dict[str, Any]] = {
        "sharegpt": {
            "conversations": [
                {"from": "human", "value": "<image>What color?"},
                {"from": "gpt", "value": "Red."},
            ],
            "system": "Answer briefly.",
        },
        "openai": {
            "messages": [
                {"role": "user", "content": "<image>What color?"},
                {"role": "assistant", "content": "Red."},
            ]
        },
        "alpaca": {"instruction": "<image>What color?", "input": "", "output": "Red."},
        "dataset_info": {
            "talk": [{"who": "me", "what": "<image>What color?"}, {"who": "it", "what": "Red."}]
        },
    }
    key = "shown" if layout == "dataset_info" else "images"
    (image_folder / "rows.json").write_text(
        json.dumps([{**row_of_layout[layout], key: ["images/a.png"]}])
    )
    if layout == "dataset_info":
        tags = {"role_tag": "who", "content_tag": "what", "user_tag": "me", "assistant_tag": "it"}
        columns = {"messages": "talk", "images": "shown"}
        entry = {"file_name": "rows.json", "formatting": "sharegpt", "columns": columns}
        (image_folder / "dataset_info.json").write_text(
            json.dumps({"mine": {**entry, "tags": tags}})
        )
    result = read_sample(Source.llama_factory, image_folder)
    assert (result.question, result.answer, result.answer_kind) == ("What color?", "Red", "text")


def test_a_long_response_without_a_marked_answer_is_rejected(image_folder):
    turns = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Well, " * 60}]
    row = {"messages": turns, "images": ["images/a.png"]}
    (result,) = read(Source.llama_factory, write_jsonl(image_folder / "rows.jsonl", [row]))
    assert result.reason.startswith("unusable gold answer: the assistant's turn has")


def test_rows_of_mixed_formats_in_one_file_are_recognized(image_folder):
    images = ["images/a.png"]
    turns = [{"role": "user", "content": "<image>How many?"}]
    rows = [
        {"image_paths": images, "prompt": "Qi et al.?", "ground_truth": "1", "ability": "math"},
        {"images": images, "messages": turns, "solution": "2"},
        {"images": images, "problem": "EasyR1?", "answer": "3"},
        {"images": images, "prompt": turns, "reward_model": {"ground_truth": "4"}},
        {"images": images, "prompt": turns, "solution": "5"},
        eureka_row("images/a.png", "6"),
        {
            "images": images,
            "conversations": [
                {"from": "human", "value": "LLaMA?"},
                {"from": "gpt", "value": "7"},
            ],
        },
        {"image": "a.png", "text": "?"},
        [1],
    ]
    result = read(Source.jsonl, write_jsonl(image_folder / "mixed.jsonl", rows))
    assert [row.answer for row in result[:7]] == list("1234567")
    assert short_reasons(result) == ["missing keys", "not an object"]


def test_with_rationale_lists_exactly_the_sources_with_a_rationale() -> None:
    # A function can set a rationale only if its code passes `rationale=` to RawRow.
    functions = {name: entry.rule for name, entry in FORMATS.items() if callable(entry.rule)}
    with_rationale = {
        name for name, rule in functions.items() if "rationale=" in inspect.getsource(rule)
    }
    assert with_rationale == WITH_RATIONALE - {Source.shapes}
