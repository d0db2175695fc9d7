"""The command line: `flywheel ...`. Parsing, printing and exit codes; the work is elsewhere.

Dagster is imported by the commands that need it only: it costs seconds, and `flywheel status` should not.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.control import Control
from rich.segment import ControlType

from flywheel_assets.cli_errors import UserError, expected_errors, said
from flywheel_assets.core.formats import AUTO, BUILT_IN
from flywheel_assets.settings import Settings, load_settings

if TYPE_CHECKING:
    from dagster import DagsterInstance

    from flywheel_assets.resources.ingest import IngestReport

app = typer.Typer(
    name="flywheel",
    help="Production LLM traffic in, evidence and a smaller model out. Start: `flywheel ingest FILE`, then `flywheel run`.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
# In a pipe or a CI log there is no terminal to ask for its width, and 80 columns cut every table.
_WIDTH = None if sys.stdout.isatty() else 150
out = Console(highlight=False, soft_wrap=True, width=_WIDTH)
err = Console(stderr=True, highlight=False, soft_wrap=True, width=_WIDTH)

JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object on stdout instead of text.")]


# Click leaves lines alone in a paragraph that begins with a backspace.
_INGEST_HELP = (
    "Read logs and data sets into the trace store. Repeating it adds nothing; rejects are kept with their reasons.\n\n"
    "`auto` looks at the first rows of each file, says which format it found, and never guesses between two. What is no log "
    "is trained on and never examined on, unless train_only_sources of the workload says otherwise. docs/data.md shows a "
    "row of each format, and how to add one.\n\n"
    "Exit code: 0 when every line was taken, 1 when some were rejected (good ones beside them are kept), 2 when the command "
    "could not do its work; the next one then goes on where it stopped.\n\n"
    "\b\nFormats:\n" + "".join(f"  {one.name:18} {one.title}\n" for one in BUILT_IN) + "\n"
    "\b\nExamples:\n"
    "  flywheel ingest app.jsonl\n"
    "  flywheel ingest functions.json.gz --format hermes --workload order-router\n"
)


@app.command(help=_INGEST_HELP)
def ingest(
    paths: Annotated[
        list[str], typer.Argument(help="JSON lines or one JSON array, plain, .gz or .zst; `-` reads standard input.")
    ],
    format_name: Annotated[str, typer.Option("--format", help="A format of the list above, or `auto`.")] = AUTO,
    workload: Annotated[str | None, typer.Option(help="workload_id for records that carry none.")] = None,
    source: Annotated[
        str | None,
        typer.Option(help="source for records that carry none (default: traffic for logs, else the format's name)."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """`flywheel ingest`; `_INGEST_HELP` is what a user reads."""
    from flywheel_assets.resources.flywheel import Flywheel
    from flywheel_assets.resources.ingest import IngestError
    from flywheel_assets.resources.ingest import ingest as ingest_files
    from flywheel_assets.resources.log_formats import configured_formats

    settings = load_settings()
    flywheel = Flywheel.at_home(settings)
    try:
        report = ingest_files(
            paths,
            flywheel.traces,
            format_name=format_name,
            default_workload=workload,
            source=source,
            max_bytes=settings.local.max_record_bytes,
            progress=None if as_json or not err.is_terminal else _ingest_progress,
            recognised=None if as_json or format_name != AUTO else _say_formats,
            configured=configured_formats(settings),
        )
    except IngestError as error:
        if error.report is not None:
            _print_ingest(error.report, as_json)
        raise
    _print_ingest(report, as_json)
    if report.rejected:
        raise typer.Exit(1)


@app.command()
def pull(
    sources: Annotated[
        list[str] | None, typer.Argument(help="Sources to pull from; default: all that are switched on.")
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="From the start, whatever was pulled before.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Fetch records from the sources of flywheel.yaml until they are read up. The sensors do this by themselves."""
    from flywheel_assets.resources.flywheel import Flywheel
    from flywheel_assets.resources.sources.by_hand import pull_by_hand

    settings = load_settings()
    report = pull_by_hand(
        settings,
        Flywheel.at_home(settings).traces,
        tuple(sources or ()),
        again=again,
        say=lambda text: err.print(text, markup=False),
    )
    _print_ingest(report, as_json)


@app.command()
def run(
    workloads: Annotated[list[str] | None, typer.Argument(help="Workloads to turn; default: all.")] = None,
    candidate: Annotated[list[str] | None, typer.Option("--candidate", "-c", help="Only these candidates.")] = None,
    again: Annotated[
        list[str] | None,
        typer.Option(
            "--again",
            metavar="ASSET",
            help="Make this asset again though nothing it is made from has changed, such as `evals/base` (`evals`: all "
            "variants) after a model was replaced behind the same URL: it is asked every row anew. `adapter` trains anew.",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and why, and do nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Execute the plan: make whatever is stale, in order, with progress. Exit code 1 when something failed.

    A model that was replaced behind the same URL looks unchanged from here:
    `flywheel run WORKLOAD --candidate ID --again evals`. What follows from it is made again as far as it changes.
    """
    from flywheel_assets.cli_run import print_plan, print_report, run_plan

    settings = load_settings()
    for name in candidate or ():
        settings.candidate(name)
    choice = (tuple(workloads or ()), tuple(candidate or ()))
    with _instance(settings) as instance:
        if dry_run:
            print_plan(instance, settings, *choice, again=again or (), as_json=as_json, out=out)
            return
        report = run_plan(instance, settings, *choice, again=again or (), out=err if as_json else out)
    print_report(report, settings, as_json=as_json, out=out)
    if not report.ok:
        raise typer.Exit(1)


@app.command()
def status(as_json: JsonOption = False) -> None:
    """Per workload: records, dataset version, every cell's variants and scores, the decision."""
    from flywheel_assets.resources.flywheel import Flywheel
    from flywheel_assets.resources.status import status_of
    from flywheel_assets.tables import print_status

    flywheel = Flywheel.at_home(load_settings())
    content = status_of(flywheel)
    if as_json:
        _print_json(content)
    else:
        print_status(content, out)


@app.command("plan")
def plan_command(
    workload: Annotated[str, typer.Argument(help="The workload to plan for.")],
    margin: Annotated[
        float | None, typer.Option(help="Acceptable loss, between 0 and 1; default: the gates of flywheel.yaml.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """How many eval rows the margin needs, and what a judge would cost, before anything is spent."""
    from flywheel_assets.resources.flywheel import Flywheel
    from flywheel_assets.resources.judge.estimate import judging_plan
    from flywheel_assets.resources.sample_plan import sample_size_plan
    from flywheel_assets.tables import print_sample_size

    # Written so that nan is out of range too.
    if margin is not None and not 0 < margin < 1:
        raise UserError(f"--margin {margin:g}: a margin is a share between 0 and 1, such as 0.05 for 5 rows in 100.")
    flywheel, slug = Flywheel.at_home(load_settings()), _known(workload)
    content = {**sample_size_plan(flywheel, slug, margin), "judging": judging_plan(flywheel, slug)}
    if as_json:
        _print_json(content)
    else:
        print_sample_size(content, out)


WhyOption = Annotated[str, typer.Option("--why", help="What convinced you; kept in model_selection.json.")]
WhoOption = Annotated[str | None, typer.Option("--who", help="Your name; default: the user who is logged in.")]
WorkloadArgument = Annotated[str, typer.Argument(help="The workload, by slug or original id.")]


@app.command()
def approve(workload: WorkloadArgument, why: WhyOption, who: WhoOption = None, as_json: JsonOption = False) -> None:
    """Let the decision's winner serve the workload. Refused unless the verdict is promote, up to date and not expired."""
    _act("approve", workload, who, why, as_json)


@app.command()
def reject(workload: WorkloadArgument, why: WhyOption, who: WhoOption = None, as_json: JsonOption = False) -> None:
    """Say that the decision's winner shall not serve the workload, and why."""
    _act("reject", workload, who, why, as_json)


@app.command()
def rollback(workload: WorkloadArgument, why: WhyOption, who: WhoOption = None, as_json: JsonOption = False) -> None:
    """Take back what serves now: the model approved before it serves again, or else the teacher."""
    _act("rollback", workload, who, why, as_json)


def _act(action: str, workload: str, who: str | None, why: str, as_json: bool) -> None:
    from flywheel_assets.cli_promote import act

    settings = load_settings()
    slug = _known(workload)
    with _instance(settings) as instance:
        done = act(instance, settings, action, slug, who=who, why=why)
    if as_json:
        _print_json(done)
    else:
        out.print(done["says"], markup=False)
    if not done["ok"]:
        raise typer.Exit(1)


_LOOKS_HELP = (
    "What was looked at, and what that spent of alpha.\n\n"
    "Looking again and again promotes a bad model sooner or later, so `decision.looks` in flywheel.yaml registers the "
    "eval-row counts at which you look, and each look spends a part of `decision.alpha`. What is spent stays spent, "
    "whatever becomes of flywheel.yaml, the candidates or the traffic: an edited schedule has what is left, and the last "
    "look spends all of it. So add row counts before that.\n\n"
    "`--start-over` gives the workload its whole alpha back. Do it when the question is a new one, such as other candidates "
    "on fresh traffic, and not because you dislike the answer: your name and reason stand in every later decision. "
    "docs/decisions.md explains it.\n\n"
    "\b\nExamples:\n"
    "  flywheel looks order-router\n"
    '  flywheel looks order-router --start-over --why "new candidates, evaluated on traffic since May"\n'
)


@app.command("looks", help=_LOOKS_HELP)
def looks_command(
    workload: WorkloadArgument,
    start_over: Annotated[
        bool, typer.Option("--start-over", help="Give the workload its whole alpha back. Needs --why.")
    ] = False,
    why: Annotated[str, typer.Option("--why", help="With --start-over: your reason, kept in every later decision.")] = "",
    who: WhoOption = None,
    as_json: JsonOption = False,
) -> None:
    """`flywheel looks`; `_LOOKS_HELP` is what a user reads."""
    import getpass

    from flywheel_assets.cli_looks import looks_content, print_looks
    from flywheel_assets.resources.flywheel import Flywheel

    if not start_over and (why or who):
        raise UserError("--why and --who go with --start-over; without it `flywheel looks` only shows the log.")
    flywheel, slug = Flywheel.at_home(load_settings()), _known(workload)
    if start_over:
        flywheel.looks.start_over(slug, who=getpass.getuser() if who is None else who, why=why)
    content = looks_content(flywheel, slug)
    if as_json:
        _print_json(content)
        return
    print_looks(content, out)
    if start_over:
        out.print(f"Started over. Next: `flywheel run {slug}` decides with the whole alpha.", markup=False)


@app.command()
def serve(
    workload: Annotated[str, typer.Argument(help="The workload whose model to serve.")],
    candidate: Annotated[str | None, typer.Option("--candidate", "-c", help="Default: the decision's best.")] = None,
    port: Annotated[int, typer.Option(help="0 takes a free one.")] = 0,
) -> None:
    """The evaluated model behind an OpenAI-compatible URL, marked as not promoted where it is not. Ctrl-C ends it."""
    from functools import partial

    from flywheel_assets.runtime.serve import serve_workload
    from flywheel_assets.seals import require_untouched

    settings = load_settings()
    if candidate is not None:
        settings.candidate(candidate)
    slug = _known(workload)
    with _instance(settings) as instance:
        say = partial(out.print, markup=False)
        serve_workload(settings, slug, candidate, port=port, say=say, check=partial(require_untouched, instance))


@app.command()
def verify(as_json: JsonOption = False) -> None:
    """Whether everything published is still what it was: hashes every file, and compares with Dagster's event log.

    Exit code 1 where something was changed, is gone, or was put there. What is decided on, approved, served and sent to a
    hub is checked by itself; this checks all current versions, and every approved decision.
    """
    from flywheel_assets.cli_verify import print_verified, verify_home

    settings = load_settings()
    with _instance(settings) as instance:
        content = verify_home(instance, settings)
    if as_json:
        _print_json(content)
    else:
        print_verified(content, out)
    if content["faults"]:
        raise typer.Exit(1)


@app.command()
def doctor(as_json: JsonOption = False) -> None:
    """What is configured, reachable, and of which version. Never prints a secret. Exit code 1 if something is wrong."""
    from flywheel_assets.resources.doctor import examine
    from flywheel_assets.tables import print_findings

    findings = examine(load_settings())
    if as_json:
        _print_json([finding.to_json() for finding in findings])
    else:
        print_findings(findings, out)
    if any(not finding.ok for finding in findings):
        raise typer.Exit(1)


@app.command("import-config")
def import_config_command(
    file: Annotated[Path, typer.Argument(help="A config.yaml of the reference workflow.")],
    to: Annotated[Path | None, typer.Option("--out", help="Default: flywheel.yaml in this folder.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Make a flywheel.yaml for `platform: nemo` of a blueprint's config.yaml, and list what has no equivalent."""
    from flywheel_assets.cli_import import default_target, import_config
    from flywheel_assets.tables import print_conversion

    target = to or default_target()
    done = import_config(file, target, overwrite=force)
    if as_json:
        _print_json({"file": str(target), "content": done.content, "notes": [list(note) for note in done.notes]})
    else:
        print_conversion(done, target, out)


@app.command()
def demo(
    full: Annotated[bool, typer.Option("--full", help="Adds a text workload made from the same rows.")] = False,
) -> None:
    """The whole loop on public benchmark requests, with a real model really trained. `make demo` calls this."""
    from flywheel_assets.demo.play import play

    settings = load_settings()
    with _instance(settings) as instance:
        if not play(instance, settings, full=full, ui=_ui_command(settings), out=out):
            raise typer.Exit(1)


def _ui_command(settings: Settings) -> str:
    """How to open the UI on the instance in use: a profile of the clone is asked for by its name."""
    home = Path(os.environ["DAGSTER_HOME"])
    return f"make ui PROFILE={home.name}" if home.parent == settings.root / "deploy" else "make ui"


@contextmanager
def _instance(settings: Settings) -> Iterator[DagsterInstance]:
    """The Dagster instance of the clone; paths in its dagster.yaml are relative to the clone, so that is where we go."""
    home = os.environ.get("DAGSTER_HOME") or str(settings.root)
    advice = f"Unset it to use the clone ({settings.root}), or name a folder that is there."
    if not Path(home).expanduser().is_absolute():
        raise UserError(f"DAGSTER_HOME is '{home}'; it must be an absolute path. {advice}")
    if not Path(home).expanduser().is_dir():
        raise UserError(f"DAGSTER_HOME is '{home}', which is no folder. {advice}")
    os.environ["DAGSTER_HOME"] = home
    os.chdir(settings.root)
    from dagster import DagsterError, DagsterInstance

    try:
        opened = DagsterInstance.get()
    except DagsterError as error:
        raise UserError(f"the Dagster instance of {home} cannot be opened; mend its dagster.yaml. {error}") from error
    with opened as instance:
        yield instance


def _known(workload: str) -> str:
    """A workload's slug, whether the slug or the original id was typed."""
    from flywheel_assets.resources.flywheel import Flywheel

    summaries = Flywheel.at_home(load_settings()).traces.workloads()
    for summary in summaries:
        if workload in (summary.slug, summary.workload_id):
            return summary.slug
    known = ", ".join(summary.slug for summary in summaries) or "none yet; `flywheel ingest FILE` adds some"
    raise UserError(f"unknown workload '{workload}'. In the trace store: {known}.")


def _say_formats(found: Mapping[str, str]) -> None:
    for origin, name in found.items():
        out.print(f"{origin}: read as {name}", markup=False)


def _ingest_progress(done: int, name: str) -> None:
    err.print(f"  {done:>12,} records read ({name})", end="\r")


def _print_ingest(report: IngestReport, as_json: bool) -> None:
    from flywheel_assets.tables import print_ingest

    if as_json:
        _print_json(report.to_json())
        return
    if err.is_terminal:
        # The progress line, if there is one, is where the cursor stands.
        err.control(Control((ControlType.CARRIAGE_RETURN,), (ControlType.ERASE_IN_LINE, 2)))
    print_ingest(report.to_json(), report.examples, out)


def _print_json(content: object) -> None:
    sys.stdout.write(json.dumps(content, default=str, allow_nan=False) + "\n")


def main() -> None:
    """The entry point: expected errors become one message on stderr and exit code 2."""
    try:
        app()
    except KeyboardInterrupt:
        err.print("interrupted")
        sys.exit(130)
    except Exception as error:
        if not isinstance(error, expected_errors()):
            raise
        err.print(f"flywheel: {said(error)}", style="red", markup=False)
        sys.exit(2)


if __name__ == "__main__":
    main()
