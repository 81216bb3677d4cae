"""What modules are made of: parameters."""

from bossa.samba.nn.parameter import SambaParameter

__all__ = ["SambaParameter"]
