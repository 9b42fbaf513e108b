"""What a reader says about what it read, left out and chose."""

from __future__ import annotations

import json
from pathlib import Path

import anndata
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from napari_dkan.expression.readers.read_account import ReadAccount, account_of, set_account
from napari_dkan.expression.readers.single_section import read_single_section

TEXTS = st.text(st.characters(exclude_characters="/", exclude_categories=("C",)), min_size=1)
LEFT_OUT = st.dictionaries(TEXTS, st.integers(1, 10**9)).map(lambda d: tuple(d.items()))
ACCOUNTS = st.builds(
    ReadAccount,
    file=TEXTS,
    spots_read=st.integers(0, 10**6),
    spots_left_out=LEFT_OUT,
    genes_read=st.integers(0, 10**6),
    genes_left_out=LEFT_OUT,
    image=TEXTS,
    image_among=st.lists(TEXTS, max_size=3).map(tuple),
    notes=st.lists(TEXTS, max_size=3, unique=True).map(tuple),
)


@given(ACCOUNTS)
def test_account_survives_json(account: ReadAccount) -> None:
    assert ReadAccount.from_dict(json.loads(json.dumps(account.to_dict()))) == account
    assert account.merge(ReadAccount()) == ReadAccount().merge(account) == account


def test_account_survives_h5ad(tmp_path: Path) -> None:
    account = (
        ReadAccount("a.h5", 3, mpp=0.5, mpp_origin="scale factors")
        .leave_out_spots("not in tissue", 2)
        .leave_out_spots("not in tissue", 1)
        .leave_out_genes("of type CRISPR/Guide", 4)
        .leave_out_genes("of type Custom", 0)
        .add_note("one", "", "one")
    )
    assert account.spots_left_out == (("not in tissue", 3),)
    assert account.genes_left_out == (("of type CRISPR or Guide", 4),)
    assert account.notes == ("one",)
    for kept in (account, ReadAccount()):
        data = anndata.AnnData(np.zeros((1, 1), np.float32))
        set_account(data, kept)
        data.write_h5ad(tmp_path / "a.h5ad")
        assert account_of(anndata.read_h5ad(tmp_path / "a.h5ad")) == kept
    assert account_of(anndata.AnnData(np.zeros((1, 1), np.float32))) == ReadAccount()


def test_merged_accounts_keep_what_the_first_states() -> None:
    first = ReadAccount("a", image="a.tif", spots_left_out=(("off", 1),), notes=("x",))
    second = ReadAccount("b", 5, (("off", 2), ("twice", 1)), mpp=0.5, mpp_origin="b", notes=("y",))
    merged = first.merge(second)
    assert merged == ReadAccount(
        "a", 5, (("off", 3), ("twice", 1)), 0, (), 0.5, "b", "a.tif", (), ("x", "y")
    )


def test_account_is_told_in_lines() -> None:
    account = ReadAccount(
        "a.h5",
        1,
        (("not in tissue", 12),),
        3,
        (("of type Antibody Capture", 2),),
        0.5,
        "TIFF tags",
        "a.tif",
        ("a.tif", "b.tif"),
        ("c.h5 was skipped: damaged",),
    )
    assert account.lines() == (
        "read: a.h5",
        "1 spot read; left out: 12 not in tissue",
        "3 genes read; left out: 2 of type Antibody Capture",
        "pixel size: 0.5 um (TIFF tags)",
        "image: a.tif (of 2: a.tif, b.tif)",
        "note: c.h5 was skipped: damaged",
    )
    assert ReadAccount().lines() == ("0 spots read", "0 genes read")


def test_section_accounts_for_its_spots(tmp_path: Path) -> None:
    (tmp_path / "counts.csv").write_text(",ERBB2,ERBB2,GAPDH\na,1,2,3\nb,1,0,2\nc,0,1,1\n")
    (tmp_path / "spots.csv").write_text("id,x,y\na,100,100\nd,200,100\n")
    data = read_single_section(None, tmp_path / "counts.csv", tmp_path / "spots.csv")
    account = account_of(data)
    assert (account.spots_read, account.genes_read) == (1, 2) == data.shape
    assert dict(account.spots_left_out) == {"without counts": 1, "with counts but no position": 2}
    assert account.file == str(tmp_path / "counts.csv") and account.mpp is None
    assert account.notes == ("1 gene was added to another of the same symbol",)
