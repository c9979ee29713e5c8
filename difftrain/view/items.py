"""Compares two checkpoints on benchmark items: which items did the second one win or lose?

An evaluation is an arm of a run (base, tuned or control). Scores and responses come from its
parquet parts, questions from its prediction files, and images from the benchmark's own data.
"""

import csv
import sys
from collections.abc import Sequence
from threading import Lock
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from difftrain import images
from difftrain.config.data import DataConfig
from difftrain.config.evaluate import TSV_FILES, EvaluateConfig
from difftrain.data.prompts import LETTERS
from difftrain.images import ImageError, PixelBudget
from difftrain.pipeline import parquet
from difftrain.records import ItemResult
from difftrain.view.folders import ViewFolders, settings_section

ITEMS_PAGE_SIZE = 20
MAX_LETTERS = 8  # options of a benchmark item
CHANGES = ("lost", "won", "both right", "both wrong", "equal, partly right", "not comparable")
"""What became of an item: `lost` means a lower score after than before, `won` a higher one."""


class ItemComparison:
    """The evaluations of one or several runs, and their items side by side."""

    def __init__(self, runs: Sequence[ViewFolders]) -> None:
        self.evaluations = {
            f"{run.title}/{arm}": (run, folder)
            for run in runs
            for arm, folder in run.evaluations.items()
        }
        self._runs = [run for run in runs if run.evaluations]
        self._lock = Lock()
        self._question_cache: dict[str, dict[tuple[str, str], dict[str, Any]]] = {}
        self._item_cache: dict[str, dict[tuple[str, str], Any]] = {}
        self._connection = duckdb.connect(":memory:")
        self._connection.execute("SET enable_external_access = false")
        columns = ", ".join(f"{name} VARCHAR" for name in
                            ("benchmark", "item_id", "response", "extracted", "graded_by",
                             "status", "error", "category"))  # fmt: skip
        self._connection.execute(f"CREATE TABLE item (evaluation VARCHAR, {columns}, score DOUBLE)")
        for name, (_, folder) in self.evaluations.items():
            for path in parquet.parts(folder):
                rows = pq.ParquetFile(path).read(columns=parquet.schema(ItemResult).names)
                rows = rows.append_column("evaluation", pa.array([name] * len(rows), pa.string()))
                self._connection.register("batch", rows)
                self._connection.execute("INSERT INTO item BY NAME SELECT * FROM batch")
                self._connection.unregister("batch")

    @property
    def default_pair(self) -> tuple[str, str] | None:
        """What to compare first: the runs' tuned arms, or base and tuned of a single run."""
        names = [*self.evaluations]
        tuned = [name for name in names if name.endswith("/tuned")]
        if len(self._runs) > 1 and len(tuned) > 1:
            return tuned[0], tuned[1]
        return (names[0], tuned[0] if tuned else names[-1]) if len(names) > 1 else None

    def compare(
        self, before: str, after: str, benchmark: str, change: str, text: str, page: int
    ) -> dict[str, Any]:
        """A page of items with both responses, and the numbers of items by benchmark and change.

        An empty `benchmark` or `change` accepts all. Raises KeyError for an unknown evaluation.
        """
        for name in (before, after):
            if name not in self.evaluations:
                raise KeyError(name)
        questions = self._questions(after) or self._questions(before)
        pairs = """WITH pair AS (
            SELECT b.benchmark, b.item_id, b.category, b.score AS before, a.score AS after,
                   b.response AS before_response, a.response AS after_response,
                   b.extracted AS before_extracted, a.extracted AS after_extracted,
                   b.error AS before_error, a.error AS after_error,
                   CASE WHEN before IS NULL OR after IS NULL THEN 'not comparable'
                        WHEN after < before THEN 'lost' WHEN after > before THEN 'won'
                        WHEN after >= 1 THEN 'both right' WHEN after <= 0 THEN 'both wrong'
                        ELSE 'equal, partly right' END AS change
            FROM item b JOIN item a USING (benchmark, item_id)
            WHERE b.evaluation = ? AND a.evaluation = ?)"""
        cursor = self._connection.cursor()
        counts = cursor.execute(
            f"{pairs} SELECT benchmark, change, count(*) FROM pair GROUP BY ALL ORDER BY ALL",
            [before, after],
        ).fetchall()
        conditions, parameters = ["true"], [before, after]
        for column, value in (("benchmark", benchmark), ("change", change)):
            if value:
                conditions.append(f"{column} = ?")
                parameters.append(value)
        rows = cursor.execute(
            f"{pairs} SELECT * FROM pair WHERE {' AND '.join(conditions)} "
            "ORDER BY benchmark, item_id",
            parameters,
        ).fetchall()
        names = [column[0] for column in cursor.description or ()]
        items = [dict(zip(names, row, strict=True)) for row in rows]
        for item in items:
            item.update(questions.get((item["benchmark"], item["item_id"]), {}))
        if text:
            keys = ("question", "before_response", "after_response", "item_id", "gold")
            items = [
                item for item in items
                if any(text.lower() in str(item.get(key) or "").lower() for key in keys)
            ]  # fmt: skip
        start = page * ITEMS_PAGE_SIZE
        return {
            "counts": counts,
            "total": len(items),
            "page_size": ITEMS_PAGE_SIZE,
            "items": items[start : start + ITEMS_PAGE_SIZE],
        }

    def _questions(self, evaluation: str) -> dict[tuple[str, str], dict[str, Any]]:
        """(benchmark, item id) -> question, options and gold answer, from the prediction files."""
        with self._lock:
            if evaluation not in self._question_cache:
                self._question_cache[evaluation] = dict(self._read_questions(evaluation))
        return self._question_cache[evaluation]

    def _read_questions(self, evaluation: str) -> Any:
        from difftrain.evaluate import benchmark_named

        _, folder = self.evaluations[evaluation]
        csv.field_size_limit(sys.maxsize)
        benchmarks = self._connection.cursor().execute("SELECT DISTINCT benchmark FROM item")
        for (name,) in benchmarks.fetchall():
            file_name = TSV_FILES.get(name, f"{name.replace('/', '-')}.tsv")
            for path in (folder / "predictions").glob(f"*_{file_name}"):
                with path.open(newline="", encoding="utf-8") as file:
                    for row in csv.DictReader(file, delimiter="\t"):
                        options = [
                            (letter, row[letter])
                            for letter in LETTERS[:MAX_LETTERS] if row.get(letter)
                        ]  # fmt: skip
                        item_id = str(benchmark_named(name).item_id(row))
                        question = {"question": row.get("question"), "options": options}
                        yield (name, item_id), question | {"gold": row.get("answer")}

    def image(self, evaluation: str, benchmark: str, item_id: str) -> bytes:
        """A PNG of an item's first image. Raises KeyError if it is not available.

        The first call loads the benchmark's items, which takes seconds.
        """
        run, _ = self.evaluations[evaluation]
        from difftrain.evaluate.loading import decode_image  # takes seconds

        with self._lock:
            items = self._items(run)
        if (row := items.get((benchmark, item_id))) is None:
            raise KeyError(f"{benchmark}: no item {item_id}")
        cell = row["image"][0] if isinstance(row["image"], list) else row["image"]
        try:
            data = settings_section(run, "data", DataConfig)
            config = settings_section(run, "evaluate", EvaluateConfig)
            budget = PixelBudget(*config.pixels(benchmark, (data.min_pixels, data.max_pixels)))
            return images.to_png(decode_image(cell, budget))
        except ImageError as error:
            raise KeyError(str(error)) from error

    def _items(self, run: ViewFolders) -> dict[tuple[str, str], Any]:
        from difftrain.evaluate.loading import load_items

        if run.title not in self._item_cache:
            config = settings_section(run, "evaluate", EvaluateConfig)
            self._item_cache[run.title] = {item.key: item.row for item in load_items(config)}
        return self._item_cache[run.title]
