"""Where a row program runs: a folder for each kind of machine."""
