"""How weights are stored: a file for each way. ``registry`` finds them, and ``format`` says what each gives."""
