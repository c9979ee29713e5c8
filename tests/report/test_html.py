"""report.html: one file that shows everything, fetches nothing and runs nothing."""

import re
from base64 import b64decode
from collections.abc import Callable

import pytest

from difftrain.report.build import write_report
from difftrain.report.inputs import RunInputs

MakeRun = Callable[..., RunInputs]
Written = tuple[RunInputs, dict]

EXTERNAL = re.compile(r"https?://(?!www\.w3\.org/)[^\s\"'<]*")


@pytest.fixture(scope="module")
def html(written: Written) -> str:
    return (written[0].folder / "report.html").read_text()


def figures(html: str) -> list[str]:
    """The SVGs of a page as text."""
    addresses = re.findall(r"data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)", html)
    return [b64decode(svg).decode() for svg in addresses]


def test_responses_are_escaped(make_run: MakeRun) -> None:
    inputs = make_run(size=9, control=False, response='<script>alert("1")</script>')
    write_report(inputs)
    page = (inputs.folder / "report.html").read_text()
    assert "<script" not in page.lower()
    assert "&lt;script&gt;alert(" in page


def test_the_page_holds_no_external_address(html: str) -> None:
    svgs = figures(html)
    assert len(svgs) == 5
    for text in (html, *svgs):
        assert EXTERNAL.findall(text) == []
        assert "<script" not in text
    for address in re.findall(r'(?:src|href)="([^"]*)', html):
        assert address.startswith("data:image/")


def test_the_page_forbids_what_it_does_not_need(html: str) -> None:
    assert "default-src 'none'" in html


def test_the_control_is_shown_with_the_other_arms(html: str) -> None:
    assert "tuned against control" in html
    for arm in ("base", "tuned", "control"):
        assert f"</span>{arm}</td>" in html
    assert "<th>trained: tuned</th><th>trained: control</th>" in html


def test_the_verdict_is_given_in_text(html: str) -> None:
    assert '<span class="value better">+7.1 points</span>' in html
    assert "no difference shown" in html


def test_quarantined_rows_are_shown_with_their_reasons(html: str) -> None:
    assert "<td>image cannot be decoded</td><td>2</td>" in html
    assert "<td>extra.jsonl:7</td><td>image cannot be decoded</td>" in html


def test_each_stratum_has_examples_with_images(html: str) -> None:
    for stratum in ("easy", "medium", "hard", "unsolved"):
        assert f"</span>{stratum} <small>" in html
    assert html.count('<img src="data:image/png') == html.count('<article class="example"') == 15


def test_the_same_run_gives_the_same_page(written: Written, html: str) -> None:
    write_report(written[0])
    assert (written[0].folder / "report.html").read_text() == html
