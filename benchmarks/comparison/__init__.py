"""Parts of `compare.py`: what is compared, how it is run, and how the figures are put together."""
