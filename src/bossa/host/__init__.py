"""What Bossa asks of the machine that it runs on: files that it writes, cores and memory, the standard streams."""
