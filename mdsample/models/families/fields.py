"""A published configuration, read field by field."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from mdsample.errors import ModelError

#: what no number of a model exceeds: any of them, a real one, layers, experts of all layers
LARGEST, HUGE, LAYERS, EXPERTS = 2**40, 1e30, 1000, 100_000


@attrs.frozen
class Fields:
    """A published configuration, read field by field; every error names family and field."""

    family: str
    config: Mapping[str, object]
    #: the names that were asked for
    asked: set[str] = attrs.field(factory=set[str], eq=False, repr=False)

    def get(self, name: str, otherwise: object = None) -> object:
        """A field as it stands there, or `otherwise` where it is absent; it counts as read."""
        self.asked.add(name)
        return self.config.get(name, otherwise)

    def require(self, *names: str) -> None:
        """All of these must be there."""
        missing = [name for name in names if self.get(name) is None]
        if missing:
            raise ModelError(f"{self.family}: config.json lacks {', '.join(missing)}")

    def only(self, name: str, *implemented: object) -> None:
        """The field must have one of the implemented values; the first stands for an absent field."""
        given = self.get(name, implemented[0])
        # 1 == True in Python, and 'block_group_size: true' is not what anyone means
        if not any(given == value and type(given) is type(value) for value in implemented):
            wanted = " or ".join(repr(value) for value in implemented)
            raise ModelError(f"{self.family}: {name} = {given!r:.80} is not implemented; {wanted} is")

    def count(self, name: str, most: int = LARGEST) -> int:
        """A positive whole number, at most `most`."""
        return self._count(name, self.get(name), most)

    def layers(self, name: str, experts: int = 1) -> int:
        """Number of layers, of which each may have so many experts; refused before every tensor of each is named."""
        return self.count(name, min(LAYERS, max(1, EXPERTS // experts)))

    def count_or(self, name: str, otherwise: int) -> int:
        """A positive whole number, or `otherwise` where the field is absent or null."""
        value = self.get(name)
        return otherwise if value is None else self._count(name, value)

    def _count(self, name: str, value: object, most: int = LARGEST) -> int:
        if type(value) is not int or value < 1:
            raise ModelError(f"{self.family}: {name} must be a positive whole number; found {value!r:.80}")
        if value > most:
            raise ModelError(f"{self.family}: {name} must be at most {most:,}; found {value!r:.80}")
        return value

    def real(self, name: str) -> float:
        """A positive number, far from what overflows."""
        value = self.get(name)
        if type(value) not in (int, float) or not isinstance(value, int | float) or not 0 < value < HUGE:
            raise ModelError(f"{self.family}: {name} must be a positive number; found {value!r:.80}")
        return float(value)

    def flag(self, name: str) -> bool:
        """True or false; absent is false."""
        value = self.get(name, False)
        if not isinstance(value, bool):
            raise ModelError(f"{self.family}: {name} must be true or false; found {value!r:.80}")
        return value

    def token(self, name: str) -> int:
        """A token id; that it lies inside the vocabulary is checked by `Trunk`."""
        value = self.get(name)
        if type(value) is not int or abs(value) > LARGEST:
            raise ModelError(f"{self.family}: {name} must be one token id; found {value!r:.80}")
        return value
