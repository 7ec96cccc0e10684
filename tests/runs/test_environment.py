from toolkit.ops import compiled
from toolkit.runs.environment import environment


def test_compiled_loops_and_versions_are_recorded(monkeypatch):
    for enabled in (False, True):
        monkeypatch.setattr(compiled, "enabled", enabled)
        facts = environment()
        assert facts["compiled_loops"] is enabled and {"torch", "numpy", "continual3d"} <= facts["packages"].keys()
