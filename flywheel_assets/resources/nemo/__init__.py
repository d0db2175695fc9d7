"""NeMo as a platform: train with the Customizer, serve through Deployment Management, examine with the Evaluator.

What is NeMo, whatever its API: `errors` (what can go wrong, in our words), `polling` (how often one looks), `ledger` (who
uses what of the cluster, across processes), `work` (the orders given to it), `platform` (the seam of the assets), `sweep`
(what nobody owns any more is ended) and `health` (what `flywheel doctor` looks at). What is API v1 lives in `v1`, behind
the one class `v1.NemoV1`.
"""
