"""The gateway's page, as people use it: in Debian's Chromium, without a window."""

import contextlib, decimal, http.server, json, os, re, shutil, threading

import pytest
from playwright.sync_api import expect, sync_playwright

from conftest import Network, need
from test_adapters import cog_speech
from test_packages import built

# A small phone: what fits there fits everywhere.
PHONE = {"width": 360, "height": 740}
TOKEN = 10**18
HOSTILE = '"><img src=x onerror="window.hacked=1"><script>window.hacked=1</script>'
# What a stranger's server says: markup, what looks like the end of a stream, and a word that is wider than a phone.
STRANGE_ANSWER = HOSTILE + " [DONE] " + "w" * 300
# Browsers say of their own accord that they reached nobody.
GONE = ["ERR_CONNECTION_REFUSED", "ERR_CONNECTION_RESET", "ERR_INCOMPLETE_CHUNKED_ENCODING"]
# A busy machine takes its time.
expect.set_options(timeout=20_000)


@pytest.fixture(scope="module")
def browser():
    path = os.environ.get("ALTHING_CHROMIUM")
    if not path:
        need(["chromium"], ["chromium"], "The page's tests need Chromium (ALTHING_CHROMIUM can say where it is)")
        path = shutil.which("chromium")
    with sync_playwright() as playwright:
        # Of root it would take no page otherwise, and containers have little shared memory.
        args = ["--no-sandbox", "--disable-dev-shm-usage"]
        browser = playwright.chromium.launch(executable_path=path, args=args)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def painters(tmp_path_factory):
    """A network with the shipped model and one that paints."""
    network = Network(tmp_path_factory.mktemp("page"), "--model", built("landscapes"))
    yield network
    network.stop()


class Stranger(http.server.BaseHTTPRequestHandler):
    """A server elsewhere that speaks OpenAI's API and means no good."""

    def do_GET(self):
        self.answer(200, {"data": [{"id": "stranger"}]})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        question = body["messages"][-1]["content"]
        if question == "fail":
            return self.answer(400, {"error": {"message": HOSTILE, "type": "invalid_request_error"}})
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        # Provenance is the gateway's to give: the page believes none of this.
        lie = {"verification": "final", "agreed_by": ["everybody"], "fee": "0", "receipt": "/v1/receipts/none"}
        self.piece(STRANGE_ANSWER, althing=lie)
        if question == "slowly":
            self.server.may_end.wait(60)
        self.piece(" And that is the end.")
        self.wfile.write(b"data: [DONE]\n\n")

    def piece(self, text, **more):
        chunk = {"id": "1", "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}], **more}
        self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
        self.wfile.flush()

    def answer(self, status, body):
        body = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def stranger(directory):
    """A network whose model a stranger's server runs."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Stranger)
    server.may_end = threading.Event()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    network = None
    try:
        network = Network(directory, "--upstream", f"http://127.0.0.1:{server.server_port}/v1", "--providers", "2")
        network.may_end = server.may_end
        yield network
    finally:
        server.may_end.set()
        if network:
            network.stop()
        server.shutdown()


class Visit:
    """A person at the page, who finds everything by what is written there."""

    def __init__(self, page):
        self.page = page
        self.key, self.model = page.get_by_label("API key"), page.get_by_label("Model")
        self.question, self.button = page.get_by_label("Question"), page.get_by_role("button", name="Ask")
        self.error, self.answer = page.get_by_role("alert"), page.locator("#answer")
        self.public = page.get_by_text("your question and its answer become public")
        self.unchecked = page.get_by_text("Nobody can check what this model answers")

    def choose(self, model):
        # Models are listed once the gateway knows the key.
        self.model.select_option(model, timeout=20_000)

    def ask(self, question):
        self.question.fill(question)
        self.button.click()

    def is_answered(self, question):
        self.ask(question)
        self.wait()
        expect(self.error).to_be_empty()

    def wait(self):
        expect(self.button).to_be_enabled(timeout=60_000)
        self.fits()

    def fits(self):
        assert self.page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], "wider than the phone"

    def facts(self):
        names, values = (self.page.locator(f"#facts {kind}").all_inner_texts() for kind in ["dt", "dd"])
        return dict(zip(names, values, strict=True))

    def receipt(self):
        """What is behind the link."""
        with self.page.expect_popup() as popup:
            self.page.get_by_role("link", name="/v1/receipts/").click()
        receipt = json.loads(popup.value.locator("pre").inner_text())
        popup.value.close()
        return receipt


@contextlib.contextmanager
def visit(browser, network, key=None, failures=()):
    """A visit where nothing runs that should not, nothing goes elsewhere, and the console tells of `failures` alone."""
    context = browser.new_context(viewport=PHONE)
    page = context.new_page()
    errors, requests = [], []
    page.on("console", lambda message: errors.append(message.text) if message.type in ["error", "warning"] else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    context.on("request", lambda request: requests.append(request.url))
    try:
        page.goto(network.gateway + "/" + (f"#key={key}" if key else ""))
        visit = Visit(page)
        visit.fits()
        yield visit
        assert page.evaluate("window.hacked") is None
    finally:
        context.close()
    assert [error for error in errors if not any(failure in error for failure in failures)] == []
    # Pictures and sounds are in the page itself.
    assert [url for url in requests if not url.startswith((network.gateway + "/", "data:", "blob:"))] == []


def test_a_person_asks_one_provider_and_gets_a_receipt(browser, painters):
    with visit(browser, painters) as page:
        page.key.fill(painters.ready["api_key"])
        page.key.press("Tab")
        page.choose("tiny-stories")
        page.is_answered("Tell me a story about a fox")
        answer, facts = page.answer.inner_text(), page.facts()
        assert "fox" in answer.lower()
        order = painters.json("order", "show", facts["order"])
        assert order["lane"] == {"lane": "chosen", "provider": facts["provider"]}
        fee, unit = facts["fee"].split()
        assert decimal.Decimal(fee) * TOKEN == int(order["fee"]) and unit == "ALTH" and len(fee) < 8
        assert facts["agreed by"] == "nobody yet" and facts["verification"] == "none"
        receipt = page.receipt()
        assert receipt["proof"]["order"]["id"] == facts["order"]
        assert json.loads(bytes.fromhex(receipt["output"]))["text"] == answer

        # The answer is still there, and the key at the next visit.
        expect(page.answer).to_have_text(answer)
        page.page.reload()
        expect(page.key).to_have_value(painters.ready["api_key"])


def test_a_person_is_warned_that_the_open_lane_is_public_and_sees_who_agreed(browser, painters):
    with visit(browser, painters, painters.ready["api_key"]) as page:
        page.choose("tiny-stories")
        expect(page.public).to_be_hidden()
        page.choose("tiny-stories:open")
        expect(page.public).to_be_visible()
        expect(page.unchecked).to_be_hidden()
        assert page.facts() == {}, "nothing is sent yet"
        page.ask("Tell me a story about a fox")
        page.wait()
        facts = page.facts()
        assert "fox" in page.answer.inner_text().lower() and facts["verification"] == "agreed"
        count, who = re.fullmatch(r"(\d+) others? got the same bits: (.*)", facts["agreed by"]).groups()
        assert len(set(who.split(", "))) == int(count) >= 1
        providers = {provider["account"] for provider in painters.ready["providers"]}
        assert set(who.split(", ")) <= providers - {facts["provider"]} and facts["provider"] in providers
        order = page.receipt()["proof"]["order"]
        assert order["id"] == facts["order"] and order["lane"] == {"lane": "open"}


def test_a_model_that_paints_shows_a_picture(browser, painters):
    with visit(browser, painters, painters.ready["api_key"]) as page:
        for model in ["landscapes", "landscapes:open"]:
            page.choose(model)
            # What was asked is said of the picture to who cannot see it, as text.
            page.is_answered(HOSTILE + " northern lights")
            picture = page.answer.get_by_role("img")
            expect(picture).to_have_attribute("alt", HOSTILE + " northern lights")
            size = picture.evaluate("img => img.decode().then(() => [img.naturalWidth, img.naturalHeight])")
            assert size == [512, 512]
            facts = page.facts()
            assert facts["model"] == "landscapes" and facts["fee"].endswith(" ALTH")
            assert facts["verification"] == ("agreed" if model.endswith(":open") else "none")
            assert page.receipt()["proof"]["order"]["id"] == facts["order"]


def test_a_model_that_speaks_is_heard(browser, tmp_path):
    server = cog_speech(tmp_path)
    try:
        network = Network(tmp_path, "--upstream", server.url, "--providers", "2")
        try:
            with visit(browser, network, network.ready["api_key"]) as page:
                page.choose("cog-model")
                expect(page.unchecked).to_be_visible()
                page.ask("hello")
                page.wait()
                sound = page.answer.locator("audio")
                sound.evaluate("audio => audio.readyState || new Promise(heard => audio.onloadedmetadata = heard)")
                assert sound.evaluate("audio => audio.duration") == pytest.approx(0.5, abs=0.01)
                assert page.facts()["fee"].endswith(" ALTH")
        finally:
            network.stop()
    finally:
        server.stop()


def test_a_strangers_answer_streams_in_as_text_and_is_not_believed(browser, tmp_path):
    with stranger(tmp_path) as network, visit(browser, network, network.ready["api_key"], ["400"]) as page:
        page.choose("stranger")
        expect(page.unchecked).to_be_visible()
        expect(page.public).to_be_hidden()
        page.ask("slowly")
        # The first half is there while the server still thinks; of the rest only what the gateway knows.
        expect(page.answer).to_have_text(STRANGE_ANSWER, timeout=60_000)
        expect(page.button).to_be_disabled()
        facts = page.facts()
        assert facts["model verification"] == "none" and "agreed by" not in facts and "receipt" not in facts
        network.may_end.set()
        page.wait()
        expect(page.answer).to_have_text(STRANGE_ANSWER + " And that is the end.")
        assert page.answer.locator("*").count() == 0, "text alone"
        facts = page.facts()
        assert "agreed by" not in facts and "verification" not in facts and facts["fee"] != "0 ALTH"
        assert page.receipt()["proof"]["order"]["id"] == facts["order"]

        # Its errors are text as well.
        page.ask("fail")
        page.wait()
        expect(page.error).to_contain_text(HOSTILE)
        assert page.error.locator("*").count() == 0
        expect(page.answer).to_be_empty()


def test_a_question_with_markup_is_a_question(browser, painters):
    with visit(browser, painters, painters.ready["api_key"]) as page:
        for model in ["tiny-stories", "tiny-stories:open"]:
            page.choose(model)
            page.is_answered(HOSTILE + " a fox")
            expect(page.question).to_have_value(HOSTILE + " a fox")
            receipt = page.receipt()
            assert json.loads(bytes.fromhex(receipt["input"]))["messages"][0]["content"] == HOSTILE + " a fox"
            answered = json.loads(bytes.fromhex(receipt["output"]))["text"]
            assert answered and page.answer.text_content() == answered


def test_a_wrong_key_is_said_at_once_and_can_be_corrected(browser, painters):
    with visit(browser, painters, "sk-wrong", ["401"]) as page:
        expect(page.error).to_contain_text("Incorrect API key")
        page.ask("Tell me a story about a fox")
        page.wait()
        expect(page.error).to_contain_text("Incorrect API key")
        expect(page.answer).to_be_empty()
        assert page.facts() == {}
        page.key.fill(painters.ready["api_key"])
        page.ask("Tell me a story about a fox")
        expect(page.answer).to_contain_text("fox", ignore_case=True, timeout=60_000)
        page.wait()
        expect(page.error).to_be_empty()


def test_a_gateway_that_is_gone_is_said_and_nothing_written_is_lost(browser, tmp_path):
    with stranger(tmp_path) as network, visit(browser, network, network.ready["api_key"], GONE) as page:
        page.choose("stranger")
        page.ask("slowly")
        expect(page.answer).to_have_text(STRANGE_ANSWER, timeout=60_000)
        network.process.kill()
        network.process.wait(30)
        page.wait()
        # Half an answer stays, and is not taken for a whole one.
        expect(page.error).to_contain_text("lost before the answer was complete")
        expect(page.answer).to_have_text(STRANGE_ANSWER)
        assert "receipt" not in page.facts()
        page.ask("Are you there?")
        page.wait()
        expect(page.error).to_contain_text("cannot be reached")
        expect(page.answer).to_be_empty()
        expect(page.question).to_have_value("Are you there?")
