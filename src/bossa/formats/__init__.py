"""How numbers are stored: a file for each way."""
