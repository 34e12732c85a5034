"""``msabench``: the command line. Parses, calls, prints; one file a verb; heavy imports wait inside the commands."""

from __future__ import annotations

import gc
import os
import sys

import typer

from robustbench_msa.allocator import keep_freed_memory
from robustbench_msa.cli import (
    check_table,
    compact,
    compare,
    convert,
    export,
    gallery,
    init_adapter,
    inspect,
    leaderboard,
    listing,
    plot,
    profile,
    report,
    run,
    score,
    show,
    status,
    train,
    validate,
)

app = typer.Typer(
    name="msabench",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="How does a multimodal sentiment model degrade when its inputs do, and is it really better than that one?",
    epilog=(
        "Start here:  msabench run --model qa_moe --stress missing --grid 0:0.8:0.2\n\n"
        "Exit codes: 0 complete, 2 bad input, 3 incomplete (the same command continues), 1 a bug."
    ),
)
app.command("run", epilog=run.EPILOG)(run.run)
app.command("validate", epilog=validate.EPILOG)(validate.validate)
app.command("train")(train.train)
app.command("leaderboard")(leaderboard.leaderboard)
app.command("report", epilog=report.EPILOG)(report.report)
app.add_typer(plot.app, name="plot")
app.command("show")(show.show)
app.command("gallery")(gallery.gallery)
app.add_typer(listing.app, name="list")
app.command("inspect", epilog=inspect.EPILOG)(inspect.inspect)
app.command("convert", epilog=convert.EPILOG)(convert.convert)
app.command("status")(status.status)
app.command("compact")(compact.compact)
app.command("export", epilog=export.EPILOG)(export.export)
app.command("score", epilog=score.EPILOG)(score.score)
app.command("compare", epilog=compare.EPILOG)(compare.compare)
app.command("check-table")(check_table.check_table)
app.command("profile")(profile.profile)
app.command("init-adapter", epilog=init_adapter.EPILOG)(init_adapter.init_adapter)

GC_THRESHOLD = 100_000  # imports make a million objects that stay: not to be searched for cycles after every 700
INTERRUPTED = 130  # what newer versions of typer make of Ctrl-C themselves


def main() -> None:
    """Run the command line; every foreseen error is one line and exit code 2, never a traceback."""
    gc.set_threshold(GC_THRESHOLD)
    keep_freed_memory()
    try:
        code = app(prog_name="msabench", standalone_mode=False)
        sys.stdout.flush()
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except BrokenPipeError:  # the reader of our output went away (msabench list ... | head)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except Exception as error:
        code = _failed(error)
    if code == INTERRUPTED:
        _say("stopped; what was finished is kept, the same command continues")
        code = 3
    gc.freeze()  # the process ends: nobody needs what a last search for cycles would find, which takes a second
    sys.exit(code or 0)


def _failed(error: Exception) -> int:
    """Say what went wrong in one line, and the exit code that goes with it."""
    if hasattr(error, "format_message"):  # typer's own: unknown option, missing argument, bad value
        context = getattr(error, "ctx", None)
        hint = f" (see {context.command_path} --help)" if context is not None else ""
        if message := error.format_message():  # empty where the help was printed instead
            _say(f"{message}{hint}")
        return 2
    from corruptions.errors import InputError

    if os.environ.get("MSABENCH_DEBUG"):
        raise error
    if isinstance(error, InputError):
        _say(str(error))
        return 2
    if isinstance(error, OSError):
        _say(f"{error.strerror or error}: {error.filename or 'no path given'}; what was finished is kept")
        return 3
    _say(f"a bug: {type(error).__name__}: {error} (set MSABENCH_DEBUG=1 to see where, and please report it)")
    return 1


def _say(message: str) -> None:
    from robustbench_msa.printable import printable

    print(f"msabench: {printable(message)}", file=sys.stderr)


if __name__ == "__main__":
    main()
