"""The one exception for what a user can put right."""


class UserError(ValueError):
    """A mistake in the input: a path, a key, a value, a file.

    The message is one clear sentence that says what is wrong, where, and what to do about it.
    Entry points print it without a traceback and exit with a non-zero status.

    Example:
        >>> raise UserError("data.root=/x does not exist; give a folder of videos")
        Traceback (most recent call last):
        ...
        vclr_lightning.core.errors.UserError: data.root=/x does not exist; give a folder of videos
    """
