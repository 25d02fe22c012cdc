"""Reports: scores as a page with pictures of the worst places, and links into the viewer."""

from floodem.project.report.writing import is_report, require_report_place, write_report

__all__ = ["is_report", "require_report_place", "write_report"]
