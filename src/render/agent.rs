//! Agents.

use comfy_table::Cell;

use super::table::{columns, fields, fit};
use super::{Style, ago, clean, clean_line, moment};
use crate::wire::Agent;
use crate::wire::agent::DepsStatus;

/// The list: a row an agent; how far dependencies are if that is asked for, or worth a word.
pub fn agents(agents: &[Agent], style: &Style, dependencies: bool) -> String {
    let mut header: Vec<String> =
        ["Name", "ID", "Revision", "Command", "Updated"].map(str::to_owned).to_vec();
    // Only where somebody has to wait, or to do something.
    let tells_dependencies = dependencies || agents.iter().any(is_unready);
    if tells_dependencies {
        header.push("Dependencies".to_owned());
    }
    let mut rows: Vec<Vec<String>> = agents
        .iter()
        .map(|agent| {
            let mut row = vec![
                agent.name.clone(),
                agent.id.to_string(),
                agent.revision.to_string(),
                clean_line(agent.command.as_deref().unwrap_or_default()),
                ago(agent.updated_at, style.now),
            ];
            if tells_dependencies {
                let status = Some(agent.deps_status.as_str()).filter(|_| dependencies || is_unready(agent));
                row.push(status.unwrap_or_default().to_owned());
            }
            row
        })
        .collect();
    fit(&mut header, &mut rows, &[&[3], &[0, 4]], style.room());
    let rows = rows.into_iter().map(|row| row.into_iter().map(Cell::new).collect()).collect();
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    columns(&header, rows, style.colour)
}

fn is_unready(agent: &Agent) -> bool {
    matches!(agent.deps_status, DepsStatus::Building | DepsStatus::Failed)
}

/// One agent; rows without a value are left out.
pub fn agent(agent: &Agent, style: &Style) -> String {
    let mut rows = vec![("ID", agent.id.to_string()), ("Name", agent.name.clone())];
    rows.extend(agent.command.clone().map(|command| ("Command", command)));
    rows.push(("Revision", agent.revision.to_string()));
    rows.push(("Network", agent.network.to_string()));
    let limits = agent.limits.summary();
    if !limits.is_empty() {
        rows.push(("Limits", limits));
    }
    let missing = agent.required_secrets.iter().filter(|key| !agent.environment_keys.contains(key));
    let missing = missing.map(|key| format!("{key} (not set)"));
    let secrets: Vec<String> = agent.environment_keys.iter().cloned().chain(missing).collect();
    if !secrets.is_empty() {
        rows.push(("Secrets", clean_line(&secrets.join(", "))));
    }
    if agent.deps_status != DepsStatus::None {
        rows.push(("Dependencies", agent.deps_status.as_str().to_owned()));
    }
    if let Some(error) = &agent.deps_error {
        rows.push(("Error", clean(error)));
    }
    rows.push(("Created", moment(agent.created_at)));
    rows.push(("Updated", format!("{} ({})", ago(agent.updated_at, style.now), moment(agent.updated_at))));
    fields(&rows)
}
