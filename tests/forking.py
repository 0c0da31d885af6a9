"""Work in processes of its own, forked from one that has loaded everything."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable


def forked(work: Callable[[], object]) -> int:
    """The number of a process that does the work and ends with 0, with what it exits with, or with 1 where it fails."""
    number = os.fork()
    if number == 0:
        code = 1
        try:
            work()
            code = 0
        except SystemExit as error:
            code = int(error.code or 0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return number


def ended(number: int) -> int:
    """Wait for a process. Its exit code, or minus the signal that it died of."""
    return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])
