"""The union of requests: what is encoded, how often, and where it is read."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.types import Request
from vclr_lightning.modules.encoding_plan import ClipSource, Forward, plan_encodings
from vclr_lightning.objectives import InterFrame

FRAME = InterFrame(num_features=4, embedding_dim=2, queue_size=4).requests()
TUPLE = {
    "query": Request("query", ("anchor",)),
    "key": Request("key", ("positive",)),
}
CLIPS = {"anchor": 3, "positive": 3, "second": 1, "extra": 0}
ROWS = {"x1": 1, "x2": 1, "x3": 1}
BOTH = ("key", "query")


def clips_encoded(forward: Forward) -> int:
    return sum(
        ROWS[source.rows] if source.rows else sum(CLIPS[view] for view in source.views)
        for source in forward.sources
    )


def encoded(plan_: object, encoder: str) -> list[int]:
    forwards = plan_.forwards  # type: ignore[attr-defined]
    return [clips_encoded(f) for f in forwards if f.encoder == encoder]


def test_vclr_encodes_three_query_and_six_key_frames() -> None:
    plan = plan_encodings({"inter": FRAME, "intra": FRAME, "video": TUPLE, "order": TUPLE})
    assert encoded(plan, "query") == [3]
    assert encoded(plan, "key") == [6]
    assert plan.views == {"anchor", "positive", "second", "extra"}


def test_the_released_code_encodes_four_and_six() -> None:
    plan = plan_encodings({"inter": FRAME, "video": TUPLE}, apart=BOTH)
    assert encoded(plan, "query") == [1, 3]
    assert encoded(plan, "key") == [1, 1, 1, 3]


def test_another_objective_leaves_the_released_batchnorm_batches_alone() -> None:
    reader = {"all": Request("query", ("anchor", "second")), "key": Request("key", ("anchor",))}
    alone = plan_encodings({"inter": FRAME, "video": TUPLE}, apart=BOTH)
    both = plan_encodings({"mine": reader, "inter": FRAME, "video": TUPLE}, apart=BOTH)
    assert set(alone.forwards) < set(both.forwards)
    for where, read in alone.reads.items():
        assert alone.forwards[read.forward] == both.forwards[both.reads[where].forward]


def test_single_losses_encode_only_what_they_read() -> None:
    inter = plan_encodings({"inter": FRAME})
    assert (encoded(inter, "query"), encoded(inter, "key")) == ([1], [3])
    assert inter.views == {"anchor", "second", "extra"}
    video = plan_encodings({"video": TUPLE})
    assert (encoded(video, "query"), encoded(video, "key")) == ([3], [3])
    assert video.views == {"anchor", "positive"}


def test_keys_run_before_queries() -> None:
    plan = plan_encodings({"video": TUPLE, "inter": FRAME}, apart=BOTH)
    assert [forward.encoder for forward in plan.forwards] == ["key"] * 4 + ["query"] * 2


def test_a_selection_from_a_whole_view_is_taken_after_encoding() -> None:
    plan = plan_encodings({"inter": FRAME, "video": TUPLE})
    read = plan.reads["inter", "query"]
    assert read.rows == "x1"
    assert plan.forwards[read.forward].sources[read.sources[0]] == ClipSource(("anchor",))
    x2 = plan.reads["inter", "key1"]  # no key request reads the whole anchor view
    assert x2.rows is None
    assert plan.forwards[x2.forward].sources[x2.sources[0]].rows == "x2"


def test_the_rest_of_a_partly_whole_selection_is_encoded_whole() -> None:
    whole = {"key": Request("key", ("anchor",))}
    plan = plan_encodings({"inter": FRAME, "other": whole})
    (key,) = [forward for forward in plan.forwards if forward.encoder == "key"]
    assert {source.views for source in key.sources} == {("anchor",), ("extra",), ("second",)}
    assert all(source.rows is None for source in key.sources)
    assert plan.reads["inter", "key1"].rows == "x2"


def test_maps_and_features_share_a_forward() -> None:
    maps = {"map": Request("query", ("anchor",), pooled=False)}
    plan = plan_encodings({"video": TUPLE, "dense": maps})
    (query,) = [forward for forward in plan.forwards if forward.encoder == "query"]
    assert query.kinds == ("features", "maps")
    assert plan.reads["dense", "map"].kind == "maps"
    assert plan.reads["video", "query"].kind == "features"


def test_a_layer_is_read_beside_the_features_and_averaged_if_pooled() -> None:
    layer = {p: Request.of("anchor@layer3", pooled=p == "pooled") for p in ("pooled", "map")}
    plan = plan_encodings({"video": TUPLE, "dense": layer})
    (query,) = [forward for forward in plan.forwards if forward.encoder == "query"]
    assert query.kinds == ("features", "@layer3")
    assert plan.reads["dense", "pooled"].averaged
    assert not plan.reads["dense", "map"].averaged
    assert not plan.reads["video", "query"].averaged


def test_without_a_momentum_encoder() -> None:
    plan = plan_encodings({"pace": {"clip": Request("query", ("clip",))}})
    assert {forward.encoder for forward in plan.forwards} == {"query"}


def test_each_encoder_has_its_own_batches() -> None:
    mixture = {"inter": FRAME, "video": TUPLE}
    plan = plan_encodings(mixture, apart=["key"])
    assert (encoded(plan, "query"), encoded(plan, "key")) == ([3], [1, 1, 1, 3])


def test_an_unknown_encoder_is_refused() -> None:
    with pytest.raises(UserError, match=r"a.b requests the encoder 'teacher'; there are key, quer"):
        plan_encodings({"a": {"b": Request("teacher", ("anchor",))}})


requests = st.builds(
    Request,
    encoder=st.sampled_from(["query", "key"]),
    views=st.sampled_from([("a",), ("b",), ("a", "b"), ("b", "c"), ("c", "a")]),
    rows=st.sampled_from([None, None, "r", "s"]),
)


@settings(deadline=None)
@given(
    mixture=st.dictionaries(
        st.sampled_from(["x", "y", "z"]),
        st.dictionaries(st.sampled_from(["1", "2"]), requests, min_size=1),
        min_size=1,
    ),
    share=st.booleans(),
)
def test_every_request_finds_its_clips_and_no_view_is_encoded_twice(
    mixture: dict[str, dict[str, Request]], share: bool
) -> None:
    plan = plan_encodings(mixture, apart=() if share else BOTH)
    asked = {(o, name): r for o, named in mixture.items() for name, r in named.items()}
    assert plan.reads.keys() == asked.keys()
    for where, request in asked.items():
        read = plan.reads[where]
        forward = plan.forwards[read.forward]
        assert forward.encoder == request.encoder
        sources = [forward.sources[i] for i in read.sources]
        if read.rows is None and request.rows is not None:
            assert sources == [ClipSource(request.views, request.rows)]
        else:
            assert [source.views for source in sources] == [(view,) for view in request.views]
            assert all(source.rows is None for source in sources)
            assert read.rows == request.rows
    for forward in plan.forwards:
        whole = [view for s in forward.sources if s.rows is None for view in s.views]
        assert max(Counter(whole).values(), default=0) <= 1
        selected = [view for s in forward.sources if s.rows is not None for view in s.views]
        assert not set(whole) & set(selected)
    if share:
        assert len(plan.forwards) == len({forward.encoder for forward in plan.forwards})
        return
    for where in asked:  # exactly the clips that it names
        read = plan.reads[where]
        assert read.rows is None
        assert read.sources == tuple(range(len(plan.forwards[read.forward].sources)))
