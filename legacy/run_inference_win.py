"""run_inference_win.py --flag value ...: segment a box with the request in a file."""

from floodem.cli.legacy import run_program

if __name__ == "__main__":
    run_program("run_inference_win")
