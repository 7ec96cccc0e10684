"""N points, each settled once, whatever dies in between."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import psutil
import pytest
from optuna.trial import TrialState

from toolkit.runs.heartbeat import identity, lives
from toolkit.tuning import trials
from toolkit.tuning.samplers import make_sampler
from toolkit.tuning.space import Float
from toolkit.tuning.storage import open_storage
from toolkit.tuning.trials import Taker, beating, end, greet, place_of, points_of

ROOT = Path(__file__).resolve().parents[2]
SPACE = {"x": Float(0.0, 1.0)}


def opened(where, name="s", sampler="random"):
    study = optuna.create_study(storage=open_storage(str(where)), study_name=name, load_if_exists=True)
    study.sampler = make_sampler(sampler, 0, SPACE, 3, False, place_of, greet)
    return study


def settle(study, trial):
    study.tell(trial, SPACE["x"].suggest(trial, "x"))


def death(study, trial):
    """Make a running trial look as if its process had been killed."""
    study._storage.set_trial_user_attr(trial._trial_id, "worker", {**identity(), "born": 1.0})


def test_until_n_are_finished_also_after_restart(tmp_path):
    study = opened(tmp_path / "j")
    taker = Taker(study, 3)
    while (trial := taker.take()) is not None:
        settle(study, trial)
    assert len(study.trials) == 3
    again = Taker(opened(tmp_path / "j"), 3)
    assert again.take() is None and len(study.trials) == 3
    more = Taker(opened(tmp_path / "j"), 4)
    settle(more.study, more.take())
    assert more.take() is None and len(study.trials) == 4


def test_dead_attempt_is_made_again_with_the_same_values(tmp_path):
    study = opened(tmp_path / "j")
    taker = Taker(study, 2)
    killed = taker.take()
    value = SPACE["x"].suggest(killed, "x")
    death(study, killed)
    retry = taker.take()
    assert retry.user_attrs["retry_of"] == 0 and SPACE["x"].suggest(retry, "x") == value
    settle(study, retry)
    settle(study, taker.take())
    assert taker.take() is None
    points = taker.points()
    assert [p.place for p in points] == [0, 1] and [len(p.trials) for p in points] == [2, 1]


def test_attempt_that_died_before_it_had_values(tmp_path):
    reference = opened(tmp_path / "undisturbed")
    expected = SPACE["x"].suggest(Taker(reference, 1).take(), "x")
    study = opened(tmp_path / "j")
    taker = Taker(study, 1)
    death(study, taker.take())
    assert SPACE["x"].suggest(taker.take(), "x") == expected


@pytest.mark.parametrize(("how", "attempts"), [("failed", 2), ("died", 3)])
def test_hopeless_points_keep_their_error(tmp_path, how, attempts):
    study = opened(tmp_path / "j")
    taker = Taker(study, 1)
    made = 0
    while (trial := taker.take()) is not None:
        made += 1
        SPACE["x"].suggest(trial, "x")
        end(study, trial, how, f"boom {made}")
    assert made == attempts
    (point,) = taker.points()
    assert point.settled and point.last.user_attrs["error"] == f"boom {attempts}"


def test_stopping_politely_costs_no_attempt(tmp_path):
    study = opened(tmp_path / "j")
    taker = Taker(study, 1)
    for _ in range(6):
        end(study, taker.take(), "stopped", "by the user")
    settle(study, taker.take())
    assert taker.take() is None


def test_attempt_of_another_host_is_left_alone_until_its_beat_stands_still(tmp_path, monkeypatch):
    study = opened(tmp_path / "j")
    taker = Taker(study, 1)
    trial = taker.take()
    study._storage.set_trial_user_attr(trial._trial_id, "worker", {**identity(), "host": "elsewhere"})
    monkeypatch.setattr(trials, "GRACE", 0.4)
    with beating(trial, 0.05):
        for _ in range(10):
            taker.mend()
            time.sleep(0.1)
    assert study.trials[0].state == TrialState.RUNNING
    for _ in range(6):
        taker.mend()
        time.sleep(0.1)
    assert study.trials[0].state == TrialState.FAIL and study.trials[1].state == TrialState.WAITING


def test_two_that_notice_the_same_death_queue_one_attempt(tmp_path):
    study = opened(tmp_path / "j")
    taker = Taker(study, 1)
    death(study, taker.take())
    taker.mend()
    retry = study.trials[1]
    study.enqueue_trial({"x": 0.5}, user_attrs=dict(retry.user_attrs))  # what a second process would have done
    settle(study, taker.take())
    assert taker.take() is None
    assert [t.state.name for t in study.trials] == ["FAIL", "COMPLETE", "FAIL"]
    assert len(points_of(study.trials)) == 1


def test_a_trial_too_many_is_given_back(tmp_path):
    study = opened(tmp_path / "j")
    taker = Taker(study, 1)
    first, second = study.ask(), study.ask()  # two processes reached for the last point at once
    settle(study, first)
    assert place_of(study, study.trials[1]) == 1
    second.set_user_attr("surplus", True)
    study.tell(second, state=TrialState.FAIL)
    assert taker.take() is None and len(taker.points()) == 1


def test_lives(monkeypatch):
    assert lives(identity()) is True
    who, time_of_day = identity(), psutil.Process().create_time()
    with monkeypatch.context() as clock_set_forward:
        clock_set_forward.setattr(psutil.Process, "create_time", lambda self: time_of_day + 86400)
        assert lives(who) is True
    assert lives({**identity(), "born": 1.0}) is False
    assert lives({**identity(), "pid": 2**22 - 1}) is False
    assert lives({**identity(), "host": "elsewhere"}) is None
    assert lives({**identity(), "space": "before the reboot"}) is None
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    time.sleep(0.5)
    assert lives({**identity(), "pid": child.pid}) is False  # ended but not reaped, or started later
    child.wait()


WORKER = """
import sys, time
sys.path.insert(0, {root!r})
from tests_of_trials import opened, settle
from toolkit.tuning.trials import Taker, beating
study = opened({where!r}, {name!r})
taker = Taker(study, {wanted})
print("ready", flush=True)
while (trial := taker.take(pause=0.05)) is not None:
    with beating(trial):
        time.sleep({seconds})
    settle(study, trial)
"""


def start_workers(where, name, wanted, workers, kills=0, seconds=0.02):
    """Real processes on one study; some are killed at random moments and others take their place."""
    opened(where, name)
    root = str(Path(__file__).parent)
    code = WORKER.format(root=root, where=str(where), name=name, wanted=wanted, seconds=seconds)
    code = code.replace("from tests_of_trials import", "from test_trials import")

    def start():
        return subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)

    generator = random.Random(0)
    running = [start() for _ in range(workers)]
    for process in running:
        assert process.stdout.readline() == "ready\n"
    for _ in range(kills):
        time.sleep(generator.uniform(0.05, 0.4))
        victim = running.pop(generator.randrange(len(running)))
        victim.send_signal(signal.SIGKILL)
        victim.wait()
        running.append(start())
        running[-1].stdout.readline()
    for process in running:
        assert process.wait(timeout=120) == 0


def check_exact(where, name, wanted):
    study = opened(where, name)
    points = points_of(study.trials)
    assert len(points) == wanted and all(p.settled for p in points)
    finished = [t for t in study.trials if t.state == TrialState.COMPLETE]
    assert len(finished) == wanted
    return sorted((p.place, p.last.params["x"]) for p in points)


def test_eight_processes_settle_twenty_points_each(tmp_path):
    start_workers(tmp_path / "j", "s", wanted=160, workers=8, seconds=0)
    assert [place for place, _ in check_exact(tmp_path / "j", "s", wanted=160)] == list(range(160))
    study = opened(tmp_path / "j")
    assert {t.state for t in study.trials} <= {TrialState.COMPLETE, TrialState.FAIL}
    assert all(t.user_attrs.get("surplus") for t in study.trials if t.state == TrialState.FAIL)


def faked_clock():
    """Path of libfaketime; skips where it is not installed."""
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    return str(found[0]) if found else pytest.skip("libfaketime is not installed")


def test_a_clock_that_jumps_kills_nobody(tmp_path):
    """One process sees the clock jump two days ahead and back while it works; others look after it meanwhile."""
    library, clock = faked_clock(), tmp_path / "clock"
    clock.write_text("+0")
    opened(tmp_path / "j")
    code = WORKER.format(root=str(Path(__file__).parent), where=str(tmp_path / "j"), name="s", wanted=6, seconds=0.5)
    code = code.replace("from tests_of_trials import", "from test_trials import")
    # libfaketime 0.9.10 breaks the absolute clock_nanosleep that time.sleep calls
    code = "import select, time\ntime.sleep = lambda s: select.select([], [], [], s)\n" + code
    faked = {**os.environ, "LD_PRELOAD": library, "FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_NO_CACHE": "1",
             "FAKETIME_DONT_FAKE_MONOTONIC": "1"}  # fmt: skip
    both = [subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True, env=env)
            for env in (faked, dict(os.environ))]  # fmt: skip
    for process in both:
        assert process.stdout.readline() == "ready\n"
    for jump in ("+2d", "-2d", "+0"):
        clock.write_text(jump)
        time.sleep(0.4)
    for process in both:
        assert process.wait(timeout=120) == 0
    check_exact(tmp_path / "j", "s", wanted=6)
    finished = [t for t in opened(tmp_path / "j").trials if t.state == TrialState.COMPLETE]
    assert all("retry_of" not in t.user_attrs for t in finished)
    spread = max(t.datetime_start for t in finished) - min(t.datetime_start for t in finished)
    assert spread.total_seconds() > 86400  # it did jump


def test_several_processes_that_are_killed_lose_and_double_nothing(tmp_path):
    where = tmp_path / "j"
    start_workers(where, "s", wanted=15, workers=3, kills=3)
    found = check_exact(where, "s", wanted=15)
    quiet = opened(tmp_path / "undisturbed")
    taker = Taker(quiet, 15)
    while (trial := taker.take()) is not None:
        settle(quiet, trial)
    assert found == sorted((p.place, p.last.params["x"]) for p in taker.points())
