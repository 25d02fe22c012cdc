"""compute_partitions.py --flag value ...: labels become partitions for training."""

from floodem.cli.legacy import run_program

if __name__ == "__main__":
    run_program("compute_partitions")
