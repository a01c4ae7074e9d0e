"""The map and the pictures, and once the whole demonstration."""

import html.parser
import re
import shutil
import subprocess

import numpy as np
import pytest
from gnss_tables import table
from PIL import Image

from jaxalign.cli import gnss
from jaxalign.gnss import evaluation, figures, study, webmap
from jaxalign.gnss.city import Building, make_city
from jaxalign.gnss.evaluation import Followed
from jaxalign.gnss.heldout import Epoch
from jaxalign.gnss.matching import Observed

CITY = make_city([Building((np.array([[0.0, 0], [6, 0], [6, 6], [0, 6]]),), 20.0, "</script><b>tower")])
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


@pytest.fixture(scope="module")
def walk():
    truth = np.linspace([1.0, 7.0], [14.0, 14.0], 6)
    fix = truth + 2.0
    fix[2] = np.nan
    nothing = Observed(np.zeros((6, 1)), np.zeros((6, 1)), np.ones((6, 1), bool))
    epoch = Epoch(truth, fix, np.zeros(6), nothing, np.ones(6))
    return Followed(epoch, {"none": fix, "twin HMM": truth + 0.5})


@pytest.fixture(scope="module")
def database():
    outdoor = np.ones((5, 5), bool)
    outdoor[:2, :2] = False
    return table(outdoor, np.zeros((21, 2)), [[1.0, 0.0, 1.0]] * 21)


class _Links(html.parser.HTMLParser):
    """Every attribute by which a page could load something."""

    def __init__(self):
        super().__init__()
        self.loads, self.tags = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.loads += [value for name, value in attrs if name in ("src", "href", "data", "srcset", "action")]


@pytest.fixture(scope="module")
def page(tmp_path_factory, database, walk):
    path = tmp_path_factory.mktemp("map") / "map.html"
    epoch = walk.epoch
    receivers = epoch.truth_m, epoch.fix_m, epoch.truth_m + 1.0
    webmap.write_map(path, "A <city>", CITY, database, 0, receivers, [walk], "median < 3 m")
    return path


def test_the_map_is_one_file_that_loads_nothing(page):
    text = page.read_text()
    links = _Links()
    links.feed(text)
    assert links.loads == []
    assert links.tags.count("script") == 1
    assert re.findall(r"https?://|@import|url\(|fetch\(|XMLHttp", text) == []
    assert "A &lt;city&gt;" in text
    assert "median &lt; 3 m" in text
    assert "</script><b>" not in text
    assert "__" not in re.sub(r"base64,[^\"]*", "", text)
    assert "NaN" not in text
    assert text.count('"error"') == 5


def test_the_map_opens_in_a_browser(page):
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        pytest.skip("no Chromium on this machine")
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", page.as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    assert 'data-ready="yes"' in shown
    assert shown.count("<circle") == 5 + 5 + 5
    assert "<polygon" in shown


def test_pictures(tmp_path, database, walk):
    figures.error_maps(database, CITY, 0, tmp_path / "maps.png")
    figures.tracks([walk], CITY, database, tmp_path / "walks.png")
    figures.distributions({"none": np.arange(9.0)}, tmp_path / "cdf.png", "errors")
    figures.ageing({0.0: np.ones(3), 300.0: np.full(3, 2.0)}, {"street": 3.0}, tmp_path / "ageing.png")
    for name in ("maps", "walks", "cdf", "ageing"):
        with Image.open(tmp_path / f"{name}.png") as image:
            assert np.ptp(np.asarray(image)[..., :3]) > 100


@pytest.mark.slow
def test_the_demonstration_runs_and_the_twin_helps(tmp_path, capsys):
    config = gnss.Demo(receivers=80, tracks=2, half_width_m=90.0, draws=32, out=tmp_path / "demo")
    path = gnss.demo(config)
    names = {file.name for file in path.parent.iterdir()}
    assert {"map.html", "database.npz", "error_maps.png", "sky.png", "walks.png", "errors.png", "tables.txt"} <= names
    assert {"city.json", "walk.rnx"} <= names
    medians = dict(re.findall(r"^(\S+(?: \S+)*?)\s{2,}\s*(\d+\.\d)", capsys.readouterr().out, re.M))
    assert float(medians["twin+height"]) < 0.85 * float(medians["none"])
    assert float(medians["ranging"]) < 0.5 * float(medians["none"])


def test_a_study_knows_its_times():
    design = study.Design(hours=(0.0, 1.0), ages_s=(300.0,))
    seconds = study.epochs_of(study.SHIPPED_START, design).second_of_week - study.SHIPPED_START.second_of_week
    np.testing.assert_allclose(seconds, [0, 3600, -300, 3300])
    assert set(evaluation.PERCENTILES) == {50.0, 68.0, 95.0}
