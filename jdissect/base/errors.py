"""Defines `UserError`, the error whose message is written for the user."""


class UserError(ValueError):
    """Something the user gave is wrong: a flag, a key, a path, a file's content.

    The message says in one or two lines what is wrong, where (file, key, tensor or
    image), and what to do. Entry points print it without a traceback and exit with
    code 2.
    """


LOST = 3  # exit code of one of many processes where another one has gone


def of_system(error: OSError) -> UserError:
    """Returns a system error as a UserError, e.g. 'No space left on device: PATH'."""
    where = f": {error.filename}" if error.filename else ""
    return UserError(f"{error.strerror or error}{where}")
