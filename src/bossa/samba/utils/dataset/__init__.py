"""What programs do with well-known data."""

from bossa.samba.utils.dataset import mnist

__all__ = ["mnist"]
