"""`napari-dkan cache`: show, clear and limit the cache on disk."""

from __future__ import annotations

from typing import Annotated

import typer

from ..errors import CacheError

cache_app = typer.Typer(help="What is kept on disk of slides seen before.", no_args_is_help=True)


@cache_app.command("show")
def show_cache_command() -> None:
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
    stores = list_entries(folder)
    size = sum(s.size_bytes for s in stores)
    typer.echo(f"Folder: {folder}")
    typer.echo(f"Size: {format_size(size)} of {format_size(get_cache_limit())}")
    if not stores:
        return
    lines = [("slide", "what", "rows", "size", "used")]
    for s in stores:
        what = "unknown" if s.key is None else s.key.what
        age = format_age(time.time() - s.last_used)
        lines.append((s.slide_name, what, f"{s.row_count:,}", format_size(s.size_bytes), age))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for slide, what, *numbers, age in lines:
        cells = [slide.ljust(widths[0]), what.ljust(widths[1])]
        cells += [n.rjust(w) for n, w in zip(numbers, widths[2:], strict=False)]
        typer.echo("  ".join([*cells, age]))


@cache_app.command("clear")
def clear_cache_command(
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

    known = sorted({s.slide_name for s in list_entries(get_cache_folder())})
    freed = clear_cache(slide=slide)
    if slide is not None and not freed:
        raise CacheError(
            f"Nothing is kept of a slide {slide}; there is: {', '.join(known) or 'nothing'}."
        )
    typer.echo(f"{format_size(freed)} freed")


@cache_app.command("limit")
def limit_cache_command(
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
