"""The program file: one ZIP of stored, aligned, checksummed members, read without trusting anything in it."""

from bossa.pef.file import Pef
from bossa.pef.manifest import FORMAT_VERSION, Constant, Manifest, Member, Section

__all__ = ["FORMAT_VERSION", "Constant", "Manifest", "Member", "Pef", "Section"]
