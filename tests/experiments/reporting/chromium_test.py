"""Every runner's page in a browser, on a desktop, on a phone, in the dark and in print."""

import pytest

from experiments.comparison import report as comparison
from experiments.core import files, results
from experiments.judge import report as judge
from experiments.pretrain import report as pretrain
from experiments.reporting import document
from experiments.reporting.document import Table
from tests.experiments.erasure import report_test as federations
from tests.experiments.exact.pages import report_test as exact
from tests.experiments.judge import report_test as judgements
from tests.experiments.judge_exact import report_test as exact_judgements
from tests.helpers import chromium, pages

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not chromium.PROGRAM, reason="no Chromium on this machine: the pages are not looked at"),
]

VIEWS = {  # name -> width in CSS pixels, medium, colour scheme
    "desktop": (1366, "screen", "light"),
    "phone": (390, "screen", "light"),
    "dark": (1366, "screen", "dark"),
    "print": (chromium.PRINTED, "print", "light"),
}


def readiness(path):
    rows = pages.three_seeds()
    weights = ("default", "weight=0.02", "equal_flops")
    rows += [pages.make("heldout_oracle", seed) for seed in range(3)]
    rows += [pages.make("reweight", seed, 0.7, weight) for seed in range(3) for weight in weights]
    rows += [pages.make("dpsgd", seed, 0.8, steps=12) for seed in range(3)]
    return comparison.write(pages.finished(rows, path))


def judged(path):
    found = judgements.found(judgements.every_row())
    files.write_json(path / "config.json", judgements.configs.get_config("digits").to_dict())
    files.write_text(path / "results.json", results.to_json(found))
    return judge.write(path)


def pretrained(path):
    accuracies = {"train_accuracy": 0.9, "validation_accuracy": 0.8, "test_accuracy": None}
    row = {"training": "pretrain", "variant": "default", "unlearner": "none", "dataset": "<b>&", "seed": 0, "steps": 20}
    row |= {"before": accuracies, "after": accuracies, "train_seconds": 1.5, "extra": {"examples": {"train": 500}}}
    pages.finished([row], path, {"name": "x"}, [{"event": "train", "step": s, "loss": 9 / s} for s in (5, 10, 20)])
    return pretrain.write(path)


PAGES = {
    "readiness": readiness,
    "judge": judged,
    "judge_exact": exact_judgements.written,
    "s3t": exact.written,
    "pretrain": pretrained,
    "federated": federations.written,
}


@pytest.fixture(scope="module")
def browser():
    with chromium.browser() as opened:
        yield opened


@pytest.mark.parametrize("runner", PAGES)
def test_a_page_is_whole_at_every_width_and_in_print(runner, browser, tmp_path):
    file = PAGES[runner](tmp_path)
    drawn = file.read_text().count("<figure>")
    for name, (width, media, scheme) in VIEWS.items():
        look = browser.open(file, width, media, scheme)
        assert look.inner == width and look.scroll <= width and not look.sticking, f"{name}: overflows sideways"
        assert not look.errors, name
        assert len(look.figures) == drawn > 0
        for figure in look.figures:
            assert figure["marks"] >= 5 and min(figure["width"], figure["height"]) > 50, f"{name}: {figure['caption']}"
            assert name != "phone" or figure["width"] <= width
        assert name == "phone" or not look.wide, f"{name}: a table is cut"
    assert browser.printed(tmp_path / "page.pdf") >= 1


def test_the_browser_sees_what_is_wrong(browser, tmp_path):
    """The check itself: a page too wide, a figure without marks, a script that fails."""
    page = document.to_html("t", [Table(["a", "b"], [["x", "y" * 400]])])
    broken = page.replace(
        "</body>", '<pre style="width: 2000px">x</pre><figure><svg></svg></figure><script>no()</script></body>'
    )
    file = tmp_path / "page.html"
    file.write_text(broken)
    look = browser.open(file, 1366)
    assert look.scroll > 1366 and look.sticking and look.errors and not look.figures[0]["marks"] and look.wide
