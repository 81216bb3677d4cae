"""From a row program to one C++ file, and from that to a shared library."""
