"""Many independent tasks: functions and their arguments in, receipts and results out.

Knows nothing of floods, meshes or skeletons: those that need many blocks or many
objects done hand their work to `run_tasks`, which does each task once, whatever
interrupts it.
"""

from floodem.cluster.tasks import Task, run_tasks

__all__ = ["Task", "run_tasks"]
