"""Tell what an error of PostgreSQL means to a caller: that others hold what it needs, or that the database fails."""

import logging
import re
from typing import Any

import peewee as pw
import psycopg
from psycopg import errors

from service.errors import Busy, ServiceError, StorageUnavailable
from service.log import OneASecond

logger = logging.getLogger(__name__)
logger.addFilter(OneASecond())  # Where the server is gone, every statement fails.

ERRORS = (pw.DatabaseError, pw.InterfaceError, psycopg.Error)
"""The errors of the database: of Peewee, and of the driver where rows are fetched."""
_LOCKED = {
    "55P03",  # lock_not_available: another transaction has held the turn, or a row, for `lock_timeout`.
    "57014",  # query_canceled: the statement has taken all of `statement_timeout`.
    "40001",  # serialization_failure
    "40P01",  # deadlock_detected
}
"""The SQLSTATEs of errors that pass if a transaction is tried again."""
_RAISED = {
    "27",  # triggered_data_change_violation: a trigger before a row has changed the row, or another one of them.
    "44",  # with_check_option_violation
    "P0",  # plpgsql_error, which has RAISE without a code, ASSERT, and SELECT INTO STRICT.
}
"""The first two characters of the SQLSTATEs that the rules of other programs raise."""


def cause_of(error: BaseException) -> Any:
    """Give the error of the driver in an error of Peewee."""
    while isinstance(found := getattr(error, "orig", None), BaseException):
        error = found
    return error


def is_locked(error: BaseException) -> bool:
    """Tell whether an error means that others were in the way for too long."""
    return getattr(cause_of(error), "sqlstate", None) in _LOCKED


def is_refusal(error: Any) -> bool:
    """Tell whether an error of the driver means that a row is refused although it is not called an integrity error.

    A value was such that a trigger, a check or an index of another program could not go on, or such a trigger raised
    something: an SQLSTATE that PostgreSQL does not have is its own.
    """
    state = error.sqlstate
    return isinstance(error, psycopg.DataError) or (
        state is not None and (state[:2] in _RAISED or not _is_known(state))
    )


def _is_known(state: str) -> bool:
    try:
        return bool(errors.lookup(state))
    except KeyError:
        return False


def is_failure(error: BaseException) -> bool:
    """Tell whether the database failed; a constraint or a rule that refused is no failure."""
    return isinstance(error, ERRORS) and not isinstance(error, (pw.IntegrityError, psycopg.IntegrityError))


def failure(error: BaseException, kept: str) -> ServiceError:
    """Make Busy or StorageUnavailable of an error of the database; `kept` is the sentence on what was kept."""
    if is_locked(error):
        return Busy(f"Another process holds the database. {kept}")
    first, *_ = [line.strip() for line in str(cause_of(error)).splitlines() if line.strip()] or ["no reason was told"]
    # Where PostgreSQL cannot be reached, libpq names the server, which is nothing for clients; the log has it.
    first = re.sub(r"connection .*failed: ", "", first)
    return StorageUnavailable(f"The database cannot be used: {first.rstrip('.')}. {kept}")


def unavailable(error: BaseException, kept: str) -> ServiceError:
    """Do what `failure` does, and log the error, once a second at most, unless others are in the way.

    What libpq says names the server and the user, and never the password.
    """
    if not is_locked(error):
        logger.error("The database cannot be used.", exc_info=error)
    return failure(error, kept)
