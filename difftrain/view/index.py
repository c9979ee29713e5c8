"""Filters, sorts and counts samples: one table in memory (duckdb), without images and responses.

Images and responses stay in the parquet parts; the index knows the part and row of each of them, so
that a page reads only what it shows. Column names in SQL come from a fixed list, all other values
are parameters.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from difftrain.pipeline import parquet
from difftrain.records import Measure, Rollout, Sample, Score, Selection, View
from difftrain.select.rap import DECISIONS_FOLDER, Decision
from difftrain.view.folders import ViewFolders

logger = logging.getLogger(__name__)

PAGE_SIZE = 48
MAX_FACET_VALUES = 40  # values of a filter that the page lists, the most frequent first
NUM_BINS = 24  # of a measure's histogram
SCATTER_CELLS = 256  # per axis; the points of a cell are drawn as one
BATCH_ROWS = 200_000  # rollouts that are indexed at once
NOT_SELECTED = "not selected"
SAMPLE_COLUMNS = (
    *("sample_id", "question", "answer", "answer_kind", "options", "task", "task_set", "source"),
    *("requires_image", "gen_difficulty"),
)
ROLLOUT_COLUMNS = ("sample_id", "view", "mask_percent", "draw", "verdict", "num_tokens", "hit_eos")
NUMBERS = ("accuracy", "masked_accuracy", "text_only_accuracy", "mean_tokens", "gen_difficulty")
"""Numeric columns besides the measures; the accuracies are fractions of the probe's responses."""
OUTCOMES = ("all correct", "some correct", "none correct", "no response")
"""A view's responses to a sample: how many of them are correct."""


@dataclass(frozen=True, slots=True)
class Lasso:
    """A polygon in the plane of two numeric columns."""

    x: str
    y: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class SampleFilter:
    """Which samples to show: those that meet every condition.

    `values`: column -> accepted values; `ranges`: numeric column -> (low, high), None: no limit.
    """

    text: str = ""
    values: Mapping[str, Sequence[str]] = field(default_factory=dict)
    ranges: Mapping[str, tuple[float | None, float | None]] = field(default_factory=dict)
    lasso: Lasso | None = None


class SampleIndex:
    """The samples of a run with their scores, selections and counts of verdicts.

    Samples without a score (the engine failed on them) are left out. Raises SchemaError if a part
    lacks a column.
    """

    def __init__(self, folders: ViewFolders) -> None:
        self.folders = folders
        self.parts = {"data": parquet.parts(folders.data), "probe": parquet.parts(folders.probe)}
        self._connection = duckdb.connect(":memory:")
        self._connection.execute("SET enable_external_access = false")
        self.measures: list[str] = []
        self._load_scores()
        self._load_samples()
        self._load_rollouts()
        self._load_selections()
        self._join()
        self.total = self._rows("SELECT count(*) FROM sample")[0][0]

    @property
    def numeric(self) -> list[str]:
        """Columns to sort by, to limit to a range and to plot; the measures first."""
        return [*self.measures, *NUMBERS]

    @property
    def facets(self) -> list[str]:
        """Columns to filter by value."""
        strata = [f"{measure}_stratum" for measure in self.measures]
        selection = ["selected", "reason", "decision"]
        return [*strata, "task", "task_set", "answer_kind", *(f"{v}_outcome" for v in View),
                "unparsable", *selection]  # fmt: skip

    def page(
        self, chosen: SampleFilter, sort: str, descending: bool, page: int
    ) -> list[dict[str, Any]]:
        """The rows of one page of the grid, in order; `sort` is `sample_id` or a numeric column."""
        where, parameters = self._where(chosen)
        order = self._order(sort, descending)
        columns_of_card = [
            "sample_id",
            "question",
            "answer",
            "task",
            "selected",
            "accuracy",
            *self.measures,
        ]
        columns_of_card += [f"{measure}_stratum" for measure in self.measures]
        names = ", ".join(f'"{name}"' for name in columns_of_card)
        # Only the rows of the page are read with all their texts.
        rows = self._rows(
            f"""SELECT {names} FROM sample WHERE number IN (SELECT number FROM sample {where}
                ORDER BY {order} LIMIT {PAGE_SIZE} OFFSET ?) ORDER BY {order}""",
            [*parameters, PAGE_SIZE * page],
        )
        return [dict(zip(columns_of_card, row, strict=True)) for row in rows]

    def count(self, chosen: SampleFilter) -> int:
        """The number of samples that the filter accepts."""
        where, parameters = self._where(chosen)
        return self._rows(f"SELECT count(*) FROM sample {where}", parameters)[0][0]

    def ids(
        self, chosen: SampleFilter, sort: str = "sample_id", descending: bool = False
    ) -> list[str]:
        """The ids of all samples that the filter accepts, in the grid's order."""
        where, parameters = self._where(chosen)
        order = self._order(sort, descending)
        rows = self._rows(f"SELECT sample_id FROM sample {where} ORDER BY {order}", parameters)
        return [sample_id for (sample_id,) in rows]

    def neighbors(
        self, sample_id: str, chosen: SampleFilter, sort: str, descending: bool
    ) -> dict[str, Any]:
        """Position of a sample in the grid (from 0; None: filtered out), and the ids around it."""
        where, parameters = self._where(chosen)
        order = self._order(sort, descending)
        rows = self._rows(
            f"""SELECT position, previous, next FROM (
                SELECT sample_id, row_number() OVER w - 1 AS position,
                       lag(sample_id) OVER w AS previous, lead(sample_id) OVER w AS next
                FROM sample {where} WINDOW w AS (ORDER BY {order})) WHERE sample_id = ?""",
            [*parameters, sample_id],
        )
        position, previous, following = rows[0] if rows else (None, None, None)
        return {"position": position, "previous": previous, "next": following}

    def facet_counts(self, chosen: SampleFilter) -> dict[str, list[tuple[str, int]]]:
        """Value -> number of samples for each facet, under the filter without its own condition.

        So another value of the same facet shows how many samples it would add. Values that no
        sample has are left out, and so is a facet that has no value in any sample.
        """
        counts = {}
        for name in self.facets:
            where, parameters = self._where(chosen, skip=name)
            source = f"SELECT unnest(selected) AS v FROM sample {where}"
            if name != "selected":
                source = f'SELECT "{name}" AS v FROM sample {where}'
            rows = self._rows(
                f"""SELECT v, count(*) AS n FROM ({source}) WHERE v IS NOT NULL
                    GROUP BY v ORDER BY n DESC, v LIMIT {MAX_FACET_VALUES}""",
                parameters,
            )
            listed = {value for value, _ in rows}
            rows += [(value, 0) for value in chosen.values.get(name, ()) if value not in listed]
            if rows:
                counts[name] = rows
        return counts

    def histograms(self, chosen: SampleFilter) -> dict[str, dict[str, Any]]:
        """For each numeric column its range over all samples, and counts by bin under the filter.

        A column's own range condition is left out. `missing` counts samples without a value.
        """
        result = {}
        for name, (low, high) in self._limits.items():
            where, parameters = self._where(chosen, skip=name)
            width = (high - low) / NUM_BINS
            bin_of = f"least({NUM_BINS - 1}, floor(({name} - ?) / ?))::INT" if width else "0"
            values = [low, width] if width else []
            rows = self._rows(
                f"SELECT CASE WHEN {name} IS NULL THEN -1 ELSE {bin_of} END AS bin, count(*) "
                f"FROM sample {where} GROUP BY bin",
                [*values, *parameters],
            )
            by_bin = dict(rows)
            bins = [by_bin.get(number, 0) for number in range(NUM_BINS)]
            result[name] = {"low": low, "high": high, "bins": bins, "missing": by_bin.get(-1, 0)}
        return result

    def scatter(self, chosen: SampleFilter, x: str, y: str, color: str) -> dict[str, Any]:
        """Points of two numeric columns: mean x and y, number of samples and value of `color`.

        Samples that are near each other and have the same color are one point. The filter's lasso
        is left out. `missing` counts samples that have no value of x or y.
        """
        for name in (x, y):
            if name not in self._limits:
                raise KeyError(name)
        if color not in self.facets or color == "selected":
            raise KeyError(color)
        where, parameters = self._where(chosen, skip="lasso")
        cells = []
        for name in (x, y):
            low, high = self._limits[name]
            cells.append(f"floor(({name} - {low!r}) / {(high - low) / SCATTER_CELLS or 1.0!r})")
        rows = self._rows(
            f"""SELECT avg({x}), avg({y}), count(*), {color} FROM sample {where}
                {"AND" if where else "WHERE"} {x} IS NOT NULL AND {y} IS NOT NULL
                GROUP BY {color}, {cells[0]}, {cells[1]} ORDER BY 3 DESC""",
            parameters,
        )
        columns = [list(column) for column in zip(*rows, strict=True)] or [[], [], [], []]
        num_drawn = sum(columns[2])
        missing = self.count(SampleFilter(chosen.text, chosen.values, chosen.ranges)) - num_drawn
        limits = {"x": self._limits[x], "y": self._limits[y]}
        return dict(zip(("x", "y", "n", "color"), columns, strict=True)) | {
            "missing": missing,
            "limits": limits,
        }

    def location(self, sample_id: str) -> tuple[Path, int] | None:
        """The data part and the row of a sample; None if there is no such sample."""
        rows = self._rows("SELECT part, row FROM sample WHERE sample_id = ?", [sample_id])
        return (self.parts["data"][rows[0][0]], rows[0][1]) if rows else None

    def rollout_locations(self, sample_id: str) -> dict[Path, list[int]]:
        """The probe's parts that hold responses to a sample, and the rows in them."""
        rows = self._rows(
            "SELECT part, row FROM rollout WHERE number = "
            "(SELECT number FROM sample WHERE sample_id = ?) ORDER BY part, row",
            [sample_id],
        )
        result: dict[Path, list[int]] = {}
        for part, row in rows:
            result.setdefault(self.parts["probe"][part], []).append(row)
        return result

    def scores(self, sample_id: str) -> list[dict[str, Any]]:
        """A sample's value and stratum by each measure."""
        names = [name for measure in self.measures for name in (measure, f"{measure}_stratum")]
        if not names:
            return []
        columns = ", ".join(names)
        (row,) = self._rows(f"SELECT {columns} FROM sample WHERE sample_id = ?", [sample_id])
        values = dict(zip(names, row, strict=True))
        return [
            {"measure": name, "value": values[name], "stratum": values[f"{name}_stratum"]}
            for name in self.measures
        ]

    def selections(self, sample_id: str) -> list[dict[str, Any]]:
        """Each selection that has the sample, with the reason; then RAP's decision, if any."""
        rows = self._rows("SELECT name, reason FROM selection WHERE sample_id = ?", [sample_id])
        rows += self._rows(
            "SELECT 'RAP: ' || outcome, reason FROM decision WHERE sample_id = ?", [sample_id]
        )
        return [{"name": name, "reason": reason} for name, reason in rows]

    def _rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """The rows of a query. Each thread needs its own cursor."""
        return self._connection.cursor().execute(sql, list(parameters)).fetchall()

    def _order(self, column: str, descending: bool) -> str:
        """The grid's order as SQL. Raises KeyError for a column that it cannot sort by."""
        if column not in ("sample_id", *self.numeric):
            raise KeyError(column)
        return f"{column} {'DESC' if descending else 'ASC'} NULLS LAST, number"

    def _where(self, chosen: SampleFilter, skip: str = "") -> tuple[str, list[Any]]:
        """The SQL condition and its parameters, without the condition on `skip`."""
        conditions, parameters = [], list[Any]()
        if chosen.text:
            conditions.append("contains(search, lower(?))")
            parameters.append(chosen.text)
        for name, values in chosen.values.items():
            if name not in self.facets:
                raise KeyError(name)
            if name != skip and values:
                is_list = name == "selected"
                conditions.append(f"list_has_any({name}, ?)" if is_list else f'"{name}" IN ?')
                parameters.append(list(values))
        for name, limits in chosen.ranges.items():
            if name not in self.numeric:
                raise KeyError(name)
            for limit, relation in zip(limits, (">=", "<="), strict=True):
                if name != skip and limit is not None:
                    conditions.append(f"{name} {relation} ?")
                    parameters.append(limit)
        if chosen.lasso and skip != "lasso":
            conditions.append(self._inside(chosen.lasso))
        return ("WHERE " + " AND ".join(conditions) if conditions else ""), parameters

    def _inside(self, lasso: Lasso) -> str:
        """Whether a point is inside the polygon: a ray from it crosses an odd number of edges."""
        x, y = lasso.x, lasso.y
        if x not in self.numeric or y not in self.numeric:
            raise KeyError(f"{x}, {y}")
        crossings = []
        for (x1, y1), (x2, y2) in zip(
            lasso.points, lasso.points[1:] + lasso.points[:1], strict=True
        ):
            if y1 != y2:
                at_y = f"({x1!r} + ({y} - {y1!r}) * {(x2 - x1) / (y2 - y1)!r})"
                crossings.append(f"((({y1!r} > {y}) != ({y2!r} > {y})) AND {x} < {at_y})::INT")
        total = " + ".join(crossings) or "0"
        return f"({x} IS NOT NULL AND {y} IS NOT NULL AND ({total}) % 2 = 1)"

    def _insert(self, table: str, rows: pa.Table) -> None:
        """Append Arrow rows to a table, which is created if it does not exist."""
        self._connection.register("batch", rows)
        self._connection.execute(f"CREATE TABLE IF NOT EXISTS {table} AS FROM batch LIMIT 0")
        self._connection.execute(f"INSERT INTO {table} FROM batch")
        self._connection.unregister("batch")

    def _load_scores(self) -> None:
        self._insert("score", _read(self.folders.score, Score, parquet.schema(Score).names))
        names = {row[0] for row in self._rows("SELECT DISTINCT measure FROM score")}
        self.measures = [measure for measure in Measure if measure in names]

    def _load_samples(self) -> None:
        for part, path in enumerate(self.parts["data"]):
            self._insert("data", _located(_read_part(path, Sample, SAMPLE_COLUMNS), part))
        self._connection.execute("""CREATE TABLE scored AS
            SELECT *, row_number() OVER () AS number FROM data
            WHERE sample_id IN (SELECT sample_id FROM score)""")

    def _load_rollouts(self) -> None:
        codes = [f"'{view}'" for view in View]
        self._connection.execute(f"""CREATE TABLE rollout (number INT, part INT, row INT,
            view ENUM ({", ".join(codes)}), verdict VARCHAR, num_tokens INT)""")
        for batch in self._rollout_batches():
            self._connection.register("batch", batch)
            self._connection.execute("""INSERT INTO rollout
                SELECT number, b.part, b.row, view, verdict, num_tokens
                FROM batch b JOIN scored USING (sample_id)""")
            self._connection.unregister("batch")

    def _rollout_batches(self) -> Iterator[pa.Table]:
        tables, size = [], 0
        for part, path in enumerate(self.parts["probe"]):
            tables.append(_located(_read_part(path, Rollout, ROLLOUT_COLUMNS), part))
            size += len(tables[-1])
            if size >= BATCH_ROWS:
                yield pa.concat_tables(tables)
                tables, size = [], 0
        if tables:
            yield pa.concat_tables(tables)

    def _load_selections(self) -> None:
        for table, column in (("selection", "name"), ("decision", "outcome")):
            columns = f"sample_id VARCHAR, {column} VARCHAR, reason VARCHAR"
            self._connection.execute(f"CREATE TABLE {table} ({columns})")
        for name, folder in self.folders.selections.items():
            rows = _read(folder, Selection, ["sample_id", "reason"])
            rows = rows.add_column(1, "name", pa.array([name] * len(rows), pa.string()))
            self._insert("selection", rows)
            decisions = folder / DECISIONS_FOLDER
            if parquet.parts(decisions) and not self._rows("SELECT 1 FROM decision LIMIT 1"):
                self._insert(
                    "decision", _read(decisions, Decision, ["sample_id", "outcome", "reason"])
                )

    def _join(self) -> None:
        """Make the table `sample`, one row for each sample with everything that filters use."""
        by_measure = "".join(
            f""" LEFT JOIN (SELECT sample_id, CASE WHEN isfinite(value) THEN value END AS {name},
                stratum AS {name}_stratum FROM score WHERE measure = '{name}') USING (sample_id)"""
            for name in self.measures
        )
        verdicts = ", ".join(
            f"""count(*) FILTER (view = '{view}') AS {view}_n,
            count(*) FILTER (view = '{view}' AND verdict = 'correct') AS {view}_correct"""
            for view in View
        )
        outcomes = ", ".join(
            f"""CASE WHEN coalesce({view}_n, 0) = 0 THEN '{OUTCOMES[3]}'
                WHEN {view}_correct = {view}_n THEN '{OUTCOMES[0]}'
                WHEN {view}_correct > 0 THEN '{OUTCOMES[1]}' ELSE '{OUTCOMES[2]}' END
                AS {view}_outcome"""
            for view in View
        )
        shares = ", ".join(
            f"CASE WHEN {view}_n > 0 THEN {view}_correct / {view}_n END AS {name}"
            for view, name in zip(View, NUMBERS, strict=False)
        )
        self._connection.execute(f"""CREATE TABLE sample AS
            SELECT *, {shares}, {outcomes},
                CASE WHEN unparsable_n > 0 THEN 'has unparsable responses'
                     ELSE 'all responses parsed' END AS unparsable,
                coalesce(names, ['{NOT_SELECTED}']) AS selected,
                lower(concat_ws(' ', question, answer, array_to_string(options, ' '), sample_id))
                    AS search
            FROM scored
            LEFT JOIN (SELECT number, {verdicts}, avg(num_tokens) AS mean_tokens,
                count(*) FILTER (verdict = 'unparsable') AS unparsable_n
                FROM rollout GROUP BY number) USING (number)
            LEFT JOIN (SELECT sample_id, list(name ORDER BY name) AS names,
                min(split_part(reason, ':', 1)) AS reason FROM selection GROUP BY sample_id)
                USING (sample_id)
            LEFT JOIN (SELECT sample_id, outcome AS decision FROM decision) USING (sample_id)
            {by_measure} ORDER BY number""")
        for table in ("data", "scored", "score"):
            self._connection.execute(f"DROP TABLE {table}")
        limits = {
            name: self._rows(f"SELECT min({name}), max({name}) FROM sample")[0]
            for name in self.numeric
        }
        self._limits = {name: pair for name, pair in limits.items() if pair[0] is not None}


def _read_part(path: Path, record: type, names: Sequence[str]) -> pa.Table:
    """The named columns of a part. Raises SchemaError if it lacks one."""
    file = pq.ParquetFile(path)
    if missing := [name for name in names if name not in file.schema_arrow.names]:
        raise parquet.SchemaError(f"{path}: no column {', '.join(missing)} of {record.__name__}")
    return file.read(columns=list(names)).select(list(names))


def _read(folder: Path, record: type, names: Sequence[str]) -> pa.Table:
    tables = [_read_part(path, record, names) for path in parquet.parts(folder)]
    empty = pa.schema([parquet.schema(record).field(name) for name in names]).empty_table()
    return pa.concat_tables([empty, *tables])


def _located(table: pa.Table, part: int) -> pa.Table:
    """The table with two more columns: the number of its part, and each row's number in it."""
    size = len(table)
    table = table.append_column("part", pa.array(np.full(size, part, np.int32)))
    return table.append_column("row", pa.array(np.arange(size, dtype=np.int32)))
