from __future__ import annotations

import pytest

from .scene import Scene


@pytest.fixture(params=[1, 3], ids="B={}".format)
def scene(request: pytest.FixtureRequest) -> Scene:
    return Scene(request.param)


@pytest.fixture
def narrow(scene: Scene) -> Scene:
    """A teacher with fewer channels than the student."""
    scene.teacher.taps["con1"] = scene.teacher.taps["con1"][:, :4].detach()
    return scene
