"""The reference: the formulas of BatchNorm2d, computed in extended precision."""

from bn_spec.oracle.reference.extended import Double, Extended
from bn_spec.oracle.reference.layer import BatchNorm2d, ForwardRecord

__all__ = ["BatchNorm2d", "Double", "Extended", "ForwardRecord"]
