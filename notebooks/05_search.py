# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 5. Searching hyperparameters
#
# Which hyperparameters? On a stream the question has a trap: classes that arrive later must not help to choose what
# the first ones are trained with, and no test label may. `continual3d sweep` searches with
# [Optuna](https://optuna.org) under rules that say what may be looked at. The same from a terminal:
#
# ```console
# continual3d sweep class_incremental --strategy BTF --trials 6 --rule per-task-validation oracle
# continual3d sweep report sweeps/NAME
# ```

# %%
from pathlib import Path

import pandas as pd
from IPython.display import Image, display

from strategies.btf import BTF
from toolkit.cli import main
from toolkit.tuning import figures
from toolkit.tuning.report import find_sweeps, history_frame, rules_frame, trials_frame
from toolkit.tuning.space import space_of

# %% [markdown]
# What is searched stands beside the constructor of a method, with the reason for its range; for a method that declares
# nothing it follows from the defaults by a rule. A file can narrow it, which the sweep below does.

# %%
pd.DataFrame([{"name": name, **vars(space)} for name, space in space_of("strategy", BTF).items()])

# %% [markdown]
# ## The sweep
#
# Two rules: validation on training clouds with synthetic defects, and the oracle, which looks at the test labels. The
# oracle is no result; it shows how much a rule leaves on the table. A sweep that is started again goes on where it
# was. Four trials on two classes are for show: differences between them mean nothing.

# %%
data = ["--dataset.categories", "[bolt,gear]", "--dataset.points", "512", "--dataset.train", "3",
        "--dataset.test_normal", "4", "--dataset.test_defective", "7"]  # fmt: skip
_ = Path("space.yaml").write_text(
    "strategy.fpfh_radius: {low: 3.0, high: 8.0}\n"
    "strategy.features: [fpfh, raw, both]\n"
    "strategy.hellinger: [true, false]\n"
)
search = [
    "--space",
    "space.yaml",
    "--split",
    "even:2",
    "--trials",
    "4",
    "--rule",
    "per-task-validation",
    "oracle",
    "--study",
    "btf",
]
where = ["--executor", "inline", "--threads", "1", "--output", "sweeps"]
print("exit code", main(["sweep", "class_incremental", "--strategy", "BTF", *data, *search, *where]))

# %% [markdown]
# ## Read back
#
# Everything comes from the storage: the trials, the value after each task, and which hyperparameters mattered.

# %%
sweeps = find_sweeps(["sweeps/btf"])
sweep = next(s for s in sweeps if s.spec.rule == "per-task-validation")
(study,) = sweep.studies.values()
trials = trials_frame(study, sweep.points)
display(trials)

# %%
axes = figures.history(trials, sweep.spec, title=sweep.label)
axes = figures.parallel(trials[trials["state"] == "finished"], sweep.spec, title=sweep.label)

# %% [markdown]
# A trial that is behind the others after the first tasks is given up. Each line is a trial.

# %%
axes = figures.intermediate(history_frame(study, sweep.points), title=sweep.label)

# %% [markdown]
# ## What the rule costs
#
# The choice of each rule, run on the real stream. The gap to the oracle is the price of not looking at test labels.

# %%
rules = rules_frame(sweeps)
display(rules)
axes = figures.gap(rules)

# %% [markdown]
# `sweep report` writes the same as CSV and PNG, and with `--best` the chosen configuration, which runs as it is:
# `continual3d run class_incremental --config best.yaml`.

# %%
print("exit code", main(["sweep", "report", "sweeps/btf", "--output", "report"]))
print(*sorted(str(path) for path in Path("report").rglob("*.csv")), sep="\n")
display(Image(next(Path("report").rglob("history.png")), width=500))
