"""Scenes: images, segmentations and shapes in one folder that any web server shows."""

from floodem.viewer.scenes.making import make_scene
from floodem.viewer.scenes.options import MAKE, NONE, SceneOptions
from floodem.viewer.scenes.plan import ScenePlan
from floodem.viewer.scenes.scene import Scene, is_scene, open_scene

__all__ = [
    "MAKE",
    "NONE",
    "Scene",
    "SceneOptions",
    "ScenePlan",
    "is_scene",
    "make_scene",
    "open_scene",
]
