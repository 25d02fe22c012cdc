"""build_coordinates.py --flag value ...: partitions become centres for training."""

from floodem.cli.legacy import run_program

if __name__ == "__main__":
    run_program("build_coordinates")
