"""Pictures of an SMAX battle, drawn with pygame."""

from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dm2_wrappers._extras import require

SIZE = 480  # pixels of the longer side
BACKGROUND, GRID = (24, 26, 30), (40, 43, 50)
TEAMS = ((86, 180, 233), (230, 159, 0))  # allies, enemies: colours that colour-blind people tell apart


def draw(units: dict[str, NDArray[Any]], width: float, height: float) -> NDArray[np.uint8]:
    """One frame [H, W, 3]: a disc per living unit, its health as the filled share of the disc's radius."""
    pygame = require("pygame", "smax")
    scale = SIZE / max(width, height)
    surface = pygame.Surface((round(width * scale), round(height * scale)))
    surface.fill(BACKGROUND)
    for line in range(0, int(max(width, height)) + 1, 4):
        pygame.draw.line(surface, GRID, (line * scale, 0), (line * scale, SIZE))
        pygame.draw.line(surface, GRID, (0, line * scale), (SIZE, line * scale))
    for position, health, radius, team, alive in zip(*(units[name] for name in _FIELDS), strict=True):
        if alive:
            # SMAX's y axis points up, a picture's down.
            centre = (float(position[0]) * scale, (height - float(position[1])) * scale)
            pixels = max(4.0, float(radius) * scale)
            pygame.draw.circle(surface, TEAMS[int(team)], centre, pixels, width=2)
            pygame.draw.circle(surface, TEAMS[int(team)], centre, pixels * float(np.sqrt(max(0.0, health))))
    return np.ascontiguousarray(pygame.surfarray.array3d(surface).swapaxes(0, 1))


_FIELDS = ("positions", "health", "radius", "team", "alive")


class BattleWindow:
    """A window that shows frames at eight a second, as fast as SMAX's steps are in the game's own time."""

    def __init__(self, title: str) -> None:
        self._pygame = require("pygame", "smax")
        display = any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"))
        if sys.platform == "linux" and not display:
            raise RuntimeError("render_mode='human' needs a display, and there is none: use 'rgb_array'")
        self._pygame.display.init()
        self._title, self._screen, self._clock = title, None, self._pygame.time.Clock()

    def show(self, frame: NDArray[np.uint8]) -> None:
        """Show one frame [H, W, 3]."""
        pygame = self._pygame
        if self._screen is None:
            self._screen = pygame.display.set_mode((frame.shape[1], frame.shape[0]))
            pygame.display.set_caption(self._title)
        pygame.event.pump()
        pygame.surfarray.blit_array(self._screen, frame.swapaxes(0, 1))
        pygame.display.flip()
        self._clock.tick(8)

    def close(self) -> None:
        """Close the window."""
        self._pygame.display.quit()
