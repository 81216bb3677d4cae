"""The kernels, built for several targets."""

from support.kernels import builds, on_every_build

__all__ = ["builds", "on_every_build"]
