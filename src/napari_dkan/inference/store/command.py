"""`napari-dkan cache`: what is kept on disk of slides seen before."""

from __future__ import annotations

from typing import Annotated

import typer

from ...errors import CacheError

cache_app = typer.Typer(help="What is kept on disk of slides seen before.", no_args_is_help=True)


@cache_app.command("show")
def show_command() -> None:
    """Print the cache's folder, size and limit, and what it holds."""
    import time

    from .folders import cache_folder, stores_in
    from .limit import cache_limit
    from .words import age_words, size_words

    folder = cache_folder()
    stores = stores_in(folder)
    size = sum(s.bytes for s in stores)
    typer.echo(f"Folder: {folder}")
    typer.echo(f"Size: {size_words(size)} of {size_words(cache_limit())}")
    if not stores:
        return
    lines = [("slide", "what", "rows", "size", "used")]
    for s in stores:
        what = "unknown" if s.key is None else s.key.what
        age = age_words(time.time() - s.used)
        lines.append((s.slide_name, what, f"{s.rows:,}", size_words(s.bytes), age))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for slide, what, *numbers, age in lines:
        cells = [slide.ljust(widths[0]), what.ljust(widths[1])]
        cells += [n.rjust(w) for n, w in zip(numbers, widths[2:], strict=False)]
        typer.echo("  ".join([*cells, age]))


@cache_app.command("clear")
def clear_command(
    slide: Annotated[
        str | None, typer.Option(help="Only of this slide, by its file's name.")
    ] = None,
) -> None:
    """Delete what is kept; it is computed anew when it is needed."""
    from .folders import cache_folder, clear_cache, stores_in
    from .words import size_words

    known = sorted({s.slide_name for s in stores_in(cache_folder())})
    freed = clear_cache(slide=slide)
    if slide is not None and not freed:
        raise CacheError(
            f"Nothing is kept of a slide {slide}; there is: {', '.join(known) or 'nothing'}."
        )
    typer.echo(f"{size_words(freed)} freed")


@cache_app.command("limit")
def limit_command(
    gib: Annotated[float, typer.Argument(metavar="GB", help="Gigabytes; 0 keeps nothing.")],
) -> None:
    """Set how large the cache may grow; what was used longest ago makes way."""
    from .folders import cache_folder
    from .limit import cache_limit, make_room, set_cache_limit
    from .words import size_words

    set_cache_limit(gib)
    limit = cache_limit()
    make_room(cache_folder(), limit, 0, ())
    typer.echo(f"The cache takes at most {size_words(limit)}.")
    if limit != int(gib * 2**30):
        typer.echo("NAPARI_DKAN_CACHE_GB is set and comes before this limit.", err=True)
