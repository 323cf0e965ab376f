"""The one exception that means: the caller's input is wrong, and the message says what to do."""

BAD_INPUT = 2  # exit code of the command line


class InputError(ValueError):
    """Bad input from the user: a file, a value or a combination of values.

    The message has the form ``who: parameter must be <constraint>, got <value>; <what to do>``.
    The command line prints it without a traceback and ends with exit code 2.
    """
