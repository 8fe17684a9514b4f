"""Opens a run's report in a browser and looks: python browsed.py BROWSER REPORT."""

import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

browser, report = sys.argv[1:]
problems = []
with sync_playwright() as playwright:
    page = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"]).new_page()
    page.on("console", lambda message: message.type == "error" and problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda request: request.url.startswith("http") and problems.append(request.url))
    page.goto(Path(report).resolve().as_uri())
    page.locator("canvas").first.wait_for(timeout=20_000)  # a curve
    assert "digits" in page.locator("h1, header").first.inner_text()
    assert page.locator("img:visible").count() > 0
assert not problems, problems
print(f"{report}: opened")
