"""Where compiled SMAX programs are kept, and who decides."""

from __future__ import annotations

import jax
import pytest

from dm2_wrappers.envs.smax import compiled

OPTIONS = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")


@pytest.fixture
def config(monkeypatch, tmp_path):
    """JAX without a cache folder, and the user's cache folder in ``tmp_path``; all is as before afterwards."""
    before = {option: getattr(jax.config, option) for option in OPTIONS}
    monkeypatch.setattr(compiled.sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    jax.config.update("jax_compilation_cache_dir", None)
    yield jax.config
    for option, value in before.items():
        jax.config.update(option, value)


def test_the_default_is_a_folder_in_the_users_caches(config, tmp_path):
    compiled.keep()
    path = compiled.folder()
    assert path.parent == tmp_path / "caches" / "dm2_wrappers"
    assert path.is_dir()
    assert config.jax_compilation_cache_dir == str(path)
    assert config.jax_persistent_cache_min_compile_time_secs < 1


def test_the_users_choice_stays(config, tmp_path):
    config.update("jax_compilation_cache_dir", "elsewhere")
    config.update("jax_persistent_cache_min_compile_time_secs", 3.0)
    compiled.keep()
    assert [getattr(config, option) for option in OPTIONS] == ["elsewhere", 3.0]
    assert not (tmp_path / "caches").exists()


def test_without_a_writable_folder_nothing_is_kept(config, tmp_path):
    (tmp_path / "caches").write_text("a file, not a folder")
    compiled.keep()
    assert config.jax_compilation_cache_dir is None


def test_each_kind_of_cpu_has_its_own(monkeypatch):
    first = compiled.folder()
    monkeypatch.setattr(compiled, "_cpu", lambda: "another")
    assert compiled.folder() != first
    assert compiled.folder().parent == first.parent
