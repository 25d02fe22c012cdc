"""What ``train.py`` meant: its flags as options of floodem's training, its folder and its traps."""
