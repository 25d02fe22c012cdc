"""Scores of a segmentation against truth, and where it goes wrong."""

from floodem.evaluation.comparison import Evaluation, evaluate
from floodem.evaluation.mistakes import Mistake, Part
from floodem.evaluation.scores import Scores, scores

__all__ = ["Evaluation", "Mistake", "Part", "Scores", "evaluate", "scores"]
