"""The tables in results/ are those of the runs in results/runs."""

import json
from pathlib import Path

import pytest

from experiments.__main__ import main
from experiments.grids import EXPERIMENTS
from experiments.plan import ROOT, runs
from experiments.reports import read_results, tables
from experiments.strongest import runs_of_pairs

RESULTS = ROOT / "results"


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_table_is_that_of_its_runs(name):
    experiment = EXPERIMENTS[name]
    found = read_results(experiment, runs(experiment, RESULTS))
    assert tables(experiment, found) == (RESULTS / f"{name}.md").read_text(), f"run python -m experiments plot {name}"
    if experiment.against_strongest:
        assert runs_of_pairs(found, Path("results")) == json.loads((RESULTS / f"{name}.json").read_text())


def test_the_list_of_finished_runs_is_the_output_of_status(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    main(["status"])
    assert f"```\n{capsys.readouterr().out}```" in (RESULTS / "README.md").read_text()
