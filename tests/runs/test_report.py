"""Reports: intervals and tests against closed forms and simulations, tables, and the page that stands alone."""

import base64
import csv
import html.parser
import json
import re
import shutil
import subprocess

import numpy as np
import pytest

from scenarios.single_class import SingleClass
from tests.runs.stored import made_up, separated, toy_run
from tests.toys import Toy, ToyBank
from toolkit.cli import main
from toolkit.metrics import bootstrap_auroc
from toolkit.runs.groups import method_names, streams_of
from toolkit.runs.load import find_runs, load_run
from toolkit.runs.report import make_sections
from toolkit.runs.spec import Part, RunSpec
from toolkit.runs.tables import Table, latex, number, with_interval
from toolkit.runs.uncertainty import Resampled, behind, differences, over_runs, paired_p


def compared(*runs, draws=400):
    """Differences of the methods that the runs belong to."""
    (stream,) = streams_of(runs)
    return differences(stream.methods, {run: Resampled(run, draws) for run in runs})


def test_figures_on_the_test_set_itself_are_those_of_the_run(toys):
    run = load_run(toys[0])
    resampled = Resampled(run, draws=50)
    assert resampled.final()[0] == pytest.approx(run.result["final"]["object_auroc"])
    stored = np.array(run.result["matrices"]["object_auroc"], dtype=float)
    np.testing.assert_allclose(resampled.matrix()[0], stored)
    for name in ("forgetting", "bwt", "fwt"):
        assert resampled.continual(name)[0] == pytest.approx(run.result["continual"][name])
    by_category = {row["category"]: row["object_auroc"] for row in run.result["per_category"]}
    assert {c: v[0] for c, v in resampled.categories().items()} == pytest.approx(by_category)
    assert resampled.seen(1)[0] == pytest.approx((2 * stored[2, 0] + stored[2, 1]) / 3)  # task 1 has two categories


def test_interval_agrees_with_the_bootstrap_of_the_metrics():
    runs = [made_up(separated(1.0), seed=seed, objects=40) for seed in (0, 1, 2)]
    ours = over_runs([Resampled(run, draws=2000).final() for run in runs])
    last = [run.final_scores().sort_values(["category", "sample_id"]) for run in runs]
    theirs = bootstrap_auroc(
        np.array([t["object_score"] for t in last]), last[0]["y"], last[0]["category"], n=2000, seed=5
    )
    assert ours.value == pytest.approx(theirs.value)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.012)


def test_a_difference_that_no_draw_contradicts_survives_the_correction_for_many_pairs():
    rng = np.random.default_rng(0)
    first, second = rng.normal(0.9, 0.02, 1000), rng.normal(0.5, 0.02, 1000)
    assert paired_p(first, second) < 1e-6  # counting alone stops at 0.002, times 36 pairs 0.07
    near = rng.normal(0.88, 0.02, 1000)
    assert 0.2 < paired_p(first, near) < 0.9
    assert paired_p(np.ones(1000), np.zeros(1000)) == pytest.approx(2 / 1001)  # no spread, no tail
    assert paired_p(np.ones(10), np.ones(10)) == 1


def test_a_table_marks_what_is_worse_beyond_noise():
    good, alike = made_up(separated(5.0), "A"), made_up(separated(4.0), "B")
    bad = made_up(lambda state, y, rng: rng.normal(size=len(y)), "C", objects=12)
    assert behind([good, alike, bad]) == {bad.spec.hash}
    assert behind([good]) == set()


def test_methods_are_compared_by_the_mean_over_their_repetitions():
    good = [made_up(separated(5.0), "A", seed) for seed in range(5)]
    bad = [made_up(lambda state, y, rng: rng.normal(size=len(y)), "C", seed) for seed in range(5)]
    assert behind([*good, *bad], average=True) == {run.spec.hash for run in bad}
    lucky = [made_up(separated(5.0 * (seed == 0)), "L", seed) for seed in range(5)]  # as good as any, once
    assert lucky[0].spec.hash not in behind([*good, *lucky])
    assert behind([*good, *lucky], average=True) == {run.spec.hash for run in lucky}


def test_defaults_are_not_part_of_a_name():
    specs = [RunSpec(Part("ClassIncremental"), Part("Toy"), Part("BTF", own), Part("Naive"), 0, "f")
             for own in ({"voxel": 0.015, "lof": 5}, {"voxel": 0.02, "lof": 5}, {"voxel": 0.02, "lof": 0})]  # fmt: skip
    assert method_names(specs) == ["BTF", "BTF (voxel=0.02)", "BTF (voxel=0.02, lof=0)"]


def test_one_run_whose_classes_are_apart_has_no_uncertainty():
    run = made_up(lambda state, y, rng: y + 0.1 * rng.random(len(y)))
    found = over_runs([Resampled(run, draws=50).final()])
    assert (found.value, found.low, found.high) == (1.0, 1.0, 1.0)


def test_forgetting_of_a_run_that_forgets_is_inside_its_interval():
    run = made_up(lambda state, y, rng: rng.normal(size=len(y)) + (3 - state) * y, objects=30)
    found = over_runs([Resampled(run, draws=400).continual("forgetting")])
    assert found.low < found.value < found.high and found.low > 0


def test_independent_tasks_have_nothing_to_forget():
    run = made_up(separated(2.0), independent=True)
    resampled = Resampled(run, draws=20)
    assert np.isnan(resampled.continual("bwt")).all()
    assert resampled.final()[0] == pytest.approx(run.result["final"]["object_auroc"])


def test_a_method_against_its_twin_is_within_noise_and_against_a_better_one_is_not():
    same = [made_up(separated(1.0), name, seed=3) for name in ("A", "B")]
    rows = compared(*same, made_up(separated(6.0), "Better", seed=4, objects=12))
    verdicts = {(r.a, r.b): r for r in rows if r.metric == "object AUROC"}
    assert verdicts["A", "B"].value == 0 and verdicts["A", "B"].p == 1
    assert verdicts["A", "B"].verdict == "within noise"
    worse = verdicts["A", "Better"]
    assert worse.high < 0 and worse.p < 0.05
    assert worse.verdict == "beyond noise of the test objects (one repetition)"


def test_p_values_are_holm_adjusted_over_pairs():
    runs = [made_up(separated(d), name, seed=i) for i, (name, d) in enumerate(zip("ABC", (0.5, 1.5, 2.5)))]
    alone = compared(runs[0], runs[2])[0].p
    together = next(r.p for r in compared(*runs) if (r.a, r.b, r.metric) == ("A", "C", "object AUROC"))
    assert together == pytest.approx(min(1.0, 3 * alone))  # the smallest of three


def test_methods_that_do_not_differ_are_seldom_told_apart():
    found = 0
    for trial in range(40):
        a = made_up(separated(1.0), "A", seed=2 * trial, objects=24)
        b = made_up(separated(1.0), "B", seed=2 * trial, objects=24)
        b.__dict__["scores"] = made_up(separated(1.0), "B", seed=10_000 + trial, objects=24).scores
        found += next(r.p < 0.05 for r in compared(a, b, draws=200) if r.metric == "object AUROC")
    assert found <= 6  # 40 x 0.05 = 2 expected; more than 6 has a chance of 1 % even at a rate of 7 %


def test_wilcoxon_over_categories_needs_six_of_them():
    few = compared(*(made_up(separated(d), n, tasks=5) for n, d in (("A", 0.5), ("B", 2.5))))[0]
    many = compared(*(made_up(separated(d), n, tasks=8) for n, d in (("A", 0.5), ("B", 2.5))))[0]
    assert np.isnan(few.p_categories) and 0 < many.p_categories < 0.05 and many.better_in < 0.2


def test_only_shared_seeds_are_compared():
    a = [made_up(separated(1.0), "A", seed=s) for s in (0, 1)]
    row = compared(*a, made_up(separated(1.0), "B", seed=1))[0]
    assert (row.repetitions, row.shared) == (1, True)
    other = compared(*a, made_up(separated(1.0), "B", seed=7))[0]
    assert (other.repetitions, other.shared) == (2, False)


def test_runs_are_grouped_by_stream_and_told_apart_by_hyperparameters():
    score = separated(1.0)
    runs = [made_up(score, "A", seed=1), made_up(score, "A", seed=0), made_up(score, "A", seed=0, order="random:3")]
    runs += [made_up(score, "A", arguments={"lr": 0.1}), made_up(score, "B"), made_up(score, "A", fingerprint="other")]
    streams = streams_of([*runs, made_up(score, "A", seed=1)])
    assert [s.title for s in streams] == [f"ClassIncremental on Toy, 3 tasks (data={f})" for f in ("f", "other")]
    names = {m.name: m for m in streams[0].methods}
    assert list(names) == ["A", "A (lr=0.1)", "B"]
    assert names["A"].repetitions == ["seed 0, order listed", "seed 0, order random:3", "seed 1, order listed"]
    assert names["B"].repeated == "seed 0"
    assert streams[0].tasks == ["c0", "c1", "c2"]


def test_numbers_and_cells():
    assert [number(v) for v in (0.6464, -0.0001, None, float("nan"))] == ["0.646", "0.000", "–", "–"]
    assert number(-0.02, signed=True) == "−0.020" and number(0.02, signed=True) == "+0.020"
    assert with_interval(0.5, float("nan"), float("nan")) == "0.500"
    table = Table("T & U", ["a|b", "n"], [["<i>", "50 %"]], note="x_y")
    assert "&lt;i&gt;" in table.html() and "<i>" not in table.html()
    assert "| a\\|b | n |\n|---|---:|\n| <i> | 50 % |" in table.markdown()
    assert r"T \& U. x\_y" in table.latex() and r"<i> & 50 \%" in table.latex()
    assert latex("a_b {c}") == r"a\_b \{c\}"


class Page(html.parser.HTMLParser):
    """Notes open elements, addresses and the text of a page; complains of elements that do not close."""

    def __init__(self, text):
        super().__init__()
        self.open, self.addresses, self.seen = [], [], []
        self.feed(text)
        assert not self.open, self.open

    def handle_starttag(self, tag, attributes):
        facts = dict(attributes)
        self.addresses += [facts[key] for key in ("src", "href") if key in facts]
        self.seen.append((tag, facts))
        if tag not in ("meta", "img", "link", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def page(toys, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    assert main(["report", *map(str, toys), "-o", str(folder / "report.html"), "--clouds", "2", "--draws", "60"]) == 0
    return folder


def test_the_page_is_whole_and_stands_alone(page):
    text = (page / "report.html").read_text(encoding="utf-8")
    parsed = Page(text)
    assert all(a.startswith(("#", "data:image/svg+xml;base64,")) for a in parsed.addresses)
    assert not any(tag == "link" or (tag == "script" and "src" in facts) for tag, facts in parsed.seen)
    pictures = [a for a in parsed.addresses if a.startswith("data:")]
    assert len(pictures) >= 12 and all(b"<svg" in base64.b64decode(a.partition(",")[2]) for a in pictures)
    targets = {facts["id"] for _, facts in parsed.seen if "id" in facts}
    assert {a[1:] for a in parsed.addresses if a.startswith("#")} <= targets
    for said in ("ToyBank", "seeds 0, 1", "within noise", "Differences", "Forgetting"):
        assert said in text


def test_every_figure_is_a_picture_with_its_numbers(page):
    pictures = sorted((page / "report_files").glob("*.png"))
    assert {"auroc_over_tasks", "forgetting", "stability_plasticity", "pareto_memory", "r_object_auroc_ToyNet",
            "drift_ToyNet", "scores_ToyBank", "clouds_ToyBank"} <= {p.stem for p in pictures}  # fmt: skip
    for picture in pictures:
        assert picture.stat().st_size > 5000
        assert len(picture.with_suffix(".csv").read_text().splitlines()) > 1


def test_clouds_of_the_page_are_those_of_the_run(page, toys):
    text = (page / "report.html").read_text(encoding="utf-8")
    data = json.loads(re.search(r'<script type="application/json" id="clouds">(.*?)</script>', text, re.S).group(1))
    assert {layer["method"] for layer in data["layers"]} == {"ToyNet", "ToyBank"}
    assert any(sum(cloud["truth"]) == 0 for cloud in data["clouds"])  # a normal cloud to compare with
    dataset, run = Toy(), load_run(toys[0])
    samples = {s.sample_id: s for s in dataset.samples}
    final = run.final_scores().set_index("sample_id")["object_score"]
    for layer in data["layers"]:
        cloud = data["clouds"][layer["cloud"]]
        name = re.search(r"\((.*)\)", cloud["title"]).group(1)
        assert sum(cloud["truth"]) == int(dataset.load(samples[name]).point_y.sum())
        assert len(cloud["x"]) == len(layer["score"]) <= 4000
        if layer["method"] == "ToyNet":  # its object score is the largest point score
            assert max(layer["score"]) == pytest.approx(final[name], rel=1e-3)


def test_csv_holds_what_the_runs_say(toys, tmp_path, capsys):
    assert main(["report", *map(str, toys), "-o", str(tmp_path / "out.csv"), "--draws", "30"]) == 0
    rows = list(csv.DictReader((tmp_path / "out.csv").read_text().splitlines()))
    ours = next(r for r in rows if (r["method"], r["figure"], r["category"]) == ("ToyNet", "object_auroc", ""))
    wanted = np.mean([load_run(f).result["final"]["object_auroc"] for f in toys[:2]])
    assert float(ours["value"]) == pytest.approx(wanted) and ours["repetitions"] == "2"
    assert float(ours["low"]) <= float(ours["value"]) <= float(ours["high"])
    differing = list(csv.DictReader((tmp_path / "out_differences.csv").read_text().splitlines()))
    assert {r["metric"] for r in differing} == {"object AUROC", "point AUROC", "forgetting"}
    assert "out_differences.csv" in capsys.readouterr().out


def test_markdown_and_latex(toys, tmp_path):
    for name in ("r.md", "r.tex"):
        assert main(["report", str(toys[0]), str(toys[2]), "-o", str(tmp_path / name), "--draws", "30"]) == 0
    text = (tmp_path / "r.md").read_text()
    for place in re.findall(r"!\[.*?\]\((.*?)\)", text):
        assert (tmp_path / place).exists()
    assert text.count("### ") >= 5 and "One repetition per method" in text
    tex = (tmp_path / "r.tex").read_text()
    assert tex.count(r"\begin{tabular}") == tex.count(r"\end{tabular}") >= 5
    body = tex.split(r"\midrule")[1].split(r"\bottomrule")[0]
    assert body.count(r"\\") == 2


def test_a_single_run_and_a_dataset_that_is_gone(tmp_path, toys):
    run = json.loads((toys[0] / "result.json").read_text())
    run["spec"]["dataset"]["source"] = str(tmp_path / "gone.py:Toy")
    folder = tmp_path / "copy"
    shutil.copytree(toys[0], folder)
    (folder / "result.json").write_text(json.dumps(run))
    assert main(["report", str(folder), "-o", str(tmp_path / "one.html"), "--draws", "30"]) == 0
    text = (tmp_path / "one.html").read_text(encoding="utf-8")
    Page(text)
    assert "are not shown: No dataset can be loaded" in text and "Differences</h3>" not in text
    assert "Plotly" not in text  # five megabytes that nothing on the page would use


def test_independent_tasks(tmp_path):
    toy_run(tmp_path / "runs", strategy_class=ToyBank, scenario=SingleClass("a+b"))
    assert main(["report", str(tmp_path / "runs"), "-o", str(tmp_path / "r.html"), "--draws", "20"]) == 0
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "separate experiments" in text and "R matrix" not in text and "b: dent (b/test/dent0)" in text
    assert "a/test" not in text.partition('id="clouds"')[2].partition("</script>")[0]  # its model was not kept


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["no/such/folder"], "no finished run"),
        (["-o", "r.pdf"], "ending .html"),
        (["--draws", "0"], "expected 1 or more"),
    ],
)
def test_mistakes(toys, capsys, arguments, said):
    first = [] if arguments[0].startswith("no") else [str(toys[0])]
    assert main(["report", *first, *arguments]) == 2
    assert said in capsys.readouterr().err


def test_a_broken_result_is_named(tmp_path, capsys):
    (tmp_path / "result.json").write_text("{")
    assert main(["report", str(tmp_path)]) == 2
    (tmp_path / "result.json").write_text('{"format": 99}')
    assert main(["report", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "result.json" in said and "format 99" in said


def test_runs_of_changed_sources_are_flagged(toys):
    runs = find_runs(toys[:2])
    runs[1].result["environment"]["commit"] = "0123456789ab+"
    runs[1].result["environment"]["packages"]["torch"] = "1.0"
    said = " ".join(make_sections(runs, draws=10)[0].notes)
    assert "uncommitted changes" in said and "different commits" in said and "different versions of torch" in said


@pytest.mark.slow
def test_a_browser_shows_the_clouds(page):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no browser")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-unsafe-swiftshader", "--no-first-run",
               "--disable-background-networking", "--virtual-time-budget=20000", "--dump-dom"]  # fmt: skip
    command = [browser, *options, f"file://{page / 'report.html'}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.stdout.count("<canvas") >= 3
    assert done.stdout.count('class="panel js-plotly-plot"') == 3
