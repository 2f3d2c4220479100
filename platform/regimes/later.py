"""Options that a configuration got after artifacts had been made with it.

A recipe's hash is the address of what it makes. A field with ``metadata=LATER`` is left out of it while it
has its default, so that what was made before the field existed keeps its address.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

LATER: Mapping[str, bool] = MappingProxyType({"later": True})
