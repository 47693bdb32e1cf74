"""Where a run's numbers come from."""

import pytest

from experiments.provenance import describe_demonstrations
from tests.helpers.small_demonstrations import make


@pytest.mark.parametrize(("won", "rate"), [((1, 0, 1), 2 / 3), ((1, -1, 0), 0.5), ((-1, -1, -1), None)])
def test_the_win_rate_of_demonstrations_is_that_of_the_known_outcomes(won, rate, tmp_path):
    make(won=won).save(tmp_path / "demos.npz")
    assert describe_demonstrations(tmp_path / "demos.npz")["win_rate"] == (None if rate is None else pytest.approx(rate))
