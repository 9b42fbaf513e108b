"""Cache keys: what tells two entries apart, and what a miss is explained with."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import pytest

from napari_dkan.inference.cache.cache_key import (
    VALUE_LABELS,
    CacheKey,
    explain_cache_miss,
    is_slide_changed,
)

MADE_BY = (("encoder", "stain"), ("mpp", 0.5), ("pitch", 140))
KEY = CacheKey("f00d", "slides/C3.tif", "features", 24, MADE_BY)


def changed(**made_by) -> CacheKey:
    return replace(KEY, made_by=tuple({**dict(MADE_BY), **made_by}.items()))


def test_the_digest_is_of_all_that_the_numbers_depend_on() -> None:
    made_by = {"encoder": "stain", "mpp": 0.5, "pitch": 140.0}
    text = json.dumps([1, "f00d", "features", 24, made_by], sort_keys=True)
    assert KEY.digest == hashlib.sha256(text.encode()).hexdigest()[:20]
    same = [replace(KEY, path="a/b.svs"), replace(KEY, made_by=MADE_BY[::-1]), changed(pitch=140.0)]
    assert {k.digest for k in same} == {KEY.digest}
    others = [
        replace(KEY, slide="f00e"),
        replace(KEY, what="tokens"),
        replace(KEY, width=25),
        changed(encoder="uni"),
        changed(mpp=0.25),
        changed(pitch=141),
        changed(halo=3),
        replace(KEY, made_by=MADE_BY[:2]),
    ]
    assert len({k.digest for k in [KEY, *others]}) == 9
    assert KEY.slide_name == "C3.tif"


def test_a_key_is_read_from_its_text() -> None:
    text = KEY.to_json()
    assert json.loads(text) == {
        "slide": "f00d",
        "path": "slides/C3.tif",
        "what": "features",
        "width": 24,
        "made_by": [["encoder", "stain"], ["mpp", 0.5], ["pitch", 140]],
    }
    assert text.splitlines()[1] == ' "slide": "f00d",'  # for people, one field a line
    assert CacheKey.from_json(text) == KEY
    assert CacheKey.from_json(json.dumps({**json.loads(text), "more": 1})) == KEY


FIELDS = json.loads(KEY.to_json())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("slide", 3),
        ("path", None),
        ("what", ["features"]),
        ("width", "24"),
        ("width", None),
        ("made_by", 3),
        ("made_by", [["mpp"]]),
        ("made_by", [[3, 0.5]]),
        ("made_by", [["mpp", None]]),
        ("made_by", [["mpp", [0.5]]]),
    ],
)
def test_a_field_of_another_type_is_no_key(field: str, value) -> None:
    with pytest.raises(ValueError):
        CacheKey.from_json(json.dumps({**FIELDS, field: value}))


@pytest.mark.parametrize("field", list(FIELDS))
def test_a_missing_field_is_no_key(field: str) -> None:
    rest = {n: v for n, v in FIELDS.items() if n != field}
    with pytest.raises(ValueError, match="no key of a store: KeyError"):
        CacheKey.from_json(json.dumps(rest))
    with pytest.raises(ValueError, match="no key of a store: a value is of another type"):
        CacheKey.from_json(json.dumps({**FIELDS, "slide": 3}))


def test_what_is_stored_of_another_content_of_the_same_file() -> None:
    new = replace(KEY, slide="beef")
    assert is_slide_changed(new, [KEY, changed(mpp=0.25)])
    assert not is_slide_changed(new, [KEY, replace(new, width=9)])
    assert not is_slide_changed(new, [])
    assert not is_slide_changed(new, [replace(KEY, path="slides/C4.tif")])
    assert not is_slide_changed(new, [replace(KEY, what="tokens")])
    assert is_slide_changed(new, [KEY, replace(new, path="other.tif")])


def test_a_miss_is_explained_by_what_differs() -> None:
    def said(*stored: CacheKey, now: CacheKey = KEY) -> str:
        return explain_cache_miss(now, stored)

    def made_with(words: str) -> str:
        return (
            f"What is stored of C3.tif was made with another {words}; "
            "its features are computed anew."
        )

    assert said() == said(KEY) == ""
    assert said(replace(KEY, path="C4.tif", width=9)) == ""
    assert said(replace(KEY, what="tokens", width=9)) == ""
    assert said(replace(KEY, slide="beef"), KEY) == (
        "C3.tif has changed since its features were stored; they are computed anew."
    )
    assert said(changed(mpp=0.25)) == made_with("pixel size (0.25, now 0.5)")
    assert said(changed(mpp=1 / 3)) == made_with("pixel size (0.333333, now 0.5)")
    assert said(replace(KEY, width=9)) == made_with("feature length (9, now 24)")
    # the same slide before another content of it, and of several the one nearest
    wrong = changed(mpp=0.25, pitch=90)
    assert said(replace(KEY, slide="beef"), wrong, changed(pitch=100)) == made_with(
        "grid (100, now 140)"
    )
    assert said(wrong, changed(encoder="uni")) == made_with("tile encoder (uni, now stain)")
    assert said(wrong) == made_with("pixel size (0.25, now 0.5) and grid (90, now 140)")
    three = replace(wrong, width=9)
    assert said(three) == made_with(
        "pixel size (0.25, now 0.5), grid (90, now 140) and feature length (9, now 24)"
    )
    # what one of them does not have, and what tells a person nothing, is only named
    assert said(changed(halo_um=3)) == made_with("halo um")
    assert said(KEY, now=changed(halo_um=3)) == made_with("halo um")
    assert said(changed(encoder="0123456789ab")) == made_with("tile encoder")
    assert said(changed(encoder="x" * 25)) == made_with("tile encoder")
    assert said(changed(encoder="x" * 24)) == made_with(f"tile encoder ({'x' * 24}, now stain)")
    assert said(changed(encoder="")) == made_with("tile encoder")


def test_the_values_of_a_key_have_names_for_people() -> None:
    assert VALUE_LABELS["pitch"] == "grid" and VALUE_LABELS["patch_um"] == "patch size"
