"""`napari-dkan cache`: show, clear and limit the cache on disk."""

from __future__ import annotations

from typing import Annotated

import typer

from ..errors import CacheError

cache_app = typer.Typer(help="What is kept on disk of slides seen before.", no_args_is_help=True)


@cache_app.command("show")
def run_cache_show() -> None:
    """Print the cache's folder, size and limit, and what it holds."""
    import time

    from ..inference.cache.cache_directory import (
        format_age,
        format_size,
        get_cache_folder,
        get_cache_limit,
        list_entries,
    )

    folder = get_cache_folder()
    entries = list_entries(folder)
    size = sum(e.size_bytes for e in entries)
    typer.echo(f"Folder: {folder}")
    typer.echo(f"Size: {format_size(size)} of {format_size(get_cache_limit())}")
    if not entries:
        return
    lines = [("slide", "what", "rows", "size", "used")]
    for e in entries:
        content = "unknown" if e.key is None else e.key.what
        age = format_age(time.time() - e.last_used)
        lines.append((e.slide_name, content, f"{e.row_count:,}", format_size(e.size_bytes), age))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for slide, content, *numbers, age in lines:
        cells = [slide.ljust(widths[0]), content.ljust(widths[1])]
        cells += [n.rjust(w) for n, w in zip(numbers, widths[2:], strict=False)]
        typer.echo("  ".join([*cells, age]))


@cache_app.command("clear")
def run_cache_clear(
    slide: Annotated[
        str | None, typer.Option(help="Only of this slide, by its file's name.")
    ] = None,
) -> None:
    """Delete what is kept; it is computed anew when it is needed."""
    from ..inference.cache.cache_directory import (
        clear_cache,
        format_size,
        get_cache_folder,
        list_entries,
    )

    known = sorted({e.slide_name for e in list_entries(get_cache_folder())})
    freed = clear_cache(slide=slide)
    if slide is not None and not freed:
        raise CacheError(
            f"Nothing is kept of a slide {slide}; there is: {', '.join(known) or 'nothing'}."
        )
    typer.echo(f"{format_size(freed)} freed")


@cache_app.command("limit")
def run_cache_limit(
    gib: Annotated[float, typer.Argument(metavar="GB", help="Gigabytes; 0 keeps nothing.")],
) -> None:
    """Set how large the cache may grow; what was used longest ago makes way."""
    from ..inference.cache.cache_directory import (
        evict_entries,
        format_size,
        get_cache_folder,
        get_cache_limit,
        set_cache_limit,
    )

    set_cache_limit(gib)
    limit = get_cache_limit()
    evict_entries(get_cache_folder(), limit, 0, ())
    typer.echo(f"The cache takes at most {format_size(limit)}.")
    if limit != int(gib * 2**30):
        typer.echo("NAPARI_DKAN_CACHE_GB is set and comes before this limit.", err=True)
