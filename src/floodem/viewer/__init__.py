"""Looking at volumes in Neuroglancer: layers, a local server, screenshots."""

from floodem.viewer.first_look import Look
from floodem.viewer.layers import Kind, Layer, RemoteLayer
from floodem.viewer.opening import view
from floodem.viewer.running import Viewer
from floodem.viewer.screenshot import save_screenshot

__all__ = ["Kind", "Layer", "Look", "RemoteLayer", "Viewer", "save_screenshot", "view"]
