"""One cloud as picture and page."""

import json
import re

import numpy as np
import pytest

from scenarios.single_class import SingleClass
from tests.runs.stored import toy_run
from tests.toys import Toy, ToyBank
from toolkit.cli import main
from toolkit.errors import CheckpointError, UnknownNameError
from toolkit.runs.load import load_run, score_sample
from toolkit.runs.view import find_sample, view
from toolkit.runs.viewer import point_threshold


def data_of(page):
    found = re.search(r'<script type="application/json" id="clouds">(.*?)</script>', page.read_text("utf-8"), re.S)
    return json.loads(found.group(1))


def test_picture_and_page_of_a_cloud(toys, tmp_path, capsys):
    output = tmp_path / "new" / "cloud"
    assert main(["view", str(toys[0]), "--sample", "b/test/dent1", "-o", str(output)]) == 0
    picture, page = output.with_suffix(".png"), output.with_suffix(".html")
    assert picture.stat().st_size > 10_000
    data = data_of(page)
    run, dataset = load_run(toys[0]), Toy()
    sample = next(s for s in dataset.samples if s.sample_id == "b/test/dent1")
    cloud, scored = score_sample(run, run.strategy(), dataset, sample)
    assert data["layers"][0]["score"] == pytest.approx(scored.point.tolist(), rel=1e-3)
    assert data["clouds"][0]["truth"] == cloud.point_y.int().tolist()
    shape = np.array([data["clouds"][0][axis] for axis in "xyz"]).T
    rows = [0, 10, 50, 100]  # turned and scaled, so distances keep their ratios
    ours, theirs = (np.linalg.norm(p[rows] - p[rows[0]], axis=1)[1:] for p in (shape, cloud.pos.numpy()))
    assert ours / ours[0] == pytest.approx(theirs / theirs[0], abs=2e-3)
    assert str(page) in capsys.readouterr().out


def test_threshold_of_points_comes_from_normal_clouds(toys):
    run, dataset = load_run(toys[0]), Toy()
    strategy = run.strategy()
    normal = [s for s in dataset.select(category="a", split="test") if not s.y][:2]
    points = np.concatenate([score_sample(run, strategy, dataset, s)[1].point.numpy() for s in normal])
    assert point_threshold(run, strategy, dataset, "a") == pytest.approx(np.quantile(points, 0.99))


def test_a_part_of_the_id_is_enough_if_only_one_cloud_has_it(toys):
    run, dataset = load_run(toys[0]), Toy()
    assert find_sample(run, dataset, "c/test/good2").sample_id == "c/test/good2"
    assert find_sample(run, dataset, "d/test/dent0").sample_id == "d/test/dent0"
    with pytest.raises(UnknownNameError, match=r"4 test clouds match; e.g. a/test/dent2, b/test/dent2"):
        find_sample(run, dataset, "dent2")
    with pytest.raises(UnknownNameError, match=r"no test cloud matches; e.g. a/test/dent\d"):
        find_sample(run, dataset, "a/test/dint9")
    with pytest.raises(UnknownNameError, match="no test cloud matches"):
        find_sample(run, dataset, "a/train/good0")


def test_changed_data_are_refused(toys, tmp_path):
    run = load_run(toys[0])
    run.result["spec"]["fingerprint"] = "before"
    with pytest.raises(CheckpointError, match="the dataset has changed since the run"):
        view(run, "a/test/dent0", tmp_path / "x")


def test_models_of_earlier_independent_tasks_are_gone(tmp_path):
    run = load_run(toy_run(tmp_path, strategy_class=ToyBank, scenario=SingleClass("a+b")))
    assert find_sample(run, Toy(), "b/test/dent0").category == "b"
    with pytest.raises(CheckpointError, match="only the last is kept"):
        find_sample(run, Toy(), "a/test/dent0")


def test_a_run_without_checkpoint(toys, tmp_path, capsys):
    import shutil

    shutil.copytree(toys[0], tmp_path / "bare", ignore=shutil.ignore_patterns("checkpoints"))
    assert main(["view", str(tmp_path / "bare"), "--sample", "a/test/dent0", "-o", str(tmp_path / "x")]) == 2
    assert "no checkpoint" in capsys.readouterr().err


def test_clouds_are_shown_as_the_scenario_changed_them(tmp_path):
    from scenarios.domain_incremental import DomainIncremental
    from toolkit.runs.viewer import choose_samples, score_samples

    run = load_run(toy_run(tmp_path, scenario=DomainIncremental("original+sparse")))
    dataset = run.dataset()
    shown = score_samples(run, run.strategy(), dataset, choose_samples(run, dataset, 2))
    whole = {s.sample_id: len(dataset.load(s).pos) for s in dataset.samples}
    domains = {s.sample_id: s.extra["domain"] for s in run.tested(dataset).values()}
    kept = {one.title.split("(")[1].rstrip(")"): len(one.full.score) for one in shown}
    assert {domains[name] for name in kept} == {"original", "sparse"}
    for name, points in kept.items():
        assert points == whole[name] if domains[name] == "original" else points == max(64, round(whole[name] / 2))
    scores = run.final_scores().set_index("sample_id")["object_score"]
    assert all(abs(scores[n] - one.object_score) < 1e-6 for n, one in zip(kept, shown))
