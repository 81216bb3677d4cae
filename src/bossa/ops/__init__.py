"""The kinds of ops of a row program, a file each: its fields, its text, its rules, its meaning and its cost.

Importing this makes all of them known to the parser (``bossa.ir.op.KINDS``).
"""

from bossa.ops.attention import Attention
from bossa.ops.causal_conv import CausalConv
from bossa.ops.embed import Embed
from bossa.ops.linear import Linear
from bossa.ops.map import Map
from bossa.ops.reduce import Reduce, Reduction
from bossa.ops.select import Select

__all__ = ["Attention", "CausalConv", "Embed", "Linear", "Map", "Reduce", "Reduction", "Select"]
