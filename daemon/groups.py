"""Out of an exception group comes the one error that its supervisor knows how to handle."""

from __future__ import annotations


def expected(
    group: ExceptionGroup[Exception], kinds: type[Exception] | tuple[type[Exception], ...]
) -> Exception:
    """Return the first error of ``kinds`` in a group that holds nothing else.

    Raises:
        ExceptionGroup: what else the group holds.
    """
    known, other = group.split(kinds)
    if other is not None:
        raise other
    error: Exception | None = known
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    assert error is not None  # noqa: S101 - a group is never empty
    return error
