"""npz_png.py [SEG.npz]: a result becomes images 0000.png and so on in the working directory."""

from floodem.cli.legacy import run_program

if __name__ == "__main__":
    run_program("npz_png")
