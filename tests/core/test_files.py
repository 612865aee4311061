"""Writing: whole or not at all, nothing of anyone else's touched, a second writer refused, every fault told."""

from __future__ import annotations

import errno
import fcntl
import io
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from mdsample.core.files import Growing, Lock, meant, mode, new_folder, require_writable, write_whole
from mdsample.errors import WriteError


def listing(folder: Path) -> dict[str, bytes | None]:
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def grow(path: str | Path, *lines: bytes) -> None:
    with Growing(path, lambda data: data) as file:
        for line in lines:
            file.append(line)


def fill(path: Path) -> None:
    with new_folder(path) as folder:
        (folder / "weights").write_bytes(b"new")


def test_a_file_is_written_and_keeps_its_permissions(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_whole(path, b"one")
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask
    path.chmod(0o640)
    write_whole(path, b"two")
    assert path.read_bytes() == b"two" and stat.S_IMODE(path.stat().st_mode) == 0o640
    assert list(listing(tmp_path)) == ["a"]


@pytest.mark.parametrize("write", [lambda path: write_whole(path, b"new"), lambda path: grow(path, b"new")])
def test_a_link_stays_and_what_it_means_is_written(write: Callable[[Path], None], tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    for number, first in enumerate([b"", None]):  # what is there, and a link that dangles
        target, link = inner / f"target{number}", tmp_path / f"link{number}"
        if first is not None:
            target.write_bytes(first)
        link.symlink_to(Path("inner") / target.name)
        write(link)
        assert link.is_symlink() and target.read_bytes() == b"new"
    assert sorted(listing(tmp_path)) == ["inner", "inner/target0", "inner/target1", "link0", "link1"]


def test_a_loop_of_links_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    for write in (lambda path: write_whole(path, b"x"), grow, require_writable, meant):
        with pytest.raises(WriteError, match=r"cannot write .*a: Too many levels of symbolic links"):
            write(tmp_path / "a")


def test_a_pipe_is_written_into(tmp_path: Path) -> None:
    pipe, got = tmp_path / "pipe", list[bytes]()
    os.mkfifo(pipe)
    for write in (lambda: write_whole(pipe, b"whole"), lambda: grow(pipe, b"gr", b"own")):
        reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
        reader.start()
        write()
        reader.join(10)
    assert got == [b"whole", b"grown"]
    assert stat.S_ISFIFO(pipe.stat().st_mode) and list(listing(tmp_path)) == ["pipe"]


def test_devices(tmp_path: Path) -> None:
    link = tmp_path / "null"
    link.symlink_to("/dev/null")
    write_whole(link, b"x")
    grow(link, b"x")
    assert link.is_symlink() and stat.S_ISCHR(link.stat().st_mode)
    if Path("/dev/full").exists():
        for write in (lambda path: write_whole(path, b"x"), lambda path: grow(path, b"x")):
            with pytest.raises(WriteError, match="cannot write /dev/full: No space left on device"):
                write("/dev/full")


def test_standard_output() -> None:
    program = """
from mdsample.core.files import Growing, write_whole
print("before")
write_whole("-", b"whole\\n")
with Growing("-", lambda data: data) as file: file.append(b"grown\\n")
print("after")
"""
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout == "before\nwhole\ngrown\nafter\n"


def test_what_was_not_made_here_stays(tmp_path: Path) -> None:
    for name in ("a.part", "a.tmp", "a.lock~", ".mdsample-precious"):
        (tmp_path / name).write_text("precious")
    (tmp_path / "a").write_text("old")
    before = listing(tmp_path)
    write_whole(tmp_path / "a", b"new")
    grow(tmp_path / "a", b"er")
    require_writable(tmp_path / "a")
    require_writable(tmp_path / "b")
    assert listing(tmp_path) == before | {"a": b"newer"}
    (tmp_path / "c.part").mkdir()
    (tmp_path / "c.part" / "thesis").write_text("precious")
    (tmp_path / "d.lock").write_text("precious")
    with pytest.raises(WriteError, match=r"c.part is in the way and was not made here"):
        fill(tmp_path / "c")
    with pytest.raises(WriteError, match=r"d.lock is in the way and is not a lock"):
        grow(tmp_path / "d")
    assert (tmp_path / "c.part" / "thesis").read_text() == (tmp_path / "d.lock").read_text() == "precious"


def test_require_writable(tmp_path: Path) -> None:
    for path, why in ((tmp_path, "it is a folder"), (tmp_path / "no" / "x", "there is no such folder")):
        with pytest.raises(WriteError, match=f"cannot write {path}: {why}"):
            require_writable(path)
    require_writable("-")


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with Growing(path, lambda data: data) as file:
        file.append(b"one\n")
        program = "import sys; from mdsample.core.files import Growing; Growing(sys.argv[1], lambda data: data)"
        found = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=False)
        assert f"a is being written by process {os.getpid()}, since 20" in found.stderr
        with pytest.raises(WriteError, match=f"is being written by process {os.getpid()}"):
            grow(path)  # nor twice in one process
    grow(path, b"two\n")
    assert listing(tmp_path) == {"a": b"one\ntwo\n"}


def test_a_lock_whose_process_was_killed_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "a"
    program = """
import sys, time; from mdsample.core.files import Growing
file = Growing(sys.argv[1], lambda data: data); file.append(b"one\\n"); print(flush=True); time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)
    assert (tmp_path / "a.lock").exists()
    grow(path, b"two\n")
    assert listing(tmp_path) == {"a": b"one\ntwo\n"}


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    fill(tmp_path / "made")
    assert listing(tmp_path) == {"made": None, "made/weights": b"new"}
    with pytest.raises(WriteError, match="exists, and nothing is overwritten"):
        fill(tmp_path / "made")
    with pytest.raises(KeyError), new_folder(tmp_path / "other") as folder:
        (folder / "half").touch()
        with pytest.raises(WriteError, match="is being written by process"):
            fill(tmp_path / "other")
        raise KeyError
    assert listing(tmp_path) == {"made": None, "made/weights": b"new"}
    left = tmp_path / "other.part"  # what a killed one leaves
    left.mkdir()
    (left / ".mdsample-unfinished").touch()
    (left / "half").touch()
    fill(tmp_path / "other")
    assert listing(tmp_path)["other/weights"] == b"new" and not left.exists()


#: what a write may call, of `os` and of what is built on it
CALLS = ["open", "read", "pread", "write", "pwrite", "fsync", "ftruncate", "chmod", "stat", "fstat", "lstat", "mkdir"]
CALLS += ["replace", "rename", "unlink", "rmdir", "scandir", "access"]


def failing(patch: pytest.MonkeyPatch, n: int, code: int) -> list[int]:
    """From now on the `n`th call fails; the number of calls."""
    count = [0]

    def wrapped(inner: Callable[..., Any]) -> Callable[..., Any]:
        def called(*args: Any, **more: Any) -> Any:
            count[0] += 1
            if count[0] == n:
                raise OSError(code, os.strerror(code))
            return inner(*args, **more)

        return called

    for module, names in ((os, CALLS), (io, ["open"]), (fcntl, ["flock"])):
        for name in names:
            patch.setattr(module, name, wrapped(getattr(module, name)))
    return count


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EACCES, errno.ESTALE])
@pytest.mark.parametrize("act", ["whole", "grow", "folder"])
def test_every_call_of_a_write_fails_once(act: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the old content is there or the new, with what was appended before; nothing is left behind or lost."""
    for n in range(1, 60):
        folder = tmp_path / str(n)
        folder.mkdir()
        (folder / "other").write_bytes(b"precious")
        path = folder / "a"
        if act != "folder":
            path.write_bytes(b"old\n")
        with monkeypatch.context() as patch:
            count = failing(patch, n, code)
            try:
                match act:
                    case "whole":
                        write_whole(path, b"new\n")
                    case "grow":
                        with Growing(path, lambda file: [file.read(), b"kept\n"]) as file:
                            file.append(b"one\n")
                            file.append(b"two\n")
                    case _:
                        fill(path)
                failed = False
            except WriteError as error:
                assert str(path) in str(error) and os.strerror(code) in str(error)
                failed = True
        found = listing(folder)
        assert count[0] >= n or not failed
        assert found.pop("other") == b"precious"
        found.pop("a.lock", None)  # one that could not be removed is free all the same
        if act == "folder":
            assert found in ({}, {"a": None, "a/weights": b"new"})
            if not found:
                fill(path)
        else:
            assert list(found) == ["a"]
            whole = b"new\n" if act == "whole" else b"old\nkept\none\ntwo\n"
            states = {b"old\n", whole} if act == "whole" else {b"old\n"} | {whole[:end] for end in (9, 13, 17)}
            assert found["a"] in states
            assert failed or found["a"] == whole
            grow(path, b"more\n")
        if count[0] < n:
            return
    raise AssertionError("a write takes more calls than are tried")


def test_locks_are_released(tmp_path: Path) -> None:
    for _ in range(3):
        with Lock(tmp_path / "a", "a"):
            assert (tmp_path / "a.lock").exists()
    assert listing(tmp_path) == {}


@pytest.mark.parametrize("code", [errno.EIO, errno.EACCES, errno.ESTALE])
def test_what_cannot_be_told_is_not_taken_for_absent(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `Path.exists` takes it from Python 3.14 on."""

    def stale(*_: object, **__: object) -> NoReturn:
        raise OSError(code, os.strerror(code))

    assert mode(tmp_path / "none") == mode(tmp_path / "a\0b") == 0 and stat.S_ISDIR(mode(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", stale)
        with pytest.raises(OSError, match=os.strerror(code)):
            mode(tmp_path)
