"""Scores of a segmentation against truth, and where it goes wrong."""

from floodem.evaluation.comparison import evaluate
from floodem.evaluation.differences import Difference, score_differences
from floodem.evaluation.intervals import Interval
from floodem.evaluation.mistakes import Mistake, Part
from floodem.evaluation.result import Evaluation
from floodem.evaluation.scores import Scores, scores
from floodem.evaluation.several import evaluate_several
from floodem.evaluation.skeletons import SkeletonScores, score_skeletons

__all__ = [
    "Difference",
    "Evaluation",
    "Interval",
    "Mistake",
    "Part",
    "Scores",
    "SkeletonScores",
    "evaluate",
    "evaluate_several",
    "score_differences",
    "score_skeletons",
    "scores",
]
