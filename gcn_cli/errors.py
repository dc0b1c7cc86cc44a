"""Every error that gcn raises for its user.

GcnError                 exit code 1: the work could not be done
├── BusyError            exit code 1: another job trains in the same run
├── LostProcessError     exit code 1: another process of the same training is gone
├── TakenError           exit code 1: another job took the name of an output file meanwhile
├── InputError           exit code 2: an option, a value or a file cannot be used
├── DivergedError        exit code 3: training or sampling diverged
└── InterruptedRunError  exit code 75: stopped by a signal; run the same command again to resume

A message is one line: the option or the file, what is wrong with it, what to do.

`error.message` names options of the command (--noise-level). `str(error)` of an error that leaves
the Python API names arguments (noise_level).
"""


class GcnError(Exception):
    """Base of all errors that a user can do something about."""

    exit_code = 1

    def __init__(self, message: str = "") -> None:
        super().__init__(message)
        self.message = message


class BusyError(GcnError):
    """Another process trains in the same run."""


class LostProcessError(GcnError):
    """A process that shares this training no longer answers."""


class TakenError(GcnError):
    """Another job gave a file the name of an output file, meanwhile."""


class InputError(GcnError):
    """An option, a value or a file breaks a documented rule."""

    exit_code = 2


class DivergedError(GcnError):
    """A chain, a loss or a parameter became infinite, NaN or far too large."""

    exit_code = 3


class InterruptedRunError(GcnError):
    """A signal stopped the work; what is finished is on disk."""

    exit_code = 75


class SignalExit(SystemExit):
    """A signal ends the command. No `except Exception` stops it; files are written or absent."""

    def __init__(self, message: str) -> None:
        super().__init__(InterruptedRunError.exit_code)
        self.message = message
