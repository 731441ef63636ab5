"""One headless Chromium for all browser tests, and a place for their pictures."""

import shutil
from pathlib import Path

import pytest

HOW = "make test-browser installs it on Debian; elsewhere put Chromium or Chrome and its chromedriver on the PATH"
PICTURES = Path(__file__).parents[2] / "runs" / "browser"


@pytest.fixture(scope="session")
def chromium():
    webdriver = pytest.importorskip("selenium.webdriver")
    binary, driver = (
        next(
            filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
        ),
        shutil.which("chromedriver"),
    )
    if not binary or not driver:
        pytest.skip(f"no Chromium or no chromedriver: {HOW}")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--force-prefers-reduced-motion",
        "--window-size=1500,1000",
    ):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield browser
    browser.quit()


@pytest.fixture(scope="session")
def picture(chromium):
    "picture('name') writes runs/browser/name.png of what the browser shows."
    PICTURES.mkdir(parents=True, exist_ok=True)
    return lambda name: chromium.save_screenshot(str(PICTURES / f"{name}.png"))
