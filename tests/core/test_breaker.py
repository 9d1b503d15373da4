"""The circuit breaker's states."""

from agent_service.core.breaker import BreakerState, CircuitBreaker
from agent_service.testing.clock import FakeClock


def open_breaker() -> tuple[CircuitBreaker, FakeClock]:
    clock = FakeClock()
    breaker = CircuitBreaker(0.5, max_open_seconds=4, clock=clock)
    assert breaker.failed() is True
    return breaker, clock


def test_it_opens_on_the_first_failure_and_says_so_once():
    breaker, _ = open_breaker()

    assert breaker.closed is False
    assert breaker.state is BreakerState.OPEN
    assert breaker.failed() is False


def test_one_caller_probes_when_the_wait_is_over():
    breaker, clock = open_breaker()
    assert breaker.try_probe() is False
    clock.advance(0.5)

    assert [breaker.try_probe() for _ in range(3)] == [True, False, False]
    assert breaker.state is BreakerState.HALF_OPEN


def test_a_probe_that_succeeds_leads_to_recovery_and_then_to_closed():
    breaker, clock = open_breaker()
    clock.advance(0.5)
    breaker.try_probe()
    breaker.probe_succeeded()

    assert breaker.state is BreakerState.RECOVERING
    assert breaker.closed is False
    breaker.close()
    assert breaker.closed is True


def test_each_failed_attempt_doubles_the_wait_up_to_the_longest():
    breaker, clock = open_breaker()
    waits = []
    for _ in range(6):
        waited = 0.0
        while not breaker.try_probe():
            clock.advance(0.01)
            waited += 0.01
        waits.append(waited)
        breaker.attempt_failed()

    for waited, longest in zip(waits, [0.5, 1, 2, 4, 4, 4], strict=True):
        assert longest / 2 - 0.02 <= waited <= longest + 0.02


def test_the_wait_starts_anew_after_it_was_closed():
    breaker, clock = open_breaker()
    for _ in range(4):
        clock.advance(4)
        breaker.try_probe()
        breaker.attempt_failed()
    clock.advance(4)
    breaker.try_probe()
    breaker.probe_succeeded()
    breaker.close()
    breaker.failed()
    clock.advance(0.5)

    assert breaker.try_probe() is True


def test_breakers_that_open_together_do_not_probe_together():
    clock = FakeClock()
    breakers = [CircuitBreaker(0.5, clock=clock) for _ in range(50)]
    for each in breakers:
        each.failed()
    probed: list[int] = []
    while sum(probed) < len(breakers):
        clock.advance(0.01)
        probed.append(sum(each.try_probe() for each in breakers))

    assert sum(probed[:24]) == 0
    assert len([number for number in probed if number]) > 5
    assert len(probed) <= 51


def test_one_that_was_closed_for_nothing_waits_longest():
    clock = FakeClock()
    breaker = CircuitBreaker(0.5, max_open_seconds=4, clock=clock)
    breaker.failed(again=True)
    clock.advance(1.99)

    assert breaker.try_probe() is False
    clock.advance(2.01)
    assert breaker.try_probe() is True
