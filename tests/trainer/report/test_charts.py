import base64
import io
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.axes import Axes
from PIL import Image

from trainer.report import charts
from trainer.report.examples import Example, ExampleHit
from trainer.report.study import UNKNOWN, Study


def test_orange_is_the_step_whose_weights_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    plotted: list[tuple[object, ...]] = []
    plot = Axes.plot
    monkeypatch.setattr(
        Axes, "plot", lambda axes, *a, **more: plotted.append((a, more)) or plot(axes, *a, **more)
    )
    log = [{"step": s, "seconds": 1.0, "held_out_mAP": m} for s, m in ((1, 0.9), (2, 0.5))]
    charts.curves(log, shipped=2)
    assert [a for a, more in plotted if more["color"] == charts.SECOND] == [(2, 0.5, "o")]


def test_the_map_has_a_legend_if_there_are_few_classes(found: Study, recwarn) -> None:
    strange = of_classes(found, "日本", "_bee", "<cow>")
    _, legend = charts.feature_map(strange)
    assert [name for name, _ in legend] == ["日本", "_bee", "<cow>"]
    assert len({colour for _, colour in legend}) == 3
    assert not [w for w in recwarn if "missing from font" in str(w.message)]
    assert charts.feature_map(of_classes(found, *map(str, range(21))))[1] == []
    unknown = replace(strange, of_class=np.full_like(found.of_class, UNKNOWN))
    assert charts.feature_map(unknown)[1][-1] == ("class unknown", charts.GREY)


def of_classes(found: Study, *names: str) -> Study:
    return replace(found, collection=replace(found.collection, classes=names))


def test_the_frame_of_a_hit_tells_whether_it_is_right() -> None:
    black = np.zeros((3, 32, 32), dtype=np.uint8)
    hits = [ExampleHit(black, 1.0, right) for right in (True, False, None)]
    data = charts.example(Example(black, "a", hits)).partition("base64,")[2]
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    cell = charts.SIDE + 2 * charts.FRAME + charts.GAP
    for column, colour in enumerate((charts.GREEN, charts.RED, charts.GREY), start=1):
        wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        found = image.getpixel((column * cell + 2 * charts.GAP + 1, charts.SIDE // 2))
        assert np.allclose(found, wanted, atol=40)


def test_the_highest_possible_precision_is_drawn_if_it_is_below_one(
    found: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[object] = []
    plot = Axes.plot
    monkeypatch.setattr(
        Axes, "plot", lambda axes, *a, **more: drawn.append(more) or plot(axes, *a, **more)
    )
    charts.lengths(found)
    assert sum(more.get("label") == "possible" for more in drawn) == 1  # 29 right answers below 50
    drawn.clear()
    charts.lengths(replace(found, attainable=[1.0] * 7))
    assert not any(more.get("label") == "possible" for more in drawn)
