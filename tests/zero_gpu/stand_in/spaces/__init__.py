"""A stand-in of Hugging Face's package `spaces`: a process is forked for every call, and everything to it and from it
is pickled. It asks the same service for the card, with the same words."""

import inspect
import multiprocessing
import os
import threading
import urllib.error
import urllib.parse
import urllib.request

FORK = multiprocessing.get_context("fork")


class Error(Exception):
    """As Gradio's, which has a title and a message."""

    def __init__(self, title, message):
        super().__init__(message)
        self.title, self.message = title, message


def ask(path, **values):
    address = f"{os.environ['SPACES_ZERO_DEVICE_API_URL']}/{path}?{urllib.parse.urlencode(values)}"
    try:
        urllib.request.urlopen(urllib.request.Request(address, method="POST"), timeout=20).close()
    except urllib.error.HTTPError as error:
        return error.code
    return 200


def GPU(task, *, duration):  # noqa: N802 - its name
    assert inspect.isgeneratorfunction(task)

    def lent(*args):
        if ask("schedule", taskId=id(task), durationSeconds=round(duration(*args))) == 429:
            raise Error("ZeroGPU quota exceeded", "You have exceeded your free ZeroGPU quota.")
        given, got = FORK.SimpleQueue(), FORK.SimpleQueue()
        stop = FORK.Event()
        process = FORK.Process(target=work, args=(task, given, got, stop), daemon=True)
        process.start()
        given.put(args)
        try:
            while (item := got.get()) is not None:
                kind, value = item
                if kind == "error":
                    raise Error("ZeroGPU worker error", value)
                yield value
        except GeneratorExit:
            stop.set()
            while got.get() is not None:
                pass
            raise
        finally:
            ask("release", allowToken="token")
            process.join(20)

    return lent


def work(task, given, got, stop):
    args = given.get()
    ask("allow", allowToken="token", pid=os.getpid())

    def iterate():
        items = task(*args)
        try:
            for item in items:
                if stop.is_set():
                    items.close()
                    return
                got.put(("item", item))
        except Exception as error:
            got.put(("error", type(error).__name__))

    thread = threading.Thread(target=iterate)
    thread.start()
    thread.join()
    got.put(None)
