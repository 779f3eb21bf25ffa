"""The reference: BatchNorm2d as the formula reads, computed in extended precision."""

from bn_spec.oracle.reference.extended import Double, Extended
from bn_spec.oracle.reference.layer import BatchNorm2d, Record

__all__ = ["BatchNorm2d", "Double", "Extended", "Record"]
