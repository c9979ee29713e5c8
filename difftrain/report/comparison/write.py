"""compare.md, .html, .csv and .tex in one folder, each whole or not at all."""

import csv
import io
from collections.abc import Iterator
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2

from difftrain.pipeline import manifest
from difftrain.report import words as numbers
from difftrain.report.comparison import pictures, tables, words
from difftrain.report.comparison.content import MEAN, Comparison, Line
from difftrain.report.style import ARM_COLOURS

TITLE = "Rows against their random controls"
TEX_SPECIAL = {each: f"\\{each}" for each in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    numbers.MINUS: "$-$",
}


def write(folder: Path, comparisons: list[Comparison]) -> None:
    """Write the four files."""
    manifest.write_text(folder / "compare.md", markdown(comparisons))
    manifest.write_text(folder / "compare.csv", comma_separated(comparisons))
    manifest.write_text(folder / "compare.tex", latex(comparisons))
    manifest.write_text(folder / "compare.html", page(comparisons))


def markdown(comparisons: list[Comparison]) -> str:
    """The comparison as text, ready for a README."""
    blocks = [f"# {TITLE}"]
    for each in comparisons:
        blocks += [
            f"## {each.title}",
            f"Model {each.model}. {words.headline(each)}",
            tables.results(each).markdown(),
            "### Differences",
            tables.differences(each).markdown() if each.tested else "None was tested.",
            "A star marks what may be called a difference, by itself, in its column."
            * bool(each.tested),
            "### What it took",
            tables.costs(each).markdown(),
            "### Read with this in mind",
            "\n".join(f"* {note}" for note in tables.notes(each)),
        ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def comma_separated(comparisons: list[Comparison]) -> str:
    """One line for each row and benchmark; scores are fractions of 1, missing ones empty."""
    text = io.StringIO()
    rows = [row for each in comparisons for line in (each.base, *each.lines)
            for row in csv_rows(each, line)]  # fmt: skip
    writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)),
                            lineterminator="\n")  # fmt: skip
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def csv_rows(comparison: Comparison, line: Line) -> Iterator[dict[str, Any]]:
    """A row's lines: its scores, its differences, and on the mean's line its cost."""
    for name in (*comparison.benchmarks, MEAN):
        score = line.scores[name]
        found = line.against.differences[name] if line.against else None
        yield {
            "model": comparison.model,
            "data": comparison.data,
            "measure": comparison.measure,
            "row": line.name,
            "title": line.title,
            "benchmark": name,
            "seeds": " ".join(map(str, line.seeds)),
            "score": score.mean,
            "low": score.low,
            "high": score.high,
            "n": score.n,
            "left_out": score.left_out,
            "seed_scores": " ".join(f"{each:.6f}" for each in score.seed_means),
            "paper": line.paper.get(name),
            "control": line.against.control if line.against else "",
            "difference": found.mean if found else None,
            "difference_low": found.low if found else None,
            "difference_high": found.high if found else None,
            "p": found.p if found else None,
            "p_corrected": found.corrected if found else None,
            "test": found.test if found else None,
            "said": words.said(line, name) if found else "",
        } | {
            f"cost_{key}": value if name == MEAN else None
            for key, value in (asdict(line.cost) if line.cost else {}).items()
        }


def tex(text: str) -> str:
    """Text with LaTeX's special characters escaped."""
    return "".join(TEX_SPECIAL.get(each, each) for each in text)


def latex(comparisons: list[Comparison]) -> str:
    """A table for each comparison (package booktabs), percent with intervals in small print.

    The notes stand below it.
    """
    blocks = []
    for each in comparisons:
        names = (*each.benchmarks, MEAN)
        columns = [*(tex(name.removeprefix("shapes/")) for name in names), "", "p", "p, corrected"]
        head = " & ".join(["", *columns])
        body = "\n".join(tex_row(each, line) for line in (each.base, *each.lines))
        shapes = " Miniatures of the benchmarks, not the benchmarks." * any(
            name.startswith("shapes/") for name in names
        )
        caption = tex(f"{each.title}, {each.model}. {words.headline(each)}{shapes}")
        notes = "\\par\n".join(tex(note) for note in tables.notes(each))
        blocks.append(
            f"\\begin{{table*}}\n\\centering\\small\n\\caption{{{caption}}}\n"
            f"\\begin{{tabular}}{{l{'r' * len(names)}lrr}}\n\\toprule\n"
            f"{head} \\\\\n\\midrule\n{body}\n\\bottomrule\n\\end{{tabular}}\n"
            f"\\par\\smallskip\\parbox{{\\textwidth}}{{\\footnotesize {notes}}}\n\\end{{table*}}\n"
        )
    return "\n".join(blocks)


def tex_row(comparison: Comparison, line: Line) -> str:
    """One row of the LaTeX table, the paper's figures in brackets as elsewhere."""
    cells = [tex(line.title)]
    for name in (*comparison.benchmarks, MEAN):
        score, _, rest = tables.with_paper(line, name).partition(" ")
        cells.append(tex(score) + (f" {{\\scriptsize {tex(rest)}}}" if rest else ""))
    told = ["", "", ""]
    if line.against:
        mean = line.against.differences[MEAN]
        told = [words.said(line), words.p_value(mean.p), words.p_value(mean.corrected)]
    return " & ".join([*cells, *map(tex, told)]) + r" \\"


def page(comparisons: list[Comparison]) -> str:
    """The whole page as HTML: one file that fetches nothing."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    here, css = resources.files("difftrain.report.comparison"), "page.css"
    template = environment.from_string((here / "compare.html.jinja").read_text())
    return template.render(
        css=(resources.files("difftrain.report") / css).read_text(),
        title=TITLE,
        comparisons=comparisons,
        figures={
            id(each): {
                "forest": pictures.forest(each),
                "means": pictures.means(each),
                "costs": pictures.costs(each),
            }
            for each in comparisons
        },
        identity=id,
        mean=MEAN,
        words=words,
        numbers=numbers,
        tables=tables,
        colours=ARM_COLOURS,
    )
