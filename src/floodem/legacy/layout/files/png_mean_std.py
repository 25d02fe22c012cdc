"""png_mean_std.py: mean and standard deviation of all PNG images of the working directory."""

from floodem.cli.legacy import run_program

if __name__ == "__main__":
    run_program("png_mean_std")
