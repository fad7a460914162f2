"""The command: every size to its end, then every weakened rule until it fails. Exit 1 when either is not so."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from tests.model.sizes import SIZES, WEAKENED, Size, Weakened
from tests.model.spin import MissingProgramError, Result, search
from tests.model.trail import CYCLE, steps


def main(
    small: Annotated[bool, typer.Option("--small", help="Leave out the sizes that take minutes.")] = False,
    only: Annotated[str | None, typer.Option(help="One size or weakened rule, by its name.")] = None,
    show: Annotated[bool, typer.Option("--steps", help="Print the steps to each fault, the shortest ones.")] = False,
) -> None:
    """Search the models of the protocol (docs/order.md)."""
    names = [item.name for item in (*SIZES, *WEAKENED)]
    if only is not None and only not in names:
        raise typer.BadParameter(f"{only!r} is none of {', '.join(names)}", param_hint="--only")
    good = True
    try:
        for size in SIZES:
            if (only is None and not (small and size.large)) or only == size.name:
                good &= _full(size)
        for weakened in WEAKENED:
            if only in {None, weakened.name}:
                good &= _weakened(weakened, show=show)
    except MissingProgramError as error:
        print(error)
        raise typer.Exit(3) from None
    raise typer.Exit(0 if good else 1)


def _full(size: Size) -> bool:
    began = time.monotonic()
    result = search(size.model, size.defines, memory_mb=size.memory_mb, fast=size.large)
    good = result.complete and result.fault is None
    print(f"{'good' if good else 'WRONG'}  {size.name}: {size.about}: {_figures(result, began)}", flush=True)
    if result.fault is not None:
        print(_story(result), flush=True)
    return good


def _weakened(weakened: Weakened, *, show: bool) -> bool:
    began = time.monotonic()
    shortest = show and weakened.wrong != "endless"
    result = search(weakened.model, weakened.defines, shortest=shortest, memory_mb=8192, fast=show)
    good = went_wrong(result, weakened)
    word = "fails, as it must" if good else "WRONG: does not fail"
    print(f"{word}  {weakened.name}: {weakened.about}: {_figures(result, began)}", flush=True)
    if show:
        print(_story(result), flush=True)
    return good


def went_wrong(result: Result, weakened: Weakened) -> bool:
    """The search found the fault that it had to find."""
    if weakened.wrong == "endless":
        return result.fault is not None and CYCLE in result.trail
    return result.fault is not None and any(f"wrong {weakened.wrong}" in line.lower() for line in result.trail)


def _figures(result: Result, began: float) -> str:
    seconds = time.monotonic() - began
    ended = "to its end" if result.complete else "not to its end"
    return f"{result.states:,} states, depth {result.depth:,}, {ended}, {result.fault or 'no fault'}, {seconds:.0f} s"


def _story(result: Result) -> str:
    return "\n".join(f"    {number:2}  {line}" for number, line in enumerate(steps(result.trail), 1))


if __name__ == "__main__":
    typer.run(main)
