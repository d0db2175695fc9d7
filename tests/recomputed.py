"""The numbers of a decision, computed again from `predictions.parquet` and `eval_data.jsonl` by other means.

Imports nothing from the package on purpose: scipy's distributions and a numeric likelihood stand in for its formulas, so
that an error in those cannot hide behind itself.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from scipy import optimize, stats

Json = dict[str, Any]


def verify_decision(home: Path, workload: str) -> int:
    """Compare every number of the current decision with its recomputation; how many numbers were compared."""
    objects = home / "artifacts" / "objects"
    decision = json.loads((_current(home, "decision", workload) / "decision.json").read_text())
    evidence = decision["evidence"]
    settings = evidence["settings"]
    rows = [json.loads(line) for line in (_current(home, "datasets/base", workload) / "eval_data.jsonl").open()]
    clusters = {row["row_id"]: row["cluster"] for row in rows}
    offered = {row["row_id"]: [tool["function"]["name"] for tool in row["request"].get("tools") or ()] for row in rows}
    assert evidence["rows"] == len(rows)
    assert evidence["clusters"] == len(set(clusters.values()))
    compared = 2
    worst_p, worse = [], []
    for arm in evidence["arms"]:
        where = objects / "evals" / arm["variant"] / workload / arm["candidate"] / arm["version"]
        table = pq.read_table(where / "predictions.parquet").to_pylist()
        assert {row["row_id"] for row in table} == set(clusters)
        assert arm["errors"] == sum(row["error"] is not None for row in table)
        compared += _check_columns(table, offered)
        assert evidence["unread_share"] == _about(_unread(table, settings["gates"]), 1e-12)
        again = [_gate(table, clusters, found, settings) for found in arm["gates"]]
        for found, expected in zip(arm["gates"], again, strict=True):
            tolerance = 0.01 if "bootstrap" in found["method"] else 1e-6
            for name, value in expected.items():
                assert found[name] == _about(value, tolerance), (arm["candidate"], arm["variant"], found["metric"], name)
                compared += 1
        worst_p.append(max(_p(found) for found in arm["gates"]))
        level = settings["alpha"] / len(arm["gates"])
        worse.append(any(found["enough_clusters"] and found["p_inferior"] <= level for found in arm["gates"]))
    for arm, adjusted, is_worse in zip(evidence["arms"], _holm(worst_p), worse, strict=True):
        assert arm["p_adjusted"] == _about(adjusted, 1e-9)
        assert arm["passes"] == (adjusted <= settings["alpha"])
        assert arm["is_worse"] == is_worse
        compared += 3
    passes = [arm for arm in evidence["arms"] if arm["passes"]]
    verdict = "promote" if passes else "keep" if all(worse) else "inconclusive"
    assert decision["verdict"] == verdict
    return compared + 1


def _check_columns(table: list[Json], offered: dict[str, list[str]]) -> int:
    """The strict columns of tool calling, from the reference and the answer that stand beside them.

    `offered` are the names of the tools that each row's request offers.
    """
    compared = 0
    for row in table:
        reference = json.loads(row["reference"])
        answer = json.loads(row["prediction"]) if row["prediction"] else None
        expected = reference["tool_calls"]
        made = answer["tool_calls"] if answer else []
        if "no_call" not in row:
            continue
        right: Json = {"function_name": None, "function_name_and_args": None, "no_call": None}
        if not expected:
            right["no_call"] = float(answer is not None and not made)
        else:
            names = [sorted(call["name"] for call in calls) for calls in (expected, made)]
            right["function_name"] = float(answer is not None and names[0] == names[1])
            right["function_name_and_args"] = float(
                answer is not None and _multiset(expected) == _multiset(made) is not None
            )
        right |= _text_columns(reference, answer, offered.get(row["row_id"], []))
        for name, value in right.items():
            assert row[name] == (value if value is None else _about(value, 1e-12)), (row["row_id"], name)
            compared += 1
    return compared


_CALL_IN_TEXT = re.compile(r"<tool_call|<function|\[TOOL_CALLS\]|<\|python_tag\||<\|tool|<｜tool|\bAction: ")


def _text_columns(reference: Json, answer: Json | None, offered: list[str]) -> Json:
    """What is asked of a turn without a call: an answer in words, and how much of the reference's it has."""
    if reference["tool_calls"]:
        return {"answered": None, "f1": None, "exact_match": None}
    said = ((answer or {}).get("content") or "").strip()
    expected = (reference["content"] or "").strip()
    right: Json = {"answered": 1.0, "f1": None, "exact_match": None}
    if not said or not answer or answer["tool_calls"] or answer.get("cut_off") or _CALL_IN_TEXT.search(said):
        right["answered"] = 0.0
    # A text that is JSON or code and begins with what would call a tool.
    if any(re.match(rf'[\[{{\s]*"?(name"\s*:\s*"{name}"|{name}\()', said) for name in offered):
        right["answered"] = 0.0
    if expected:
        right["exact_match"] = float(answer is not None and said == expected)
        tokens = [Counter(_tokens(text)) for text in (expected, said)]
        total = tokens[0].total() + tokens[1].total()
        shared = 2 * (tokens[0] & tokens[1]).total() / total if total else 1.0
        right["f1"] = 0.0 if answer is None else shared
    return right


def _tokens(text: str) -> list[str]:
    """SQuAD's tokens, by one expression a step."""
    plain = re.sub(r"[!-/:-@\[-`{-~]", "", text.lower())
    return re.sub(r"\b(?:a|an|the)\b", " ", plain).split()


def _unread(table: list[Json], gates: list[Json]) -> float:
    """The share of the rows that are text, by what the reference says, and that no gate over all rows compares."""
    reading = {gate["metric"] for gate in gates} & {"f1", "exact_match", "judge_similarity", "judge_pairwise"}
    texts = [
        row for row in table if not (said := json.loads(row["reference"]))["tool_calls"] and (said["content"] or "").strip()
    ]
    return 0.0 if reading else len(texts) / len(table)


def _multiset(calls: list[Json]) -> list[str] | None:
    """Calls as sorted text, numbers by value and truth values apart from them; None where one is malformed."""
    try:
        return sorted(json.dumps([call["name"], _plain(json.loads(call["arguments"]))], sort_keys=True) for call in calls)
    except json.JSONDecodeError:
        return None


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _gate(table: list[Json], clusters: dict[str, str], found: Json, settings: Json) -> dict[str, float]:
    """One gate of one arm against a teacher that is right on every row the metric applies to."""
    metric, margin, alpha = found["metric"], found["margin"], settings["alpha"]
    scored = [(row[metric], clusters[row["row_id"]]) for row in table if row[metric] is not None]
    scores = np.array([score for score, _ in scored], dtype=float)
    members = defaultdict(list)
    for score, cluster in scored:
        members[cluster].append(score)
    n, k = len(scored), len(members)
    kish = n**2 / sum(len(group) ** 2 for group in members.values())
    assert found["enough_clusters"] == (kish >= settings["min_clusters"])
    # The lost conversation that must be imagined: as long as those with which the margin is lost fastest.
    size = _tail([len(group) for group in members.values()], margin if scores.mean() - 1.0 > -margin else 0.0)
    again: dict[str, float] = {
        "n": n,
        "clusters": k,
        "clusters_effective": kish,
        "score": float(scores.mean()),
        "reference_score": 1.0,
        "difference": float(scores.mean()) - 1.0,
        "discordance": float(((scores - 1.0) ** 2).mean()),
        "n_effective": _effective(members, n, size, kish),
    }
    if set(scores) <= {0.0, 1.0}:
        # A teacher that is always right can only lose rows: exact binomial bounds of the share lost.
        worth = again["n_effective"]
        lost = worth * (1.0 - scores.mean())
        again["low"] = -1.0 if lost >= worth else -float(stats.beta(lost + 1, worth - lost).ppf(1 - alpha))
        again["high"] = 0.0 if lost <= 0 else -float(stats.beta(lost, worth - lost + 1).ppf(alpha))
        again["p_non_inferior"] = 1.0 if lost >= worth else float(stats.beta(lost + 1, worth - lost).sf(margin))
        again["p_inferior"] = 1.0 if lost <= 0 else float(stats.beta(lost, worth - lost + 1).cdf(margin))
        return again
    rng = np.random.default_rng(2026)
    groups = [np.array(group) - 1.0 for group in members.values()]
    for name, extreme, quantile in (("low", -1.0, alpha), ("high", 0.0, 1 - alpha)):
        sums = np.array([group.sum() for group in groups] + [extreme * size])
        sizes = np.array([len(group) for group in groups] + [size])
        weights = rng.dirichlet(np.ones(k + 1), size=20_000)
        again[name] = float(np.quantile((weights @ sums) / (weights @ sizes), quantile))
    return again


def _tail(sizes: list[int], share: float) -> float:
    """Rows over conversations, taking whole ones from the longest on until they hold this share, the last one in part."""
    wanted, rows, conversations = share * sum(sizes), 0.0, 0.0
    if wanted <= max(sizes):
        return float(max(sizes))
    for size in sorted(sizes, reverse=True):
        part = min(1.0, (wanted - rows) / size)
        rows, conversations = rows + part * size, conversations + part
        if part < 1.0:
            break
    return rows / conversations


def _effective(members: dict[str, list[float]], n: int, size: float, kish: float) -> float:
    """n over the design effect of the losses, one conversation lost throughout imagined, and what few clusters cost."""
    k = len(members)
    if k == n:
        return float(n)
    losses = [[score - 1.0 for score in group] for group in members.values()]
    mean = (math.fsum(map(math.fsum, losses)) - size) / (n + size)
    naive = math.fsum((loss - mean) ** 2 for group in losses for loss in group) + size * (-1 - mean) ** 2
    if math.isclose(naive, 0.0, abs_tol=1e-9):
        # Everything is lost, the imagined conversation included: no spread is seen, and each conversation counts once.
        return kish
    grouped = math.fsum((math.fsum(group) - len(group) * mean) ** 2 for group in losses) + (size * (-1 - mean)) ** 2
    effect = max(1.0, (k + 1) / k * grouped / naive)
    few = (stats.norm.ppf(0.975) / stats.t.ppf(0.975, kish - 1)) ** 2 if kish >= 2 else 0.0
    return float(max(1.0, n / effect * few))


def tango_bound(gained: int, lost: int, n: int, alpha: float) -> float:
    """Tango's lower bound, its likelihood maximised numerically: the paired test of two imperfect sides."""

    def z(difference: float) -> float:
        def unlikely(share_lost: float) -> float:
            share_gained = share_lost + difference
            same = 1 - share_lost - share_gained
            if min(share_lost, share_gained, same) <= 0:
                return math.inf
            return -(gained * math.log(share_gained) + lost * math.log(share_lost) + (n - gained - lost) * math.log(same))

        low, high = max(0.0, -difference), (1 - difference) / 2
        best = optimize.minimize_scalar(unlikely, bounds=(low, high), method="bounded", options={"xatol": 1e-14}).x
        return (gained - lost - n * difference) / math.sqrt(n * (2 * best + difference - difference**2))

    critical = stats.norm.ppf(1 - alpha)
    return float(optimize.brentq(lambda d: z(d) - critical, -1 + 1e-9, (gained - lost) / n - 1e-12))


def _holm(p_values: list[float]) -> list[float]:
    """By its definition: the largest of (m - rank) times p over all that are no larger; ties share the largest."""
    ordered = sorted(p_values)
    m = len(ordered)
    return [min(1.0, max((m - rank) * smaller for rank, smaller in enumerate(ordered) if smaller <= p)) for p in p_values]


def _p(found: Json) -> float:
    return float(found["p_non_inferior"]) if found["enough_clusters"] else 1.0


def _about(value: float, tolerance: float) -> Any:
    import pytest

    return pytest.approx(value, rel=1e-6, abs=tolerance)


def _current(home: Path, asset: str, workload: str) -> Path:
    ref = json.loads((home / "artifacts" / "refs" / asset / f"{workload}.json").read_text())
    return home / "artifacts" / "objects" / asset / workload / ref["version"]
