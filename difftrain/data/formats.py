"""Dataset formats: which files of a source hold rows, and how to convert a row to a RawRow.

FORMATS at the end has one entry for each data.source. A `Columns` (convert.py) describes a format
that differs only in its column names; any other format has a function. dataset.py then decodes the
images and checks the gold answers, the same way for all formats.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import PurePosixPath
from typing import Any

from difftrain.config.data import ALL_SUFFIXES, FILE_SUFFIXES, BoxFormat, Source
from difftrain.data import answers, auto, prompts, storage
from difftrain.data.convert import (
    Columns,
    RawRow,
    RowContext,
    first_value,
    from_columns,
    image_references,
    require_keys,
    task_name,
)
from difftrain.data.quarantine import EmptyDatasetError, RowError
from difftrain.data.readers import Row
from difftrain.data.storage import Storage

# Qi et al. 2026's jsonl. Arguments (also below): images, question, answer, required, task, options.
DIFFICULTY_SAMPLING = Columns(
    "image_paths", "prompt", "ground_truth", "prompt ground_truth", "ability", "options choices",
    hint=" (or messages, images, solution)",  # the keys of MS_SWIFT, which from_any also takes
)  # fmt: skip
# EasyR1's rows, and RAP's training set as published; its columns `id` and `onlyid` are not used.
EASYR1 = Columns(
    "images image", "problem", "answer", "problem answer", "ability task subject", "options"
)
# hiyouga/geometry3k, both revisions. `answer` is the text of the correct choice. The model is not
# shown the choices: like EasyR1 and verl, we ask for the value.
GEOMETRY3K = Columns("images", "problem", "answer", "problem answer", default_task="geometry")
VERL = Columns(
    "images", "prompt", "reward_model.ground_truth", "prompt reward_model", "ability data_source"
)
TRL = Columns(
    "images image", "prompt messages", "solution answer", "", "ability task", "options",
    from_response=True,
)  # fmt: skip
MS_SWIFT = Columns(
    "images image", "messages query problem prompt question instruction",
    "solution answer response output", "", "ability task task_type", "options choices",
    from_response=True,
)  # fmt: skip
# MM-Eureka's older rows, and MMK12.
MM_EUREKA = Columns(
    "image_urls images image", "conversations question", "answer", "answer", "subject",
    default_task="math",
)  # fmt: skip
# The instruction that some of MM-Eureka's user turns begin with. SYSTEM (prompts.py) replaces it.
EUREKA_INSTRUCTION = re.compile(
    r"You should first thinks? about the reasoning process.*?end with </answer>\.?", re.DOTALL
)


ORSTA_TASKS = ("math", "puzzle", "science", "chart", "detection", "grounding", "counting", "ocr")


def from_orsta(row: Row, context: RowContext) -> RawRow:
    """Orsta-Data-47k: verl rows in {split}_{task}_{source}_{number}.parquet.

    The task is `ability` if ORSTA_TASKS has it, else the task in the file name. Coordinates
    of boxes are 0 to 1000 unless det_verifier_normalized is false.
    """
    raw = from_columns(row, VERL, context)
    gold = raw.gold or answers.unwrap(answers.answer_text(first_value(row, "reward_model.answer")))
    ability = task_name(row, "ability").removeprefix("cv_")
    task = ability if ability in ORSTA_TASKS else orsta_task_of_file(context.location) or ability
    normalized = first_value(row, "reward_model.verifier_parm.det_verifier_normalized")
    box_format = None if normalized is False else BoxFormat.relative
    return replace(raw, gold=gold, task=task, box_format=box_format)


def orsta_task_of_file(name: str) -> str | None:
    """The task in a file name (`math` in train_math_mmmath_3539.parquet), or None."""
    words = PurePosixPath(name).stem.split("_")
    return words[1] if len(words) > 2 and words[1] in ORSTA_TASKS else None


def from_trl(row: Row, context: RowContext) -> RawRow:
    """TRL's conversational rows: {prompt (turns), images or image, solution or completion}."""
    if isinstance(first_value(row, TRL.question), str):
        raise RowError("empty question: prompt is text, but TRL needs messages if there are images")
    return from_columns(row, TRL, context)


def from_mm_eureka(row: Row, context: RowContext) -> RawRow:
    """MM-Eureka: {conversations, answer, image_urls}, or {message (a chat as text), answer}.

    Paths are from the authors' machine; images may be in zips. Text-only rows name a blank image.
    A format instruction and "Question:" before the question are removed.
    """
    if isinstance(row.get("message"), str):
        try:
            turns = answers.parse_literal(row["message"])
        except ValueError as error:
            raise RowError("empty question: message cannot be parsed") from error
        if not isinstance(turns, list):
            raise RowError("empty question: message is not a list of turns")
        contents = [turn.get("content") for turn in turns if isinstance(turn, dict)]
        parts = [part for content in contents if isinstance(content, list) for part in content]
        parts = [part for part in parts if isinstance(part, dict) and part.get("type") == "image"]
        if not parts and not context.keeps_text_only:
            raise RowError("no image: the message has only text")
        row = {**row, "conversations": turns, "image_urls": [part.get("image") for part in parts]}
    paths = image_references(row, MM_EUREKA.images, context)
    names = [PurePosixPath(path).name if isinstance(path, str) else "" for path in paths]
    is_blank = all(name.startswith("blank") for name in names)
    if is_blank and not context.keeps_text_only:
        raise RowError("no image: only the blank image of a text-only row")
    raw = from_columns(row, MM_EUREKA, context)
    return replace(
        raw,
        images=() if is_blank else raw.images,
        question=_eureka_question(raw.question),
        gold=answers.require_comparable(raw.gold),
        find_image=storage.read_by_tail,
        blank_is_none=True,
    )


def _eureka_question(text: str) -> str:
    question = EUREKA_INSTRUCTION.sub("", text).strip().removeprefix("Question:").strip()
    if not question:
        raise RowError("empty question: there is no text besides the instruction")
    return question


MULBERRY_MARKER = "The final answer is:"
MULBERRY_FOLDER = "mulberry_images"
CHOICE_LINE = re.compile(r"^\s*\(?([A-Z])[.):]\s*(.+?)\s*$", re.MULTILINE)  # "A: red"
CHOICE_LETTER = re.compile(r"\(?([A-Z])[.):](\s|$)")  # the start of a gold answer like "A: red"
TRAILING_HEADING = re.compile(r"[#\s]*$")  # the Markdown marks (###) before MULBERRY_MARKER


def from_mulberry(row: Row, context: RowContext) -> RawRow:
    """Mulberry-SFT: {messages (user, assistant), images (one path)}, in one large JSON array.

    The gold answer follows the last "The final answer is:"; the text before that is the rationale.
    Image paths are relative to mulberry_images/, which may be a folder or mulberry_images.tar.
    """
    require_keys(row, "messages images")
    images = image_references(row, "images", context)
    response = prompts.last_response(row["messages"]) or ""
    rationale, marker, final_text = response.rpartition(MULBERRY_MARKER)
    if not marker:
        raise answers.GoldError(f'the response has no "{MULBERRY_MARKER}"')
    question = prompts.question_text(row["messages"], len(images))
    question = question.removeprefix("Question:").strip()
    gold = _letter_of_choice(answers.answer_of_response(final_text), question)
    return RawRow(
        images=tuple(_mulberry_path(reference, context.files) for reference in images),
        question=question,
        gold=answers.require_comparable(gold),
        rationale=TRAILING_HEADING.sub("", rationale),
        find_image=partial(storage.read_below, MULBERRY_FOLDER),
    )


def _mulberry_path(reference: Any, files: Storage) -> Any:
    """The reference; if it is a path, with mulberry_images/ in front if that file exists."""
    if not isinstance(reference, str):
        return reference
    name = reference.replace("\\", "/").lstrip("/")
    path = f"{MULBERRY_FOLDER}/{name.removeprefix(f'{MULBERRY_FOLDER}/')}"
    return path if files.has_file(path) else name


def _letter_of_choice(gold: str, question: str) -> str:
    """The letter of a gold answer like `A`, `A: red` or `red`; else the gold answer unchanged."""
    choices = dict(CHOICE_LINE.findall(question))
    if not {"A", "B"} <= choices.keys():
        return gold
    if (letter := CHOICE_LETTER.match(gold)) and letter[1] in choices:
        return letter[1]
    folded = gold.casefold().strip()
    matching = [letter for letter, text in choices.items() if text.casefold() == folded]
    return matching[0] if len(matching) == 1 else gold


REF_TAG = "<ref-object>"
OBJECT_TAG = re.compile(r"<ref-object>|<bbox>")
BBOX_TYPES = {"real": BoxFormat.pixels, "norm1": BoxFormat.unit}  # keys: ms-swift's bbox_type


def from_ms_swift(row: Row, context: RowContext) -> RawRow:
    """ms-swift: {messages, images, solution}, or query and response; boxes may be in `objects`.

    The lists `ref` and `bbox` of `objects` replace <ref-object> and <bbox> in their order.
    """
    box_format = None
    objects, turns = row.get("objects"), first_value(row, MS_SWIFT.question)
    if isinstance(objects, dict) and isinstance(turns, list) and objects.get("bbox"):
        turns, boxes = _fill_objects(turns, objects)
        row = {**row, "messages": turns}
        if boxes:
            row["solution"] = json.dumps(boxes, ensure_ascii=False)
            box_format = BBOX_TYPES.get(str(objects.get("bbox_type") or "real"))
    return replace(from_columns(row, MS_SWIFT, context), box_format=box_format)


def _fill_objects(turns: list[Any], objects: dict[str, Any]) -> tuple[list[Any], list[Any]]:
    """The turns with labels and boxes filled in, and the assistant's boxes. Raises RowError.

    A label belongs to the box before it if the turn begins with a box, else to the boxes after it.
    """
    labels, bboxes = iter(objects.get("ref") or ()), iter(objects["bbox"])
    filled, boxes = [], []
    for turn in turns:
        if not isinstance(turn, dict) or not isinstance(turn.get("content"), str):
            raise RowError("unusable question: with `objects`, every turn must be plain text")
        tags = OBJECT_TAG.findall(turn["content"])
        values = [next(labels if tag == REF_TAG else bboxes, None) for tag in tags]
        if None in values:
            raise RowError(f"placeholder mismatch: {len(tags)} tags, but fewer values in `objects`")
        turn_boxes, label = [], None
        for tag, value in zip(tags, values, strict=True):
            if tag != REF_TAG:
                turn_boxes.append({"bbox_2d": value, "label": label})
            elif turn_boxes and tags[0] != REF_TAG:
                turn_boxes[-1]["label"] = str(value)
            else:
                label = str(value)
        if turn_boxes and turn.get("role") != "assistant":
            raise RowError("unusable question: <bbox> in a user turn is not supported")
        boxes += turn_boxes
        texts = map(str, values)  # a default of the lambda, because the loop rebinds it
        content = OBJECT_TAG.sub(lambda _, texts=texts: next(texts), turn["content"])
        filled.append({**turn, "content": content})
    return filled, boxes


DATASET_INFO = "dataset_info.json"
# LLaMA-Factory's tags and their defaults: the keys of a turn, and the names of the roles.
TAGS = ("role_tag", "content_tag", "user_tag", "assistant_tag", "system_tag")
SHAREGPT_TAGS = dict(zip(TAGS, ("from", "value", "human", "gpt", "system"), strict=True))
OPENAI_TAGS = dict(zip(TAGS, ("role", "content", "user", "assistant", "system"), strict=True))


def from_llama_factory(row: Row, context: RowContext) -> RawRow:
    """LLaMA-Factory: sharegpt turns (conversations or messages) or alpaca columns, and images.

    dataset_info.json in the same folder names the columns and tags that differ from the defaults.
    The gold answer is the last assistant turn.
    """
    file = context.location.rpartition(":")[0]
    info = next(
        (entry for entry in _dataset_infos(context.files) if entry.get("file_name") == file), {}
    )
    columns = info.get("columns") or {}
    images = image_references(row, columns.get("images", "images image"), context)
    names = (columns.get("messages"), "conversations", "messages")
    if key := next((name for name in names if name in row), None):
        turns = row[key]
        if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
            raise RowError(f"empty question: {key} is not a list of turns")
        defaults = OPENAI_TAGS if turns and "role" in turns[0] else SHAREGPT_TAGS
        tags = defaults | (info.get("tags") or {})
        roles = {tags[f"{role}_tag"]: role for role in ("user", "assistant", "system")}
        contents = [(turn.get(tags["role_tag"]), turn.get(tags["content_tag"])) for turn in turns]
        turns = [{"role": roles.get(role, str(role)), "content": text} for role, text in contents]
    else:
        instruction = columns.get("prompt", "instruction")
        output = columns.get("response", "output")
        require_keys(row, f"{instruction} {output}")
        texts = (row[instruction], row.get(columns.get("query", "input")))
        turns = [
            {"role": "user", "content": "\n".join(str(text) for text in texts if text)},
            {"role": "assistant", "content": answers.answer_text(row[output])},
        ]
    if (response := prompts.last_response(turns)) is None:
        raise RowError("missing keys: the last turn must be the assistant's, with the gold answer")
    return RawRow(
        images=images,
        question=prompts.question_text(turns, len(images)),
        gold=answers.answer_of_response(response),
        task=task_name(row, "ability task"),
    )


@lru_cache(maxsize=4)
def _dataset_infos(files: Storage) -> list[dict[str, Any]]:
    """All entries of dataset_info.json. Raises EmptyDatasetError if it is not JSON."""
    if not files.has_file(DATASET_INFO):
        return []
    with files.open(DATASET_INFO) as file:
        try:
            content = json.load(file)
        except ValueError as error:
            raise EmptyDatasetError(f"{DATASET_INFO} is not JSON: {error}") from error
    return [entry for entry in content.values() if isinstance(entry, dict)]


KEYS_OF_FORMATS: tuple[tuple[str, type, Source], ...] = (
    ("image_urls", object, Source.mm_eureka),
    ("message", str, Source.mm_eureka),
    ("messages", object, Source.ms_swift),
    ("conversations", list, Source.llama_factory),
    ("reward_model", dict, Source.verl),
    ("problem", str, Source.easyr1),
    ("prompt", list, Source.trl),
)
"""(key, type of its value, format): the first key and type found in a row decide its format."""


def from_any(row: Row, context: RowContext) -> RawRow:
    """A user's own jsonl, which may mix formats: the keys of each row decide its format."""
    for key, value_type, source in KEYS_OF_FORMATS:
        if row.get(key) is not None and isinstance(row[key], value_type):
            return FORMATS[source].convert(row, context)
    return from_columns(row, DIFFICULTY_SAMPLING, context)


def from_auto(row: Row, context: RowContext) -> RawRow:
    """Any row: the published formats that need more than column names, else by names (auto.py)."""
    named = auto.named_values(row, context.config.columns)
    if not named:
        if row.get("objects") and row.get("messages"):
            return from_ms_swift(row, context)
        has_urls = bool(row.get("image_urls")) and "answer" in row
        if isinstance(row.get("message"), str) or (has_urls and "conversations" in row):
            return from_mm_eureka(row, context)
        if first_value(row, "reward_model.verifier") is not None:
            return from_orsta(row, context)
    return auto.from_row(row, named, context)


@dataclass(frozen=True, slots=True)
class Format:
    """How to find and convert a source's rows. `task_of_file` gives a file name's task, if any."""

    rule: Columns | Callable[[Row, RowContext], RawRow]
    suffixes: tuple[str, ...] = FILE_SUFFIXES
    task_of_file: Callable[[str], str | None] = lambda name: None

    def convert(self, row: Row | RowError, context: RowContext) -> RawRow:
        """Convert a row. Raises RowError."""
        if isinstance(row, RowError):
            raise row
        if isinstance(self.rule, Columns):
            return from_columns(row, self.rule, context)
        return self.rule(row, context)


FORMATS = {
    Source.jsonl: Format(from_any),
    Source.orsta: Format(from_orsta, (".parquet",), orsta_task_of_file),
    Source.mm_eureka: Format(from_mm_eureka, (".jsonl", ".parquet")),
    Source.mulberry: Format(from_mulberry, (".json", ".jsonl")),
    Source.geometry3k: Format(GEOMETRY3K, (".parquet",)),
    Source.ms_swift: Format(from_ms_swift),
    Source.llama_factory: Format(from_llama_factory),
    Source.easyr1: Format(EASYR1),
    Source.verl: Format(VERL),
    Source.trl: Format(from_trl),
    Source.auto: Format(from_auto, ALL_SUFFIXES),
}
