"""The program file: one ZIP of stored, aligned, checksummed members, read without trusting anything in it."""

from bossa.pef.file import Pef
from bossa.pef.manifest import FORMAT_VERSION, TRACED_MODULE, Constant, Manifest, Member, Section, TracedModule
from bossa.pef.program_file import ProgramFile
from bossa.pef.writer import is_file_name

__all__ = [
    "FORMAT_VERSION",
    "TRACED_MODULE",
    "Constant",
    "Manifest",
    "Member",
    "Pef",
    "ProgramFile",
    "Section",
    "TracedModule",
    "is_file_name",
]
