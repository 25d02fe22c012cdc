"""png_to_h5.py OUT.h5: all PNG images of the working directory become dataset raw of OUT.h5."""

from floodem.cli.legacy import run_program

if __name__ == "__main__":
    run_program("png_to_h5")
