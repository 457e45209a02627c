"""What is said to a person whose input cannot be used."""

import errno
import os


class InputError(ValueError):
    """A file, field or model that was given cannot be used.

    The message names the field or file, the value found there, and what to write instead.
    """


def missing_extra(package: str, extra: str) -> InputError:
    """The error for a package that comes with an extra of this distribution."""
    return InputError(f"{package} is not installed. Write: {remedy(extra)}")


def remedy(extra: str) -> str:
    """The command that brings an extra of this distribution."""
    return f"pip install 'visionprefer[{extra}]'"


def what_to_mend(error: BaseException) -> str | None:
    """The sentence for an error that a person can mend; None for any other error."""
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{os.strerror(error.errno)}. Make room and run again: everything that was finished is kept"
    return None
