"""The page in a real browser: silent, offline, switchable, and its numbers those of the tables."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from fmaudit_core.report.export import write_report
from fmaudit_core.report.input.report_input import ReportInput
from fmaudit_core.standalone.compare_audits import compare, write_comparison
from tests.report.frames import made_up
from tests.report.mitigation_frames import mitigated

axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-core is not installed")
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed: the page was not opened"),
]


@pytest.fixture(scope="module")
def inputs() -> ReportInput:
    return mitigated(made_up(small_group=True), small_group=True)


@pytest.fixture(scope="module")
def url(inputs: ReportInput, tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_report(tmp_path_factory.mktemp("report"), inputs).page.as_uri()


@pytest.fixture(scope="module")
def launched() -> Iterator[Any]:
    with sync_api.sync_playwright() as play:
        opened = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


@pytest.fixture
def browser(launched: Any) -> Iterator[Any]:
    """One browser for all tests, in which no page of another test is open."""
    yield launched
    for context in launched.contexts:
        context.close()


def _open(
    browser: Any, url: str, *, width: int = 1280, theme: str = "light", script: bool = True
) -> tuple[Any, list[str]]:
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=theme, java_script_enabled=script
    )
    page, heard = context.new_page(), []
    page.on("console", lambda message: heard.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: heard.append(f"error: {error}"))
    page.on("request", lambda request: heard.append(f"request: {request.url}") if request.url != url else None)
    page.goto(url)
    if script:
        page.locator("html[data-drawn]").wait_for()
    return page, heard


def _cell(page: Any, subgroup: str, metric: str) -> str:
    """Text of a metric in the one table of subgroups that is shown."""
    row = page.locator(
        ".cell[open]:not([hidden]) .subgroups tr", has=page.get_by_role("rowheader", name=subgroup, exact=True)
    )
    return str(row.locator(f'[data-metric="{metric}"] .num').inner_text())


def _drawn(page: Any, slot: str) -> list[float]:
    marks = f"""[...document.querySelector('[data-slot="{slot}"]').data].filter((one) => one.mode === "markers")"""
    return sorted(page.evaluate(f"{marks}.flatMap((one) => [...one.x])"))


SIGHTS = pytest.mark.parametrize(("theme", "width"), [("light", 1280), ("dark", 1280), ("light", 390)])


def _broken_rules(page: Any, *, at_least: int) -> list[tuple[str, str, str]]:
    """What axe-core finds against WCAG 2.2, levels A and AA, with everything unfolded."""
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true })")
    level = {
        "runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]},
        "resultTypes": ["violations"],  # of passes, their number is enough
    }
    found = axe.Axe().run(page, options=level).response
    assert len(found["passes"]) > at_least  # it has looked
    return [(one["id"], node["html"], node["failureSummary"]) for one in found["violations"] for node in one["nodes"]]


@SIGHTS
def test_no_rule_of_wcag_a_or_aa_is_broken(browser: Any, url: str, theme: str, width: int) -> None:
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme, bypass_csp=True)
    page = context.new_page()
    page.goto(url)
    page.locator("html[data-drawn]").wait_for()
    assert _broken_rules(page, at_least=20) == []


@pytest.fixture(scope="module")
def beside(inputs: ReportInput, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The other pages of a report, and of a comparison with and without a test."""
    folder = tmp_path_factory.mktemp("beside")
    written = write_report(folder / "first", inputs)
    other = inputs.audit_findings.with_columns(
        verdict=pl.when(attribute="sex").then(pl.lit("disparity")).otherwise("verdict")
    )
    write_report(folder / "second", dataclasses.replace(inputs, audit_findings=other))
    whole = compare(folder / "first", folder / "second")
    # every task has the same kinds of row: a good and a weak encoder, a control, both poolings, a subgroup that is withheld
    untested = dataclasses.replace(
        whole,
        rows=[one for one in whole.rows if one["task"] == "pe"],
        findings=[one for one in whole.findings if one["task"] == "pe"],
    )
    assert {one["encoder"] for one in untested.rows} == {one["name"] for one in inputs.encoders}
    assert "withheld" in {one["counts"] for one in untested.rows}
    judged = [
        row
        | {
            "p_value": 0.001,
            "q_value": 0.001 if nth % 9 == 0 else 0.6,
            "status": "tested",
            "change": row["change"] and 0.1,
        }
        for nth, row in enumerate(untested.rows)
    ]
    tested = dataclasses.replace(untested, rows=judged, no_test=None)
    assert tested.significant()
    pages = {path.stem: path.as_uri() for path in written.documents if path.suffix == ".html"}
    for name, comparison in (("untested", untested), ("tested", tested)):
        pages[name] = write_comparison(folder / f"{name}.html", comparison).as_uri()
    return pages


@SIGHTS
@pytest.mark.parametrize("name", ["tripod_ai", "claim_2024", "standing_together", "chai", "untested", "tested"])
def test_the_other_pages_break_no_rule_and_fit_the_screen(
    browser: Any, beside: dict[str, str], name: str, theme: str, width: int
) -> None:
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme, bypass_csp=True)
    page, heard = context.new_page(), []
    page.on("console", lambda message: heard.append(message.text))
    page.on("request", lambda request: heard.append(request.url) if request.url != beside[name] else None)
    page.goto(beside[name])
    assert heard == []
    assert _broken_rules(page, at_least=8) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(int(one) for one in dark[4:-1].split(",")[:3]) < 200) is (theme == "dark"), dark


def test_a_comparison_shows_what_changed_and_folds_the_rest(browser: Any, beside: dict[str, str]) -> None:
    page = browser.new_page()
    page.goto(beside["tested"])
    shown = page.locator("tbody tr:visible")
    assert set(shown.locator("td:last-child").all_inner_texts()) == {"changed", "differs"}
    assert page.locator("details:visible").count() > 3
    page.locator("summary").first.click()
    assert "not shown to have changed" in shown.locator("td:last-child").all_inner_texts()


def test_the_page_opens_without_a_request_or_a_complaint(browser: Any, url: str) -> None:
    page, heard = _open(browser, url)
    page.locator('[data-slot="udr"] .main-svg').first.wait_for()
    assert page.locator(".plot .main-svg").count() >= 3 * 10
    assert heard == []


def test_it_starts_with_embolism_and_the_first_encoder_that_is_no_control(browser: Any, url: str) -> None:
    page, _ = _open(browser, url)
    assert page.input_value("#encoder") == "lite0"
    assert page.input_value("#task") == "pe"
    assert page.locator(".cell:visible").count() == 1


@pytest.mark.parametrize(
    ("encoder", "task", "variant", "pooling"),
    [("lite1", "mortality_1m", "0", "mean"), ("grey_histogram", "pe", "1", "max")],
)
def test_the_filters_switch_figures_and_tables_to_the_numbers_of_the_tables(
    browser: Any, url: str, inputs: ReportInput, encoder: str, task: str, variant: str, pooling: str
) -> None:
    page, heard = _open(browser, url)
    page.select_option("#encoder", encoder)
    page.select_option("#task", task)
    page.select_option("#variant", variant)
    rows = inputs.subgroup_metrics.filter(encoder=encoder, task=task, pooling=pooling)
    female = rows.filter(subgroup="female")
    for metric in ("udr", "fpr"):
        assert _cell(page, "Female", metric) == f"{100 * female.filter(metric=metric)['value'].item():.1f}%"
    assert _cell(page, "Female", "auroc") == f"{female.filter(metric='auroc')['value'].item():.3f}"
    shown = rows.filter(metric="auroc", attribute="age_band").get_column("value").to_list()
    drawn = _drawn(page, "auroc")
    assert all(any(abs(x - value) < 1e-4 for x in drawn) for value in shown)
    assert heard == []


def test_a_finding_leads_to_its_attribute_alone_and_its_address_to_the_same(
    browser: Any, url: str, inputs: ReportInput
) -> None:
    page, heard = _open(browser, url)
    page.locator("#findings table.findings a", has_text="Sex").nth(1).click()
    page.locator("#shown", has_text="lite1").wait_for()  # the page follows its address in an event of its own
    chosen = {box: page.input_value(f"#{box}") for box in ("encoder", "task", "attribute")}
    assert chosen == {"encoder": "lite1", "task": "pe", "attribute": "Sex"}
    shown = page.locator(".cell[open]:not([hidden])")
    assert shown.get_by_role("rowheader", name="Female", exact=True).first.is_visible()
    assert not shown.get_by_role("rowheader", name="18\N{EN DASH}40", exact=True).first.is_visible()
    low, high = page.evaluate("""document.querySelector('[data-slot="udr"]').layout.yaxis.range""")
    marks = """[...document.querySelector('[data-slot="udr"]').data].filter((one) => one.mode === "markers")"""
    within = f"one.y[at] <= {low} && one.y[at] >= {high}"
    drawn = page.evaluate(f"{marks}.flatMap((one) => [...one.x].filter((_, at) => {within}))")
    values = inputs.subgroup_metrics.filter(encoder="lite1", task="pe", pooling="mean", metric="udr", attribute="sex")
    assert sorted(drawn) == sorted(round(100 * one, 4) for one in values.get_column("value"))
    address = page.url
    again, _ = _open(browser, url)
    again.goto(address)
    again.reload()
    again.locator("html[data-drawn]").wait_for()
    assert again.input_value("#attribute") == "Sex"
    again.select_option("#attribute", "")
    assert "attribute" not in again.url
    shown = again.locator(".cell[open]:not([hidden])")
    assert shown.get_by_role("rowheader", name="18\N{EN DASH}40", exact=True).first.is_visible()
    assert heard == []


def test_calibration_and_intersections_follow_the_filters(browser: Any, url: str, inputs: ReportInput) -> None:
    page, heard = _open(browser, url)
    page.select_option("#encoder", "lite1")
    page.select_option("#task", "mortality_1m")
    chosen = {"encoder": "lite1", "task": "mortality_1m", "pooling": "mean"}
    page.evaluate("document.querySelectorAll('.more').forEach((one) => { one.open = true })")
    slope = inputs.subgroup_calibration.filter(**chosen, subgroup="female").get_column("slope").item()
    assert any(abs(x - slope) < 1e-4 for x in _drawn(page, "calibration"))
    shown = page.locator(".cell[open]:not([hidden])")
    assert (
        f"{slope:.2f}"
        in shown.locator(".calibration tr", has=page.get_by_role("rowheader", name="Female", exact=True)).inner_text()
    )
    worst = inputs.intersections.filter(**chosen, attribute="sex x age_band", metric="udr").drop_nulls("rank")
    assert any(abs(x - 100 * worst.get_column("value").max()) < 1e-3 for x in _drawn(page, "intersections"))
    # scores that are no probabilities: the figure gives way to a sentence
    page.select_option("#encoder", "grey_histogram")
    assert not page.locator('[data-slot="calibration"]').is_visible()
    assert "not probabilities" in shown.inner_text()
    page.select_option("#encoder", "lite0")
    assert page.locator('[data-slot="calibration"] .main-svg').first.is_visible()
    assert heard == []


def test_pairs_are_those_of_the_outcome_and_their_subgroups_unfold(browser: Any, url: str, inputs: ReportInput) -> None:
    page, heard = _open(browser, url)
    page.select_option("#task", "readmission_12m")
    assert page.locator(".pair:visible").count() == 3
    assert set(page.locator(".pair:visible").evaluate_all("(all) => all.map((one) => one.dataset.task)")) == {
        "readmission_12m"
    }
    drawn = _drawn(page, "pairs")
    rows = inputs.model_comparisons.filter(task="readmission_12m", attribute="overall", metric="auroc")
    assert drawn == sorted(round(one, 4) for one in rows.get_column("difference"))
    first = page.locator(".pair:visible").first
    assert not first.get_by_text("Sex: Female").is_visible()
    first.locator("summary").click()
    assert first.get_by_text("Sex: Female").is_visible()
    assert "too few to show" in first.inner_text()
    assert heard == []


def test_mitigation_follows_the_filters_and_arrows_the_strategy(browser: Any, url: str, inputs: ReportInput) -> None:
    page, heard = _open(browser, url)
    assert page.input_value("#strategy") == "dfr"  # the one that is recommended
    page.select_option("#encoder", "lite1")
    page.select_option("#task", "mortality_1m")
    page.select_option("#strategy", "leace")
    assert page.locator(".mitigated:visible").count() == 1
    rows = inputs.mitigation_subgroups.filter(
        encoder="lite1", task="mortality_1m", strategy="leace", metric="udr", target_attribute="sex", attribute="sex"
    )
    drawn = _drawn(page, "mitigated-arrows")
    for name in ("before", "after"):
        assert all(any(abs(x - 100 * value) < 1e-3 for x in drawn) for value in rows[name])
    assert page.locator('[data-slot="mitigated-price"] .main-svg').first.is_visible()
    shown = page.locator(".mitigated[open]:visible").inner_text()
    assert "levels down" in shown
    assert "not interpretable" in shown
    # the control was not mitigated
    page.select_option("#encoder", "grey_histogram")
    assert not page.locator("#mitigation-figures").is_visible()
    assert page.locator("#unmitigated").is_visible()
    assert heard == []


def test_mitigation_is_cut_to_the_attribute(browser: Any, url: str, inputs: ReportInput) -> None:
    page, heard = _open(browser, url)
    page.select_option("#attribute", "Sex")
    for slot in ("gaps", "arrows", "probing"):
        plot = f"""document.querySelector('[data-slot="mitigated-{slot}"]')"""
        low, high = page.evaluate(f"{plot}.layout.yaxis.range")
        ticks = page.evaluate(f"{plot}.layout.yaxis.ticktext.filter((_, at) => at <= {low} && at >= {high})")
        assert ticks[0] == "<b>Sex</b>", slot
        assert not any("<b>" in one for one in ticks[1:]), slot
        shown = page.locator(f'[data-slot="mitigated-{slot}"] .ytick').all_text_contents()
        assert "Age band" not in shown, slot
        assert "Sex" in shown, slot
    sexes = inputs.mitigation_subgroups.filter(
        encoder="lite0", task="pe", strategy="dfr", metric="udr", target_attribute="sex", attribute="sex"
    )
    low, high = page.evaluate("""document.querySelector('[data-slot="mitigated-arrows"]').layout.yaxis.range""")
    marks = (
        """[...document.querySelector('[data-slot="mitigated-arrows"]').data].filter((one) => one.mode === "markers")"""
    )
    within = f"one.y[at] <= {low} && one.y[at] >= {high}"
    drawn = page.evaluate(f"{marks}.flatMap((one) => [...one.x].filter((_, at) => {within}))")
    assert sorted(drawn) == pytest.approx(
        sorted(100 * one for name in ("before", "after") for one in sexes[name]), abs=1e-3
    )
    assert page.locator('[data-slot="mitigated-price"] h4').all_inner_texts() == ["Sex"]
    page.evaluate("document.querySelectorAll('#mitigation details').forEach((one) => { one.open = true })")
    told = page.locator("#mitigation [data-attribute]:visible")
    assert set(told.evaluate_all("(all) => all.map((one) => one.dataset.attribute)")) == {"Sex"}
    kinds = ("tbody", ".scroll", "table.probes tr", ".capacity tr", ".ladder tr")
    for kind in kinds:
        assert page.locator("#mitigation").locator(f"{kind}[data-attribute]:visible").count(), kind
    # a strategy that could not be fitted for an attribute has no arrows, the others keep theirs
    page.select_option("#attribute", "Race and ethnicity")
    page.select_option("#strategy", "group_dro")
    assert not page.locator('[data-slot="mitigated-arrows"]').is_visible()
    assert page.locator('[data-slot="mitigated-gaps"]').is_visible()
    page.select_option("#attribute", "")
    assert page.locator('[data-slot="mitigated-arrows"]').is_visible()
    assert page.locator("#mitigation").get_by_text("Aimed at age band").first.is_visible()
    assert heard == []


def test_a_matrix_of_subgroups_is_hatched_where_untested(browser: Any, url: str) -> None:
    page, _ = _open(browser, url)
    page.evaluate("document.querySelectorAll('.more').forEach((one) => { one.open = true })")
    hatched = page.locator(".cell[open]:not([hidden]) .cross td.few").first
    assert "repeating-linear-gradient" in hatched.evaluate("(one) => getComputedStyle(one).backgroundImage")


def test_header_and_summary_are_one_screen(browser: Any, tmp_path: Path) -> None:
    made = mitigated(made_up(small_group=True), small_group=True)
    names = ("subgroup_metrics", "fairness_gaps", "threshold_sweep", "audit_findings", "mitigation_recommendations")
    one = {name: getattr(made, name).filter(pl.col("encoder") != "lite1") for name in names}
    encoders = [encoder for encoder in made.encoders if encoder["name"] != "lite1"]
    alone = dataclasses.replace(made, encoders=encoders, generated_at="2026-03-01", **one)
    page, _ = _open(browser, write_report(tmp_path, alone).page.as_uri())
    assert page.locator("#summary .card").count() == 3
    assert page.locator("#summary .help").is_visible()
    assert page.evaluate("document.getElementById('summary').getBoundingClientRect().bottom + window.scrollY") <= 900


def test_with_two_encoders_the_summary_still_fits_the_screen(browser: Any, url: str) -> None:
    page, _ = _open(browser, url)
    assert page.locator("#summary .side-by-side tbody tr").count() == 2
    assert page.locator("#summary .help li").count() == 2
    assert page.evaluate("document.querySelector('#summary .help').getBoundingClientRect().bottom") <= 900


def test_what_is_kept_from_sight_widens_no_page(browser: Any, inputs: ReportInput, tmp_path: Path) -> None:
    # marks for readers of the screen stand in the last columns of tables that are wider than a phone
    harmed = pl.when(pl.col("strategy") == "group_thresholds", status="tested")
    worse = inputs.mitigation_subgroups.with_columns(
        delta=harmed.then(0.2).otherwise("delta"), ci_low=harmed.then(0.1).otherwise("ci_low"),
        ci_high=harmed.then(0.3).otherwise("ci_high"),
    )  # fmt: skip
    shown = dataclasses.replace(inputs, mitigation_subgroups=worse)
    page, _ = _open(browser, write_report(tmp_path, shown).page.as_uri(), width=390)
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true })")
    assert page.locator(".changes .harmed .unseen").count() > 10
    assert page.evaluate("document.querySelector('.changes').getBoundingClientRect().right") > 390
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    page.evaluate("window.scrollTo(400, 0)")
    assert page.evaluate("window.scrollX") == 0


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_nothing_sticks_out_at_the_side(browser: Any, url: str, width: int, theme: str) -> None:
    page, heard = _open(browser, url, width=width, theme=theme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("document.documentElement.dataset.theme") == theme
    # no tick label is cut off at the left of a figure
    cut = "[...document.querySelectorAll('.plot')].filter((plot) => [...plot.querySelectorAll('.ytick text')].some("
    assert (
        page.evaluate(
            f"{cut}(text) => text.getBoundingClientRect().left < plot.getBoundingClientRect().left - 1)).length"
        )
        == 0
    )
    assert heard == []


def test_the_theme_can_be_switched_by_keyboard(browser: Any, url: str) -> None:
    page, _ = _open(browser, url)
    page.focus("#theme")
    page.keyboard.press("Enter")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_without_script_the_findings_and_tables_are_there(browser: Any, url: str) -> None:
    page, _ = _open(browser, url, script=False)
    assert page.locator("table.findings").is_visible()
    assert page.locator("table.subgroups").first.is_visible()
    assert "The figures need JavaScript" in page.inner_text("#explore")
    assert page.locator("table.strategies").first.is_visible()
    assert "What would help?" in page.inner_text("#summary")


def test_it_prints_with_its_figures(browser: Any, url: str, tmp_path: Path) -> None:
    page, heard = _open(browser, url, theme="dark")
    page.pdf(path=str(tmp_path / "report.pdf"), prefer_css_page_size=True)
    assert (tmp_path / "report.pdf").stat().st_size > 100_000
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    # on paper nothing can be unfolded
    assert not page.locator("details.probed[open]").count()
    folded = page.locator(".cell[open]:not([hidden]) .more:not([open])")
    n_folded = folded.count()
    assert n_folded > 1
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert folded.count() == 0
    assert page.locator("details.probed[open]").count() == 1
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert folded.count() == n_folded
    assert not page.locator("details.probed[open]").count()
    assert heard == []
