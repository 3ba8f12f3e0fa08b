//! Agents, sessions and turns: the rules, without HTTP, SQL or processes.
