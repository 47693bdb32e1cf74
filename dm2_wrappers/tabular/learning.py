"""Algorithm 2 of the paper, computed exactly: optimal discriminators and TRPO steps, one agent after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from dm2_wrappers.tabular.game import Array, Game, check_choice, check_marginals, check_policies
from dm2_wrappers.tabular.responses import action_values, agent_problem, state_values
from dm2_wrappers.tabular.rewards import KINDS, RewardKind, discriminator_loss, discriminator_reward
from dm2_wrappers.tabular.visits import joint_transition, state_visitation

Order = Literal["turn", "simultaneous"]
Inputs = Literal["state-action", "state"]

_BACKTRACKS = 10  # a step is halved so often before the policy stays as it is
_EXPONENT = 100.0  # a step multiplies no probability by more than its exponential
_FLOOR = float(np.exp(-20.0))


def trpo_step(
    game: Game,
    policies: Sequence[ArrayLike],
    agent: int,
    reward: ArrayLike,
    *,
    delta: float = 0.01,
    floor: float = _FLOOR,
    loss: Callable[[Array], Array] | None = None,
) -> Array:
    """One exact TRPO step of one agent while the others keep their policies (Algorithm 2, line 9).

    With softmax policies the natural gradient is the advantage A, so the step is pi(a|s) exp(eta A(s, a)), normalized.
    As in TRPO, eta = sqrt(2 delta / E_rho Var_pi A), the largest that the quadratic model of the KL divergence allows;
    it is halved until the mean KL divergence of the old and the new policy, E_rho KL(pi || pi_new), is at most ``delta``
    and the expected advantage E_rho,pi_new A is above 0. After ten halvings the policy does not change.

    Args:
        game: The game.
        policies: One [S, A_i] per agent; leading axes hold many sets of policies, each with a step of its own.
        agent: Who learns.
        reward: [..., S, A_i], its reward.
        delta: Trust region in nats.
        floor: Least probability of an action in the new policy, so that every action can be tried again.
        loss: Maps the new policy [..., S, A_i] to a loss [...]. If given, a step must also lower this loss.

    Returns:
        float64 [..., S, A_i], the agent's new policy.

    Raises:
        ValueError: The policies or the reward do not fit the game, or ``delta`` or ``floor`` is out of range.
    """
    if delta <= 0:
        raise ValueError(f"delta, the trust region, must be above 0, but it is {delta}")
    if not 0 <= floor <= 1e-3:
        raise ValueError(f"floor, an action's least probability, must be between 0 and 0.001, but it is {floor}")
    own, tables, table = agent_problem(game, policies, agent, reward)
    old = tables[agent]
    rho = state_visitation(game, joint_transition(game, tables))
    values = state_values(game, own, old, table)
    advantage = action_values(game, own, values, table) - values[..., None]
    variance = (rho * (old * advantage**2).sum(axis=-1)).sum(axis=-1)
    # A nearly deterministic policy has next to no variance: there the quadratic model would allow any step.
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        longest = np.nan_to_num(_EXPONENT / np.abs(advantage).max(axis=(-2, -1)), posinf=0.0)
        step = np.fmin(np.sqrt(2 * delta / variance), longest)
    loss_before = None if loss is None else loss(old)

    result, waiting = old.copy(), np.ones(step.shape, dtype=bool)
    for _ in range(_BACKTRACKS + 1):
        exponent = step[..., None, None] * advantage
        new = old * np.exp(exponent - exponent.max(axis=-1, keepdims=True))
        new = np.maximum(new / new.sum(axis=-1, keepdims=True), floor)
        new /= new.sum(axis=-1, keepdims=True)
        with np.errstate(divide="ignore", invalid="ignore"):
            divergence = np.where(old > 0, old * np.log(old / new), 0.0).sum(axis=-1)
        good = (rho * divergence).sum(axis=-1) <= delta
        good &= (rho * (new * advantage).sum(axis=-1)).sum(axis=-1) > 0
        if loss is not None and loss_before is not None:
            good &= loss(new) < loss_before
        result = np.where((waiting & good)[..., None, None], new, result)
        waiting &= ~good
        if not waiting.any():
            break
        step = step / 2
    return result


class History(NamedTuple):
    """What happened in each sweep; entry 0 is before the first."""

    loss: Array
    """[sweeps + 1, ..., K], each agent's discriminator loss (see :func:`discriminator_loss`)."""
    gap: Array
    """[sweeps + 1, ..., K], total variation between each agent's distribution and its expert's, 0 to 1."""


def algorithm2(
    game: Game,
    expert_marginals: Sequence[ArrayLike],
    policies: Sequence[ArrayLike],
    *,
    reward: RewardKind = "js",
    order: Order = "turn",
    inputs: Inputs = "state-action",
    delta: float = 0.01,
    sweeps: int = 200,
    clip: float = 10.0,
    tolerance: float = 1e-6,
) -> tuple[list[Array], History]:
    """Distribution matching by independent agents with exact gradients (Algorithm 2).

    In a sweep each agent in turn gets the reward of its converged discriminator (line 8) and takes one
    :func:`trpo_step` (line 9), which must lower its loss after the discriminator has converged again. The sweeps end early
    when all gaps are below ``tolerance`` or no policy changes any more.

    Args:
        game: The game.
        expert_marginals: One [S, A_i] per agent, the distribution of its demonstrations; see :func:`marginals`.
        policies: The initial policies, one [S, A_i] per agent. [..., S, A_i] runs many starts at once.
        reward: Kind of discriminator, see :func:`discriminator_reward`.
        order: "turn": each agent sees the others' newest policies, as in the paper. "simultaneous": all take their step
            from the same policies, as Algorithm 1 does.
        inputs: "state-action", the theory's, or "state": the discriminators see only states, as in the paper's
            experiments.
        delta: Trust region of a step, in nats.
        sweeps: Maximum number of sweeps.
        clip: See :func:`discriminator_reward`.
        tolerance: The sweeps end when all gaps are below this.

    Returns:
        (policies, history): the last policies, and the losses and gaps after every sweep.

    Raises:
        ValueError: The marginals or policies do not fit the game, or an option is unknown or out of range.
    """
    check_choice("reward", reward, KINDS)
    check_choice("order", order, ("turn", "simultaneous"))
    check_choice("inputs", inputs, ("state-action", "state"))
    if sweeps < 0:
        raise ValueError(f"sweeps must be at least 0, but it is {sweeps}")
    experts = check_marginals(game, expert_marginals, "expert_marginals")
    current = check_policies(game, policies)

    def seen(table: Array) -> Array:
        return table if inputs == "state-action" else table.sum(axis=-1, keepdims=True)

    def visits(tables: Sequence[Array]) -> Array:
        return state_visitation(game, joint_transition(game, tables))[..., None]

    def measure(tables: Sequence[Array]) -> tuple[Array, Array]:
        rho = visits(tables)
        pairs = [(seen(rho * table), seen(expert)) for table, expert in zip(tables, experts, strict=True)]
        losses = [discriminator_loss(mu, expert, reward, gamma=game.gamma) for mu, expert in pairs]
        gaps = [0.5 * np.abs(mu - expert).sum(axis=(-2, -1)) for mu, expert in pairs]
        return np.stack(losses, axis=-1), np.stack(gaps, axis=-1)

    def improved(tables: Sequence[Array], agent: int) -> Array:
        expert = seen(experts[agent])

        def loss(own: Array) -> Array:
            mu = seen(visits([*tables[:agent], own, *tables[agent + 1 :]]) * own)
            return discriminator_loss(mu, expert, reward, gamma=game.gamma)

        mu = seen(visits(tables) * tables[agent])
        paid = discriminator_reward(mu, expert, reward, gamma=game.gamma, clip=clip)
        paid = np.broadcast_to(paid, tables[agent].shape)
        return trpo_step(game, tables, agent, paid, delta=delta, loss=loss)

    records = [measure(current)]
    for _ in range(sweeps):
        before = current
        if order == "turn":
            for agent in range(game.num_agents):
                current = [*current[:agent], improved(current, agent), *current[agent + 1 :]]
        else:
            current = [improved(before, agent) for agent in range(game.num_agents)]
        records.append(measure(current))
        unchanged = all(np.array_equal(old, new) for old, new in zip(before, current, strict=True))
        if unchanged or records[-1][1].max() < tolerance:
            break
    losses, gaps = zip(*records, strict=True)
    return current, History(np.stack(losses), np.stack(gaps))
