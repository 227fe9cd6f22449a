"""The registry of readers: names, folders and options."""

from __future__ import annotations

import pytest

from kdsearch.config.data import DataConfig
from kdsearch.data.registry import open_reader
from kdsearch.errors import UserError


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "scens"}, "unknown data set 'scens'. Did you mean 'scenes'"),
        ({"name": "mfnet"}, "needs a folder; give data mfnet=FOLDER"),
        ({"name": "mfnet", "path": "/no/such"}, "folder /no/such does not exist; give data mfnet=FOLDER"),
        ({"name": "mfnet", "path": "nope://bucket/x"}, "give a local folder, or a URI such as s3://"),
        ({"name": "scenes", "path": "/tmp"}, "takes no path"),
        ({"name": "scenes", "options": {"sede": 1}}, "no option 'sede'. Did you mean 'seed'"),
        ({"name": "scenes", "options": {"train": 0}}, "option 'train' of data set 'scenes' is 0"),
        ({"name": "scenes", "options": {"train": "many"}}, "option 'train'"),
    ],
)
def test_wrong_requests_say_what_to_do(fields, message):
    with pytest.raises(UserError) as error:
        open_reader(DataConfig(size=(48, 64), **fields))
    assert message in str(error.value)


def test_file_uri_is_a_local_folder(mfnet_folder):
    assert open_reader(DataConfig(name="mfnet", path=f"file://{mfnet_folder}", size=(24, 32))).keys("val")
