"""TFRecord files of coordinates: names, reading, writing, and lists of centres made of them."""
