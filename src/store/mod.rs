//! Where agents, sessions, runs, events and messages are kept. The only place that speaks SQL.
