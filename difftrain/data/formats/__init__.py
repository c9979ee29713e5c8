"""The formats that rows come in: which files hold them, and how one row becomes an `Asked`.

One file each. Not here: decoding pictures and judging golds, which is the same for all (rows.py).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from difftrain.config.data import FILE_SUFFIXES, Source
from difftrain.data.formats import (
    easyr1,
    geometry3k,
    llama_factory,
    mixed,
    mm_eureka,
    ms_swift,
    mulberry,
    orsta,
    trl,
    verl,
)
from difftrain.data.formats.origin import Origin
from difftrain.data.rows import Asked


@dataclass(frozen=True, slots=True)
class Format:
    """How rows of one source are read; `task_of_file` names a file's task where its name tells."""

    asked: Callable[[Mapping[str, Any], Origin], Asked]
    suffixes: Sequence[str] = FILE_SUFFIXES
    task_of_file: Callable[[str], str | None] = lambda name: None


FORMATS = {
    Source.jsonl: Format(mixed.asked),
    Source.orsta: Format(orsta.asked, (".parquet",), orsta.task_of_file),
    Source.mm_eureka: Format(mm_eureka.asked, (".jsonl", ".parquet")),
    Source.mulberry: Format(mulberry.asked, (".json", ".jsonl")),
    Source.geometry3k: Format(geometry3k.asked, (".parquet",)),
    Source.ms_swift: Format(ms_swift.asked),
    Source.llama_factory: Format(llama_factory.asked),
    Source.easyr1: Format(easyr1.asked),
    Source.verl: Format(verl.asked),
    Source.trl: Format(trl.asked),
}
