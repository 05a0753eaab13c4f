from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from vclr_lightning.data.datasets.match_videos import match
from vclr_lightning.data.datasets.official import Named, Official
from vclr_lightning.data.indexing.video_files import Found

NAMES = st.sampled_from(["a", "b-", "b_", "B", "c d", "c&d", "e"])
WINDOWS = st.sampled_from([(None, None), (0.0, 1.0), (0.5, 2.0)])


def test_names_match_in_any_unicode_form() -> None:
    apart, whole = "cafe\u0301", "caf\u00e9"
    found = Found([f"x/{apart}.mp4", f"y/{whole}1.mp4", f"z/{apart}/b.mp4", "a/b.mp4"])
    videos = [
        Named(stems=(whole,), split="train"),
        Named(stems=(f"{apart}1",), split="train"),
        Named(stems=("b",), split="train", folder=whole),
    ]
    listing = match(Official(videos=videos), found)
    assert [e.path for e in listing.entries] == [found.paths[0], found.paths[1], found.paths[2]]


@st.composite
def named(draw: st.DrawFn, window: tuple[float | None, float | None]) -> Named:
    name, split = draw(NAMES), draw(st.sampled_from(["train", "test"]))
    folder, label = draw(st.sampled_from(["", "run fast"])), draw(st.integers(-1, 1))
    start, end = window
    return Named(stems=(name,), split=split, label=label, folder=folder, start=start, end=end)


@given(
    st.booleans().flatmap(
        lambda clips: st.lists(WINDOWS.filter(lambda w: (w[0] is not None) == clips).flatmap(named))
    ),
    st.sets(st.tuples(st.sampled_from(["", "x/", "train/run_fast/"]), NAMES)),
    st.booleans(),
)
def test_every_named_video_is_in_exactly_one_list(
    videos: list[Named], files: set[tuple[str, str]], loose: bool
) -> None:
    found = Found(sorted(f"{folder}{name}.mp4" for folder, name in files))
    listing = match(Official(videos=videos, classes=("r", "w"), loose=loose), found)
    assert len(listing.entries) + len(listing.rejected) == len(videos)
    windows = [
        (e.path, e.start, e.end, e.label if e.start is not None else 0) for e in listing.entries
    ]
    assert max(Counter(windows).values(), default=0) <= 1
    assert {entry.path for entry in listing.entries} <= set(found.paths)
    assert listing.unlisted == len(found.paths) - len({e.path for e in listing.entries})
    missing = {r.path for r in listing.rejected if r.reason == "no such video"}
    assert not missing & {name for _, name in files}
    if not loose:
        stems = {video.stems[0] for video in videos}
        assert missing == stems - {name for _, name in files}


def test_folders_of_split_and_class_decide() -> None:
    found = Found(["a.mp4", "test/run_fast/a.mp4", "train/a.mp4", "train/run_fast/a.mp4"])
    video = Named(stems=("a",), split="train", folder="run fast")
    (entry,) = match(Official(videos=[video]), found).entries
    assert entry.path == "train/run_fast/a.mp4"


def test_names_may_lose_special_characters_where_that_is_clear() -> None:
    videos = [Named(stems=(s,), split="train") for s in ("Free_Hugs_(1)!", "x&y", "x_y", "z")]
    found = Found(["Free_Hugs__1__.avi", "xy.avi", "z.avi"])
    listing = match(Official(videos=videos, loose=True), found)
    assert [entry.path for entry in listing.entries] == ["Free_Hugs__1__.avi", "z.avi"]
    assert [reject.path for reject in listing.rejected] == ["x&y", "x_y"]
    assert [e.path for e in match(Official(videos=videos), found).entries] == ["z.avi"]
