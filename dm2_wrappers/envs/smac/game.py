"""A game of SMAC that may die: genuine SMAC's ``StarCraft2Env``, with StarCraft's failures made visible and repaired.

SMAC hides a dead StarCraft: ``step`` starts another one, returns ``(0, True, {})``, and the next ``reset`` then kills
units of the dead game or waits for new ones forever. Until an episode has ended every ``reset`` starts StarCraft anew and
adds the enemies' health to the maximal reward again, by which rewards are divided. Here instead a StarCraft that dies or
answers too late raises `StarCraftDiedError`, at once and with no process left, the next ``reset`` starts a new one, and the
reward scale is the same after every start.

SMAC is used as it is: what it does itself when StarCraft fails is replaced in a subclass.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

ATTEMPTS = 3  # to start StarCraft, each bounded by the timeout, before giving up

# Wrong options; another attempt would end the same way.
_PERMANENT_ERRORS = (LookupError, TypeError, ValueError, AttributeError, FileNotFoundError)


class StarCraftDiedError(RuntimeError):
    """StarCraft ended, failed, or did not answer in time."""


class Game:
    """One StarCraft and its SMAC environment.

    Args:
        simulator: SMAC's ``StarCraft2Env`` class.
        timeout: Seconds that StarCraft may take to start, and for each answer.
        seed: StarCraft's random seed at the first start, an integer of 32 bits.
        **smac_options: The arguments of ``simulator``.

    Attributes:
        smac: The ``StarCraft2Env``.
        starts: How often StarCraft was started.
        running: Whether there is a StarCraft.
    """

    def __init__(self, simulator: type[Any], *, timeout: float, seed: int, **smac_options: Any) -> None:
        # With continuing_episode SMAC says when the time limit ended an episode; that is all that it changes.
        self.smac = _mortal(simulator)(**smac_options, continuing_episode=True)
        self.smac.timeout = timeout
        self.starts = 0
        self.running = False
        self._base_reward = self.smac.max_reward  # without the enemies' health, which is known only in the game
        self.seed(seed)

    def seed(self, seed: int) -> None:
        """End StarCraft; the next one starts with this seed. StarCraft takes a seed only at its start."""
        self.stop()
        self._seed, self._starts_of_seed = seed, 0

    def reset(self) -> None:
        """Begin a new battle, in a new StarCraft where there is none.

        Raises:
            RuntimeError: StarCraft did not start; the message has the reason.
        """
        if self.running:
            # Its first episode need not have ended for SMAC to go on with the game that is there.
            self.smac._episode_count = max(self.smac._episode_count, 1)
            try:
                with self._stopping_on_error():
                    self.smac.reset()
                return
            except StarCraftDiedError:
                pass  # between two episodes: nothing is lost
        for attempt in range(1, ATTEMPTS + 1):
            try:
                with self._stopping_on_error():
                    self._start()
                return
            except StarCraftDiedError as error:
                if attempt == ATTEMPTS:
                    raise RuntimeError(f"StarCraft II did not start in {ATTEMPTS} attempts: {error}") from error

    def _start(self) -> None:
        smac = self.smac
        # A seed would be used up by the start: the battles of the next one are others, but the same in every run.
        follower = np.random.SeedSequence([self._seed, self._starts_of_seed]).generate_state(1)[0]
        smac._seed = int(follower) if self._starts_of_seed else self._seed
        self.starts, self._starts_of_seed = self.starts + 1, self._starts_of_seed + 1
        smac.agents, smac.enemies = {}, {}  # the dead game's
        smac._episode_count = 0  # as SMAC knows that it must start StarCraft
        self.running = True
        smac.reset()
        # SMAC has added the enemies' health again, once for every time it looked whether all units were there.
        smac.max_reward = self._base_reward + sum(unit.health_max + unit.shield_max for unit in smac.enemies.values())

    def step(self, actions: Sequence[int]) -> tuple[float, bool, dict[str, Any], list[int]]:
        """SMAC's reward, terminated and info, and the actions that were played (SMAC's own with ``heuristic_ai``).

        Raises:
            StarCraftDiedError: There is no result, and no StarCraft any more.
        """
        played = list(actions)
        with self._stopping_on_error():
            reward, terminated, info = self.smac.step(played)
        return float(reward), bool(terminated), info, played

    @contextlib.contextmanager
    def _stopping_on_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException:  # Ctrl-C too: the answer still to come would be mistaken for the next one
            self.stop()
            raise

    def stop(self) -> None:
        """End StarCraft; the process, its port and its folder are released when this returns."""
        self.running = False
        self.smac.close()


def _mortal(simulator: type[Any]) -> type[Any]:
    """The class with the places replaced at which it starts another StarCraft or waits without end."""

    class MortalStarCraft2Env(simulator):
        """See the module."""

        timeout: float

        def full_restart(self) -> None:
            raise StarCraftDiedError("it ended, or did not answer in time")

        def _launch(self) -> None:
            flags = sys.modules.get("absl.flags")
            if flags is not None and "sc2_timeout" in flags.FLAGS:  # pysc2 reads it when it connects
                flags.FLAGS.sc2_timeout = math.ceil(self.timeout)
            try:
                super()._launch()
            except _PERMANENT_ERRORS:
                raise
            except Exception as error:
                raise StarCraftDiedError(f"{type(error).__name__}: {error}") from error

        def init_units(self) -> None:
            # SMAC waits for all units to be there, step by step, without end.
            alarm = threading.Timer(self.timeout, self._kill)
            alarm.daemon = True
            alarm.start()
            try:
                super().init_units()
            finally:
                alarm.cancel()

        def _kill(self) -> None:
            process = self._sc2_proc
            if process is not None and process.pid:
                os.kill(process.pid, signal.SIGTERM if sys.platform == "win32" else signal.SIGKILL)

    return MortalStarCraft2Env
