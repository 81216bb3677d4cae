"""The row program: what a model does to one row, as data."""
