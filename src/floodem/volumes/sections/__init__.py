"""Volumes as sections: folders of PNG, JPEG and TIFF images, and TIFF files of many pages."""
