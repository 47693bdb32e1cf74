"""Files are written whole or not at all."""

from __future__ import annotations

import os
import resource
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from dm2_wrappers import Demonstrations
from dm2_wrappers._files import replacing
from tests.helpers.permissions import without_permission
from tests.helpers.small_demonstrations import make


def write(path, text: str) -> None:
    with replacing(path, "w") as file:
        file.write(text)


def test_a_new_file_has_its_folders_and_the_usual_permissions(tmp_path):
    write(tmp_path / "a" / "b" / "new.txt", "new")
    (tmp_path / "usual.txt").write_text("")
    path = tmp_path / "a" / "b" / "new.txt"
    assert path.read_text() == "new"
    assert path.stat().st_mode == (tmp_path / "usual.txt").stat().st_mode
    assert os.listdir(path.parent) == ["new.txt"]


def test_an_older_file_keeps_its_permissions_and_is_never_more_open_meanwhile(tmp_path):
    path = tmp_path / "secret.txt"
    path.write_text("old")
    path.chmod(0o600)
    with replacing(path, "w") as file:
        file.write("new")
        assert stat.S_IMODE(os.stat(file.name).st_mode) == 0o600
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o664)  # more than the umask gives
    write(path, "newer")
    assert stat.S_IMODE(path.stat().st_mode) == 0o664


def test_a_symbolic_link_stays_one(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "link.txt"
    link.symlink_to(tmp_path / "elsewhere" / "target.txt")
    for text in ("first", "second"):
        write(link, text)
        assert link.is_symlink()
        assert (tmp_path / "elsewhere" / "target.txt").read_text() == text
    assert os.listdir(tmp_path / "elsewhere") == ["target.txt"]


@pytest.mark.parametrize("error", [RuntimeError("no"), KeyboardInterrupt(), OSError("disk on fire")])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, error):
    write(tmp_path / "file.txt", "old")

    def fail() -> None:
        with replacing(tmp_path / "file.txt", "w") as file:
            file.write("new")
            raise error

    with pytest.raises(type(error)) as caught:
        fail()
    assert caught.value is error
    assert (tmp_path / "file.txt").read_text() == "old"
    assert os.listdir(tmp_path) == ["file.txt"]


def test_readers_see_the_old_file_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "file.txt"
    write(path, "old")
    with replacing(path, "w") as file:
        file.write("new")
        file.flush()
        assert path.read_text() == "old"
    assert path.read_text() == "new"


def test_temporary_files_of_killed_processes_are_removed_and_others_are_not(tmp_path):
    long_ago = time.time() - 7200
    names = {
        f".demos[1].npz.{'0' * 16}.tmp": True,  # stale
        f".demos1.npz.{'0' * 16}.tmp": False,  # of another file, though the brackets would match it
        f".demos[1].npz.old.{'0' * 16}.tmp": False,
        ".demos[1].npz.mine.tmp": False,
    }
    for name in names:
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (long_ago, long_ago))
    (tmp_path / f".demos[1].npz.{'1' * 16}.tmp").touch()  # another process is writing it
    write(tmp_path / "demos[1].npz", "new")
    left = {name for name, stale in names.items() if not stale} | {f".demos[1].npz.{'1' * 16}.tmp", "demos[1].npz"}
    assert set(os.listdir(tmp_path)) == left


def test_threads_that_save_to_one_path_do_not_damage_it(tmp_path):
    path, teams = tmp_path / "demos.npz", [make(seed=seed) for seed in range(4)]
    teams[0].save(path)
    stop, errors = threading.Event(), []

    def save(demos: Demonstrations) -> None:
        try:
            for _ in range(10):
                demos.save(path)
        except BaseException as error:  # a thread's error would go unseen
            errors.append(error)

    def read() -> None:
        try:
            while not stop.is_set():
                seed = Demonstrations.load(path).metadata["seed"]
                np.testing.assert_array_equal(Demonstrations.load(path).alive, teams[seed].alive)
        except BaseException as error:
            errors.append(error)

    reader, *writers = [threading.Thread(target=read), *(threading.Thread(target=save, args=(demos,)) for demos in teams)]
    for thread in (reader, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    stop.set()
    reader.join()
    assert not errors
    assert os.listdir(tmp_path) == ["demos.npz"]


def test_no_room_is_one_sentence(tmp_path):
    """A limit on the size of files stands in for a full disk: writing fails in the same way, in the middle of a file."""
    path = tmp_path / "demos.npz"
    make().save(path)
    program = (
        "import resource, sys; from tests.helpers.small_demonstrations import make\n"
        "demos = make(lengths=(3000, 3000, 3000))\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "try:\n    demos.save(sys.argv[1])\n"
        "except OSError as error:\n    print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, timeout=120, check=False
    )
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    assert done.stderr == ""
    assert done.stdout == (
        "[Errno 27] There is no room for the file, and any older one is unchanged; "
        f"free some space and save again: {str(path)!r}\n"
    )
    assert len(Demonstrations.load(path)) == 3
    assert os.listdir(tmp_path) == ["demos.npz"]


def test_a_folder_and_missing_permissions_are_named_by_the_files_own_name(tmp_path):
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(IsADirectoryError, match=r"This is a folder; name a file in it: '.*folder\.npz'"):
        write(tmp_path / "folder.npz", "x")
    locked = tmp_path / "locked"
    locked.mkdir()
    with without_permission(locked), pytest.raises(PermissionError, match=r"'.*locked/file\.txt'$"):
        write(locked / "file.txt", "x")
    write(protected := tmp_path / "protected.txt", "old")
    with without_permission(protected), pytest.raises(PermissionError, match="write-protected; choose another name"):
        write(protected, "x")
    assert Path(protected).read_text() == "old"
