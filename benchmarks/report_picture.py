"""The top of a report of `deocc eval` as Chromium shows it, for the documentation.

python -m benchmarks.report_picture reports/evaluation/report.html docs/evaluation.png
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Annotated

import typer
from PIL import Image

CHROMIUM = Path("/usr/bin/chromium")
WIDTH = 1240  # pixels
COLOURS = (256, 128, 64)  # of the palette, the most that keep it under the limit


def main(
    report: Annotated[Path, typer.Argument(help="report.html")],
    picture: Annotated[Path, typer.Argument(help="The PNG to write.")],
    height: Annotated[int, typer.Option(min=200, help="pixels, from the top of the page")] = 2000,
    scroll_to: Annotated[str, typer.Option(help="The id of a heading to begin at, e.g. figures or sheet2.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="bytes")] = 400_000,
) -> None:
    """Writes the picture; fails if no palette makes it small enough."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = CHROMIUM if CHROMIUM.exists() else None
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": WIDTH, "height": 1000})
        page.goto(report.resolve().as_uri())
        top = page.locator(f"#{scroll_to}").bounding_box() if scroll_to else None
        y = top["y"] if top else 0.0
        shown = min(float(height), page.evaluate("document.documentElement.scrollHeight") - y)
        taken = page.screenshot(full_page=True, clip={"x": 0, "y": y, "width": WIDTH, "height": shown})
        browser.close()
    with Image.open(io.BytesIO(taken)) as opened:
        whole = opened.convert("RGB")
    for colours in COLOURS:
        out = io.BytesIO()
        whole.quantize(colours).save(out, "PNG", optimize=True)
        if out.tell() < limit:
            picture.write_bytes(out.getvalue())
            typer.echo(f"{picture}: {whole.width}x{whole.height}, {out.tell()} bytes")
            return
    raise typer.BadParameter(f"{out.tell()} bytes are over the limit of {limit}; take less height")


if __name__ == "__main__":
    typer.run(main)
