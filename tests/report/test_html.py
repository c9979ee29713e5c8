"""report.html is one file that loads nothing else and runs no scripts."""

import re
from base64 import b64decode
from collections.abc import Callable
from dataclasses import asdict
from html import unescape

import pytest

from difftrain.config.data import Source
from difftrain.config.run_config import RunConfig
from difftrain.report import study
from difftrain.report.build import write_report
from difftrain.report.inputs import RunInputs

MakeRun = Callable[..., RunInputs]  # writes a finished toy run, see conftest.py
RunAndReport = tuple[RunInputs, dict]  # the toy run and the content of its report.json

# w3.org is allowed: SVG files name their XML namespaces by such addresses and load nothing.
EXTERNAL_URL = re.compile(r"https?://(?!www\.w3\.org/)[^\s\"'<]*")


@pytest.fixture(scope="module")
def html(run_and_report: RunAndReport) -> str:
    """report.html of the toy run."""
    return (run_and_report[0].folder / "report.html").read_text()


def figures(html: str) -> list[str]:
    """The SVG figures of a page as text."""
    addresses = re.findall(r"data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)", html)
    return [b64decode(svg).decode() for svg in addresses]


def test_responses_are_escaped(make_run: MakeRun) -> None:
    inputs = make_run(size=9, control=False, response='<script>alert("1")</script>')
    write_report(inputs)
    page = (inputs.folder / "report.html").read_text()
    assert "<script" not in page.lower()
    assert "&lt;script&gt;alert(" in page


def test_the_page_has_no_external_url(html: str) -> None:
    svgs = figures(html)
    # Scores, flow of samples, strata, failure ratios of examples, failures by mask ratio for all
    # samples and for each task, the measure PISM against CMAB, training, times of stages,
    # and the study of the shapes world.
    assert len(svgs) == 10
    for text in (html, *svgs):
        assert EXTERNAL_URL.findall(text) == []
        assert "<script" not in text
    for url in re.findall(r'(?:src|href)="([^"]*)', html):
        assert url.startswith("data:image/")


def test_the_content_security_policy_forbids_loading(html: str) -> None:
    assert "default-src 'none'" in html


def test_the_control_is_shown_beside_base_and_tuned(html: str) -> None:
    assert "tuned against control" in html
    for arm in ("base", "tuned", "control"):
        assert f"</span>{arm}</td>" in html
    assert "<th>trained: tuned</th><th>trained: control</th>" in html


def test_a_difference_is_shown_with_its_verdict(html: str) -> None:
    assert '<span class="value better">+7.1 points</span>' in html
    assert "no difference shown" in html


def test_the_study_of_the_shapes_world_is_shown_on_its_runs_alone(make_run: MakeRun) -> None:
    config = RunConfig()
    for source, model, is_shown in (
        ("shapes", "tiny", True), ("auto", "tiny", False), ("shapes", "Qwen/x", False)
    ):  # fmt: skip
        config.data.source, config.model.name = Source(source), model
        assert bool(study.sentences(asdict(config))) is is_shown
    inputs = make_run()
    write_report(inputs)
    pages = [(inputs.folder / name).read_text() for name in ("report.html", "report.md")]
    assert all(study.sentences(inputs.settings)[0] in unescape(page) for page in pages)


def test_quarantined_rows_are_shown_with_their_reasons(html: str) -> None:
    assert "<td>image cannot be decoded</td><td>2</td>" in html
    assert "<td>extra.jsonl:7</td><td>image cannot be decoded</td>" in html


def test_each_stratum_has_examples_with_images(html: str) -> None:
    for stratum in ("easy", "medium", "hard", "unsolved"):
        assert f"</span>{stratum} <small>" in html
    # report.examples=4 samples each of easy, medium and hard, and all 3 unsolved samples.
    assert html.count('<img src="data:image/png') == html.count('<article class="example"') == 15


def test_the_same_run_gives_the_same_page(run_and_report: RunAndReport, html: str) -> None:
    write_report(run_and_report[0])
    assert (run_and_report[0].folder / "report.html").read_text() == html
