"""The programs about the four tiles and about styles of demonstrations, run small."""

import subprocess
import sys
from pathlib import Path

import four_tiles_sb3
import numpy as np
import pytest

import dm2_wrappers as dm2
from dm2_wrappers import compatibility
from experiments import compatibility_of_styles, draw_four_tiles

ROOT = Path(__file__).parents[2]


def test_four_tiles_prints_its_table_and_draws_its_curves(tmp_path):
    command = [sys.executable, str(ROOT / "examples" / "four_tiles.py"), "--starts", "4", "--sweeps", "25"]
    done = subprocess.run([*command, "--out", str(tmp_path)], capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "| together | yes | 0.000 | 0.000 | 0.000 |" in done.stdout
    assert "| both want tile 0 | no | 0.786 | 0.459 | 0.394 |" in done.stdout
    assert "| together | js | turn | 4 | 0.000 |" in done.stdout
    assert "| both want tile 0 | js | simultaneous | 0 |" in done.stdout
    assert (tmp_path / "table.md").read_text().strip() in done.stdout
    assert (tmp_path / "curves.png").stat().st_size > 10_000


def test_sb3_teams_match_compatible_demonstrations_of_the_tiles_and_cannot_match_others(tmp_path):
    kinds = ("together", "both want tile 0")
    rows = four_tiles_sb3.main(four_tiles_sb3.Args(rollouts=11, episodes=30, demonstrations=kinds, out=tmp_path))
    assert [row[:2] for row in rows] == [(kind, order) for kind in kinds for order in ("turn", "simultaneous")]
    for name, _, bound, before, after in rows:
        assert bound == pytest.approx(0.0 if name == "together" else 0.785714 / 2, abs=1e-5)
        assert before > 0.55
        assert after < 0.35 if name == "together" else after > bound
    assert "| together | turn | 0.000 |" in (tmp_path / "table.md").read_text()


def test_styles_are_what_they_say():
    files = [dm2.Demonstrations.load(ROOT / "demos_data" / f"smax_3m_win{rate}.npz") for rate in (30, 50)]
    together = {}
    for style, (one_team, same) in compatibility_of_styles.STYLES.items():
        rng = np.random.default_rng(0)
        demos = compatibility_of_styles.draw(files, 20, one_team=one_team, same=same, rng=rng)
        assert len(demos) == 20
        together[style] = compatibility.concurrency(demos, compatibility.smax)
    assert together["concurrent"] == 1
    assert 0.1 < together["mixed"] < 0.6  # the first and the third agent are from one file
    assert max(together["shuffled"], together["mixed and shuffled"]) < 0.01


def test_styles_print_a_table(capsys):
    compatibility_of_styles.main(["--scenarios", "3s_vs_4z", "--episodes", "25", "--draws", "2", "--permutations", "99"])
    printed = capsys.readouterr().out
    assert "| 3s_vs_4z | concurrent | 1.000 | 0.00 |" in printed
    assert "| 3s_vs_4z | mixed and shuffled | 0.000 | 1.00 |" in printed


def test_picture_of_the_tiles(tmp_path, monkeypatch):
    monkeypatch.setattr(draw_four_tiles, "PATH", tmp_path / "img" / "four_tiles.png")
    draw_four_tiles.main()
    assert (tmp_path / "img" / "four_tiles.png").stat().st_size > 10_000
    assert (ROOT / "docs" / "img" / "four_tiles.png").is_file()
