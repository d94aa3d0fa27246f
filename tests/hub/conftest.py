import pytest
from hub_stand_in import HubStandIn, hub_at

from emitdiff import downloads


@pytest.fixture
def hub(monkeypatch, tmp_path) -> HubStandIn:
    """A Hub on this machine, its client's cache empty, and no waiting before a broken line is taken up again."""
    monkeypatch.setattr(downloads, "WAIT", 0.0)
    with hub_at(monkeypatch, tmp_path / "cache") as stand_in:
        yield stand_in
