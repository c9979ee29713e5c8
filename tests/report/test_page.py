"""report.html: one file that shows everything, fetches nothing and runs nothing."""

import re
from base64 import b64decode
from collections.abc import Callable

import pytest

from difftrain.report.inputs import RunInputs
from difftrain.report.write import write

Make = Callable[..., RunInputs]
Written = tuple[RunInputs, dict]

EXTERNAL = re.compile(r"https?://(?!www\.w3\.org/)[^\s\"'<]*")


@pytest.fixture(scope="module")
def html(written: Written) -> str:
    return (written[0].folder / "report.html").read_text()


def pictures(html: str) -> list[str]:
    """The SVGs of a page as text."""
    found = re.findall(r"data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)", html)
    return [b64decode(each).decode() for each in found]


def test_what_a_model_said_is_escaped(make_run: Make) -> None:
    inputs = make_run(size=9, control=False, response='<script>alert("1")</script>')
    write(inputs)
    shown = (inputs.folder / "report.html").read_text()
    assert "<script" not in shown.lower()
    assert "&lt;script&gt;alert(" in shown


def test_the_page_holds_no_external_address(html: str) -> None:
    svgs = pictures(html)
    assert len(svgs) == 5
    for text in (html, *svgs):
        assert EXTERNAL.findall(text) == []
        assert "<script" not in text
    for address in re.findall(r'(?:src|href)="([^"]*)', html):
        assert address.startswith("data:image/")


def test_the_page_forbids_what_it_does_not_need(html: str) -> None:
    assert "default-src 'none'" in html


def test_the_control_stands_beside_the_arm(html: str) -> None:
    assert "tuned against control" in html
    for arm in ("base", "tuned", "control"):
        assert f"</span>{arm}</td>" in html
    assert "<th>trained: tuned</th><th>trained: control</th>" in html


def test_the_verdict_is_given_in_words(html: str) -> None:
    assert '<span class="much better">+7.1 points</span>' in html
    assert "no difference shown" in html


def test_quarantined_rows_are_shown_with_their_reasons(html: str) -> None:
    assert "<td>picture cannot be decoded</td><td>2</td>" in html
    assert "<td>extra.jsonl:7</td><td>picture cannot be decoded</td>" in html


def test_each_stratum_has_examples_with_pictures(html: str) -> None:
    for stratum in ("easy", "medium", "hard", "unsolved"):
        assert f"</span>{stratum} <small>" in html
    assert html.count('<img src="data:image/png') == html.count('<article class="example"') == 15


def test_the_same_run_gives_the_same_page(written: Written, html: str) -> None:
    write(written[0])
    assert (written[0].folder / "report.html").read_text() == html
