"""The logger that programs of SambaFlow's write to."""

from __future__ import annotations

import logging
import sys
from collections import Counter
from typing import Any

from bossa.errors import SambaError

LEVELS = {name.lower(): getattr(logging, name) for name in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")}


class SambaLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger whose methods take ``log_limit``: how often the same text is written at most, in this process."""

    def __init__(self, logger: logging.Logger) -> None:
        super().__init__(logger)
        self._written: Counter[tuple[int, object]] = Counter()

    def log(self, level: int, msg: object, *args: object, **options: Any) -> None:
        log_limit: int | None = options.pop("log_limit", None)
        if not self.isEnabledFor(level):
            return
        if log_limit is not None:
            self._written[level, msg] += 1
            if self._written[level, msg] > log_limit:
                return
        super().log(level, msg, *args, **options)


class _ToStderr(logging.StreamHandler[Any]):
    """Writes to what is `sys.stderr` at the time."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)
        self.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def _logger() -> logging.Logger:
    logger = logging.getLogger("sambaflow")
    logger.setLevel(logging.WARNING)
    logger.propagate = False  # what a program sets up for its own would write everything twice
    logger.handlers = [_ToStderr()]
    return logger


samba_logger = SambaLogger(_logger())


def set_log_level(level: str) -> None:
    """Write messages from a level on: ``debug``, ``info``, ``warning``, ``error`` or ``critical``, in any case.

    Raises:
        SambaError: There is no such level.
    """
    if level.lower() not in LEVELS:
        raise SambaError(f"--log-level {level}: not one of {', '.join(LEVELS)}")
    samba_logger.setLevel(LEVELS[level.lower()])
