"""Running a program that a model wrote: in a child process with limits on time, memory, files, processes and network.

The child has a folder of its own, no environment, no input and no output. Its processor time, memory and file size are
limited by the system; where Linux lets it, it moves into namespaces of its own, without network and privileges; and
from then on an audit hook refuses sockets, processes, and files opened to be written outside of its folder. That keeps
mistakes from doing harm. It is no prison for malice: an audit hook can be circumvented, and files can be read. Run
what you do not trust in a container.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from importlib.util import find_spec

from mdsample.errors import RecordError

#: seconds of the processor, and of the clock, which a busy machine makes run faster
SECONDS, PATIENCE = 5, 30
_MEMORY = 1 << 30

_RUNNER = r"""
import builtins, os, resource, sys
token, seconds, memory = sys.stdin.readline().strip(), *map(int, sys.argv[1:3])
program = sys.stdin.read()
sys.stdin = open(os.devnull)
folder = os.getcwd() + os.sep
try:
    import ctypes
    ctypes.CDLL(None).unshare(0x10000000 | 0x40000000)  # CLONE_NEWUSER, CLONE_NEWNET
except Exception:
    pass
for kind, most in (("CPU", seconds), ("AS", memory), ("FSIZE", 1 << 20), ("CORE", 0), ("NPROC", 0)):
    try:
        resource.setrlimit(getattr(resource, "RLIMIT_" + kind), (most, most))
    except (AttributeError, OSError, ValueError):
        pass
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
BARRED = ("socket.", "subprocess.", "os.exec", "os.posix_spawn", "os.spawn", "os.system", "os.fork", "os.kill",
          "os.remove", "os.rename", "os.rmdir", "os.chmod", "os.chown", "os.link", "os.symlink", "os.truncate",
          "os.mkdir", "os.putenv", "shutil.", "ctypes.", "pty.", "signal.")
def refuse(event, given):
    if event.startswith(BARRED):
        raise PermissionError(event)
    if event == "open" and isinstance(given[2], int) and given[2] & WRITES:
        path = os.path.realpath(os.fsdecode(given[0])) if isinstance(given[0], (str, bytes)) else ""
        if not path.startswith(folder) and path != os.devnull:
            raise PermissionError(event)
compiled = compile(program, "<program>", "exec")
say = os.write
sys.addaudithook(refuse)
exec(compiled, {"__name__": "__main__"})
say(int(sys.argv[3]), token.encode())
"""


def require_runner() -> None:
    """`RecordError` where a child cannot be limited."""
    if find_spec("resource") is None:
        raise RecordError("programs of a model are run with limits that this system does not have; take Linux or macOS")


def passes(program: str) -> bool:
    """Whether a program runs to its end, without an error and within the limits."""
    require_runner()
    token = secrets.token_hex(16)
    with tempfile.TemporaryDirectory(prefix="mdsample-run-") as folder:
        told, tells = os.pipe()
        try:
            child = subprocess.Popen(
                [sys.executable, "-I", "-B", "-c", _RUNNER, str(SECONDS), str(_MEMORY), str(tells)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd=os.path.realpath(folder),
                env={},
                pass_fds=(tells,),
                start_new_session=True,
            )
            os.close(tells)
            tells = -1
            try:
                # what cannot be written as UTF-8 is no program
                child.communicate(f"{token}\n{program}".encode("utf-8", "replace"), timeout=PATIENCE)
            except (subprocess.TimeoutExpired, BrokenPipeError):
                return False
            finally:
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(child.pid, signal.SIGKILL)
                child.wait()
            return child.returncode == 0 and os.read(told, len(token)).decode() == token
        finally:
            os.close(told)
            if tells >= 0:
                os.close(tells)
