"""Figures."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np

from experiments.curves import CurveResults
from experiments.figures import _curves, _palette, draw_curves, draw_lengths, draw_levels
from experiments.plan import Curve
from experiments.statistics import mean_and_band


def test_levels_are_colored_by_a_scale_and_baselines_are_dashed():
    def results_of(slug, x):
        rates = np.array([[0.0, 0.5]])
        return CurveResults(
            Curve(slug, slug, level=x), np.array([0.0, 1.0]), rates, rates, rates[:, -1], 1.0, None, ("abc",)
        )

    axes = plt.figure().subplots()
    curves = [results_of("low", 0.1), results_of("high", 1.0), results_of("ippo", None)]
    (colors,) = _palette([("map", curves)])
    _curves(axes, curves, colors, [mean_and_band(one.scores) for one in curves])
    assert [line.get_linestyle() for line in axes.lines] == ["-", "-", "--"]
    assert axes.lines[2].get_color() == "#000000"
    assert tuple(axes.lines[0].get_color()) == mpl.colormaps["viridis"](0.0)
    plain = plt.figure().subplots()
    _curves(plain, curves[2:], ["black"], [mean_and_band(curves[2].scores)])
    assert plain.lines[0].get_linestyle() == "-"
    plt.close("all")


def test_equal_labels_have_equal_colors_in_all_panels():
    def curves(*labels):
        rates = np.array([[0.0, 0.5]])
        return [
            CurveResults(Curve(x, x), np.array([0.0, 1.0]), rates, rates, rates[:, -1], 1.0, None, ("abc",)) for x in labels
        ]

    first, second = _palette([("a", curves("DM2", "IPPO")), ("b", curves("IPPO", "QMIX", "QMIX"))])
    assert first[1] == second[0]
    assert len({*first, *second}) == 4
    many = _palette([("a", curves(*"abcdefgh")), ("b", curves("i", "a"))])  # more than there are colors
    assert len(set(many[0])) == 8
    assert many[1] == many[0][:2]


def test_levels_with_one_seed_are_hollow_and_have_no_error_bar(tmp_path, monkeypatch):
    def results_of(x, *finals):
        rates = np.array([[0.0, final] for final in finals])
        return CurveResults(
            Curve("c", f"{x}", level=x), np.array([0.0, 1.0]), rates, rates, np.array(finals), 1.0, None, ("abc",)
        )

    drawn = []
    monkeypatch.setattr("experiments.figures._save", lambda figure, *rest: drawn.append(figure))
    draw_levels("levels", "c", [("map", [results_of(0.1, 0.5), results_of(1.0, 0.2, 0.4)])], tmp_path / "levels")
    axes = drawn[0].axes[0]
    hollow = [line for line in axes.lines if line.get_markerfacecolor() == "white" and len(line.get_xdata())]
    assert [list(line.get_xdata()) for line in hollow] == [[0.1], [0.1]]  # after training, and the mean over it
    assert "one seed" in [text.get_text() for text in axes.get_legend().get_texts()]
    plt.close("all")


def test_pdf_files_are_written_on_demand(tmp_path):
    rates = np.array([[0.0, 0.5]])
    panels = [
        ("map", [CurveResults(Curve("c", "c"), np.array([0.0, 1.0]), rates, rates, rates[:, -1], 1.0, None, ("abc",))])
    ]
    assert draw_curves("curves", panels, tmp_path / "c") == [tmp_path / "c.png", tmp_path / "c_iqm.png"]
    assert sorted(tmp_path.iterdir()) == [tmp_path / "c.png", tmp_path / "c_iqm.png"]
    written = draw_lengths("lengths", panels, tmp_path / "l", ("png", "pdf"))
    assert [path.read_bytes()[:4] for path in written] == [b"\x89PNG", b"%PDF"]
    before = written[1].read_bytes()
    draw_lengths("lengths", panels, tmp_path / "l", ("pdf",))
    assert written[1].read_bytes() == before  # no date in it


def test_a_panel_of_returns_has_an_axis_of_its_own(tmp_path, monkeypatch):
    def results_of(measure, *scores):
        scores = np.array([scores])
        return CurveResults(
            Curve("IPPO", "ippo"), np.array([0.0, 1e6]), scores, scores, scores[:, -1], 1.0, None, (), measure
        )

    drawn = []
    monkeypatch.setattr("experiments.figures._save", lambda figure, *rest: drawn.append(figure) or [])
    draw_curves(
        "title", [("map", [results_of("win_rate", 0, 0.5)]), ("spread", [results_of("return", -30, -20)])], tmp_path / "x"
    )
    for figure in drawn:
        wins, returns = figure.axes
        assert wins.get_ylim() == (0, 1)
        assert wins.get_ylabel().startswith("test win rate")
        assert returns.get_ylim()[0] < -29
        assert returns.get_ylim()[1] < 0
        assert returns.get_ylabel().startswith("mean return of test episodes")
    assert len(drawn) == 2
    plt.close("all")


def test_more_than_five_panels_have_rows(tmp_path, monkeypatch):
    scores = np.array([[0.0, 0.5]])
    one = CurveResults(Curve("IPPO", "ippo"), np.array([0.0, 1e6]), scores, scores, scores[:, -1], 1.0, None, ())
    drawn = []
    monkeypatch.setattr("experiments.figures._save", lambda figure, *rest: drawn.append(figure) or [])
    for panels in (5, 7):
        draw_lengths("title", [(f"map {k}", [one]) for k in range(panels)], tmp_path / "x")
    five, seven = drawn
    assert tuple(five.get_size_inches()) == (26.0, 5.2)
    assert tuple(seven.get_size_inches()) == (20.8, 10.4)  # four and three
    assert [axes.get_title() for axes in seven.axes] == [f"map {k}" for k in range(7)]
    assert [bool(axes.get_ylabel()) for axes in seven.axes] == [True, False, False, False, True, False, False]
    plt.close("all")


def test_what_is_drawn_over_millions_of_steps(tmp_path, monkeypatch):
    scores = np.array([[0.0, 0.0], [0.1, 0.1], [0.1, 0.1], [0.9, 0.9]])

    def results_of(slug, expert_score):
        return CurveResults(
            Curve(slug, slug), np.array([0.0, 2e6]), scores, scores, scores[:, -1], 1.0, expert_score, ("abc",)
        )

    drawn = []
    monkeypatch.setattr("experiments.figures._save", lambda figure, *rest: drawn.append(figure) or [])
    draw_curves("title", [("map", [results_of("a", 0.3), results_of("b", 0.6)])], tmp_path / "x")
    for figure, height in zip(drawn, (0.275, 0.1), strict=True):  # the mean, and that of the middle half
        first, second, *rest = figure.axes[0].lines
        np.testing.assert_array_equal(first.get_xdata(), [0, 2])
        np.testing.assert_allclose(first.get_ydata(), [height] * 2)
        # The experts' lines have the curves' colors.
        experts = {line.get_ydata()[0]: line.get_color() for line in rest if len(line.get_ydata())}
        assert experts == {0.3: first.get_color(), 0.6: second.get_color()}
    plt.close("all")


def test_levels_have_a_logarithmic_axis_and_experts_win_rates_a_linear_one(tmp_path, monkeypatch):
    def results_of(level, expert_score):
        rates = np.array([[0.0, 0.5]])
        curve = Curve("c", f"{level}{expert_score}", level=level)
        return CurveResults(curve, np.array([0.0, 1.0]), rates, rates, rates[:, -1], 1.0, expert_score, ("abc",))

    drawn = []
    monkeypatch.setattr("experiments.figures._save", lambda figure, *rest: drawn.append(figure) or [])
    draw_levels("c", "c", [("map", [results_of(0.1, 0.3), results_of(1.0, 0.3)])], tmp_path / "x")
    draw_levels("experts", "win rate", [("map", [results_of(None, 0.3), results_of(None, 0.6)])], tmp_path / "x")
    assert [figure.axes[0].get_xscale() for figure in drawn] == ["log", "linear"]
    plt.close("all")


def test_files_have_no_date_and_figures_are_closed(tmp_path):
    rates = np.array([[0.0, 0.5]])
    one = CurveResults(Curve("c", "c"), np.array([0.0, 1.0]), rates, rates, rates[:, -1], 1.0, None, ("abc",))
    before = plt.get_fignums()
    (path,) = draw_lengths("lengths", [("map", [one])], tmp_path / "l", ("pdf",))
    assert b"CreationDate" not in path.read_bytes()
    assert plt.get_fignums() == before
