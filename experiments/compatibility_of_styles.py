"""Can demonstrations show before any training whether they help? The shared-feature test on the styles of Figure 3.

Run it with ``python -m experiments.compatibility_of_styles``; it takes about five minutes.

The program makes four styles (section 6.2) from the two files of each scenario in ``demos_data``: all agents come from one
file or from both files in turn ("mixed"), and from the same episodes or from different ones ("shuffled"). It draws episodes
many times and prints how often the test says "refuted". The files of 3m and 5m_vs_6m come from two moments of one training;
those of 3s_vs_4z come from two trainings. Agents of a mixed team never played together. Episodes in which such agents do
play together need their policies: see ``python -m experiments demos``.
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
    "concurrent": (True, True),
    "shuffled": (True, False),
    "mixed": (False, True),
    "mixed and shuffled": (False, False),
}
ALPHA = 0.05


def draw(
    files: Sequence[dm2.Demonstrations], episodes: int, *, one_team: bool, same: bool, rng: np.random.Generator
) -> dm2.Demonstrations:
    """Draw demonstrations of one style.

    Args:
        files: Two recorded teams.
        episodes: The number of episodes of each agent.
        one_team: Take all agents from the first file, not from both files in turn.
        same: Take the same episodes for all agents. Otherwise no two agents have an episode in common.
        rng: Draws the episodes.
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
    """The episodes with these numbers, in this order."""
    return demos._select([(demos, k, episodes) for k in range(len(demos.agents))])


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenarios", nargs="+", default=SCENARIOS, choices=SCENARIOS)
    parser.add_argument(
        "--episodes", nargs="+", type=int, default=[25, 50, 100, 180], help="numbers of episodes of each agent"
    )
    parser.add_argument("--draws", type=int, default=40, help="number of draws of episodes")
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
