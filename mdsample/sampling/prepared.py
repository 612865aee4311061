"""Rows ready to be filled: texts and tokens in a template, and the lengths that a slot of unknown length may have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from mdsample.core.canvas import Canvas
from mdsample.core.template import Slot, Template
from mdsample.errors import TemplateError
from mdsample.models.denoiser import Denoiser


@attrs.frozen
class Growth:
    """Which slot of a row grows."""

    slot: Slot
    #: its number in the row
    number: int


@attrs.frozen(eq=False)
class Prepared:
    """A row ready to be filled."""

    id: int | str
    tokens: Sequence[int]
    #: number of the slot of each position, −1 for fixed text
    slot: Sequence[int]
    #: what is to be filled
    blank: Sequence[bool]
    #: slots that need not see the text after them
    blind: tuple[str, ...] = ()
    #: positions of its slots of unknown length, and the same row with other lengths
    lengths: Mapping[str, int] = attrs.field(factory=dict[str, int], kw_only=True)
    others: tuple[Prepared, ...] = attrs.field(default=(), kw_only=True)
    #: where one of these grows before the run
    growth: Growth | None = attrs.field(default=None, kw_only=True)

    def canvas(self, slots: tuple[str, ...], mask_id: int) -> Canvas:
        """The row alone; `slots` names them all."""
        return Canvas.of_rows([self.tokens], [self.slot], slots, mask_id, [self.id], [self.blank], self.blind)

    def grown(self, length: int, mask_id: int) -> Prepared:
        """The same row with `length` blanks in the slot that grows, no fewer than it has."""
        assert self.growth is not None
        more = length - self.slot.count(self.growth.number)
        end = len(self.slot) - self.slot[::-1].index(self.growth.number)
        tokens, slot, blank = (
            [*column[:end], *[filling] * more, *column[end:]]
            for column, filling in ((self.tokens, mask_id), (self.slot, self.growth.number), (self.blank, True))
        )
        lengths = {self.growth.slot.name: length}
        return attrs.evolve(self, tokens=tokens, slot=slot, blank=blank, lengths=lengths)


def prepare(
    denoiser: Denoiser,
    template: Template,
    id: int | str,
    texts: Mapping[str, str],
    given: Mapping[str, str] | None = None,
) -> Prepared:
    """A row's texts, and the slots that it brings, in their template; `TemplateError` if they or the row do not fit.

    Where the template has slots of unknown length: the row with the shortest, and with it those of all other lengths.
    Where one grows, the shortest alone.
    """
    if (slot := template.growing) is not None and slot.name not in (given or {}):
        return _growing(denoiser, template, slot, id, texts, given)
    if template.ranged:
        layouts = _of_each_length(template, denoiser, given)
        rows = [
            attrs.evolve(prepare(denoiser, layout, id, texts, given), lengths=lengths) for layout, lengths in layouts
        ]
        return attrs.evolve(rows[0], others=tuple(rows[1:]))
    try:
        row = template.row(denoiser.tokenizer, texts, given)
    except TemplateError:
        raise
    except ValueError as fault:  # a text that is not valid unicode
        raise TemplateError(str(fault)) from fault
    if len(row.tokens) > denoiser.max_length:
        raise TemplateError(
            f"the row is {len(row.tokens)} tokens long, slots included; {denoiser.name} takes at most "
            f"{denoiser.max_length}: shorten the text or the slots"
        )
    prepared = Prepared(id, row.tokens, row.slot, row.blank, template.blind)
    block = denoiser.block
    # only a model in blocks can miss something; for the others no row is worth a canvas of its own
    if block is None:
        return prepared
    if fault := prepared.canvas(template.slots, denoiser.tokenizer.mask_id).unseen(block, denoiser.led):
        raise TemplateError(fault)
    return prepared


def _growing(
    denoiser: Denoiser,
    template: Template,
    slot: Slot,
    id: int | str,
    texts: Mapping[str, str],
    given: Mapping[str, str] | None,
) -> Prepared:
    """The row with the fewest positions in the slot that grows."""
    fewest = slot.lengths[0]
    short = attrs.evolve(slot, length=fewest, shortest=None, grows=False)
    layout = Template(tuple(short if piece is slot else piece for piece in template.pieces))
    row = prepare(denoiser, layout, id, texts, given)
    if (longest := len(row.tokens) + slot.length - fewest) > denoiser.max_length:
        raise TemplateError(
            f"the row may grow to {longest} tokens, slots included; {denoiser.name} takes at most "
            f"{denoiser.max_length}: shorten the text, or let slot {slot.name!r} grow less"
        )
    return attrs.evolve(row, lengths={slot.name: fewest}, growth=Growth(slot, template.slots.index(slot.name)))


def _of_each_length(
    template: Template, denoiser: Denoiser, given: Mapping[str, str] | None
) -> list[tuple[Template, dict[str, int]]]:
    """The templates of known lengths that it stands for, and the lengths."""
    names = {slot.name for slot in template.ranged}
    template.check_given(given or {})
    layouts = template.candidates(denoiser.tokenizer, given)
    return [
        (
            layout,
            {piece.name: piece.length for piece in layout.pieces if isinstance(piece, Slot) and piece.name in names},
        )
        for layout in layouts
    ]
