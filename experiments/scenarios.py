"""The scenarios on which the default setting is compared with the strongest independent PPO."""

from __future__ import annotations

from dataclasses import dataclass

from experiments.plan import Curve, Panel
from experiments.settings import IPPO_ALONE


@dataclass(frozen=True)
class Scenario:
    """What the default setting is compared on.

    Attributes:
        steps: Environment steps of a run.
        experts: The demonstrations' name. On SMAX the experts win about 30 %, and a file "win30_won" holds only the episodes
            that they won, which are those that are shown. Elsewhere wins are not reported, and the return of "weak" experts
            is about 30 % of the way from a random team's to a good one's; examples/record_demos.py recorded them.
        env: The program's ``--env`` if the environment is another package's.
        coefficient: c at the start.
        experts_return: The mean return of all episodes that the experts played, also of those that they lost. (Of 2s3z, that
            of an earlier recording with the same win rate.)
    """

    steps: int
    experts: str
    experts_return: float
    env: str = ""
    coefficient: float = 0.05

    def panel(self, name: str, curves: tuple[Curve, ...], baseline: str = IPPO_ALONE.slug) -> Panel:
        """A panel with these curves."""
        measure = "return" if self.env else "win_rate"
        return Panel(name, curves, steps=self.steps, baseline=baseline, env=self.env, measure=measure)


SCENARIOS = {
    "3m": Scenario(300_000, "win30", 11.0),
    "2s3z": Scenario(1_000_000, "win30_won", 11.8),
    "5m_vs_6m": Scenario(1_000_000, "win30", 11.3),
    "3s_vs_4z": Scenario(1_000_000, "win30", 11.7),
    "3s_vs_5z": Scenario(1_000_000, "win30_won", 11.6),
    "3s5z": Scenario(1_000_000, "win30_won", 11.3),
    "spread": Scenario(200_000, "weak", -26.1, "_environments:simple_spread", 0.046),
    "large_foraging": Scenario(300_000, "weak", 0.095, "_environments:large_foraging", 0.00053),
}
# The scenarios of the searches for good settings.
TUNED_ON = ("3m", "2s3z", "5m_vs_6m", "3s_vs_4z", "3s_vs_5z")
