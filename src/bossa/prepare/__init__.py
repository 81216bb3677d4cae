"""Records to tokenized HDF5 files, as SambaNova's public data preparation tool lays them out."""

from bossa.prepare.hdf5 import SequenceFile, split_files
from bossa.prepare.run import Report, prepare
from bossa.prepare.settings import Settings

__all__ = ["Report", "SequenceFile", "Settings", "prepare", "split_files"]
