"""npz_to_png.py [SEG.npz]: a result becomes images inferred_segmentation/z0000.png and so on."""

from floodem.cli.legacy import run_program

if __name__ == "__main__":
    run_program("npz_to_png")
