//! A local server that starts itself: probe, start, wait; its lock, its report, its end.
