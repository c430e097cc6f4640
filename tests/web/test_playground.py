"""The playground as a visitor meets it: real page, real service, fake engine."""

from __future__ import annotations

import base64
import io
import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from playwright.sync_api import expect

from .conftest import GREY, SIZE, Host, Playground, png, running

pytestmark = pytest.mark.browser

INCLUDE, EXCLUDE = "POINT_LABEL_INCLUDE", "POINT_LABEL_EXCLUDE"


def points_of(body: dict[str, Any]) -> list[tuple[int, int, str]]:
    """Points of a request, in whole pixels."""
    return [(round(p["x"]), round(p["y"]), p["label"]) for p in body["prompt"].get("points", [])]


def is_tinted(pixel: list[int]) -> bool:
    """The mask's colour is blue; the picture is grey."""
    red, _, blue = pixel
    return blue > red + 20


# Selecting


def test_hover_shows_the_mask_under_the_pointer_and_leaving_takes_it_away(playground: Playground) -> None:
    playground.page.mouse.move(*playground.on_screen(150, 100))
    playground.until(lambda: is_tinted(playground.pixel(150, 100)))
    assert playground.pixel(250, 40) == [GREY] * 3
    playground.page.mouse.move(2, 2)
    playground.until(lambda: playground.pixel(150, 100) == [GREY] * 3)


def test_hover_asks_once_at_a_time_and_ends_at_the_newest_place(playground: Playground) -> None:
    pending = most = 0

    def slow(route: Any) -> None:
        nonlocal pending, most
        pending += 1
        most = max(most, pending)
        playground.page.wait_for_timeout(60)
        route.continue_()
        pending -= 1

    playground.page.route("**/v1/segment", slow)
    for x in range(60, 240, 6):
        playground.page.mouse.move(*playground.on_screen(x, 100))
    playground.until(lambda: is_tinted(playground.pixel(240, 100)))  # within the mask of the last place only
    hovers = [points_of(body)[0] for _, body in playground.asked]
    assert hovers[-1] == (234, 100, INCLUDE)
    assert len(hovers) < 25
    assert most == 1


def test_click_right_click_shift_click_undo_and_clear_make_the_prompt(playground: Playground) -> None:
    playground.click(150, 100)
    assert points_of(playground.last("segment")) == [(150, 100, INCLUDE)]
    playground.click(155, 105, button="right")
    playground.page.keyboard.down("Shift")
    playground.click(145, 95)
    playground.page.keyboard.up("Shift")
    added = [(150, 100, INCLUDE), (155, 105, EXCLUDE), (145, 95, EXCLUDE)]
    assert points_of(playground.last("segment")) == added
    with playground.page.expect_response("**/v1/segment"):
        playground.page.keyboard.press("Control+z")
    assert points_of(playground.last("segment")) == added[:2]
    with playground.page.expect_response("**/v1/segment"):
        playground.page.get_by_role("button", name="Undo").click()
    assert points_of(playground.last("segment")) == added[:1]
    playground.page.get_by_role("button", name="Clear").click()
    expect(playground.page.get_by_role("button", name="Complete", exact=True)).to_be_disabled()
    playground.until(lambda: playground.pixel(150, 100) == [GREY] * 3)


def test_subtracting_from_nothing_asks_nothing_and_says_why(playground: Playground) -> None:
    playground.page.mouse.click(*playground.on_screen(150, 100), button="right")
    expect(playground.page.get_by_role("status")).to_contain_text("first")
    assert all(point[2] == INCLUDE for _, body in playground.asked for point in points_of(body))


def test_a_drag_draws_a_box(playground: Playground) -> None:
    mouse = playground.page.mouse
    mouse.move(*playground.on_screen(200, 150))
    mouse.down()
    mouse.move(*playground.on_screen(120, 90), steps=5)
    with playground.page.expect_response("**/v1/segment"):
        mouse.up()
    box = playground.last("segment")["prompt"]["box"]
    assert box == pytest.approx({"x_min": 120, "y_min": 90, "x_max": 200, "y_max": 150}, abs=1.01)
    assert "points" not in playground.last("segment")["prompt"]


def test_another_candidate_is_sent_as_a_mask(playground: Playground) -> None:
    playground.click(150, 100)
    playground.page.get_by_label("Mask 2").check()
    playground.complete()
    playground.page.locator(".viewer").wait_for()
    mask = Image.open(io.BytesIO(base64.b64decode(playground.last("complete")["prompt"]["mask"]["png"])))
    assert mask.size == SIZE
    assert mask.getbbox() == (146, 96, 154, 104)  # the fake's second square is half as large


def test_the_keyboard_alone_selects(playground: Playground) -> None:
    playground.stage.focus()
    playground.page.keyboard.press("ArrowRight")
    playground.page.keyboard.press("Shift+ArrowDown")
    with playground.page.expect_request(lambda request: "segment" in request.url):
        playground.page.keyboard.press("Enter")
    playground.until(lambda: points_of(playground.last("segment")) == [(153, 101, INCLUDE)])


# Coordinates


@pytest.mark.parametrize("ratio", [1, 2.625])
@pytest.mark.parametrize("width", [390, 1200])
@pytest.mark.parametrize("zoom", [1, 1.25])
def test_coordinates_are_image_pixels_at_any_scale(
    visit: Callable[..., Playground], ratio: float, width: int, zoom: float
) -> None:
    size = (640, 480)
    playground = visit(viewport={"width": width, "height": 1000}, device_scale_factor=ratio)
    playground.page.evaluate("zoom => { document.body.style.zoom = zoom; }", zoom)
    playground.open(png(size))
    playground.stage.scroll_into_view_if_needed()
    playground.click(480, 120, size)
    point = playground.last("segment")["prompt"]["points"][0]
    box = playground.stage.bounding_box()
    assert box is not None
    css_pixel = size[0] / box["width"]  # a mouse event is no finer than that
    assert (point["x"], point["y"]) == pytest.approx((480, 120), abs=css_pixel)
    playground.until(lambda: is_tinted(playground.pixel(475, 115, size)))  # beside the point's mark
    assert not is_tinted(playground.pixel(480, 240, size))
    assert playground.stage.evaluate("stage => stage.width / stage.height") == pytest.approx(4 / 3, rel=0.01)


def test_coordinates_count_in_the_upright_picture(visit: Callable[..., Playground]) -> None:
    stored = Image.new("RGB", (200, 400), (GREY,) * 3)
    stored.paste((255, 0, 0), (0, 0, 100, 100))  # top left as stored: top right when turned upright
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to show
    buffer = io.BytesIO()
    stored.save(buffer, "JPEG", exif=exif, quality=95)
    playground = visit()
    playground.open(buffer.getvalue(), "photo.jpg", "image/jpeg")
    upright = (400, 200)
    red, green, _ = playground.pixel(370, 30, upright)
    assert red > 200
    assert green < 60
    playground.click(370, 30, upright)
    assert points_of(playground.last("segment")) == [(370, 30, INCLUDE)]


def test_points_stay_inside_the_half_open_picture(playground: Playground) -> None:
    found = playground.page.evaluate(
        """async () => {
            const { toImage, boxBetween } = await import("/geometry.js");
            const rect = { left: 10, top: 20, width: 150, height: 100 };
            const size = { width: 300, height: 200 };
            return [toImage(rect, size, 10, 20), toImage(rect, size, 999, 999), toImage(rect, size, 85, 70),
                    boxBetween(rect, size, { clientX: 999, clientY: -5 }, { clientX: 85, clientY: 70 })];
        }"""
    )
    assert found[0] == {"x": 0, "y": 0}
    assert found[1] == {"x": 299.99, "y": 199.99}
    assert found[2] == {"x": 150, "y": 100}
    assert found[3] == {"x_min": 150, "y_min": 0, "x_max": 300, "y_max": 100}


# Completing


def test_completing_shows_progress_preview_and_samples_best_first(playground: Playground) -> None:
    page = playground.page
    playground.click(150, 100)
    playground.complete(text="sleep .05", num_samples="3", steps="10")
    bar = page.get_by_role("progressbar")
    expect(page.get_by_text("Drawing the whole object")).to_be_visible()
    playground.until(lambda: 0 < float(bar.get_attribute("value") or 0) < 1)
    # The photo is dimmed, and the fake's preview is noise: brighter than any dimmed grey can be.
    assert max(playground.pixel(40, 40)) < GREY / 2
    spots = [(x, y) for x in range(144, 157, 4) for y in range(94, 107, 4)]
    playground.until(lambda: max(max(playground.pixel(*spot)) for spot in spots) > GREY / 2)
    expect(page.locator(".samples button")).not_to_have_count(0)  # ready samples come before the result
    page.locator(".viewer").wait_for()
    labels = page.locator(".samples button").evaluate_all("all => all.map((one) => one.ariaLabel)")
    scores = [float(label.split("score ")[1].split(",")[0]) for label in labels]
    assert len(scores) == 3
    assert scores == sorted(scores, reverse=True)
    expect(page.locator(".samples button").first).to_have_attribute("aria-pressed", "true")
    expect(page.get_by_role("progressbar")).to_be_hidden()


def test_the_download_is_the_services_png(playground: Playground, host: Host) -> None:
    playground.click(150, 100)
    playground.complete(seed="7")
    with playground.page.expect_download() as download:
        playground.page.get_by_role("button", name="Download PNG").click()
    body = {name: value for name, value in playground.last("complete").items() if name != "preview_every"}
    answer = httpx.post(f"{host.url}/v1/complete", json=body, headers={"Accept": "application/json"}).json()
    saved = Path(download.value.path()).read_bytes()
    assert saved == base64.b64decode(answer["samples"][0]["rgba_png"])
    assert download.value.suggested_filename == "photo-whole-7.png"
    with playground.page.expect_download() as download:
        playground.page.get_by_role("button", name="Download cropped").click()
    whole = Image.open(io.BytesIO(saved))
    part = Image.open(download.value.path())
    assert part.size == whole.crop(whole.getbbox()).size
    assert part.getpixel((3, 3)) == whole.getpixel((whole.getbbox()[0] + 3, whole.getbbox()[1] + 3))


def test_only_what_was_set_is_sent_and_the_drawn_seed_can_be_reused(playground: Playground) -> None:
    page = playground.page
    playground.click(150, 100)
    playground.complete()
    page.locator(".viewer").wait_for()
    assert playground.last("complete")["options"] == {"num_samples": 1}
    page.get_by_role("button", name="Reuse seed").click()
    seed = page.input_value("[name=seed]")
    page.get_by_label("Preset").select_option("slow")
    page.get_by_text("Advanced").click()
    page.locator("[name=local_strength]").fill("0.25")
    page.get_by_label("Keep the visible pixels").uncheck()
    with page.expect_response("**/v1/complete"):
        playground.complete(text="a mug")
    assert playground.last("complete")["options"] == {
        "num_samples": 1, "text": "a mug", "preset": "slow", "seed": int(seed),
        "local_strength": 0.25, "keep_visible": False,
    }  # fmt: skip


def test_compare_shows_the_photo_while_it_is_held(playground: Playground) -> None:
    page = playground.page
    playground.click(150, 100)
    playground.complete()
    before = page.locator(".before")
    page.locator(".viewer").wait_for()
    hidden = before.evaluate("one => getComputedStyle(one).clipPath")
    page.keyboard.press("Escape")
    page.locator("body").focus()
    for press, release in (
        (lambda: page.keyboard.down("c"), lambda: page.keyboard.up("c")),
        (lambda: page.get_by_role("button", name="Hold to compare").hover() or page.mouse.down(), page.mouse.up),
    ):
        press()
        assert before.evaluate("one => getComputedStyle(one).clipPath") == "none"
        release()
        assert before.evaluate("one => getComputedStyle(one).clipPath") == hidden
    page.get_by_label("Share of the original photo shown").fill("40")
    assert before.evaluate("one => getComputedStyle(one).clipPath") == "inset(0px 60% 0px 0px)"


def test_copied_lines_give_the_picture_on_the_screen(
    visit: Callable[..., Playground], host: Host, tmp_path: Path
) -> None:
    playground = visit(permissions=["clipboard-read", "clipboard-write"])
    playground.open(png(SIZE))
    playground.click(150, 100)
    playground.complete(seed="7", text="a cup's lid")
    playground.page.get_by_role("button", name="Copy Python").click()
    expect(playground.page.get_by_role("status")).to_contain_text("copied")
    python = playground.page.evaluate("() => navigator.clipboard.readText()")
    playground.page.get_by_role("button", name="Copy curl").click()
    expect(playground.page.get_by_role("status")).to_contain_text("curl")
    curl = playground.page.evaluate("() => navigator.clipboard.readText()")
    with playground.page.expect_download() as download:
        playground.page.get_by_role("button", name="Download PNG").click()
    shown = Path(download.value.path()).read_bytes()
    (tmp_path / "photo.png").write_bytes(png(SIZE))
    for command in (["bash", "-ec", curl], [sys.executable, "-c", python]):
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
        made = tmp_path / "object.png"
        assert made.read_bytes() == shown
        made.unlink()


def test_already_whole_is_said(playground: Playground) -> None:
    # The fake never finds a whole object. Defaults may be left out of proto JSON, and are here.
    sample = {"rgba_png": base64.b64encode(png(SIZE)).decode(), "box": {"x_max": 300, "y_max": 200}}
    event = f"event: result\ndata: {json.dumps({'samples': [sample], 'already_whole': True})}\n\n"
    playground.page.route("**/v1/complete", lambda route: route.fulfill(content_type="text/event-stream", body=event))
    playground.click(150, 100)
    playground.complete()
    expect(playground.page.get_by_text("Already whole")).to_be_visible()


# When it goes wrong


def test_cancel_stops_the_service_and_the_page_goes_on(playground: Playground, host: Host) -> None:
    page = playground.page
    playground.click(150, 100)
    before = host.steps()
    playground.complete(text="sleep .1", steps="100")
    expect(page.get_by_text(re.compile("step [0-9]+ of 100"))).to_be_visible()  # each is there for a tenth of a second
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("button", name="Complete", exact=True)).to_be_visible()
    page.wait_for_timeout(500)
    stopped = host.steps()
    page.wait_for_timeout(500)
    assert host.steps() == stopped < before + 20
    playground.complete(text="", steps="")
    page.locator(".viewer").wait_for()


def test_a_failing_engine_is_told_and_can_be_asked_again(playground: Playground) -> None:
    playground.click(150, 100)
    playground.complete(text="crash, please")
    alert = playground.page.get_by_role("alert")
    expect(alert).to_contain_text("The engine failed")
    expect(alert).not_to_contain_text("/secret")
    playground.page.fill("[name=text]", "")
    playground.page.get_by_role("button", name="Try again").click()
    playground.page.locator(".viewer").wait_for()
    expect(alert).to_be_hidden()


def test_a_full_service_says_when_to_come_back(visit: Callable[..., Playground], tmp_path: Path) -> None:
    with running(tmp_path, slots=1, queue=1) as host:
        playground = visit(host.url)
        playground.open(png(SIZE))
        playground.click(150, 100)
        body = {"image": {"content": base64.b64encode(png(SIZE)).decode()}, "prompt": {"points": [{"x": 9, "y": 9}]}}
        body["options"] = {"text": "sleep .3", "steps": 5}
        other = threading.Thread(target=httpx.post, args=(f"{host.url}/v1/complete",), kwargs={"json": body})
        taken = host.steps()
        other.start()
        playground.until(lambda: host.steps() > taken)
        playground.complete()
        expect(playground.page.get_by_role("alert")).to_contain_text("No room now")
        again = playground.page.get_by_role("button", name="Try again")
        expect(again).to_be_disabled()
        other.join()
        again.click(timeout=20_000)  # waits until the button is enabled
        playground.page.locator(".viewer").wait_for()
        playground.page.context.close()


def test_an_expired_image_is_uploaded_again_unseen(visit: Callable[..., Playground], tmp_path: Path) -> None:
    with running(tmp_path, image_ttl=0.5) as host:
        playground = visit(host.url)
        playground.open(png(SIZE))
        playground.page.wait_for_timeout(700)
        with playground.page.expect_response("**/v1/images"):
            playground.page.mouse.click(*playground.on_screen(150, 100))
        playground.until(lambda: is_tinted(playground.pixel(154, 104)))
        playground.page.wait_for_timeout(700)
        playground.complete()
        playground.page.locator(".viewer").wait_for()
        expect(playground.page.get_by_role("alert")).to_be_hidden()
        playground.page.context.close()


def test_a_lost_network_is_told_and_recovered_from(playground: Playground) -> None:
    playground.page.context.set_offline(True)
    playground.page.mouse.click(*playground.on_screen(150, 100))
    expect(playground.page.get_by_role("alert")).to_contain_text("cannot be reached")
    playground.page.context.set_offline(False)
    with playground.page.expect_response("**/v1/segment"):
        playground.page.get_by_role("button", name="Try again").click()
    playground.until(lambda: is_tinted(playground.pixel(154, 104)))


def test_a_file_that_is_no_picture_is_told(visit: Callable[..., Playground]) -> None:
    playground = visit()
    playground.page.set_input_files(
        "input.file >> nth=0", {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"no"}
    )
    expect(playground.page.get_by_role("alert")).to_contain_text("notes.txt is not a picture")


# The rest of the page


def test_a_scene_opens_with_its_point_and_text(visit: Callable[..., Playground], host: Host) -> None:
    playground = visit("about:blank")
    page = playground.page
    scenes = [{"file": "a cup.png", "point": [150, 100], "text": "a cup"}]
    page.route("**/examples.json", lambda route: route.fulfill(json=scenes))
    page.route("**/examples/a%20cup.png", lambda route: route.fulfill(content_type="image/png", body=png(SIZE)))
    page.goto(host.url)
    with page.expect_response("**/v1/segment"):
        page.get_by_role("button", name="Open the scene: a cup").first.click()
    assert points_of(playground.last("segment")) == [(150, 100, INCLUDE)]
    assert page.input_value("[name=text]") == "a cup"
    playground.until(lambda: is_tinted(playground.pixel(154, 104)))


@pytest.mark.parametrize("event", ["drop", "paste"])
def test_a_picture_can_be_dropped_and_pasted(visit: Callable[..., Playground], event: str) -> None:
    playground = visit()
    with playground.page.expect_response("**/v1/images") as upload:
        playground.page.evaluate(
            """([event, base64]) => {
                const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
                const data = new DataTransfer();
                data.items.add(new File([bytes], "given.png", { type: "image/png" }));
                const init = { bubbles: true, cancelable: true, dataTransfer: data, clipboardData: data };
                const given = event === "drop" ? new DragEvent(event, init) : new ClipboardEvent(event, init);
                document.body.dispatchEvent(given);
            }""",
            [event, base64.b64encode(png(SIZE)).decode()],
        )
    assert upload.value.json()["size"] == {"width": SIZE[0], "height": SIZE[1]}
    expect(playground.page.get_by_text("given.png")).to_be_visible()


def test_a_tap_adds(visit: Callable[..., Playground]) -> None:
    playground = visit(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True, device_scale_factor=3)
    playground.open(png(SIZE))
    with playground.page.expect_response("**/v1/segment"):
        playground.page.touchscreen.tap(*playground.on_screen(150, 100))
    x, y, label = points_of(playground.last("segment"))[0]
    assert (x, y, label) == (pytest.approx(150, abs=1), pytest.approx(100, abs=1), INCLUDE)
    assert playground.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    # The form is below the picture: what is drawn, and the way to stop it, come into view together.
    playground.complete(text="sleep .1", steps="20")
    expect(playground.page.get_by_role("button", name="Cancel")).to_be_in_viewport()
    expect(playground.stage).to_be_in_viewport(ratio=1)
    playground.page.get_by_role("button", name="Cancel").tap()


def test_the_footer_names_the_engine(playground: Playground) -> None:
    footer = playground.page.get_by_role("contentinfo")
    expect(footer).to_contain_text("deocc-fake")
    expect(footer).to_contain_text("Apache-2.0")
    assert playground.page.get_attribute("[name=steps]", "placeholder") == "4"


def test_events_are_read_across_any_chunks(playground: Playground) -> None:
    found = playground.page.evaluate(
        """async (text) => {
            const { readEvents } = await import("/events.js");
            const bytes = new TextEncoder().encode(text);
            const all = [];
            for (const size of [1, 2, 7, bytes.length]) {
                const stream = new ReadableStream({
                    start(controller) {
                        for (let i = 0; i < bytes.length; i += size) controller.enqueue(bytes.slice(i, i + size));
                        controller.close();
                    },
                });
                const events = [];
                for await (const event of readEvents(stream)) events.push(event);
                all.push(JSON.stringify(events));
            }
            return all;
        }""",
        ': ping\r\n\r\nevent: a\r\ndata: {"é":\r\ndata: 1}\r\n\r\ndata:[2]\n\nevent: cut\ndata: 3\n',
    )
    # An event that the end cuts off is not one.
    assert set(found) == {'[{"event":"a","data":{"é":1}},{"event":"message","data":[2]}]'}


def test_the_page_holds_no_inline_code_and_nothing_from_elsewhere(playground: Playground) -> None:
    assert playground.page.locator("script:not([src]), style, [style*=':']:not(#desk):not(.viewer)").count() == 0
    origins = playground.page.evaluate(
        "() => performance.getEntriesByType('resource').map(({ name }) => new URL(name).origin)"
    )
    assert set(origins) <= {playground.page.evaluate("location.origin"), "null"}
