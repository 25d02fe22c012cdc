"""How long a command takes to say anything: imports against bare Python."""

from __future__ import annotations

import subprocess
import sys

from timing import interleaved

ROUNDS = 9


def run() -> None:
    """Print milliseconds from start to end of a process."""
    commands = {
        "python -c pass": ["-c", "pass"],
        "import floodem": ["-c", "import floodem"],
        "floodem --help": ["-m", "floodem", "--help"],
        "floodem segment --help": ["-m", "floodem", "segment", "--help"],
    }
    seconds = interleaved(
        {
            name: lambda arguments=arguments: subprocess.run(
                [sys.executable, *arguments], check=True, capture_output=True
            )
            for name, arguments in commands.items()
        },
        rounds=ROUNDS,
    )
    for name, value in seconds.items():
        print(f"{name:24} {value * 1e3:7.0f} ms")
