"""Errors that are the user's to mend."""


class UserError(ValueError):
    """A mistake in what was asked for: one sentence that names what, where and the remedy.

    The command line prints it without a traceback.
    """
