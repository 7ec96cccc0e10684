"""Figures: each function takes a table or arrays and optional axes, and returns the axes.

Nothing here opens a window or changes matplotlib's settings. `save` writes the picture and the numbers it shows.
"""

from toolkit.plots.auroc_over_tasks import auroc_over_tasks
from toolkit.plots.bars import bars
from toolkit.plots.clouds import ScoredCloud, best_view, cloud, clouds
from toolkit.plots.critical_difference import critical_difference
from toolkit.plots.fence import fence, fence_frame, fence_trend
from toolkit.plots.forgetting_lines import forgetting_lines
from toolkit.plots.frames import matrices_frame, stability_plasticity_frame, transfer_frame
from toolkit.plots.known_curve import known_curve
from toolkit.plots.known_unknown import known_unknown
from toolkit.plots.latent_traversal import latent_traversal
from toolkit.plots.level_set import level_set
from toolkit.plots.openness_curve import openness_curve
from toolkit.plots.pareto import pareto, pareto_front
from toolkit.plots.r_matrix import r_matrix
from toolkit.plots.roc_pr import roc_pr
from toolkit.plots.score_drift import score_drift
from toolkit.plots.score_histograms import score_histograms
from toolkit.plots.stability_plasticity import stability_plasticity
from toolkit.plots.style import context, data_of, save
from toolkit.plots.triage import triage, triage_frame

__all__ = [
    "ScoredCloud",
    "auroc_over_tasks",
    "bars",
    "best_view",
    "cloud",
    "clouds",
    "context",
    "critical_difference",
    "data_of",
    "fence",
    "fence_frame",
    "fence_trend",
    "forgetting_lines",
    "known_curve",
    "known_unknown",
    "latent_traversal",
    "level_set",
    "matrices_frame",
    "openness_curve",
    "pareto",
    "pareto_front",
    "r_matrix",
    "roc_pr",
    "save",
    "score_drift",
    "score_histograms",
    "stability_plasticity",
    "stability_plasticity_frame",
    "transfer_frame",
    "triage",
    "triage_frame",
]
