"""Scores of drawn objects, voxel by voxel: slow, obvious, for tiny arrays.

A drawn object adds what its voxels add in the whole: segments are not cut to the drawing.
"""

from __future__ import annotations

import math


def drawn_scores(segmentation: list, truth: list, drawn: list) -> dict:
    """Score the objects with these places among all objects, in ascending order of ids."""
    objects = sorted(set(truth))
    voxels = pairs = in_segments = in_objects = 0
    split = merge = 0.0
    for place in drawn:
        for segment, thing in zip(segmentation, truth, strict=True):
            if thing != objects[place]:
                continue
            together = sum(
                one == segment and other == thing
                for one, other in zip(segmentation, truth, strict=True)
            )
            segment_size, object_size = segmentation.count(segment), truth.count(thing)
            voxels += 1
            pairs += together
            in_segments += segment_size
            in_objects += object_size
            split += math.log2(object_size / together)
            merge += math.log2(segment_size / together)
    precision, recall = pairs / in_segments, pairs / in_objects
    return {
        "adapted_rand_error": 1 - 2 * precision * recall / (precision + recall),
        "rand_precision": precision,
        "rand_recall": recall,
        "voi_split_bits": split / voxels,
        "voi_merge_bits": merge / voxels,
        "voi_sum_bits": (split + merge) / voxels,
    }
