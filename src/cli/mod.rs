//! The command line: typed arguments, decided settings, dispatch; the only owner of the terminal.
