//! Agents.

use comfy_table::Cell;

use super::table::{columns, fields, fit};
use super::{Style, ago, clean_line, moment};
use crate::wire::Agent;

/// The list: a row an agent.
pub fn agents(agents: &[Agent], style: &Style) -> String {
    let mut header: Vec<String> =
        ["Name", "ID", "Revision", "Command", "Updated"].map(str::to_owned).to_vec();
    let mut rows: Vec<Vec<String>> = agents
        .iter()
        .map(|agent| {
            vec![
                agent.name.clone(),
                agent.id.to_string(),
                agent.revision.to_string(),
                clean_line(agent.command.as_deref().unwrap_or_default()),
                ago(agent.updated_at, style.now),
            ]
        })
        .collect();
    fit(&mut header, &mut rows, &[&[3], &[0, 4]], style.room());
    let rows = rows.into_iter().map(|row| row.into_iter().map(Cell::new).collect()).collect();
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    columns(&header, rows, style.colour)
}

/// One agent; rows without a value are left out.
pub fn agent(agent: &Agent, style: &Style) -> String {
    let mut rows = vec![("ID", agent.id.to_string()), ("Name", agent.name.clone())];
    rows.extend(agent.command.clone().map(|command| ("Command", command)));
    rows.push(("Revision", agent.revision.to_string()));
    rows.push(("Network", agent.network.as_str().to_owned()));
    let limits = agent.limits.summary();
    if !limits.is_empty() {
        rows.push(("Limits", limits));
    }
    if !agent.required_secrets.is_empty() {
        rows.push(("Secrets", agent.required_secrets.join(", ")));
    }
    rows.push(("Created", moment(agent.created_at)));
    rows.push(("Updated", format!("{} ({})", ago(agent.updated_at, style.now), moment(agent.updated_at))));
    fields(&rows)
}
