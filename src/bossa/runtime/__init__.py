"""Loading a compiled program with its weights, and running steps."""
