from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def ray_session():
    """Ray with two cores, for the whole session: its start takes seconds."""
    ray = pytest.importorskip("ray", reason="needs the extra rllib")
    pytest.importorskip("ray.rllib", reason="needs the extra rllib")
    ray.shutdown()  # one that a program of the docs has started does not find the modules of the tests
    modules = {"env_vars": {"PYTHONPATH": str(ROOT)}}
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False, runtime_env=modules)
    yield ray
    ray.shutdown()
