"""Where a run's numbers come from."""

import subprocess

import pytest

from experiments import provenance
from experiments.provenance import describe_demonstrations
from tests.helpers.small_demonstrations import make


@pytest.mark.parametrize(("won", "rate"), [((1, 0, 1), 2 / 3), ((1, -1, 0), 0.5), ((-1, -1, -1), None)])
def test_the_win_rate_of_demonstrations_is_that_of_the_known_outcomes(won, rate, tmp_path):
    make(won=won).save(tmp_path / "demos.npz")
    assert describe_demonstrations(tmp_path / "demos.npz")["win_rate"] == (None if rate is None else pytest.approx(rate))


def test_a_commit_is_dirty_if_anything_but_results_has_changed(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    assert provenance.commit() == "unknown"

    def git(*arguments):
        who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        return subprocess.run(["git", "-C", tmp_path, *who, *arguments], check=True, capture_output=True, text=True).stdout

    git("init")
    for name in ("program.py", "results/old.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("1")
    git("add", ".")
    git("commit", "-m", "one")
    clean = git("rev-parse", "--short=12", "HEAD").strip()
    (tmp_path / "results" / "old.csv").unlink()
    (tmp_path / "results" / "new.csv").write_text("2")
    (tmp_path / "untracked.py").write_text("2")
    assert provenance.commit() == clean
    (tmp_path / "program.py").write_text("2")
    assert provenance.commit() == f"{clean}-dirty"
