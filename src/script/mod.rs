//! The engine: its assembly and limits, what scripts can call, command headers, diagnostics.
