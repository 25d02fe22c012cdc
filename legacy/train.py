"""train.py --flag value ...: train a flood-filling network."""

from floodem.cli.legacy import run_program

if __name__ == "__main__":
    run_program("train")
