"""The report: a comparison and its decision for a person who did not build the system.

`view` gathers what is shown as plain data, `html` and `markdown` say it. What does not belong here: numbers of their own;
every one comes from the comparison or from the decision's evidence.
"""

from flywheel_assets.core.report.examples import Example, Losses, arm_in_focus, gated_metrics, losses_of
from flywheel_assets.core.report.html import to_html, to_svg
from flywheel_assets.core.report.markdown import to_markdown
from flywheel_assets.core.report.view import Report, report_of

__all__ = [
    "Example",
    "Losses",
    "Report",
    "arm_in_focus",
    "gated_metrics",
    "losses_of",
    "report_of",
    "to_html",
    "to_markdown",
    "to_svg",
]
