"""Projects: one file says what is wanted, one call makes all of it that is stale."""

from floodem.project.pipeline.choice import Choice
from floodem.project.pipeline.configuration import Project, read_project
from floodem.project.pipeline.running import ProjectResult, StageResult, run_project

__all__ = ["Choice", "Project", "ProjectResult", "StageResult", "read_project", "run_project"]
