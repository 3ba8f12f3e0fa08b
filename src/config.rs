//! Every setting, its default and its environment variable. The only reader of the environment and of home.
//!
//! A key stands in `SUPERSERVE_HOME/config.toml`, and the environment overrides it: `turn.timeout` is
//! `SUPERSERVE_TURN_TIMEOUT`.
