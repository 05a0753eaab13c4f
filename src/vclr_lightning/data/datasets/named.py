"""What official annotation files say, before any folder of videos is looked at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from vclr_lightning.data.jobs.rejects import Rejected
from vclr_lightning.data.manifest.schema import Span


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """A video, or a clip inside of one, as an official file names it.

    Attributes:
        stems: file names without suffix that the video may have, preferred ones first.
        split: ``train``, ``val`` or ``test``, or another that the data set knows.
        label: position in the classes, -1 for none.
        folder: of its class; decides between several files of one name.
        name: the id of the video or clip; by default its file's stem.
        group: the source that it was cut from.
        start: where a clip begins, in seconds.
        end: where it ends.
        spans: what is annotated within the video.
    """

    stems: tuple[str, ...]
    split: str
    label: int = -1
    folder: str = ""
    name: str = ""
    group: str = ""
    start: float | None = None
    end: float | None = None
    spans: tuple[Span, ...] = ()

    @property
    def title(self) -> str:
        """What it is called where it is not there."""
        return self.name or self.stems[0]


@dataclass(frozen=True, kw_only=True)
class Official:
    """All that the annotation files of a data set say.

    Attributes:
        videos: in the order of the files.
        classes: names, in the order that the data set numbers them.
        rejected: what is named and cannot be used, whatever files there are.
        left_out: what is named and not wanted, counted by why.
        loose: whether a file's name may differ from the official one in all characters but letters
            and digits, as where a system does not allow them.
    """

    videos: Sequence[Named]
    classes: tuple[str, ...] = ()
    rejected: Sequence[Rejected] = ()
    left_out: Counter[str] = field(default_factory=Counter)
    loose: bool = False
