"""The web server behind the viewer: volumes and folders in, addresses on this machine out."""

from floodem.viewer.serving.site import Site

__all__ = ["Site"]
