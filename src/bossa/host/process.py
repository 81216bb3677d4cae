"""The process that something was made in: after a fork a copy of it is in another, without its threads."""

from __future__ import annotations

import os

from bossa.errors import RequestError


class Process:
    """The process that this was made in.

    What has threads or locks asks it before it takes any: in a forked child the threads are missing, and a lock that
    another thread held at the fork never opens.
    """

    def __init__(self) -> None:
        self._id = os.getpid()

    @property
    def is_another(self) -> bool:
        """Whether this runs in a child that was forked since."""
        return os.getpid() != self._id

    def check(self) -> None:
        """Refuse to work in a forked child.

        Raises:
            RequestError: this is one.
        """
        if self.is_another:
            raise RequestError(
                f"the model was loaded in process {self._id}, and process {os.getpid()} was forked from it without its"
                " threads: load the model in the child too, or start the child with multiprocessing's 'spawn'"
            )
