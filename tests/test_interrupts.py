import signal
import threading

import pytest

from dm2_wrappers import _interrupts


@pytest.fixture
def handler():
    """Counts Ctrl-C; restores what was there before."""
    calls = []
    before = signal.signal(signal.SIGINT, lambda *args: calls.append(args))
    yield calls
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_takes_effect_once_and_after_the_body(handler):
    own = signal.getsignal(signal.SIGINT)
    with _interrupts.deferred():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        assert not handler
    assert [number for number, _ in handler] == [signal.SIGINT]
    assert signal.getsignal(signal.SIGINT) is own
    with _interrupts.deferred():
        pass
    assert len(handler) == 1


def test_after_an_error_in_the_body_both_are_told(handler):
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def body():
        with _interrupts.deferred():
            signal.raise_signal(signal.SIGINT)
            raise ValueError("of the body")

    with pytest.raises(KeyboardInterrupt) as caught:
        body()
    assert isinstance(caught.value.__context__, ValueError)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ignored_stays_ignored_and_other_threads_leave_the_handler_alone(handler):
    own, seen = signal.getsignal(signal.SIGINT), []

    def work():
        with _interrupts.deferred():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [own]
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with _interrupts.deferred():
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
