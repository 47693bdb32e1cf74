"""What r_gail goes together with."""

import numpy as np
import pytest

import dm2_wrappers as dm2
from experiments import what_is_paid


def episodes(lengths, rewards):
    """Two agents, of whom the second is dead at the end of each episode."""
    given = []
    for length, paid in zip(lengths, rewards, strict=True):
        alive = np.arange(length) < length - 1
        given.append(
            {
                "observations": {"a": np.zeros((length, 1)), "b": np.zeros((length, 1))},
                "alive": {"a": np.ones(length, bool), "b": alive},
                "rewards": {"a": paid, "b": paid},
            }
        )
    return dm2.Demonstrations.from_episodes(given)


def test_numbers_by_hand():
    rewards = [np.zeros(8), np.array([0, 0, 0, 0, 0, 0, 0, 0, 3.0]), np.array([2.0, 0, 0, 0])]
    demos = episodes((8, 9, 4), rewards)
    gail = np.arange(21 * 2, dtype=np.float64).reshape(21, 2) * demos.alive
    found = what_is_paid.paid(demos, gail)
    sums = [gail[a:b].sum() / 2 for a, b in ((0, 8), (8, 17), (17, 21))]
    assert found.with_return == pytest.approx(np.corrcoef(sums, [0, 3, 2])[0, 1])
    assert found.with_length == pytest.approx(np.corrcoef(sums, [8, 9, 4])[0, 1])
    soon = np.zeros(21, bool)
    soon[[12, 13, 14, 15, 16, 17]] = True  # the last five steps of the second episode, and the first of the third
    assert found.fighting == pytest.approx(gail[soon[:, None] & demos.alive].mean())
    assert found.waiting == pytest.approx(gail[~soon[:, None] & demos.alive].mean())


@pytest.mark.parametrize("clones", [False, True])
def test_the_program_prints_a_row_per_file(clones, capsys, monkeypatch):
    made, make = [], dm2.DistributionMatcher
    monkeypatch.setattr(what_is_paid, "CLONING", 1)
    monkeypatch.setattr(dm2, "DistributionMatcher", lambda *args, **options: made.append(make(*args, **options)) or made[-1])
    file = what_is_paid.ROOT / "demos_data" / "smax_3m_win30.npz"
    what_is_paid.main([str(file), "--steps", "4096", "--episodes", "32", *["--clones"][:clones]])
    *_, row = capsys.readouterr().out.splitlines()
    cells = row.strip("| ").split(" | ")
    assert cells[:3] == ["smax_3m_win30", "0.28", "0.00"]
    assert all(np.isfinite(float(cell)) for cell in cells[1:])
    (matcher,) = made
    assert matcher.options["standardize"] == clones
    assert (matcher.demonstrations.win_rate == 1) == clones
