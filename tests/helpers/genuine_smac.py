"""Whether the tests can use genuine SMAC, with whatever StarCraft II it finds."""

import functools

from dm2_wrappers.envs.smac import install as smac_install


@functools.cache
def missing() -> str | None:
    """What is missing, in one sentence; None if nothing is."""
    try:
        smac_install.load()
        smac_install.check_starcraft("3m")
    except (ImportError, FileNotFoundError) as error:
        return str(error)
    return None
