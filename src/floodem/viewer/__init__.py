"""Looking at volumes in Neuroglancer: layers, a local server, screenshots."""

from floodem.viewer.layers import Kind, Layer, guess_kind, unique_names
from floodem.viewer.screenshot import save_screenshot
from floodem.viewer.server import Viewer

__all__ = ["Kind", "Layer", "Viewer", "guess_kind", "save_screenshot", "unique_names"]
