"""The version of this package, read by the build, the PEF writer and ``bossa --version``."""

__version__ = "0.1.0"
