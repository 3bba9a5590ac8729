"""TEXT → VALUE: YAML architectures, read with positions, merged, validated, and given shapes. Never imports torch."""

from vitscope.spec.dump import dump_spec
from vitscope.spec.load import Variants, at_resolution, load_spec, parse_spec
from vitscope.spec.value import Spec, Stage

__all__ = ["Spec", "Stage", "Variants", "at_resolution", "dump_spec", "load_spec", "parse_spec"]
