"""Look at machine and data before any work: addresses in, findings and proposed options out."""

from floodem.project.doctor.examination import Examination, examine
from floodem.project.doctor.findings import Finding, Level, Proposal

__all__ = ["Examination", "Finding", "Level", "Proposal", "examine"]
