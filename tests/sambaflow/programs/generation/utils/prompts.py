"""Prompts, one a line of a file, and letters as tokens."""


def read(path):
    with open(path, encoding="utf-8") as file:
        return [line.rstrip("\n") for line in file if line.strip()]


def encode(text):
    return [ord(letter) - 31 for letter in text]


def decode(ids):
    return "".join(chr(int(i) + 31) for i in ids)
