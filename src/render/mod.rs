//! Values to text: tables, details, ages. Returns text, never prints.
