"""`status --require SHARE`: whether enough of a checkpoint is resident, as a probe asks. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from shardahead.node.residency import FileResidency
from shardahead.units import counted, format_bytes, format_share, quoted


@dataclass(frozen=True)
class Required:
    """A share of all bytes, 1 being all of them; `text`: as it was typed."""

    share: Fraction
    text: str


def parse_share(text: str) -> Required:
    """ "100%", "99.5%", or a fraction of one, "0.995". Raises ValueError for anything else."""
    match = re.fullmatch(r"\s*([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*(%?)\s*", text, re.ASCII)
    share = Fraction(match.group(1)) / (100 if match.group(2) else 1) if match else None
    if share is None or share > 1:
        raise ValueError(f"must be a share from 0% to 100%, as 100% or 0.995, not {quoted(text)}")
    return Required(share, text.strip())


def why_not_ready(files: Sequence[FileResidency], required: Required) -> str | None:
    """In one line why that much is not resident; None where it is."""
    size = sum(file.size_bytes for file in files)
    resident = sum(file.resident_bytes or 0 for file in files)
    if resident >= required.share * size:
        return None
    reason = (
        f"{format_share(resident, size)} of {format_bytes(size)} is resident, required is "
        f"{required.text}"
    )
    unknown = [file for file in files if file.resident_bytes is None]
    if unknown:
        reason += f"; of {counted(len(unknown), 'shard')} it is not known: {unknown[0].reason}"
    return reason
