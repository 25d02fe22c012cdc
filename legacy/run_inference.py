"""run_inference.py --flag value ...: segment what a request asks for."""

from floodem.cli.legacy import run_program

if __name__ == "__main__":
    run_program("run_inference")
