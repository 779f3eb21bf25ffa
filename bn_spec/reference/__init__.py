"""The reference: BatchNorm2d as the formula reads, computed in extended precision."""

from .extended import Double, Extended
from .layer import BatchNorm2d, Record

__all__ = ["BatchNorm2d", "Double", "Extended", "Record"]
