"""Click on a cell in the viewer and watch a network flood it; keep it or take it back."""

from floodem.viewer.clicking.click_to_flood import ClickToFlood
from floodem.viewer.clicking.flood_line import Obstacle
from floodem.viewer.clicking.opening import flood_on_click

__all__ = ["ClickToFlood", "Obstacle", "flood_on_click"]
