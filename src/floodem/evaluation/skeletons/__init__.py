"""Scores along skeletons of the truth: how far one gets along a neuron without a mistake."""

from floodem.evaluation.skeletons.scores import SkeletonMistake, SkeletonScores
from floodem.evaluation.skeletons.scoring import SkeletonOptions, score_skeletons

__all__ = ["SkeletonMistake", "SkeletonOptions", "SkeletonScores", "score_skeletons"]
