"""source=auto: every row is recognized by its columns, in every container, with its images."""

import base64
import csv
import json
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict, Features, List, Value
from datasets import Image as ImageFeature
from PIL import Image

from difftrain.config.data import ColumnsConfig, DataConfig, Source, TextOnly
from difftrain.data import dataset, question_options, storage
from difftrain.data.quarantine import EmptyDatasetError, RejectedRow
from difftrain.grade import grade
from difftrain.records import AnswerKind, Sample, Verdict

SIZE = (84, 56)  # multiples of 28, so that the image is not resized
QUESTION, ANSWER = "How many squares are there?", "3"


def read(path: Path, **settings: Any) -> list[Any]:
    """A Sample or RejectedRow for each row at this path."""
    return list(dataset.load_samples(DataConfig(source=Source.auto, path=str(path), **settings)))


def read_sample(path: Path, **settings: Any) -> Sample:
    """The sample of the only row at this path."""
    (result,) = read(path, **settings)
    assert isinstance(result, Sample), result
    return result


def read_rejected(path: Path, **settings: Any) -> str:
    """The reason why the only row at this path is rejected."""
    (result,) = read(path, **settings)
    assert isinstance(result, RejectedRow), result
    return result.reason


def jsonl(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def is_correct(sample: Sample, answer: str) -> bool:
    return grade(f"<think>.</think><answer>{answer}</answer>", sample) is Verdict.correct


@pytest.fixture
def noise() -> Image.Image:
    """An image whose pixels all differ, so that no other image equals it."""
    pixels_HWC = np.random.default_rng(0).integers(0, 256, (*SIZE[::-1], 3), dtype=np.uint8)
    return Image.fromarray(pixels_HWC)


@pytest.fixture
def png(noise, encode) -> bytes:
    return encode(noise)


def assert_shows(sample: Sample, image: Image.Image) -> None:
    """The sample's only image has exactly these pixels."""
    (stored,) = sample.images
    decoded = np.asarray(Image.open(BytesIO(stored)).convert("RGB"))
    assert np.array_equal(decoded, np.asarray(image.convert("RGB")))


def text_part(text: str = QUESTION) -> dict[str, str]:
    return {"type": "text", "text": text}


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


# Name -> a function from an image reference to a row with it.
ROW_SHAPES = {
    "image, question, answer": lambda ref: {"image": ref, "question": QUESTION, "answer": ANSWER},
    "images, prompt, solution": lambda ref: {
        "images": [ref],
        "prompt": f"<image>{QUESTION}",
        "solution": "\\boxed{3}",
    },
    "image, problem, answer": lambda ref: {"image": ref, "problem": QUESTION, "answer": 3},
    "image, query, label list": lambda ref: {"image": ref, "query": QUESTION, "label": [ANSWER]},
    "chat template parts": lambda ref: {
        "messages": [user([{"type": "image"}, text_part()])],
        "images": [ref],
        "answer": ANSWER,
    },
    "chat template parts in prompt": lambda ref: {
        "prompt": [user([{"type": "image"}, text_part()])],
        "image": ref,
        "solution": ANSWER,
    },
    "Qwen parts": lambda ref: {
        "messages": [user([{"type": "image", "image": ref}, text_part()])],
        "answer": ANSWER,
    },
    "Qwen parts without types": lambda ref: {
        "messages": [user([{"image": ref}, {"text": QUESTION}])],
        "answer": ANSWER,
    },
    "OpenAI parts": lambda ref: {
        "messages": [
            {"role": "system", "content": [text_part("Be brief.")]},
            user([text_part(), {"type": "image_url", "image_url": {"url": ref}}]),
            {"role": "assistant", "content": [text_part(ANSWER)]},
        ]
    },
    "transformers parts": lambda ref: {
        "prompt": [user([{"type": "image", "url": ref}, text_part()])],
        "completion": [{"role": "assistant", "content": ANSWER}],
    },
    "LLaVA": lambda ref: {
        "id": "000000033471",
        "image": ref,
        "conversations": [
            {"from": "human", "value": f"<image>\n{QUESTION}"},
            {"from": "gpt", "value": ANSWER},
        ],
    },
    "alpaca": lambda ref: {
        "instruction": "How many squares",
        "input": "are there?",
        "output": ANSWER,
        "image": ref,
    },
    "ms-swift": lambda ref: {"query": f"<image>{QUESTION}", "response": ANSWER, "images": [ref]},
    "Qi et al.": lambda ref: {
        "image_paths": [ref],
        "prompt": f"<image>{QUESTION}",
        "ground_truth": "\\boxed{3}",
        "ability": "math",
    },
    "verl": lambda ref: {
        "images": [ref],
        "prompt": [user(f"<image>{QUESTION}")],
        "reward_model": {"style": "rule", "ground_truth": ANSWER},
    },
}


@pytest.mark.parametrize("shape", ROW_SHAPES)
@pytest.mark.parametrize("container", ["jsonl", "json", "parquet", "arrow"])
def test_every_shape_of_a_row_is_read_from_every_container(tmp_path, noise, png, shape, container):
    (tmp_path / "a.png").write_bytes(png)
    row = ROW_SHAPES[shape]("a.png")
    path = tmp_path / f"rows.{container}"
    if container == "json":
        path.write_text(json.dumps([row]))
    elif container == "jsonl":
        jsonl(tmp_path, row)
    elif container == "parquet":
        pq.write_table(pa.Table.from_pylist([row]), path)
    else:
        table = pa.Table.from_pylist([row])
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table)
    result = read_sample(path)
    # alpaca joins its two columns with a line break
    assert (result.question.replace("\n", " "), result.answer) == (QUESTION, ANSWER)
    assert result.answer_kind is AnswerKind.count
    assert_shows(result, noise)


def image_references(path: Path, png: bytes) -> dict[str, Any]:
    """The same image in every form that JSON can hold."""
    encoded = base64.b64encode(png).decode()
    return {
        "path": path.name,
        "absolute path": str(path),
        "file URL": path.as_uri(),
        "data URL": f"data:image/png;base64,{encoded}",
        "base64": encoded,
        "dict of base64": {"bytes": encoded, "path": None},
        "dict of path": {"bytes": None, "path": path.name},
    }


@pytest.mark.parametrize("form", image_references(Path("/a"), b""))
@pytest.mark.parametrize("shape", ["image, question, answer", "Qwen parts", "OpenAI parts"])
def test_an_image_may_have_every_form_in_a_column_or_in_a_part(tmp_path, noise, png, shape, form):
    path = tmp_path / "a b.png"  # a file URL writes the space as %20
    path.write_bytes(png)
    row = ROW_SHAPES[shape](image_references(path, png)[form])
    assert_shows(read_sample(jsonl(tmp_path, row)), noise)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "CMYK"])
def test_pil_images_and_bytes_come_through_the_same_function(noise, png, mode):
    for reference in (noise.convert(mode), png, {"bytes": png}):
        raw = storage.resolve_reference(reference)
        assert isinstance(raw, bytes)
        assert Image.open(BytesIO(raw)).size == SIZE


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"])
def test_base64_of_every_image_format_is_no_path(encode, noise, image_format):
    raw = encode(noise, image_format)
    assert storage.resolve_reference(base64.b64encode(raw).decode()) == raw


def test_a_parquet_of_images_prompt_and_solution_is_read(tmp_path, noise, png):
    """The library `datasets` stores images as {bytes, path}."""
    columns = {"images": List(ImageFeature()), "prompt": Value("string")}
    features = Features({**columns, "solution": Value("string")})
    rows = {"images": [[noise]], "prompt": [QUESTION], "solution": [ANSWER]}
    Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "a.parquet")
    assert_shows(read_sample(tmp_path / "a.parquet"), noise)


def save_to_disk_dataset(noise: Image.Image, *answers: str) -> Dataset:
    features = Features(
        {"image": ImageFeature(), "question": Value("string"), "answer": Value("string")}
    )
    rows = [{"image": noise, "question": QUESTION, "answer": answer} for answer in answers]
    return Dataset.from_list(rows, features=features)


def test_a_save_to_disk_folder_is_read(tmp_path, noise):
    save_to_disk_dataset(noise, "1", "2", "3").save_to_disk(tmp_path, num_shards=2)
    result = read(tmp_path)
    assert [row.answer for row in result] == ["1", "2", "3"]
    assert result[0].source == "data-00000-of-00002.arrow:1"
    assert_shows(result[2], noise)


def test_caches_in_a_save_to_disk_folder_hold_no_rows(tmp_path, noise):
    save_to_disk_dataset(noise, "1").save_to_disk(tmp_path)
    (tmp_path / "cache-0123.arrow").write_bytes(b"any")
    assert read_sample(tmp_path).answer == "1"


def test_the_train_split_of_a_saved_dataset_dict_is_read(tmp_path, noise):
    splits = {name: save_to_disk_dataset(noise, name) for name in ("train", "test")}
    DatasetDict(splits).save_to_disk(tmp_path)
    assert read_sample(tmp_path).answer == "train"
    assert read_sample(tmp_path, split="test").answer == "test"
    assert read_sample(tmp_path / "test").answer == "test"


def test_arrows_file_format_is_read(tmp_path, png):
    table = pa.Table.from_pylist([{"image": png, "question": QUESTION, "answer": ANSWER}] * 2)
    path = tmp_path / "a.arrow"
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    first, second = read(path)
    assert (first.answer, second.short_reason) == (ANSWER, "duplicate")


def test_a_damaged_arrow_file_gives_its_good_rows_and_then_an_error(tmp_path, png):
    rows = [{"image": png, "question": QUESTION, "answer": str(i)} for i in range(4)]
    path = tmp_path / "a.arrow"
    table = pa.Table.from_pylist(rows)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    path.write_bytes(path.read_bytes()[:-200])
    *samples, error = read(path)
    assert [row.answer for row in samples] == ["0", "1"]
    assert error.short_reason == "broken file"


def test_a_folder_of_files_of_different_types_is_read(tmp_path, png):
    row = {"image": base64.b64encode(png).decode(), "question": QUESTION}
    jsonl(tmp_path, {**row, "answer": "1"})
    pq.write_table(pa.Table.from_pylist([{**row, "answer": "2"}]), tmp_path / "train.parquet")
    write_table(tmp_path / "more.csv", [{**row, "answer": "3"}])
    (tmp_path / "readme.txt").write_text("no rows")
    assert [row.answer for row in read(tmp_path)] == ["3", "1", "2"]  # by file name


def test_a_folder_without_files_that_hold_rows_is_refused(tmp_path):
    (tmp_path / "readme.txt").write_text("no rows")
    with pytest.raises(EmptyDatasetError, match=r"\.csv or \.tsv file for source=auto"):
        read(tmp_path)


def write_table(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write a csv or, with tabs, a tsv."""
    delimiter = "\t" if path.suffix == ".tsv" else ","
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return path


def vlmevalkit_row(png: bytes, **changes: Any) -> dict[str, Any]:
    """A row of a TSV file of VLMEvalKit."""
    options = {"A": "cat", "B": 'a "dog"', "C": "1,000 birds\nand a fish", "D": ""}
    row = {"index": 7, "question": "Which is it?", "hint": "", **options}
    row |= {"answer": "B", "category": "Animals", "l2-category": "logic"}
    return {**row, "image": base64.b64encode(png).decode(), **changes}


def test_a_tsv_file_of_vlmevalkit_is_a_training_source(tmp_path, noise, png):
    result = read_sample(write_table(tmp_path / "MMBench.tsv", [vlmevalkit_row(png)]))
    assert result.question == "Which is it?"
    assert result.options == ("cat", 'a "dog"', "1,000 birds\nand a fish")
    assert (result.answer, result.answer_kind, result.task) == ("B", AnswerKind.choice, "animals")
    assert is_correct(result, 'a "dog"')
    assert_shows(result, noise)


def test_a_vlmevalkit_row_may_have_several_images_a_hint_or_no_options(tmp_path, png, encode):
    other = encode(Image.new("RGB", SIZE, "blue"))
    images = str([base64.b64encode(raw).decode() for raw in (png, other)])
    no_options: dict[str, Any] = dict.fromkeys("ABCD", "")
    rows = [
        vlmevalkit_row(png, image=images, hint="It barks."),
        vlmevalkit_row(png, answer="['12', 'twelve']", **no_options),
        vlmevalkit_row(png, image="7"),
    ]
    two_images, no_choice, reference = read(write_table(tmp_path / "rows.tsv", rows))
    assert (len(two_images.images), two_images.question) == (2, "It barks.\nWhich is it?")
    assert (no_choice.options, no_choice.accepted) == ((), ("12", "twelve"))
    assert reference.reason.startswith("no image: the image is the number of another row, 7")


def test_lists_in_the_cells_of_a_csv_are_read(tmp_path, png):
    (tmp_path / "a.png").write_bytes(png)
    row = {"images": "['a.png']", "question": "Which?", "options": "['cat', 'dog']"}
    rows = [
        {**row, "answers": "dog"},
        {**row, "options": "", "answers": "[1, 2]"},
        {**row, "options": "", "answers": '["x", "y"]'},
    ]
    choice, numbers, texts = read(write_table(tmp_path / "rows.csv", rows))
    assert (choice.options, choice.answer) == (("cat", "dog"), "B")
    assert (numbers.accepted, texts.accepted) == (("1", "2"), ("x", "y"))


@pytest.mark.parametrize(
    ("text", "num_samples", "reason"),
    [
        ("image,question,answer\na.png,How many?,3,4\na.png,How many?,3\n", 1, "broken row: 4"),
        ('image,question,answer\na.png,How many?,3\n"a.png,How many?,3\n', 1, "broken file"),
        ("image,question,answer\n\na.png,How many?,3\n", 1, None),
        ("\ufeffimage,question,answer\r\na.png,How many?,3\r\n", 1, None),
    ],
)
def test_a_damaged_table_gives_its_good_rows_and_an_error(tmp_path, png, text, num_samples, reason):
    (tmp_path / "a.png").write_bytes(png)
    path = tmp_path / "rows.csv"
    path.write_text(text, encoding="utf-8", newline="")
    result = read(path)
    assert sum(isinstance(row, Sample) for row in result) == num_samples
    reasons = [row.reason for row in result if isinstance(row, RejectedRow)]
    assert len(reasons) == (reason is not None)
    assert all(text.startswith(str(reason)) for text in reasons)


@pytest.mark.parametrize(
    ("question", "gold"),
    [
        ("Which is it? (A) cat (B) dog", "dog"),
        ("Which is it?\nA. cat\nB. dog", "dog"),
        ("Which is it?\nA. cat\nB. dog", "B"),
        ("Which is it?\n(A) cat\n(B) dog\n(C) bird", "(B)"),
        ("Which is it? A: cat B: dog", "B: dog"),
        ("Which is it?\nChoices:\nA) cat\n\nB) dog", "Dog"),
        ("Which is it?\nOptions: (A) cat, (B) dog", "dog"),
    ],
)
def test_options_inside_the_question_become_options(tmp_path, png, question, gold):
    (tmp_path / "a.png").write_bytes(png)
    row = {"image": "a.png", "question": question, "answer": gold}
    result = read_sample(jsonl(tmp_path, row))
    assert (result.question, result.options[:2]) == ("Which is it?", ("cat", "dog"))
    assert (result.answer, result.answer_kind) == ("B", AnswerKind.choice)
    assert is_correct(result, "dog")
    assert is_correct(result, "B")
    assert not is_correct(result, "cat")


@pytest.mark.parametrize(
    ("question", "gold"),
    [
        ("Which is it? (A) cat (B) dog", "42"),  # names no option
        ("Who is A. Smith and B. Jones?", "A"),
        ("Triangle (A) is larger?", "A"),
        ("(A) cat (B) dog", "dog"),  # no question is left
        ("Which? (B) dog (A) cat", "dog"),
        ("Points (A) and (B) lie on the line. Which is left?", "A"),
        ("Which is larger, (A) or (B)?", "A"),
        ("Compare: (A) cat and (B) dog", "A"),
        ("Look at: (A) , (B) dog", "B"),
        ("The points (A) left (B) right are red", "A"),
    ],
)
def test_a_question_without_clear_options_is_unchanged(tmp_path, png, question, gold):
    (tmp_path / "a.png").write_bytes(png)
    row = {"image": "a.png", "question": question, "answer": gold}
    result = read_sample(jsonl(tmp_path, row))
    assert (result.question, result.options) == (question, ())


def test_an_integer_answer_is_the_index_of_an_option(tmp_path, png):
    """ScienceQA."""
    (tmp_path / "a.png").write_bytes(png)
    row = {"image": "a.png", "question": "Which?", "choices": ["cat", "dog"], "answer": 1}
    result = read_sample(jsonl(tmp_path, row))
    assert (result.answer, result.answer_kind) == ("B", AnswerKind.choice)
    reason = read_rejected(jsonl(tmp_path, {**row, "choices": [1, 2, 3]}))
    assert reason.startswith("unusable gold answer: 1 may be the index or the value of an option")


def test_an_empty_option_before_others_is_rejected_since_the_letters_would_shift(tmp_path, png):
    row = vlmevalkit_row(png, C="", D="fish", answer="D")
    reason = read_rejected(write_table(tmp_path / "rows.tsv", [row]))
    assert reason.startswith("unusable options: found A, B, D; the options must be A, B, ...")


def test_an_object_of_answers_is_read_from_parquet(tmp_path, png):
    row = {"image": png, "question": "Where?", "answers": {"text": ["Paris"], "start": [0]}}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "a.parquet")
    assert read_sample(tmp_path / "a.parquet").answer == "Paris"


def test_columns_that_differ_only_in_capitals_are_refused_unless_one_is_named(tmp_path, png):
    (tmp_path / "a.png").write_bytes(png)
    row = {"image": "a.png", "question": QUESTION, "Answer": "3", "answer": "4"}
    reason = read_rejected(jsonl(tmp_path, row))
    assert reason.startswith("ambiguous columns: Answer and answer differ only in capitals")
    columns = ColumnsConfig(answer="Answer")
    assert read_sample(jsonl(tmp_path, row), columns=columns).answer == "3"


def test_text_after_the_options_stays_in_the_question():
    text = "Which?\nA. cat\nB. dog\nAnswer with the option's letter."
    assert question_options.split(text) == (
        "Which?\nAnswer with the option's letter.",
        ("cat", "dog"),
    )


def test_the_first_refusal_names_the_columns_and_the_settings_that_read_them(tmp_path, png):
    (tmp_path / "a.png").write_bytes(png)
    row = {"pid": "17", "pic": "a.png", "ask": "How many are there?", "target": "3"}
    path = jsonl(tmp_path, row)
    reason = read_rejected(path)
    settings = "data.columns.question=ask data.columns.answer=target data.columns.images=pic"
    assert reason == (
        "missing keys: no column is recognized as question, answer, images; "
        f"columns found: ask, pic, pid, target; set {settings}"
    )
    columns = ColumnsConfig(question="ask", answer="target", images="pic")
    assert read_sample(path, columns=columns).answer == "3"
    columns.answer = "targets"
    expected = "missing keys: data.columns.answer=targets; columns found: ask, pic, pid, target"
    assert read_rejected(path, columns=columns) == expected


def test_a_named_column_may_be_a_field_and_replaces_a_recognized_one(tmp_path, png):
    (tmp_path / "a.png").write_bytes(png)
    row = {"image": "none.png", "question": "Which?", "answer": "no", "choices": ["x"]}
    row |= {"meta": {"pic": "a.png", "gold": "dog"}, "opts": {"A": "cat", "B": "dog"}}
    columns = ColumnsConfig(images="meta.pic", answer="meta.gold", options="opts")
    result = read_sample(jsonl(tmp_path, row), columns=columns)
    assert (result.options, result.answer) == (("cat", "dog"), "B")


def test_a_named_column_may_have_spaces_and_recognized_names_capitals(tmp_path, png):
    (tmp_path / "a.png").write_bytes(png)
    row = {"Image": "a.png", "The question": "Which?", "Answer": "dog", "Options": "['cat', 'dog']"}
    columns = ColumnsConfig(question="The question")
    result = read_sample(write_table(tmp_path / "rows.csv", [row]), columns=columns)
    assert (result.question, result.options, result.answer) == ("Which?", ("cat", "dog"), "B")
    assert result.extra is None


def test_named_columns_are_refused_for_other_sources(tmp_path):
    config = DataConfig(source=Source.jsonl, path=str(jsonl(tmp_path, {})))
    config.columns.question = "ask"
    rule = "is used only with source=auto"
    assert list(config.check()) == [("columns.question", rule)]


@pytest.mark.parametrize(
    ("columns", "accepted"),
    [
        ({"answers": ["3", "three", "3"]}, ("3", "three", "3")),  # TextVQA, DocVQA
        ({"label": ["3", "three"]}, ("3", "three")),  # ChartQA
        (  # VQAv2
            {"multiple_choice_answer": "3", "answers": [{"answer": "3"}, {"answer": "three"}]},
            ("3", "three"),
        ),
        ({"answer": ["3"]}, ()),
        ({"answers": [], "answer": "3"}, ()),
    ],
)
def test_each_of_several_accepted_answers_is_correct(tmp_path, png, columns, accepted):
    (tmp_path / "a.png").write_bytes(png)
    row = {"image": "a.png", "question": QUESTION, **columns}
    result = read_sample(jsonl(tmp_path, row))
    assert (result.answer, result.accepted) == ("3", accepted)
    for answer in accepted or ("3",):
        assert is_correct(result, answer)
    assert not is_correct(result, "4")


def test_a_list_that_is_no_list_of_answers_is_rejected(tmp_path, png):
    (tmp_path / "a.png").write_bytes(png)
    row = {"image": "a.png", "question": QUESTION, "answer": [["3"], ["4"]]}
    reason = read_rejected(jsonl(tmp_path, row))
    assert reason.startswith("unusable gold answer: a list must have texts and numbers, or boxes")


def test_gold_boxes_are_no_accepted_answers(tmp_path, png):
    (tmp_path / "a.png").write_bytes(png)
    row = {"image": "a.png", "question": "Where?", "task": "grounding", "answer": [1, 2, 30, 40]}
    result = read_sample(jsonl(tmp_path, row))
    assert json.loads(result.answer) == [{"bbox_2d": [1, 2, 30, 40]}]
    assert result.accepted == ()


def test_a_gold_answer_in_latex_that_no_grader_reads_is_rejected(tmp_path, png):
    (tmp_path / "a.png").write_bytes(png)
    row = {"image": "a.png", "question": "Which?", "answer": r"x \in \mathbb{Z}, x > 3"}
    reason = read_rejected(jsonl(tmp_path, row))
    assert "is neither a number nor a readable expression" in reason


def test_columns_that_are_not_read_are_kept_as_extra(tmp_path, png):
    (tmp_path / "a.png").write_bytes(png)
    row = {"image": "a.png", "question": QUESTION, "answer": ANSWER, "response": "unused"}
    extra = {"pass_rate": 0.25, "id": 7, "tags": ["a", "b"]}
    result = read_sample(jsonl(tmp_path, {**row, **extra, "none": None, "long": "x" * 5000}))
    assert json.loads(result.extra or "") == extra
    assert read_sample(jsonl(tmp_path, row)).extra is None


def test_a_row_whose_answer_is_empty_is_rejected_with_the_column_that_is_empty(tmp_path):
    path = jsonl(tmp_path, {"question": "How many?", "answer": "", "image": "a.png"})
    assert read_rejected(path).startswith(
        "missing keys: no column is recognized as answer (no value in answer); columns found"
    )


def test_a_text_only_row_is_rejected_unless_data_text_only_is_keep(tmp_path):
    row = {"question": "What is 3 + 4?", "answer": "7", "images": []}
    path = jsonl(tmp_path, row)
    assert read_rejected(path).startswith("no image: no column is recognized as images; columns")
    assert read_rejected(path).endswith("data.columns.images=COLUMN, or data.text_only=keep")
    result = read_sample(path, text_only=TextOnly.keep)
    assert (result.images, result.question, result.answer) == ((), "What is 3 + 4?", "7")


@pytest.mark.parametrize(
    ("source", "row"),
    [
        (Source.easyr1, {"images": [], "problem": "3 + 4?", "answer": "7"}),
        (Source.trl, {"prompt": [user("3 + 4?")], "solution": "7"}),
        (Source.jsonl, {"messages": [user("3 + 4?")], "solution": "7"}),
        (Source.mm_eureka, {"question": "3 + 4?", "answer": "7", "image_urls": ["blank.jpg"]}),
    ],
)
def test_other_sources_keep_text_only_rows_too(tmp_path, source, row):
    config = DataConfig(source=source, path=str(jsonl(tmp_path, row)), text_only=TextOnly.keep)
    (result,) = dataset.load_samples(config)
    assert isinstance(result, Sample), result
    assert (result.images, result.answer) == ((), "7")


def test_a_text_only_row_with_an_image_placeholder_is_rejected(tmp_path):
    row = {"question": "<image>What is it?", "answer": "7"}
    reason = read_rejected(jsonl(tmp_path, row), text_only=TextOnly.keep)
    assert reason == "placeholder mismatch: 1 <image>, but 0 images"


def test_the_fingerprint_changes_with_named_columns_and_text_only_rows(tmp_path):
    path = jsonl(tmp_path, {"question": "3 + 4?", "answer": "7"})
    settings: list[dict[str, Any]] = [
        *({}, {"text_only": TextOnly.keep}, {"columns": ColumnsConfig(answer="answer")})
    ]
    configs = [DataConfig(source=Source.auto, path=str(path), **values) for values in settings]
    assert len(set(map(dataset.fingerprint, configs))) == 3
