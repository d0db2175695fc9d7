"""The judge: a model that says how good an answer is where no metric can.

What belongs here: what a judge is asked (`rubrics`), how its words are read (`verdicts`), what becomes of them (`columns`,
`swap`, `sheet`), and how far they can be trusted (`labels`, `calibration`). What does not: asking it (`resources.judge`),
and means and tests over its columns, which are those of every other column.
"""

from flywheel_assets.core.judge.calibration import Calibration, Corrected, calibrate, corrected_rate
from flywheel_assets.core.judge.columns import JUDGE_COLUMNS, Rubric, applies, columns_of, labelled_rubric, reference_scores
from flywheel_assets.core.judge.labels import LabelledAnswer, LabelsError, parse_labels
from flywheel_assets.core.judge.rubrics import RUBRIC_VERSION, ask_about, ask_to_compare, estimated_tokens
from flywheel_assets.core.judge.sheet import Judged, JudgeQuestion, questions_about, read_replies
from flywheel_assets.core.judge.swap import Resolved, resolve
from flywheel_assets.core.judge.verdicts import Winner, parse_score, parse_winner, to_share

__all__ = [
    "JUDGE_COLUMNS",
    "RUBRIC_VERSION",
    "Calibration",
    "Corrected",
    "JudgeQuestion",
    "Judged",
    "LabelledAnswer",
    "LabelsError",
    "Resolved",
    "Rubric",
    "Winner",
    "applies",
    "ask_about",
    "ask_to_compare",
    "calibrate",
    "columns_of",
    "corrected_rate",
    "estimated_tokens",
    "labelled_rubric",
    "parse_labels",
    "parse_score",
    "parse_winner",
    "questions_about",
    "read_replies",
    "reference_scores",
    "resolve",
    "to_share",
]
