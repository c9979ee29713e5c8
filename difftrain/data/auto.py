"""data=auto: recognizes a row by the names of its columns, whatever the file's format.

Reads plain rows (image, question, answer), chat messages (roles or LLaVA's from and value) whose
parts may hold the images, and rows of VLMEvalKit's TSV files. Columns with other names are set with
data.columns. A value of a csv or tsv may hold a list as text.
"""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import PurePosixPath
from typing import Any

from difftrain.config.data import ColumnsConfig
from difftrain.data import answers, prompts, question_options
from difftrain.data.convert import (
    Columns,
    RawRow,
    RowContext,
    extra_columns,
    first_value,
    from_columns,
)
from difftrain.data.prompts import LETTERS
from difftrain.data.quarantine import RowError
from difftrain.data.readers import Row
from difftrain.data.storage import is_base64_image

# The names that are recognized, in order of preference.
QUESTIONS = "question problem messages conversations prompt query instruction"
IMAGES = "images image image_paths image_path image_urls image_url img file_name"
RESPONSES = "response output completion"  # what an assistant wrote: the answer is inside
ANSWERS = "answers answer solution ground_truth reward_model.ground_truth gold label"
OPTIONS = "options choices"
TASKS = "ability task task_type subject category"
# The columns of a row once its values are found; from_columns reads them.
FOUND = Columns("images", "question", "answer", "", TASKS, "options", from_response=True)
_ALL_NAMES = (QUESTIONS, IMAGES, RESPONSES, ANSWERS, OPTIONS, TASKS)
NAMES = {name for names in _ALL_NAMES for name in names.split()}
NAMES |= {"reward_model", "answer_kind", "hint", "input", "system", "objects", "message"}
"""All columns that may be read; the others are extra columns."""
ROLES = {"human": "user", "gpt": "assistant"}  # LLaVA's names
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".tif", ".tiff"}
PLURAL_SUFFIX = "answers"  # the end of the name of a column with several answers


def named_values(row: Row, columns: ColumnsConfig) -> dict[str, Any]:
    """The values of the columns that data.columns names, by role: question, images, ...

    Raises RowError if the row lacks one of the columns.
    """
    names = {role: name for role, name in asdict(columns).items() if name}
    return {role: _named_value(row, role, name) for role, name in names.items()}


def _named_value(row: Row, role: str, name: str) -> Any:
    """The value of a column, or of field b of column a for the name `a.b`. Raises RowError."""
    if name in row:
        return row[name]
    if "." not in name or name.split(".")[0] not in row:
        found = ", ".join(sorted(row)) or "none"
        raise RowError(f"missing keys: data.columns.{role}={name}; columns found: {found}")
    return first_value(row, name)


def from_row(row: Row, named: Mapping[str, Any], context: RowContext) -> RawRow:
    """Convert a row by its column names; `named` has the values that data.columns names.

    Raises RowError, which names the columns found.
    """
    row = _with_lower_names(row, context.config.columns)
    letters = _letter_columns(row)
    question = _turns(named.get("question", _question(row)))
    answer = named.get("answer", _value(row, _first_name(row, ANSWERS)))
    answer_name = context.config.columns.answer or _first_name(row, ANSWERS)
    if isinstance(answer, str) and answer_name.endswith(PLURAL_SUFFIX):
        answer = _parsed(answer)
    options = named.get("options", _value(row, _first_name(row, OPTIONS)))
    if options is None and letters:
        options = answers.texts_by_letter([(letter, row[letter]) for letter in letters])
    response = _value(row, _first_name(row, RESPONSES))
    if response is None and isinstance(question, list):
        response = prompts.last_response(question)
    images = _images(named.get("images", _value(row, _first_name(row, IMAGES))))
    images = images or prompts.part_images(question)
    missing = {
        "question": question is None,
        "answer": answer is None and response is None,
        "images": not images and not context.keeps_text_only,
    }
    if any(missing.values()):
        raise _missing_error([role for role, is_missing in missing.items() if is_missing], row)
    found = {key: value for key, value in row.items() if key in FOUND.task.split()}
    found |= {"images": images, "question": question, "answer": answer, "completion": response}
    found |= {"options": options, "answer_kind": row.get("answer_kind")}
    raw = from_columns(found, FOUND, context)
    names = [name for name in asdict(context.config.columns).values() if name]
    claimed = NAMES | {*letters, *names, *(name.split(".")[0] for name in names)}
    raw = replace(raw, extra=extra_columns(row, claimed))
    return raw if raw.options else _with_question_options(raw)


def _with_lower_names(row: Row, columns: ColumnsConfig) -> Row:
    """The row with `question` for a column `Question`; names that are not recognized, and those in
    data.columns, are unchanged. Raises RowError if two columns with a value get one name.
    """
    named = {*asdict(columns).values()}
    lowered: Row = {}
    key_of: dict[str, str] = {}
    for key, value in row.items():
        name = key if key in named or key.lower() not in NAMES else key.lower()
        if value is not None and lowered.get(name) is not None:
            remedy = "rename or drop one, or name one with data.columns"
            found = f"{key_of[name]} and {key} differ only in capitals"
            raise RowError(f"ambiguous columns: {found}; {remedy}")
        if lowered.get(name) is None:
            lowered[name], key_of[name] = value, key
    return lowered


def _first_name(row: Row, names: str) -> str:
    """The first of the names whose value is neither null, empty text nor an empty list, or ""."""
    values = ((name, first_value(row, name)) for name in names.split())
    return next((name for name, value in values if value not in (None, "", [])), "")


def _value(row: Row, name: str) -> Any:
    return first_value(row, name) if name else None


def _question(row: Row) -> Any:
    """The question; alpaca's `input` and VLMEvalKit's `hint` are joined to it."""
    name = _first_name(row, QUESTIONS)
    question = _value(row, name)
    if isinstance(question, str):
        before = row.get("hint") if name == "question" else None
        after = row.get("input") if name == "instruction" else None
        question = "\n".join(str(text) for text in (before, question, after) if text)
    return question


def _turns(question: Any) -> Any:
    """The question; messages with the keys role and content, and as a list if they are text."""
    if isinstance(question, str) and question.lstrip().startswith(("[{", '{"role')):
        question = _parsed(question)
    if isinstance(question, dict):
        question = [question]
    if not isinstance(question, list):
        return question
    return [
        {"role": ROLES.get(turn["from"], turn["from"]), "content": turn.get("value")}
        if isinstance(turn, dict) and turn.get("from") is not None
        else turn
        for turn in question
    ]


def _parsed(text: str) -> Any:
    """The value of a JSON text or Python literal; any other text unchanged."""
    try:
        return answers.parse_literal(text.strip())
    except ValueError:
        return text


def _images(value: Any) -> list[Any]:
    """The image references of a value. Raises RowError for VLMEvalKit's reference to a row."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        value = _parsed(value)
    if isinstance(value, int) or (isinstance(value, str) and value.isdecimal()):
        advice = "repeat the image in this row"
        raise RowError(f"no image: the image is the number of another row, {value}; {advice}")
    values = value if isinstance(value, list) else [value]
    return [image for image in values if image not in (None, "")]


def _letter_columns(row: Row) -> list[str]:
    """VLMEvalKit's columns A, B, ... if there are A and B and at least two have a value."""
    letters = [letter for letter in LETTERS if letter in row]
    has_options = letters[:2] == ["A", "B"]
    has_options &= sum(row[letter] not in (None, "") for letter in letters) > 1
    return letters if has_options else []


def _with_question_options(raw: RawRow) -> RawRow:
    """The row with the options inside its question as options, if the answer names one of them."""
    if raw.answer_kind is not None or (parts := question_options.split(raw.question)) is None:
        return raw
    question, options = parts
    try:
        letter = answers.choice_letter(raw.gold, options)
    except RowError:
        return raw
    is_option = letter in tuple(LETTERS[: len(options)])
    return replace(raw, question=question, options=options) if is_option else raw


def _missing_error(roles: list[str], row: Row) -> RowError:
    """The error for a row without these; it names the columns and the settings to read them."""
    short_reason = "no image" if roles == ["images"] else "missing keys"
    found = ", ".join(sorted(row)) or "none"
    guesses = _guesses(row, {key: value for key, value in row.items() if key not in NAMES})
    settings = " ".join(f"data.columns.{role}={guesses.get(role, 'COLUMN')}" for role in roles)
    text_only = ", or data.text_only=keep" if roles == ["images"] else ""
    names = {"question": QUESTIONS, "answer": f"{ANSWERS} {RESPONSES}"}
    empty = [name for role in roles for name in names.get(role, "").split() if name in row]
    problem = f"no column is recognized as {', '.join(roles)}"
    if empty:
        problem += f" (no value in {', '.join(empty)})"
    return RowError(f"{short_reason}: {problem}; columns found: {found}; set {settings}{text_only}")


def _guesses(row: Row, unknown: Mapping[str, Any]) -> dict[str, str]:
    """The likely column of each role: images by value; of the texts, the longest is the question.

    A recognized question is no guess, so that the answer is another text.
    """
    images = [name for name, value in unknown.items() if _is_image(value)]
    guesses = {"images": images[0]} if images else {}
    is_text = {key: type(value) in (str, int, float) for key, value in unknown.items()}
    texts = {key: str(unknown[key]) for key in unknown if is_text[key] and key not in images}
    if texts and not _first_name(row, QUESTIONS):
        questions = [key for key, text in texts.items() if "?" in text] or list(texts)
        guesses["question"] = max(questions, key=lambda key: len(texts[key]))
        texts.pop(guesses["question"])
    likely = [key for key in texts if any(word in key.lower() for word in ("answer", "gold"))]
    if candidates := likely or [key for key in texts if "id" not in key.lower()]:
        guesses["answer"] = candidates[0]
    return guesses


def _is_image(value: Any) -> bool:
    """Whether a value is an image or a list of images."""
    value = value[0] if isinstance(value, list) and value else value
    if isinstance(value, str):
        is_path = PurePosixPath(value).suffix.lower() in IMAGE_SUFFIXES
        return is_path or value.startswith("data:image/") or is_base64_image(value)
    return isinstance(value, bytes) or (isinstance(value, dict) and "bytes" in value)
