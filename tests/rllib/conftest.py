import pytest


@pytest.fixture(scope="session")
def ray_session():
    """Ray with two cores, for the whole session: its start takes seconds."""
    ray = pytest.importorskip("ray", reason="needs the extra rllib")
    pytest.importorskip("ray.rllib", reason="needs the extra rllib")
    started = not ray.is_initialized()
    if started:
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    yield ray
    if started:
        ray.shutdown()
