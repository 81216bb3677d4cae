"""What stops a training run, in one line."""

from __future__ import annotations

from bossa.errors import TrainError

OPTIONAL_PACKAGES = ("torch", "transformers", "h5py", "matplotlib", "tensorboard", "accelerate")


def missing_package(error: ModuleNotFoundError) -> TrainError:
    """The error for a package of the extra that is not installed."""
    return TrainError(f"training needs {error.name}, which is not installed: pip install 'bossa[train]'")
