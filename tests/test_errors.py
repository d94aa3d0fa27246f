import pytest

from emitdiff.errors import first_line


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("no such key\nin line 3"), "no such key"),
        (ValueError(), "ValueError"),
        (KeyError("weight"), "'weight'"),
        (OSError("x" * 300), "x" * 200),
    ],
)
def test_of_an_error_the_first_line_is_said(error, said):
    assert first_line(error) == said
