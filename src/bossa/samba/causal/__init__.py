"""Causal language models of transformers in a session: their forward pass from the native program."""

from bossa.samba.causal.compiler import with_native
from bossa.samba.causal.executor import NativeExecutor

__all__ = ["NativeExecutor", "with_native"]
