"""``python -m floodem`` is ``floodem``."""

from floodem.cli.main import main

if __name__ == "__main__":
    main()
