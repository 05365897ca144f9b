"""A headless browser that opens a page and measures what a reader would see."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--hide-scrollbars",
)  # fmt: skip
LAYOUT = """
// elements that reach beyond the viewport, unless a box of their own scrolls; texts that overlap
function layout() {
  const room = document.documentElement.clientWidth, boxes = [];
  const shown = [...document.querySelectorAll('body *')].filter(
    e => e.checkVisibility() && !e.closest('svg, script, .skip'));
  const outside = shown.filter(e => !e.parentElement.closest('.scroll, pre')
    && e.getBoundingClientRect().right > room + 1).map(e => e.tagName);
  const texts = shown.filter(e => !e.closest('.scroll, pre')
    && /^(P|H1|H2|H3|LI|FIGCAPTION|IMG|B|SPAN|STRONG)$/.test(e.tagName)
    && e.getBoundingClientRect().height);
  const overlapping = [];
  for (let i = 0; i < texts.length; i++) for (let j = i + 1; j < texts.length; j++) {
    if (texts[i].contains(texts[j])) continue;
    const inline = [texts[i], texts[j]].map(e => e.getClientRects());
    for (const a of inline[0]) for (const b of inline[1])
      if (Math.min(a.right, b.right) - Math.max(a.left, b.left) > 2
          && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 6)
        overlapping.push(texts[i].tagName + ' ' + texts[j].tagName);
  }
  const open = [...document.querySelectorAll('section')].map(
    e => e.getBoundingClientRect().bottom);
  return {outside, overlapping: overlapping.slice(0, 5), open_px: Math.max(0, ...open)};
}
"""


def opened(page, folder, width_px):
    """Open a page in a frame of a given width (a window cannot be as narrow as a phone).

    Returns what it measures, and what the browser's console complains of.
    """
    probe = (
        "<script>addEventListener('load', () => { const d = document.documentElement;"
        "parent.postMessage({wide: d.scrollWidth, room: d.clientWidth, ...layout()}, '*') });"
        f"{LAYOUT}</script></body>"
    )
    (folder / "report.html").write_text(page.replace("</body>", probe))
    (folder / "frame.html").write_text(
        "<!doctype html><title>-</title><script>addEventListener('message', e => {"
        "document.title = JSON.stringify(e.data) })</script>"
        f"<iframe src='report.html' style='border:0' width='{width_px}' height='3000'></iframe>"
    )
    run = subprocess.run(
        [
            CHROMIUM, *FLAGS, "--enable-logging=stderr", "--v=0", "--window-size=1400,900",
            "--virtual-time-budget=5000", f"--user-data-dir={folder}/profile", "--dump-dom",
            (folder / "frame.html").as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    told = html.unescape(re.search(r"<title>(.*?)</title>", run.stdout).group(1))
    return json.loads(told), [line for line in run.stderr.splitlines() if "CONSOLE" in line]


def printed_pages(page, folder):
    """Return the number of pages of a page printed on A4."""
    (folder / "printed.html").write_text(page)
    subprocess.run(
        [
            CHROMIUM, *FLAGS, f"--user-data-dir={folder}/profile", "--no-pdf-header-footer",
            f"--print-to-pdf={folder / 'printed.pdf'}", (folder / "printed.html").as_uri(),
        ],
        capture_output=True, timeout=120, check=True,
    )  # fmt: skip
    return len(re.findall(rb"/Type */Page\b", (folder / "printed.pdf").read_bytes()))
