"""Everything gcn raises on purpose.

GcnError                 exit code 1: the work could not be done
├── BusyError            exit code 1: another job works in the same run
├── LostProcessError     exit code 1: one of the processes that share a training is gone
├── InputError           exit code 2: an option, a value or a file that cannot be used
├── DivergedError        exit code 3: learning or sampling left the finite numbers
└── InterruptedRunError  exit code 75: stopped from outside, state saved, run the command again

A message is one line: what was given, the rule it breaks, the remedy.
"""


class GcnError(Exception):
    """Base of all errors that a user can do something about."""

    exit_code = 1


class BusyError(GcnError):
    """A run that another process is training."""


class LostProcessError(GcnError):
    """A process that shares the work of this one no longer answers."""


class InputError(GcnError):
    """An option, value or file that breaks a stated rule."""

    exit_code = 2


class DivergedError(GcnError):
    """A chain or a parameter became infinite or not a number."""

    exit_code = 3


class InterruptedRunError(GcnError):
    """A signal stopped a training whose state is on disk."""

    exit_code = 75
