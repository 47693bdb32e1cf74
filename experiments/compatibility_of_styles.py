"""Do demonstrations tell before any training whether they help? The shared-feature test on the styles of Figure 3.

    python -m experiments.compatibility_of_styles

From the two files of each scenario in ``demos_data`` this makes the four styles of section 6.2: each agent's episodes
from the same team or not (the agents alternate between the two files), and from the same episodes or not. It draws
episodes anew again and again and prints how often the test says "refuted". The files of 3m and 5m_vs_6m are two moments of
one training; those of 3s_vs_4z come from two trainings. Takes about five minutes.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import dm2_wrappers as dm2
from dm2_wrappers import compatibility

ROOT = Path(__file__).parent.parent
SCENARIOS = ("3m", "3s_vs_4z", "5m_vs_6m")
STYLES = {  # name: (one team, same episodes)
    "co-trained, concurrent": (True, True),
    "co-trained, not concurrent": (True, False),
    "not co-trained, concurrent": (False, True),
    "not co-trained, not concurrent": (False, False),
}
ALPHA = 0.05


def draw(
    files: Sequence[dm2.Demonstrations], episodes: int, *, one_team: bool, same: bool, rng: np.random.Generator
) -> dm2.Demonstrations:
    """Demonstrations of one style with so many episodes of each agent.

    Of agents that were not trained together "the same episodes" are episodes of the same numbers: they never met.
    """
    agents = files[0].agents
    order = rng.permutation(min(map(len, files)))
    parts = {}
    for k, agent in enumerate(agents):
        source = files[0] if one_team else files[k % 2]
        first = 0 if same else k * episodes
        parts[agent] = choose(source, order[first : first + episodes])
    return dm2.Demonstrations.mix(parts)


def choose(demos: dm2.Demonstrations, episodes: np.ndarray) -> dm2.Demonstrations:
    """The episodes of these numbers, in this order."""
    return demos._select([(demos, k, episodes) for k in range(len(demos.agents))])


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenarios", nargs="+", default=SCENARIOS, choices=SCENARIOS)
    parser.add_argument("--episodes", nargs="+", type=int, default=[25, 50, 100, 180], help="of each agent")
    parser.add_argument("--draws", type=int, default=40, help="how often episodes are drawn")
    parser.add_argument("--permutations", type=int, default=399)
    options = parser.parse_args(arguments)

    print(f"Share of {options.draws} draws that the shared-feature test refutes at level {ALPHA:g}.\n")
    counts = " | ".join(f"{number} episodes" for number in options.episodes)
    print(f"| scenario | style | concurrency | {counts} |\n|---|---|---|{'---|' * len(options.episodes)}")
    for scenario in options.scenarios:
        files = [dm2.Demonstrations.load(ROOT / "demos_data" / f"smax_{scenario}_win{rate}.npz") for rate in (30, 50)]
        for style, (one_team, same) in STYLES.items():
            cells, together = [], []
            for episodes in options.episodes:
                refuted = 0
                for k in range(options.draws):
                    rng = np.random.default_rng([k, episodes])
                    demos = draw(files, episodes, one_team=one_team, same=same, rng=rng)
                    test = compatibility.shared_feature_test(
                        demos, compatibility.smax, options.permutations, seed=1000 + k, alpha=ALPHA
                    )
                    refuted += test.verdict == "refuted"
                cells.append(f"{refuted / options.draws:.2f}")
                together.append(compatibility.concurrency(demos, compatibility.smax))
            print(f"| {scenario} | {style} | {np.mean(together):.3f} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
