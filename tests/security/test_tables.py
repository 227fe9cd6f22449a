"""Tables and stores that carry pickles in their metadata."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kdsearch.data.store.store import Store
from kdsearch.errors import UserError
from tests.security.conftest import Trap


def hostile_field(trap: Trap, name: str, kind: pa.DataType) -> pa.Field:
    """A column of an extension type that old versions of Arrow unpickled."""
    metadata = {"ARROW:extension:name": "arrow.py_extension_type", "ARROW:extension:metadata": pickle.dumps(trap)}
    return pa.field(name, kind, metadata=metadata)


def test_parquet_files_are_not_unpickled(trap: Trap, tmp_path: Path) -> None:
    schema = pa.schema([hostile_field(trap, "trial", pa.binary())], metadata={"x": pickle.dumps(trap)})
    table = pa.table({"trial": pa.array([pickle.dumps(trap)])}, schema=schema)
    pq.write_table(table, tmp_path / "frontier.parquet")
    assert len(pd.read_parquet(tmp_path / "frontier.parquet")) == 1


def test_stores_are_not_unpickled(trap: Trap, store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "store"
    shutil.copytree(store.path, folder)
    schema = pa.schema([hostile_field(trap, "key", pa.binary())])
    with pa.OSFile(str(folder / "val.arrow"), "wb") as file, pa.ipc.new_file(file, schema) as writer:
        writer.write_batch(pa.record_batch([pa.array([pickle.dumps(trap)])], schema=schema))
    meta = json.loads((folder / "meta.json").read_text())
    meta["splits"]["val"] |= {"bytes": (folder / "val.arrow").stat().st_size, "count": 1}
    (folder / "meta.json").write_text(json.dumps(meta))
    with pytest.raises((UserError, KeyError)):
        Store.open(folder)
