"""What becomes of an adapter in a fork of the process that made it."""

import multiprocessing
import os
import signal
import warnings


def raised_in_a_fork(function, *args):
    """The words of what a call raises in a fork of this process, which is ended if it goes on waiting."""
    ours, theirs = multiprocessing.get_context("fork").Pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that other threads are running, which is what this is about
        child = os.fork()
    if not child:
        try:
            function(*args)
        except BaseException as error:
            theirs.send(str(error))
        finally:
            os._exit(0)
    try:
        assert ours.poll(60)
        return ours.recv()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
