"""Looking at volumes in Neuroglancer: layers, a local server, screenshots."""

from floodem.viewer.layers import Kind, Layer
from floodem.viewer.opening import view
from floodem.viewer.screenshot import save_screenshot
from floodem.viewer.server import Viewer

__all__ = ["Kind", "Layer", "Viewer", "save_screenshot", "view"]
