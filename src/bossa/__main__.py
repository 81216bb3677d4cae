"""``python -m bossa``: the same as the ``bossa`` command."""

from bossa.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
