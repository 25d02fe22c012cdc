"""Many independent tasks: functions and their arguments in, receipts and results out.

Knows nothing of floods, meshes or skeletons: those that need many blocks or many
objects done hand their work to `run_tasks`, which does each task once, whatever
interrupts it and whoever does it (`Crew`).
"""

from floodem.cluster.context import TaskContext, task_context
from floodem.cluster.crew import ALONE, Crew, Shard
from floodem.cluster.dask_crew import keeping_cluster
from floodem.cluster.task import Task, TaskFunction
from floodem.cluster.tasks import run_tasks

__all__ = [
    "ALONE",
    "Crew",
    "Shard",
    "Task",
    "TaskContext",
    "TaskFunction",
    "keeping_cluster",
    "run_tasks",
    "task_context",
]
