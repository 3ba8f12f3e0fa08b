//! Agents.

use comfy_table::Cell;

use super::table::{columns, fields};
use super::{Style, ago, clean_line, moment};
use crate::wire::Agent;

/// The list: a row an agent.
pub fn agents(agents: &[Agent], style: &Style) -> String {
    let rows = agents
        .iter()
        .map(|agent| {
            vec![
                Cell::new(&agent.name),
                Cell::new(agent.id.as_str()),
                Cell::new(agent.revision.to_string()),
                Cell::new(clean_line(agent.command.as_deref().unwrap_or_default())),
                Cell::new(ago(agent.updated_at, style.now)),
            ]
        })
        .collect();
    columns(&["Name", "ID", "Revision", "Command", "Updated"], rows, style.colour)
}

/// One agent; rows without a value are left out.
pub fn agent(agent: &Agent, style: &Style) -> String {
    let mut rows = vec![("ID", agent.id.to_string()), ("Name", agent.name.clone())];
    rows.extend(agent.command.clone().map(|command| ("Command", command)));
    rows.push(("Revision", agent.revision.to_string()));
    rows.push(("Network", agent.network.as_str().to_owned()));
    if !agent.required_secrets.is_empty() {
        rows.push(("Secrets", agent.required_secrets.join(", ")));
    }
    rows.push(("Created", moment(agent.created_at)));
    rows.push(("Updated", format!("{} ({})", ago(agent.updated_at, style.now), moment(agent.updated_at))));
    fields(&rows)
}
