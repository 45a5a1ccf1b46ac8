"""Plots are well-formed, the same for the same figures, and say in words what they show."""

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from bench.goals import SAME, Outcome, Table, table_of
from bench.measure import Samples
from bench.plots.bars import Bar, Bars, Line
from bench.plots.curves import Curve, Curves, Panel
from bench.plots.svg import amount, times
from bench.report import Report, as_markdown, write

ROOT = Path(__file__).resolve().parents[2]
SVG = "{http://www.w3.org/2000/svg}"
MOST_BYTES = 100_000


def bars(*values, lines=()):
    """Return bars of these figures, the first of which is ours."""
    names = ["credenza", *(f"peer <{number}>" for number in range(1, len(values)))]
    return Bars("Hit", "ns", [Bar(*pair) for pair in zip(names, values, strict=True)], "credenza", lines)


def curves():
    """Return two panels of two curves."""
    panels = [Panel(name, ["1%", "20%"], {"credenza": [40.0, 60.0], "LRU": [30.0, 60.0]}, "r") for name in ("a", "b")]
    return Curves("Hit ratio", panels, {"LRU": Curve("other"), "credenza": Curve("ours")})


def ends_of(plot):
    """Return how long the bars are, the background left out."""
    return [float(each.get("width")) for each in ET.fromstring(plot.svg()).iter(SVG + "rect") if each.get("x")]


def words_of(plot):
    """Return all that is written."""
    return [each.text for each in ET.fromstring(plot.svg()).iter(SVG + "text")]


@pytest.mark.parametrize(
    "plot", [bars(30.0, 50.0, 9_000.0, lines=[Line("P1: ≤ 0.75 x it", 37.5)]), bars(1.0), curves()]
)
def test_plot_is_drawn_the_same_each_time(plot):
    """It is XML, small, speaks to screen readers, knows dark pages, and fetches nothing."""
    drawn = plot.svg()
    root = ET.fromstring(drawn)
    assert drawn == plot.svg()
    assert len(drawn.encode()) < MOST_BYTES
    assert root.get("role") == "img"
    assert root.findtext(SVG + "desc") == plot.alt()
    assert "prefers-color-scheme:dark" in drawn
    assert "href" not in drawn
    assert "url(" not in drawn


def test_longer_time_has_the_longer_bar():
    """In proportion on the straight axis; on the other one, a tenfold figure is longer by the same each time."""
    assert ends_of(bars(10.0, 20.0))[1] == pytest.approx(2 * ends_of(bars(10.0, 20.0))[0], abs=0.2)
    first, second, third = ends_of(bars(200.0, 2_000.0, 20_000.0))
    assert second - first == pytest.approx(third - second, abs=0.2)
    assert 0 < first < second < third


def test_axis_that_is_logarithmic_says_so():
    """A reader is told before being misled."""
    assert any("ten times" in words for words in words_of(bars(1.0, 100.0)))
    assert not any("ten times" in words for words in words_of(bars(1.0, 10.0)))


def test_goal_is_drawn_and_said():
    """The line has its label, and the alternative text the figure."""
    plot = bars(30.0, 50.0, lines=[Line("P1: ≤ 0.75 x it", 37.5)])
    assert "goal P1: ≤ 0.75 x it" in words_of(plot)
    assert "37.5 ns" in plot.alt()


def test_curves_stay_in_their_panels():
    """Every point lies inside the picture."""
    root = ET.fromstring(curves().svg())
    width, height = float(root.get("width")), float(root.get("height"))
    for line in root.iter(SVG + "polyline"):
        for pair in line.get("points").split():
            x, y = map(float, pair.split(","))
            assert 0 <= x <= width
            assert 0 <= y <= height


def test_figures_are_short_and_have_units():
    """Nanoseconds grow into other units of time; ratios keep two digits."""
    assert [amount(value, "ns") for value in (31.4, 999.0, 1_234.0, 2.5e6)] == [
        "31.4 ns",
        "999 ns",
        "1.23 µs",
        "2.5 ms",
    ]
    assert amount(1_234.0, "B") == "1,234 B"
    assert [times(ratio) for ratio in (0.123, 2.0, 25.3, 1_234.0)] == ["0.12 x", "2 x", "25.3 x", "1,234 x"]


def test_contender_that_takes_part_twice_is_drawn_once():
    """The table has both, as they tell how far noise goes."""
    settings = {"credenza": "", "peer": "", "peer again": SAME}
    table = table_of("Hit", Samples({name: [1.0] for name in settings}, settings, 0.0, 1), base="credenza")
    assert len(table.rows) == 3
    assert [bar.name for bar in table.plot.bars] == ["credenza", "peer"]


def test_plots_are_written_beside_the_page_and_shown_in_it(tmp_path):
    """The page names the file, and the file is there; figures in the title are no part of the name."""
    table = Table("Hits of 8", ("a",), [("b",)], plot=bars(1.0, 2.0))
    found = Report({}, {}, {}, list[Outcome](), [table])
    write(found, results=tmp_path / "results.json", page=tmp_path / "page.md")
    assert "](plots/hits-of.svg)" in as_markdown(found)
    assert (tmp_path / "plots" / "hits-of.svg").read_text(encoding="utf-8") == table.plot.svg()


def test_tables_whose_plots_would_be_one_file_are_refused(tmp_path):
    """The second would be shown for the first."""
    tables = [Table(title, ("a",), [("b",)], plot=bars(1.0)) for title in ("Hits of 8", "Hits of 64")]
    with pytest.raises(ValueError, match=r"hits-of\.svg"):
        write(Report({}, {}, {}, list[Outcome](), tables), results=tmp_path / "results.json", page=tmp_path / "page.md")


def test_published_page_shows_each_plot_once_and_all_are_there():
    """What the documentation has is what one run wrote."""
    page = ROOT / "docs" / "benchmarks.md"
    shown = re.findall(r"]\((plots/[a-z-]+\.svg)\)", page.read_text(encoding="utf-8"))
    assert sorted(shown) == sorted(
        path.relative_to(page.parent).as_posix() for path in (page.parent / "plots").iterdir()
    )
