"""A signal that ends the bench, taken where it does no harm: never while something is half started or half ended.

At first it is only noted. A block that may_come() is left by it at any moment, but for what is in a not_now() in it. So
whoever starts something does that in a not_now(), has it ended whatever happens, and works with it in a may_come():

    with Ending.not_now(), Place() as place, Ending.may_come():
        ...

It is taken once. What is to be ended then is ended whole, whatever comes meanwhile.
"""
import contextlib
import signal
import sys


class Ending:
    number = None  # of the signal that came
    wanted = False  # in a may_come()
    taken = False

    @classmethod
    def watch(cls):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, cls.note)

    @classmethod
    def note(cls, number, _):
        cls.number = number
        cls.take()

    @classmethod
    def take(cls):
        if cls.number is not None and cls.wanted and not cls.taken:
            cls.taken = True
            sys.exit(128 + cls.number)

    @classmethod
    @contextlib.contextmanager
    def when(cls, wanted):
        before, cls.wanted = cls.wanted, wanted
        try:
            cls.take()
            yield
        finally:
            cls.wanted = before
        cls.take()

    @classmethod
    def may_come(cls):
        return cls.when(True)

    @classmethod
    def not_now(cls):
        return cls.when(False)
