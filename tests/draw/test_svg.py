"""The log-log chart: where marks fall, and what it does with zeros."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

from budgeteer.draw.svg import Line, log_chart


def points(text):
    found = [re.findall(r"[-\d.]+", p) for p in re.findall(r'<polyline points="([^"]+)"', text)]
    return [[(float(x), float(y)) for x, y in zip(line[::2], line[1::2], strict=True)] for line in found]


def test_a_power_law_is_a_straight_line_and_the_file_is_xml():
    x = [10, 100, 1000]
    mean = [v**0.5 for v in x]
    text = log_chart([([Line("a < b", 0, x, mean, mean, mean)], "x", "y"), ([], "x", "y")], title="t & t")
    ElementTree.fromstring(text)
    (((x0, y0), (x1, y1), (x2, y2)),) = points(text)
    assert abs((x1 - x0) - (x2 - x1)) < 0.2
    assert abs((y1 - y0) - (y2 - y1)) < 0.2
    assert y0 > y1 > y2  # upwards
    assert "a &lt; b" in text


def test_a_band_that_reaches_zero_is_cut_at_the_frame():
    text = log_chart([([Line("a", 0, [1, 10], [2, 20], [0, 0], [4, 40])], "x", "y")], title="t")
    band = re.search(r'<polygon points="([^"]+)"', text)[1]
    heights = [float(p.split(",")[1]) for p in band.split()]
    assert max(heights) <= 320 + 0.1
