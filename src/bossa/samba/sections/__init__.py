"""Any traced module as sections of a program file: traced, compiled ahead of time, loaded and run."""
