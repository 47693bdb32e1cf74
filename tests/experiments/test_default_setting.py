"""The default setting and the candidates."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import dm2_wrappers as dm2
from experiments import reports
from experiments.__main__ import _title
from experiments.grids import EXPERIMENTS
from experiments.plan import ROOT, demos_path, runs
from experiments.strongest import runs_of_pairs
from tests.experiments.test_strongest import results


def test_candidates_have_one_setting_for_all_scenarios(tmp_path):
    by_scenario = {}
    for run in runs(EXPERIMENTS["candidates"], tmp_path):
        options = {key: value for key, value in run.options.items() if key not in ("env", "steps", "seed", "demos")}
        by_scenario.setdefault(run.env, []).append((run.seed, sorted(options.items())))
    assert {run.seed for run in runs(EXPERIMENTS["candidates"], tmp_path)} == {0, 1, 2}
    first, *others = by_scenario.values()
    assert len(first) == 10 * 3
    assert all(other == first for other in others)


def test_the_default_is_one_setting_for_all_scenarios(tmp_path):
    ours = [run for run in runs(EXPERIMENTS["default"], tmp_path) if run.curve.label == "DM2, the default"]
    assert {run.seed for run in ours} == {100, 101, 102, 103, 104}
    own = ("env", "steps", "seed", "demos", "coefficient")  # c follows from the demonstrations
    settings = {json.dumps({k: v for k, v in run.options.items() if k not in own}) for run in ours}
    assert len(settings) == 1
    assert {"smax:2s3z", "smax:3s_vs_5z", "smax:3s5z", "_environments:simple_spread", "_environments:large_foraging"} < {
        run.env for run in ours
    }


def test_only_the_schedule_differs_where_c_falls_with_the_return():
    for panel in EXPERIMENTS["default"].panels:
        (other,) = (curve for curve in panel.curves if curve.label == "DM2, c falling with the return")
        default = {name: value for name, value in panel.curves[0].options.items() if name != "anneal"}
        assert dict(other.options) == {**default, "return-gap": True}
        assert other.demos == panel.curves[0].demos


def test_c_falls_to_the_return_of_all_episodes_that_the_experts_played():
    for panel in EXPERIMENTS["default"].panels:
        (other,) = (curve for curve in panel.curves if curve.label == "DM2, c falling to 0 at the experts' return")
        default = {name: value for name, value in panel.curves[0].options.items() if name != "anneal"}
        target = other.options["gap-target"]
        assert dict(other.options) == {**default, "return-gap": True, "gap-target": target}
        demos = dm2.Demonstrations.load(
            ROOT / demos_path(panel.scenario if panel.env else f"smax:{panel.scenario}", other.demos)
        )
        if "selected" not in demos.metadata:  # of the files of won episodes, the number is that of the recording
            assert target == pytest.approx(demos.mean_return, rel=0.005)
        else:
            assert 11 < target < 12


def test_titles_name_the_backend_if_all_scenarios_are_its_own():
    assert _title(EXPERIMENTS["default"], "smax") == EXPERIMENTS["default"].title
    assert _title(EXPERIMENTS["clones"], "smax") == f"{EXPERIMENTS['clones'].title} (SMAX)"


def test_independent_ppo_begins_with_the_clones_of_the_default():
    for panel in EXPERIMENTS["default"].panels:
        ours, clones = panel.curves[:2]
        assert clones.demos == ours.demos
        assert clones.options == {"algorithm": "ippo", **{name: ours.options[name] for name in ("experts", "pretrain")}}


def test_dm2_also_has_the_settings_of_the_strongest_baselines():
    for panel in EXPERIMENTS["default"].panels:
        ours, _, plain, *others = panel.curves
        stronger = [curve for curve in others if curve.options.get("algorithm") == "ippo" and curve.drawn]
        same = [curve for curve in others if curve.demos == ours.demos and curve.options.items() > ours.options.items()]
        assert [{**plain.options, **_more(curve, ours)} for curve in same] == [curve.options for curve in stronger]
        assert len(same) == (panel.scenario in ("3m", "2s3z", "5m_vs_6m", "spread"))


def _more(curve, ours):
    return dict(curve.options.items() - ours.options.items())


def test_scenarios_without_wins_are_compared_by_their_returns():
    for name in ("default", "both", "scale"):
        for panel in EXPERIMENTS[name].panels:
            assert (panel.measure == "return") == (panel.scenario in ("spread", "large_foraging"))


def test_scenarios_of_other_packages_keep_their_own_folders(tmp_path):
    (panel,) = (one for one in EXPERIMENTS["default"].panels if one.scenario == "spread")
    ours, _, alone = panel.curves[:3]
    chosen = runs_of_pairs([(panel, [results(ours, 0.1), results(alone, 0.2)])], Path("results"))
    assert chosen["spread"]["ippo"] == "results/runs/spread/ippo"
    (run,) = (
        one for one in runs(EXPERIMENTS["default"], tmp_path, seeds=1) if one.env.endswith("spread") and one.curve == ours
    )
    assert str(run.options["demos"]) == "demos_data/spread_weak.npz"


def test_the_reported_default_is_that_of_the_program():
    sys.path.insert(0, str(ROOT / "examples"))
    import ippo_sb3

    args = ippo_sb3.Args()
    program = {
        "anneal": True,  # where no coefficient is given
        "experts": args.experts,
        "standardize": args.matcher.standardize,
        "pretrain": ippo_sb3.CLONING,
    }
    for panel in EXPERIMENTS["default"].panels:
        ours = panel.curves[0]
        file = ROOT / demos_path(panel.scenario if panel.env else f"smax:{panel.scenario}", ours.demos)
        coefficient = ours.options["coefficient"]
        if file.exists():  # that of 3s_vs_5z is not in the repository
            demos = ippo_sb3.chosen(dm2.Demonstrations.load(file), args.experts)
            coefficient = ippo_sb3.starting_coefficient(demos)
        assert ours.options == {"coefficient": coefficient, **program}


def test_c_has_the_scale_of_the_return():
    sys.path.insert(0, str(ROOT / "examples"))
    from ippo_sb3 import starting_coefficient

    def returning(reward):
        return SimpleNamespace(mean_return=reward)

    assert starting_coefficient(returning(20.0)) == 0.05
    assert starting_coefficient(returning(-4.5)) == 0.011
    assert starting_coefficient(returning(0.0)) == 0.05  # there are no rewards


def test_the_figure_shows_the_default_the_clones_and_the_strongest_baseline(tmp_path, monkeypatch):
    for panel in EXPERIMENTS["default"].panels:
        ours, clones, *others = (curve for curve in panel.curves if curve.drawn)
        assert (ours, clones) == panel.curves[:2]
        assert [curve.options.get("algorithm") for curve in others] == ["ippo"]
    drawn = []
    monkeypatch.setattr(reports, "draw_curves", lambda title, panels, *_: drawn.extend(panels) or [])
    panel = EXPERIMENTS["default"].panels[0]
    only_hidden = [results(panel.curves[-1], 0.5)]
    both = [(panel, [results(panel.curves[0], 0.5), *only_hidden]), (panel, only_hidden)]
    (table,) = reports.write_report(EXPERIMENTS["default"], both, tmp_path / "x", title="")
    ((_, curves),) = drawn
    assert [one.curve for one in curves] == [panel.curves[0]]
    assert panel.curves[-1].label in table.read_text()
