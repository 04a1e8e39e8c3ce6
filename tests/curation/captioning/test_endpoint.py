"""Every clip gets its own answer or a reason, whatever the servers do."""

from __future__ import annotations

import threading
import time

import pytest

from rushes.curation.captioning import ServersDown
from rushes.curation.captioning.endpoint import jittered, retry_after, said
from rushes.curation.captioning.vision import VisionCaptioner
from tests.curation.captioning.asking import caption, captioning, clips, frames, servers, swapped
from tests.curation.captioning.stub import Behaviour, process, serving
from tests.pipelines.commands import wait_until

OK_BODY = '{"id": "x", "choices": [{"message": {"content": %s}, "finish_reason": "stop"}]}'


def test_answers_in_another_order_land_at_their_clips():
    with serving(Behaviour(delay_s=0.05)) as stub:
        made = caption(stub.url, 200)
    assert all(c.text and c.error is None for c in made.values()) and not swapped(made)
    assert 8 <= stub.most_in_flight <= 16


@pytest.mark.parametrize("echo", [True, False], ids=["ids given back", "no ids"])
def test_an_answer_that_comes_twice_is_never_taken_for_the_next_clips(echo):
    with serving(Behaviour(duplicates=0.3, delay_s=0.01, echo=echo)) as stub:
        made = caption(stub.url, 150)
    assert all(c.text for c in made.values()) and not swapped(made)


def test_another_requests_answer_is_thrown_away_and_the_clip_asked_again():
    with serving(Behaviour(strangers=0.2)) as stub:
        made = caption(stub.url, 100)
        assert len(stub.asked) > 105
    assert all(c.text for c in made.values()) and not swapped(made)


def test_a_late_answer_is_given_up_and_harms_nobody():
    with serving(Behaviour(late=0.15, late_s=0.9)) as stub:
        made = caption(stub.url, 60)
    assert all(c.text for c in made.values()) and not swapped(made)


def test_every_request_has_an_id_of_its_own_that_begins_with_the_clips():
    with serving(Behaviour(errors=0.3)) as stub:
        caption(stub.url, 50)
    assert len(set(stub.asked)) == len(stub.asked) > 50
    assert {asked.partition("-")[0] for asked in stub.asked} == {row["clip_id"] for row in clips(50)}


def test_a_server_that_always_breaks_costs_a_clip_its_tries_and_leaves_a_reason():
    with serving() as stub:
        at = servers(captioning(stub.url))
        stub.behaviour.always = (500, '{"error": {"message": "CUDA error: illegal memory access"}}')
        made = caption(stub.url, 2, at, retries=1)
        assert len(stub.asked) == 4
    assert all(c.text is None and not c.lasting and "CUDA error" in c.error for c in made.values())
    assert all("2 tries" in c.error for c in made.values())


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("<html>login</html>", "web page"),
        ('{"object": "something else"}', "no chat completion"),
        ("not json", "no chat completion"),
    ],
)
def test_what_is_no_completion_is_recorded_as_what_it_is(body, words):
    with serving() as stub:
        at = servers(captioning(stub.url))
        stub.behaviour.always = (200, body)
        made = caption(stub.url, 1, at, retries=0)
    assert words in made[0].error


def test_a_hang_ends_with_the_time_out():
    with serving() as stub:
        at = servers(captioning(stub.url))
        stub.behaviour.hangs = 1.0
        made = caption(stub.url, 1, at, retries=1, timeout_s=0.1)
    assert "no answer within 0.1 s" in made[0].error and not made[0].lasting


def test_a_clip_that_the_server_refuses_is_recorded_for_good_and_not_asked_again():
    with serving() as stub:
        at = servers(captioning(stub.url))
        stub.behaviour.always = (400, '{"error": {"message": "maximum context length is 4096 tokens"}}')
        made = caption(stub.url, 1, at)
        assert len(stub.asked) == 1
    assert made[0].lasting and "maximum context length" in made[0].error


@pytest.mark.parametrize("content", ['""', "null"])
def test_an_empty_answer_is_asked_again_with_other_seeds_and_then_recorded(content):
    with serving() as stub:
        at = servers(captioning(stub.url))
        stub.behaviour.echo = False
        stub.behaviour.always = (200, OK_BODY % content)
        spec = captioning(stub.url, checks=("empty",))
        found = []
        VisionCaptioner(spec, type(at)(at.by_model)).run(clips(1), frames, found.extend)
        assert len({body["seed"] for body in stub.bodies}) == len(stub.bodies) == spec.attempts
    assert found[0].text is None and found[0].lasting and "the answer is empty" in found[0].error


def test_the_second_answer_is_taken_where_the_first_fails_the_checks():
    with serving(Behaviour(texts=("I'm sorry, I cannot help.", "A dog runs over the grass."))) as stub:
        made = caption(stub.url, 1, checks=("refusal",))
    assert made[0].text == "A dog runs over the grass." and made[0].tokens_out == 20


def test_a_server_that_is_away_for_a_while_is_waited_for():
    with serving() as first:
        spec = captioning(first.url, retries=0)
        at = servers(spec)
        port = int(first.url.split(":")[2].partition("/")[0])
    found: list = []
    thread = threading.Thread(target=VisionCaptioner(spec, at).run, args=(clips(20), frames, found.extend))
    thread.start()
    time.sleep(0.5)
    with serving(port=port):
        thread.join(20)
    assert len(found) == 20 and all(c.text for c in found)


def test_the_run_stops_with_one_sentence_when_no_server_comes_back_and_keeps_what_was_answered():
    with serving() as stub:
        spec = captioning(stub.url, patience_s=0.5, concurrency=4)
        at = servers(spec)
        found: list = []

        def gone_half_way(row):
            if row["number"] == 60:
                stub.behaviour.always = (503, "restarting")
            return frames(row)

        with pytest.raises(ServersDown, match="start the same command again") as told:
            VisionCaptioner(spec, at).run(clips(100), gone_half_way, found.extend)
    assert "\n" not in str(told.value) and "busy (503)" in str(told.value)
    assert found and all(c.text for c in found)


def test_a_dead_server_of_a_pool_costs_no_clip():
    with serving() as good, serving() as bad:
        spec = captioning((good.url, bad.url), retries=0)
        at = servers(spec)
        bad.behaviour.always = (503, "down")
        made = caption(spec.endpoints, 60, at, retries=0)
    assert all(c.text for c in made.values()) and not swapped(made)


def test_servers_of_a_pool_share_the_work():
    with serving(Behaviour(delay_s=0.02)) as one, serving(Behaviour(delay_s=0.02)) as other:
        caption((one.url, other.url), 100)
    assert min(len(one.asked), len(other.asked)) > 25


def test_the_key_goes_out_with_every_request_and_into_no_caption(monkeypatch):
    with serving() as stub:
        spec = captioning(stub.url)
        at, found = servers(spec), []
        VisionCaptioner(spec, at, key="secret-7").run(clips(3), frames, found.extend)
    assert "Bearer secret-7" in stub.keys and all("secret-7" not in repr(c) for c in found)


def test_an_error_while_recording_ends_the_run():
    def full(_captions):
        raise OSError(28, "No space left on device")

    with serving() as stub:
        spec = captioning(stub.url)
        with pytest.raises(OSError, match="No space left"):
            VisionCaptioner(spec, servers(spec)).run(clips(100), frames, full)


def test_captions_are_recorded_soon_even_where_few_come():
    recorded: list = []

    def slow_last(row):
        if row["number"] == 3:
            assert wait_until(lambda: len(recorded) == 3, 20), "the first three wait for the fourth"
        return frames(row)

    with serving() as stub:
        spec = captioning(stub.url)
        VisionCaptioner(spec, servers(spec)).run(clips(4), slow_last, recorded.extend)
    assert len(recorded) == 4


def test_pauses_grow_vary_and_have_an_end():
    first, later = [jittered(1) for _ in range(200)], [jittered(5) for _ in range(200)]
    assert max(first) < min(later) and len(set(first)) > 100
    assert max(jittered(1000) for _ in range(50)) <= 45


def test_retry_after_is_read_as_seconds_and_as_a_date():
    assert retry_after("7", 0.0) == 7.0
    assert retry_after("Thu, 01 Jan 1970 00:01:00 GMT", 20.0) == 40.0
    assert retry_after("soon", 0.0) is None and retry_after(None, 0.0) is None


def test_a_servers_words_are_one_short_line():
    assert said(b'{"error": {"message": "no\\nroom."}}') == "no room"
    assert said(b'{"object":"error","message":"gone"}') == "gone"
    assert len(said(b"x" * 10_000)) < 300 and said(b"") == "nothing"


def test_thousands_of_clips_against_a_bad_server_are_all_captioned_or_recorded_none_swapped_memory_flat():
    import resource

    count, peaks, found = 4000, [], {}

    def record(captions):
        found.update({int(c.clip_id, 16): c for c in captions})
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)

    how = Behaviour(errors=0.05, hangs=0.02, duplicates=0.01, strangers=0.002, delay_s=0.02)
    with process(how) as url:
        spec = captioning(url, concurrency=64, timeout_s=1.5)
        VisionCaptioner(spec, servers(spec)).run(clips(count), frames, record)
    assert sorted(found) == list(range(count)) and not swapped(found)
    assert all(c.text or c.error for c in found.values())
    assert sum(c.text is None for c in found.values()) < 10
    assert peaks[-1] - peaks[len(peaks) // 5] < 8_000  # KiB; the captions themselves are 2,000
