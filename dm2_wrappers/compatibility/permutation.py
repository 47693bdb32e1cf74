"""Compatibility of recorded demonstrations: do two agents' recordings agree on the features that both observe?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dm2_wrappers import _checks
from dm2_wrappers.compatibility.shared import Shared, check_demonstrations
from dm2_wrappers.demonstrations import Demonstrations

_EQUAL = 1e-4  # features are float32 of size 1 to 30
_FREQUENCIES = 128
_CHUNK = 16_384  # rows embedded at a time, to bound the memory


@dataclass(frozen=True)
class PairTest:
    """Two agents' recordings compared.

    Attributes:
        agents: Their names.
        steps: In how many recorded steps each of them sees what both see.
        statistic: Squared distance of the mean embeddings of the two recordings (MMD^2), 0 if they agree.
        p: Share of the permutations with at least this statistic.
        p_holm: The same, corrected for the number of pairs (Holm).
    """

    agents: tuple[str, str]
    steps: tuple[int, int]
    statistic: float
    p: float
    p_holm: float


@dataclass(frozen=True)
class SharedFeatureTest:
    """What :func:`shared_feature_test` found.

    Attributes:
        pairs: One for every pair of agents.
        alpha: Level of the verdict.
    """

    pairs: tuple[PairTest, ...]
    alpha: float

    @property
    def verdict(self) -> str:
        """Either "refuted" or "not refuted". The latter is no proof: only shared features are compared."""
        return "refuted" if min(pair.p_holm for pair in self.pairs) <= self.alpha else "not refuted"

    def __str__(self) -> str:
        width = max(len(f"{one}, {other}") for one, other in (pair.agents for pair in self.pairs))
        lines = [f"{'agents':<{width}} {'steps':>15} {'statistic':>10} {'p':>7} {'Holm p':>7}"]
        for pair in self.pairs:
            steps = f"{pair.steps[0]:,}/{pair.steps[1]:,}"
            numbers = f"{pair.statistic:>10.2e} {pair.p:>7.3f} {pair.p_holm:>7.3f}"
            lines.append(f"{', '.join(pair.agents):<{width}} {steps:>15} {numbers}")
        return "\n".join(lines)


def concurrency(demos: Demonstrations, shared: Shared) -> float:
    """Measure how far two agents' recordings agree on shared features, step by step: 1 if recorded together.

    Episode e of one agent is compared with episode e of the other, over all pairs of agents.

    Args:
        demos: The demonstrations.
        shared: What two agents both see, such as ``shared_features(demos)``.

    Returns:
        Of the steps in which one of the two observes shared features, the share in which both observe the same, 0 to 1.

    Raises:
        ValueError: There are fewer than two agents, or no two agents ever observe a shared feature.
    """
    same = total = 0
    for i, j in _pairs(demos):
        one, other = _episodes(demos, shared, i, j), _episodes(demos, shared, j, i)
        for a, b in zip(one, other, strict=True):
            both = min(len(a), len(b))
            seen_a, seen_b = ~np.isnan(a).any(axis=1), ~np.isnan(b).any(axis=1)
            equal = seen_a[:both] & seen_b[:both]
            equal[equal] = (np.abs(a[:both][equal] - b[:both][equal]) <= _EQUAL).all(axis=1)
            same += int(equal.sum())
            total += int((seen_a[:both] | seen_b[:both]).sum() + seen_a[both:].sum() + seen_b[both:].sum())
    if total == 0:
        raise ValueError(
            "no two agents ever observe a shared feature, so nothing can be compared; check the function shared"
        )
    return same / total


def shared_feature_test(
    demos: Demonstrations, shared: Shared, permutations: int = 999, seed: int = 0, *, alpha: float = 0.05
) -> SharedFeatureTest:
    """Test whether these demonstrations can come from one team, by comparing features that two agents both observe.

    If two agents belong to one joint policy, their shared features have the same distribution, whether they were recorded
    together or not. So for each pair of agents the two recordings are compared as two samples, by the distance of their
    mean embeddings (MMD with a Gaussian kernel and random Fourier features). A permutation test compares this distance with
    the distances after whole episodes have been assigned to the two agents at random. Whole episodes are permuted because
    the steps of one episode depend on each other.

    A small p refutes compatibility (Definition 1). A large p proves nothing: the recordings may still be incompatible in
    features that only one agent observes, or in the actions. Recordings of the same episodes always pass.

    Args:
        demos: The demonstrations.
        shared: What two agents both see, such as ``shared_features(demos)``.
        permutations: Number of permutations; the least p is 1 / (permutations + 1), times the number of pairs.
        seed: Seeds the permutations and the embedding.
        alpha: Level of the verdict, the chance to refute demonstrations that are compatible.

    Returns:
        A test for each pair of agents, and the verdict.

    Raises:
        TypeError: ``demos`` are no demonstrations.
        ValueError: There are fewer than two agents or episodes, or an option is out of range.
    """
    pairs, seed = list(_pairs(demos)), _checks.integer("seed", seed, least=0)
    check_rounds("permutations", permutations, alpha, len(pairs), "pairs of agents")
    if len(demos) < 2:
        raise ValueError("a permutation test needs at least 2 episodes of each agent, but these demonstrations have 1")
    rng = np.random.default_rng(seed)
    found = []
    for i, j in pairs:
        samples = _episodes(demos, shared, i, j), _episodes(demos, shared, j, i)
        found.append(((demos.agents[i], demos.agents[j]), *_two_samples(*samples, permutations, rng)))
    corrected = holm([p for *_, p in found])
    tests = [PairTest(*parts, p_holm) for parts, p_holm in zip(found, corrected, strict=True)]
    return SharedFeatureTest(tuple(tests), alpha)


def check_rounds(name: str, rounds: int, alpha: float, tests: int, of: str) -> None:
    """Raise ``ValueError`` if so many random rounds could never refute anything."""
    if not 0 < _checks.number("alpha", alpha) < 1:
        raise ValueError(f"alpha must be between 0 and 1, but it is {alpha}")
    rounds = _checks.integer(name, rounds)
    least = least_rounds(alpha, tests)
    if rounds < least:
        raise ValueError(
            f"{name} must be at least {least} to refute anything at level {alpha:g} with {tests} {of}, but it is {rounds}"
        )


def least_rounds(alpha: float, tests: int) -> int:
    """How many random rounds a verdict at level alpha needs: the least p is 1 / (rounds + 1), and Holm multiplies it."""
    return max(1, int(np.ceil(tests / alpha - 1 - 1e-9)))


def holm(p: list[float]) -> list[float]:
    """Holm's correction of several p values, in the order given."""
    corrected, most = [0.0] * len(p), 0.0
    for rank, place in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        most = max(most, min(1.0, (len(p) - rank) * p[place]))
        corrected[place] = most
    return corrected


def _pairs(demos: Demonstrations) -> Iterator[tuple[int, int]]:
    check_demonstrations(demos)
    if len(demos.agents) < 2:
        raise ValueError(
            f"compatibility is a question about two or more agents, but these demonstrations have {len(demos.agents)}"
        )
    if len(set(demos.positions)) < len(demos.agents):
        raise ValueError(
            f"the agents {list(demos.agents)} had the places {list(demos.positions)} among the environment's agents when "
            "they were recorded, so what two of them both observe is not known: record all of them in one environment"
        )
    return combinations(range(len(demos.agents)), 2)


def _episodes(demos: Demonstrations, shared: Shared, agent: int, partner: int) -> list[NDArray[Any]]:
    """What the agent sees of what both see, an array [steps, F] for each episode; rows of the dead are NaN."""
    offsets = demos.offsets[agent]
    rows = slice(0, int(offsets[-1]))
    seen = demos.padded_observations[rows, agent, : demos.sizes[agent]]
    features = np.array(shared(seen, demos.positions[agent], demos.positions[partner]), dtype=np.float64)
    features[~demos.alive[rows, agent]] = np.nan
    return np.split(features, offsets[1:-1])


def _two_samples(
    one: list[NDArray[Any]], other: list[NDArray[Any]], permutations: int, rng: np.random.Generator
) -> tuple[tuple[int, int], float, float]:
    """Steps, statistic and p of two samples of episodes."""
    kept = [[rows[~np.isnan(rows).any(axis=1)] for rows in sample] for sample in (one, other)]
    steps = sum(map(len, kept[0])), sum(map(len, kept[1]))
    if min(steps) == 0:  # one of the two never sees it: nothing to compare
        return steps, 0.0, 1.0
    sums, counts = embed([*kept[0], *kept[1]], rng)
    first = np.arange(len(counts)) < len(one)
    deals = rng.permuted(np.broadcast_to(first, (permutations, len(counts))), axis=1)
    statistics = distance(sums, counts, np.concatenate([first[None], deals]))
    at_least = statistics[1:] >= statistics[0] - 1e-12
    return steps, float(statistics[0]), float((1 + at_least.sum()) / (1 + permutations))


def distance(sums: NDArray[Any], counts: NDArray[Any], first: NDArray[np.bool_]) -> NDArray[np.float64]:
    """|mean embedding of the first sample - of the second|^2 for each row of ``first`` [P, episodes]."""
    chosen = first.astype(np.float64)
    one, n_one = chosen @ sums, chosen @ counts
    total, n_total = sums.sum(axis=0), counts.sum()
    with np.errstate(divide="ignore", invalid="ignore"):  # a deal may leave one sample without a step
        gap = one / n_one[:, None] - (total - one) / (n_total - n_one)[:, None]
    return np.nan_to_num((gap**2).sum(axis=1), nan=np.inf)


def embed(episodes: list[NDArray[Any]], rng: np.random.Generator) -> tuple[NDArray[Any], NDArray[Any]]:
    """For each episode the sum of its steps' random Fourier features [episodes, 2 M], and its number of steps.

    The Gaussian kernel's width is the median distance of steps, as usual; features are standardized first.
    """
    counts = np.array([len(rows) for rows in episodes])
    rows = np.concatenate(episodes)
    spread = rows.std(axis=0)
    rows = rows[:, spread > 0] / spread[spread > 0]
    picked = rng.integers(len(rows), size=(2, 1000))
    distances = np.linalg.norm(rows[picked[0]] - rows[picked[1]], axis=1)
    width = float(np.median(distances[distances > 0])) if distances.any() else 1.0
    frequencies = rng.standard_normal((rows.shape[1], _FREQUENCIES)) / width
    sums = np.zeros((len(episodes), 2 * _FREQUENCIES))
    owner = np.repeat(np.arange(len(episodes)), counts)
    for begin in range(0, len(rows), _CHUNK):
        part = slice(begin, begin + _CHUNK)
        phase = rows[part] @ frequencies
        features = np.concatenate([np.cos(phase), np.sin(phase)], axis=1)
        owners, starts = np.unique(owner[part], return_index=True)
        sums[owners] += np.add.reduceat(features, starts, axis=0)
    return sums / np.sqrt(_FREQUENCIES), counts
