"""The one exception that means: the caller's input is wrong, and the message says what to do."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

BAD_INPUT = 2  # exit code of the command line

# What to do about errors of the system.
_PERMIT = "change its permissions, or choose another place"
_OTHER_NAME = "choose another name"
_WAYS_OUT = {
    errno.ENOSPC: "make room there",
    errno.EDQUOT: "make room there",
    errno.EEXIST: _OTHER_NAME,
    errno.ENOTDIR: _OTHER_NAME,
    errno.EROFS: "choose another place",
    errno.EACCES: _PERMIT,
    errno.EPERM: _PERMIT,
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EMFILE: "raise the limit on open files (ulimit -n), or give fewer --workers",
    errno.EIO: "is the disk still there?",
}


class InputError(ValueError):
    """Bad input from the user: a file, a value or a combination of values.

    The message has the form ``who: parameter must be <constraint>, got <value>; <what to do>``.
    The command line prints it without a traceback and ends with exit code 2.
    """


def reason_of(error: BaseException) -> str:
    """Why something failed, on one line: of an error of the system what went wrong, since messages have the path."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return " ".join(str(error).split()) or type(error).__name__


def explain(error: OSError | UnicodeError | MemoryError, where: str | None = None) -> InputError:
    """An error of the system as one line: path (or what is said in its place), reason and, if known, the way out."""
    reason, way_out = reason_of(error), ""
    if isinstance(error, MemoryError):
        reason = f"memory ran out: {reason}"
    elif isinstance(error, UnicodeError):
        reason, way_out = f"text must be UTF-8, but {reason}", "rename or convert what is not"
    else:
        way_out = _WAYS_OUT.get(error.errno or 0, "")
        if where is None and isinstance(error.filename, str | bytes):
            where = os.fsdecode(error.filename)
    return InputError(f"{where}: " * (where is not None) + reason + f"; {way_out}" * bool(way_out))


@contextmanager
def explained() -> Iterator[None]:
    """Raise an `InputError` for what the system refuses: a disk, a permission, a name, memory; also a decorator."""
    try:
        yield
    except BrokenPipeError:  # the reader of what is printed has gone
        raise
    except (OSError, UnicodeError, MemoryError) as error:
        raise explain(error) from error
