"""What comes from outside is looked at here: arguments of the Python interface, and text before it is shown."""
