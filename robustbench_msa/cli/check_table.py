"""``msabench check-table``: can a printed accuracy occur at all?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def check_table(
    table: Annotated[
        Path | None,
        typer.Argument(
            help="A CSV file with a column value, and any of n, seeds, decimals, n_nonzero.", metavar="TABLE.csv"
        ),
    ] = None,
    value: Annotated[
        list[str] | None, typer.Option("--value", help="A printed accuracy in percent; repeat for several.")
    ] = None,
    n: Annotated[int | None, typer.Option("--n", help="Samples of the test set.", metavar="N")] = None,
    n_nonzero: Annotated[
        int | None, typer.Option(help="Samples whose label is not 0, for a non-zero Acc-2.", metavar="N")
    ] = None,
    seeds: Annotated[int, typer.Option(help="Training seeds the value is a mean over.", metavar="N")] = 1,
    decimals: Annotated[
        int | None, typer.Option(help="Decimals it was rounded to; default as many as it shows.", metavar="N")
    ] = None,
    fraction: Annotated[bool, typer.Option("--fraction", help="Values are in 0..1, not in percent.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Say which printed accuracies cannot come from n samples, however the model did.

    Examples:

    msabench check-table --n 686 --value 86.4 --value 86.1

    msabench check-table --n 686 --n-nonzero 656 --seeds 5 --value 84.37

    msabench check-table table.csv --n 686 --json

    Exit code 0 whatever it finds, 2 for bad input.
    """
    from corruptions import InputError
    from robustbench_msa.analysis.granularity import Printed, check, read_csv
    from robustbench_msa.cli.display import print_json, say

    if not value and table is None:
        raise InputError("check-table: nothing to check; give --value 86.4 (with --n), or a CSV file")
    defaults = {"n": n, "seeds": seeds, "decimals": decimals, "n_nonzero": n_nonzero}
    if value and n is None:
        raise InputError("check-table: expected --n, the number of samples behind --value")
    typed = [Printed(text, n, seeds, decimals, n_nonzero, fraction) for text in value or [] if n is not None]
    printed = typed + (read_csv(table, defaults, fraction) if table is not None else [])
    verdicts = [check(one) for one in printed]
    if as_json:
        names = ("value", "denominator", "n", "seeds", "possible", "counts", "nearest", "informative")
        print_json([{name: getattr(v, name) for name in names} for found in verdicts for v in found])
        return
    for found in verdicts:
        for verdict in found:
            say(str(verdict))
    if len(verdicts) > 1:
        impossible = sum(not any(v.possible for v in found) for found in verdicts)
        say(f"{impossible} of {len(verdicts)} values cannot occur")
