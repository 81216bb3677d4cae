"""What tests of several parts share: small models, random programs, native programs from memory."""
