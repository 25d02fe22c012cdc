"""Resegmentation of one point, voxel by voxel: slow, obvious, for small arrays.

A network is a plain function: image and logits of a field of view in, what is added to the
logits out. Image and labels begin at voxel 0,0,0; everything is z, y, x.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from dataclasses import dataclass

import numpy as np

from reference.movement import face_peaks

OTHER_SIDE = {
    "a_covers_a": "b_covers_b",
    "a_covers_b": "b_covers_a",
    "b_covers_a": "a_covers_b",
    "b_covers_b": "a_covers_a",
    **{f"{name}_a": f"{name}_b" for name in ("size", "deleted", "seeds", "recovered")},
    **{f"{name}_b": f"{name}_a" for name in ("size", "deleted", "seeds", "recovered")},
    "depth_a_nm": "depth_b_nm",
    "depth_b_nm": "depth_a_nm",
}


@dataclass
class Twin:
    image: np.ndarray
    labels: np.ndarray
    network: object
    fov: tuple
    deltas: tuple
    voxel_nm: tuple
    radius: tuple
    analysis_radius: tuple
    exclusion_radius: tuple
    init_exclusion_radius: tuple | None = None
    tries: int = 8
    fraction: float = 0.6
    terminate_early: bool = False
    smaller_first: bool = False
    init: float = 0.95
    pad: float = 0.05
    move: float = 0.9
    segment: float = 0.6
    disco: float = 0.0

    def score(self, id_a, id_b, point):
        """All fields of the scores, by name."""
        self._cut(point)
        at_a, at_b = self._voxels(id_a), self._voxels(id_b)
        if self.smaller_first and len(at_b & self.analysis) < len(at_a & self.analysis):
            turned = dataclasses.replace(self, smaller_first=False).score(id_b, id_a, point)
            return {OTHER_SIDE.get(name, name): value for name, value in turned.items()}
        taken = {
            voxel
            for voxel in np.ndindex(self.part.shape)
            if self.part[voxel] not in {0, id_a, id_b}
        }
        a = self._side(at_a, taken)
        b = {"logits": None, "seeds": 0, "recovered": False, "deleted": 0, "calls": 0}
        covers_b = self._fraction(a["logits"], at_b) >= self.fraction
        if not self.terminate_early or (a["recovered"] and covers_b):
            b = self._side(at_b, taken)
        in_a, in_b = self._filled(a["logits"]), self._filled(b["logits"])
        near_a, near_b = at_a & self.analysis, at_b & self.analysis
        return {
            "iou": len(in_a & in_b) / max(len(in_a | in_b), 1),
            "a_covers_a": len(in_a & near_a) / max(len(near_a), 1),
            "a_covers_b": len(in_a & near_b) / max(len(near_b), 1),
            "b_covers_a": len(in_b & near_a) / max(len(near_a), 1),
            "b_covers_b": len(in_b & near_b) / max(len(near_b), 1),
            "size_a": len(in_a),
            "size_b": len(in_b),
            "deleted_a": a["deleted"],
            "deleted_b": b["deleted"],
            "depth_a_nm": self._depth(in_a),
            "depth_b_nm": self._depth(in_b),
            "seeds_a": a["seeds"],
            "seeds_b": b["seeds"],
            "recovered_a": a["recovered"],
            "recovered_b": b["recovered"],
            "calls": a["calls"] + b["calls"],
        }

    def overlaps(self, segment, point):
        """Without context: for each segment the voxels of it that the flood fills, and all."""
        self._cut(point)
        filled = self._filled(self._side(self._voxels(segment), set())["logits"])
        found = {}
        for voxel in self.analysis:
            label = int(self.part[voxel])
            if label:
                had, of = found.get(label, (0, 0))
                found[label] = (had + (voxel in filled), of + 1)
        return {label: counts for label, counts in found.items() if counts[0]}, len(filled)

    def _cut(self, point):
        """Take the surroundings of the point; positions are counted in them from here on."""
        low = [max(p - r, 0) for p, r in zip(point, self.radius, strict=True)]
        high = [
            min(p + r + 1, n) for p, r, n in zip(point, self.radius, self.image.shape, strict=True)
        ]
        window = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        self.here, self.part = self.image[window], self.labels[window]
        self.point = tuple(p - a for p, a in zip(point, low, strict=True))
        self.analysis = self._around(self.point, self.analysis_radius)

    def _voxels(self, label):
        return {voxel for voxel in np.ndindex(self.part.shape) if self.part[voxel] == label}

    def _around(self, center, radius):
        """All voxels of a box around a voxel that are on the canvas."""
        ranges = [
            range(max(c - r, 0), min(c + r + 1, n))
            for c, r, n in zip(center, radius, self.part.shape, strict=True)
        ]
        return set(itertools.product(*ranges))

    def _side(self, segment, taken):
        side = {"logits": None, "seeds": 0, "recovered": False, "deleted": 0, "calls": 0}
        if not segment & self.analysis:
            return side
        outside = set(np.ndindex(self.part.shape)) - segment
        distances = self._distances({voxel for voxel in segment if self._fits(voxel)}, outside)
        if self.init_exclusion_radius is not None:
            for voxel in self._around(self.point, self.init_exclusion_radius):
                distances.pop(voxel, None)
        while distances and side["seeds"] < self.tries:
            farthest = max(distances.values())
            seed = min(voxel for voxel, distance in distances.items() if distance == farthest)
            logits, steps = self._flood(seed, taken)
            side["logits"] = logits
            side["seeds"] += 1
            side["calls"] += len(steps)
            side["deleted"] = sum(lost for at, lost in steps if at in self.analysis)
            side["recovered"] = self._fraction(logits, segment) >= self.fraction
            if side["recovered"]:
                break
            for voxel in self._around(seed, self.exclusion_radius):
                distances.pop(voxel, None)
        return side

    def _fits(self, voxel):
        return all(
            f // 2 <= p < n - f // 2
            for p, f, n in zip(voxel, self.fov, self.part.shape, strict=True)
        )

    def _flood(self, seed, taken):
        """The logits, and for each step its position and how many voxels it gave up."""
        logits = np.full(self.part.shape, np.nan, np.float32)
        logits[seed] = _logit(self.init)
        waiting, visited, steps = [seed], set(), []
        while waiting:
            position = waiting.pop(0)
            cell = tuple(
                (p - s + d // 2) // max(d, 1)
                for p, s, d in zip(position, seed, self.deltas, strict=True)
            )
            if cell in visited or logits[position] < _logit(self.move):
                continue
            if not self._fits(position) or position in taken:
                continue
            if logits[seed] < _logit(self.move):
                break
            lost = self._step(logits, position)
            steps.append((position, lost))
            visited.add(cell)
            window = logits[self._window(position)]
            for _, offset in face_peaks(window, self.deltas, _logit(self.move)):
                waiting.append(tuple(p + o for p, o in zip(position, offset, strict=True)))
        return logits, steps

    def _window(self, position):
        return tuple(
            slice(p - f // 2, p + f // 2 + 1) for p, f in zip(position, self.fov, strict=True)
        )

    def _step(self, logits, position):
        window = logits[self._window(position)]
        seen = np.where(np.isnan(window), _logit(self.pad), window).astype(np.float32)
        raw = seen + self.network(self.here[self._window(position)], seen)
        lost = 0
        bright = np.mean(raw >= _logit(self.move))
        for voxel in np.ndindex(raw.shape):
            old = window[voxel]
            if self.disco >= 0 and old >= _logit(0.8) and raw[voxel] < 0:
                lost += 1
            keeps = self.disco >= 0 and bright > self.disco and old < 0 and raw[voxel] > old
            if not keeps:
                window[voxel] = raw[voxel]
        return lost

    def _filled(self, logits):
        if logits is None:
            return set()
        return {voxel for voxel in self.analysis if logits[voxel] >= 0}

    def _fraction(self, logits, segment):
        """The part of a segment's voxels in the analysis box that a flood has accepted."""
        near = segment & self.analysis
        if logits is None or not near:
            return -1
        return sum(logits[voxel] >= _logit(self.segment) for voxel in near) / len(near)

    def _depth(self, inside):
        """Largest distance of a voxel to the nearest one of the analysis box not inside."""
        return max(self._distances(inside, self.analysis - inside).values(), default=0.0)

    def _distances(self, voxels, others):
        """For each voxel the distance to the nearest of the others."""
        places = np.array(sorted(others), np.int64).reshape(-1, 3)
        found = {}
        for voxel in voxels:
            differences = (places - voxel) * np.array(self.voxel_nm)
            found[voxel] = math.sqrt((differences**2).sum(axis=1).min())
        return found


def _logit(probability):
    rounded = float(np.float32(probability))
    return np.float32(math.log(rounded / (1 - rounded)))
