"""Mutated inputs for every reader of files: each must end in one clear line or in a right answer."""
