"""Files: how everything that is written reaches the disk, and that nothing of anyone else's is harmed on the way.

A file appears whole or not at all: `write_whole` fills one with a name of its own beside the target, makes it durable
and renames it. A link stays a link; what is written is the file that it means. What is not a regular file (a device, a
pipe) is written straight into, and `-` is standard output. A file that grows (`Growing`) and a folder that is filled
(`new_folder`) are locked, so that a second writer is refused. Faults are `WriteError`, which names the file.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Self, final

from mdsample.errors import WriteError

try:
    import fcntl
except ImportError:  # Windows: two writers are not told from one
    fcntl = None

#: what a lock holds: who made it, and since when
_HOLDER = re.compile(rb"mdsample: process (\d+), since ([\d :-]+)\n")
#: in a folder that is being filled, so that a later run knows what it may remove
_UNFINISHED = ".mdsample-unfinished"


def mode(path: str | Path) -> int:
    """What is there: its `st_mode`, and 0 if nothing is.

    `OSError` if that cannot be told. `Path.exists` and its like take that for a no from Python 3.14 on, and what was
    taken for absent would be written over.
    """
    try:
        return os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):  # the last for a name that no file can have
        return 0


def read_whole(path: str | Path) -> bytes:
    """All of a file; `OSError` also for a device that has no end."""
    with open(path, "rb") as file:
        about = os.fstat(file.fileno())
        if stat.S_ISCHR(about.st_mode) and not file.isatty() and about.st_rdev != os.stat(os.devnull).st_rdev:
            raise OSError(errno.EINVAL, "it is a device, not a file", str(path))
        return file.read()


def write_whole(path: str | Path, data: bytes | Iterable[bytes]) -> None:
    """Writes a file, given at once or in pieces, whole or not at all; an existing file keeps its permissions."""
    target, pieces = meant(path), [data] if isinstance(data, bytes) else data
    with _told(path):
        if target is None or not _is_plain(target):
            fd = _open(target)
            try:
                for piece in pieces:
                    _write(fd, piece)
            finally:
                os.close(fd)
            return
        fd, name = tempfile.mkstemp(prefix=".mdsample-", suffix=".tmp", dir=target.parent)
        try:
            try:
                os.chmod(name, _permissions(target))
                for piece in pieces:
                    _write(fd, piece)
                os.fsync(fd)
            finally:
                os.close(fd)
            os.replace(name, target)
        except BaseException:
            with suppress(OSError):
                os.unlink(name)
            raise
        _sync_folder(target.parent)


def require_writable(path: str | Path) -> None:
    """`WriteError` for what cannot be written later; nothing that is there is touched, and nothing is left behind."""
    target = meant(path)
    if target is None:
        return
    with _told(path):
        if stat.S_ISDIR(mode(target)):
            raise WriteError(f"cannot write {path}: it is a folder")
        if not stat.S_ISDIR(mode(target.parent)):
            raise WriteError(f"cannot write {path}: there is no such folder")
        if mode(target) and not os.access(target, os.W_OK):
            raise WriteError(f"cannot write {path}: permission denied")
        if _is_plain(target):
            with tempfile.TemporaryFile(dir=target.parent):
                pass


class Growing:
    """A file that is read once, and then grows; a context manager.

    What is appended leaves the process at once and is durable within about a second. Until it is closed no other
    process can open it so.
    """

    def __init__(self, path: str | Path, read: Callable[[BinaryIO], Iterable[bytes] | None]) -> None:
        """`read` is given the file, and gives what is to be kept of it in pieces, `None` for all of it.

        What it raises leaves all as it was. The file stays open until the last piece is taken, so that none need be in
        memory longer than that.

        Nothing is read of what is not a regular file. Raises `WriteError`.
        """
        self._path, self._synced = path, time.monotonic()
        target = meant(path)
        with _told(path):
            self._lock = _lock_of(path, target)
            try:
                if self._lock is not None and target is not None and mode(target):
                    with open(target, "rb") as file:
                        kept = read(file)
                        if kept is not None:
                            write_whole(target, kept)
                self._fd = _open(target, os.O_APPEND)
            except BaseException:
                self._unlock()
                raise

    def append(self, data: bytes) -> None:
        """Adds bytes at the end; raises `WriteError`."""
        with _told(self._path):
            _write(self._fd, data)
            if time.monotonic() - self._synced > 1:
                self._sync()

    def close(self) -> None:
        """Makes what was appended durable, and lets others write."""
        with _told(self._path):
            try:
                self._sync()
            finally:
                os.close(self._fd)
                self._unlock()

    def __enter__(self) -> Self:
        """The file, open for appending."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes it."""
        self.close()

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.release()

    def _sync(self) -> None:
        if self._lock is not None:  # a device or a pipe has nothing to make durable
            os.fsync(self._fd)
        self._synced = time.monotonic()


def require_new(path: str | Path) -> None:
    """`WriteError` unless a file or folder of this name can be made, and none exists."""
    if os.path.lexists(path):
        raise WriteError(f"{path} exists, and nothing is overwritten; take another name, or remove it")
    parent = Path(path).absolute().parent
    with _told(path):
        if not stat.S_ISDIR(mode(parent)):
            raise WriteError(f"cannot write {path}: there is no folder {parent}")


@contextmanager
def new_folder(path: str | Path) -> Generator[Path]:
    """A folder to fill, which takes this name when the block ends without an error; otherwise it is removed.

    Until then it is `path` with `.part`. One that a killed process left is removed first. Raises `WriteError`, also if
    `path` exists.
    """
    target = Path(path).absolute()
    part = target.with_name(target.name + ".part")
    with _told(path), Lock(target, path):
        require_new(path)
        if os.path.lexists(part) and not stat.S_ISREG(mode(part / _UNFINISHED)):
            raise WriteError(f"{part} is in the way and was not made here; move it or take another name")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        try:
            (part / _UNFINISHED).touch()
            yield part
            (part / _UNFINISHED).unlink()
            os.rename(part, target)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
        _sync_folder(target.parent)


@final
class Lock:
    """`NAME.lock` beside a file or folder, held as long as its process lives; a lock whose process is gone is taken."""

    def __init__(self, target: Path, called: str | Path) -> None:
        """`called`: as errors name it. `WriteError` if another one holds it, or if its name is something else's."""
        self._path = target.with_name(target.name + ".lock")
        self._fd = -1
        if fcntl is None:
            return
        with _told(called):
            while self._fd < 0:
                fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    content = os.read(fd, 100)
                    if content and not _HOLDER.fullmatch(content):
                        raise WriteError(
                            f"cannot write {called}: {self._path} is in the way and is not a lock; move it or take "
                            "another name"
                        )
                    with suppress(FileNotFoundError):
                        # one that its holder removed in the meantime keeps nobody out
                        if os.path.samestat(os.fstat(fd), os.stat(self._path)):
                            os.ftruncate(fd, 0)
                            now = time.strftime("%Y-%m-%d %H:%M:%S")
                            os.pwrite(fd, f"mdsample: process {os.getpid()}, since {now}\n".encode(), 0)
                            self._fd = fd
                except BlockingIOError:
                    holder = _HOLDER.fullmatch(os.pread(fd, 100, 0))
                    who = f"process {holder[1].decode()}, since {holder[2].decode()}" if holder else "another process"
                    raise WriteError(f"{called} is being written by {who}; wait for it, or take another file") from None
                finally:
                    if self._fd < 0:
                        os.close(fd)

    def __enter__(self) -> Self:
        """Held."""
        return self

    def __exit__(self, *_: object) -> None:
        """Released."""
        self.release()

    def release(self) -> None:
        """Lets others write."""
        if self._fd >= 0:
            with suppress(OSError):
                os.unlink(self._path)
            os.close(self._fd)
            self._fd = -1


@contextmanager
def locked(path: str | Path) -> Generator[None]:
    """Keeps others from writing a file meanwhile; nothing that is no regular file is locked. Raises `WriteError`."""
    lock = _lock_of(path, meant(path))
    try:
        yield
    finally:
        if lock is not None:
            lock.release()


def _lock_of(path: str | Path, target: Path | None) -> Lock | None:
    return Lock(target, path) if target is not None and _is_plain(target) else None


def meant(path: str | Path) -> Path | None:
    """The file that a path means, through all links; `None` for `-`, standard output. `WriteError` for a loop."""
    if str(path) == "-":
        return None
    with _told(path):
        with suppress(FileNotFoundError):
            os.stat(path)
        return Path(os.path.realpath(path))


@contextmanager
def _told(path: str | Path) -> Generator[None]:
    """Faults of the system as `WriteError` with the name of the file; not that nobody reads standard output on."""
    try:
        yield
    except OSError as fault:
        if isinstance(fault, BrokenPipeError) and str(path) == "-":
            raise
        raise WriteError(f"cannot write {path}: {fault.strerror or fault}") from fault


def _is_plain(target: Path) -> bool:
    """Whether it is a regular file, or would become one."""
    there = mode(target)
    return not there or stat.S_ISREG(there)


def _permissions(target: Path) -> int:
    """The permissions of what is there, or of a new file."""
    if there := mode(target):
        return stat.S_IMODE(there)
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def _open(target: Path | None, more: int = 0) -> int:
    if target is None:
        sys.stdout.flush()
        return os.dup(sys.stdout.fileno())
    return os.open(target, os.O_WRONLY | os.O_CREAT | more, 0o666)


def _write(fd: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(fd, left) :]


def _sync_folder(folder: Path) -> None:
    """Makes a new name durable, where the system lets one."""
    with suppress(OSError):
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
