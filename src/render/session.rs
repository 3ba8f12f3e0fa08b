//! Sessions and their messages.

use comfy_table::{Attribute, Cell, Color};
use unicode_segmentation::UnicodeSegmentation;
use unicode_width::UnicodeWidthStr;

use super::table::{coloured, columns, fields, fit};
use super::{Style, ago, clean, clean_line, moment};
use crate::wire::limits::size_text;
use crate::wire::{EndReason, Isolation, Message, Receipt, Role, Session, Status, Timestamp};

/// The most columns of a title in a list.
const TITLE: usize = 50;

/// The list: a row a session; without the agent's column if all are of one agent.
pub fn sessions(sessions: &[Session], style: &Style, agent_column: bool) -> String {
    let mut header = vec!["ID", "Agent", "Title", "Status", "Msgs", "Last Active"];
    if !agent_column {
        header.remove(1);
    }
    let cut = |title: String| if style.truncate { shorten(&title, TITLE) } else { title };
    let mut rows: Vec<Vec<String>> = sessions
        .iter()
        .map(|session| {
            let mut row = vec![session.id.short().to_owned()];
            if agent_column {
                row.push(agent_name(session));
            }
            row.extend([
                cut(title_of(session)),
                session.status.as_str().to_uppercase(),
                session.message_count.to_string(),
                ago(active_at(session), style.now),
            ]);
            row
        })
        .collect();
    let mut header: Vec<String> = header.into_iter().map(str::to_owned).collect();
    let title = if agent_column { 2 } else { 1 };
    let names: &[usize] = if agent_column { &[1] } else { &[] };
    // Titles first, then the agents' names, then when it was.
    fit(&mut header, &mut rows, &[&[title], names, &[title + 3]], style.room());
    let paint = |(row, session): (Vec<String>, &Session)| {
        let cell = |(column, text): (usize, String)| match column == title + 1 {
            true => status(session.status, &text),
            false => Cell::new(text),
        };
        row.into_iter().enumerate().map(cell).collect()
    };
    let rows = rows.into_iter().zip(sessions).map(paint).collect();
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    columns(&header, rows, style.colour)
}

/// What an end has removed, in a few words.
fn receipt_text(receipt: &Receipt) -> String {
    let many = |count: u64, one: &str| match count {
        1 => format!("1 {one}"),
        count => format!("{count} {one}{}", if one.ends_with('s') { "es" } else { "s" }),
    };
    let files = many(receipt.files, "file");
    let (bytes, processes) = (size_text(receipt.bytes), many(receipt.processes, "process"));
    let rest = if receipt.wiped_at.is_none() { "; the wipe goes on" } else { "" };
    format!("{files} ({bytes}), {processes}{rest}")
}

/// One session; rows without a value are left out.
pub fn session(session: &Session, style: &Style) -> String {
    let mut rows = vec![
        ("ID", session.id.to_string()),
        ("Agent", format!("{} ({})", agent_name(session), session.agent_id)),
        ("Status", session.status.as_str().to_uppercase()),
        ("Messages", session.message_count.to_string()),
        ("Created", moment(session.created_at)),
    ];
    let title = title_of(session);
    if !title.is_empty() {
        rows.push(("Title", title));
    }
    let dated = |at: Timestamp| format!("{} ({})", ago(at, style.now), moment(at));
    rows.extend(session.last_activity_at.map(|at| ("Last Active", dated(at))));
    // What is out of the ordinary, and only then.
    rows.extend(session.ended_at.map(|at| {
        let why = session.end_reason.map_or(String::new(), |reason| format!(", by {}", reason_text(reason)));
        ("Ended", format!("{}{why}", dated(at)))
    }));
    rows.extend(session.receipt.map(|receipt| ("Removed", receipt_text(&receipt))));
    let weaker = session.isolation.filter(|isolation| *isolation != Isolation::Full);
    rows.extend(
        weaker.map(|isolation| ("Isolation", format!("{}{}", isolation.as_str(), network_of(isolation)))),
    );
    rows.extend(session.error.clone().map(|error| ("Error", error)));
    if style.colour {
        let cells = rows
            .into_iter()
            .map(|(name, value)| {
                let value = match name {
                    "Status" => status(session.status, &value),
                    _ => Cell::new(clean_line(&value)),
                };
                vec![Cell::new(name), value]
            })
            .collect();
        return columns(&["Field", "Value"], cells, true);
    }
    fields(&rows)
}

/// One entry of a transcript: who, when, and the text below.
pub fn message(message: &Message) -> String {
    let who = match message.role {
        Role::Agent => "Agent",
        Role::User => "You",
    };
    let cut = if message.partial { " (cut short)" } else { "" };
    format!("{who}, {}{cut}\n{}\n", moment(message.at), clean(message.content.trim_end_matches('\n')))
}

fn reason_text(reason: EndReason) -> &'static str {
    match reason {
        EndReason::AgentDeleted => "the deletion of its agent",
        EndReason::Expired => "expiry",
        EndReason::User => "a user",
    }
}

fn agent_name(session: &Session) -> String {
    clean_line(session.agent_name.as_deref().unwrap_or(session.agent_id.as_str()))
}

fn title_of(session: &Session) -> String {
    clean_line(session.title.as_deref().unwrap_or_default()).trim().to_owned()
}

fn active_at(session: &Session) -> Timestamp {
    session.last_activity_at.unwrap_or(session.created_at)
}

fn status(status: Status, word: &str) -> Cell {
    match status {
        Status::Active => coloured(word, Some(Color::Green)),
        Status::Completed => coloured(word, Some(Color::Blue)),
        Status::Ended => coloured(word, None).add_attribute(Attribute::Dim),
        Status::Failed => coloured(word, Some(Color::Red)),
        Status::Idle | Status::Pending => coloured(word, Some(Color::Yellow)),
    }
}

/// How many columns of a terminal a text takes.
pub fn width(text: &str) -> usize {
    text.width()
}

/// A text cut on a grapheme to at most `width` columns, `...` inside them.
pub fn shorten(text: &str, width: usize) -> String {
    const DOTS: &str = "...";
    if text.width() <= width {
        return text.to_owned();
    }
    let room = width.saturating_sub(DOTS.len());
    let mut short = String::new();
    let mut used = 0;
    for grapheme in text.graphemes(true) {
        used += grapheme.width();
        if used > room {
            break;
        }
        short.push_str(grapheme);
    }
    short.truncate(short.trim_end().len());
    short + &DOTS[..DOTS.len().min(width)]
}

/// What weaker isolation makes of an agent's network, in words after its own.
fn network_of(isolation: Isolation) -> &'static str {
    match isolation {
        Isolation::Full => "",
        Isolation::None => " (network rules don't hold: it has the host's network)",
        Isolation::Reduced => " (network rules can't be held: with them it has no network)",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<Session> {
        let row = |id: &str, agent: &str, title: &str, status, messages, active: &str| Session {
            id: format!("ses_{id:0<32}").parse().expect("an ID"),
            agent_id: "agt_abc123def456".parse().expect("an ID"),
            agent_name: Some(agent.to_owned()),
            status,
            title: Some(title.to_owned()),
            message_count: messages,
            created_at: "2026-03-09T10:15:00Z".parse().expect("a time"),
            last_activity_at: Some(active.parse().expect("a time")),
            idle_timeout_seconds: None,
            expires_at: None,
            ended_at: None,
            end_reason: None,
            error: None,
            isolation: None,
            receipt: None,
        };
        vec![
            row(
                "5a3f7b9c2e1d4f6a8b0c9d1e2f3a4b5c",
                "my-agent",
                "What is the capital of France?",
                Status::Active,
                3,
                "2026-03-09T10:17:00Z",
            ),
            row(
                "8d4e6f1a3b2c",
                "test-agent",
                "Write a Python script\u{1b}[31m\r\nnow",
                Status::Idle,
                1,
                "2026-03-09T09:19:00Z",
            ),
            row("9e5f7a2b4c3d", "my-agent", "Debug my code", Status::Ended, 5, "2026-03-07T10:00:00Z"),
        ]
    }

    fn style(width: Option<usize>) -> Style {
        Style { width, colour: false, truncate: true, now: "2026-03-09T10:19:00Z".parse().expect("a time") }
    }

    #[test]
    fn the_list_as_on_the_page() {
        assert_eq!(
            sessions(&sample(), &style(None), true),
            "ID            Agent       Title                           Status  Msgs  Last Active\n\
             5a3f7b9c2e1d  my-agent    What is the capital of France?  ACTIVE  3     2 minutes ago\n\
             8d4e6f1a3b2c  test-agent  Write a Python script now       IDLE    1     1 hour ago\n\
             9e5f7a2b4c3d  my-agent    Debug my code                   ENDED   5     2 days ago\n"
        );
    }

    #[test]
    fn a_narrow_terminal_cuts_titles() {
        let text = sessions(&sample(), &style(Some(77)), true);
        assert!(text.contains("What is the capital..."), "{text}");
        assert!(text.lines().all(|line| line.width() <= 77), "{text}");
    }

    #[test]
    fn one_session_as_on_the_page() {
        assert_eq!(
            session(&sample()[0], &style(None)),
            "Field        Value\n\
             ID           ses_5a3f7b9c2e1d4f6a8b0c9d1e2f3a4b5c\n\
             Agent        my-agent (agt_abc123def456)\n\
             Status       ACTIVE\n\
             Messages     3\n\
             Created      2026-03-09 10:15:00 UTC\n\
             Title        What is the capital of France?\n\
             Last Active  2 minutes ago (2026-03-09 10:17:00 UTC)\n"
        );
    }

    #[test]
    fn titles_are_cut_on_a_grapheme_with_the_dots_inside() {
        assert_eq!(shorten(&"x".repeat(50), 50), "x".repeat(50));
        assert_eq!(shorten(&"x".repeat(51), 50), "x".repeat(47) + "...");
        assert_eq!(shorten(&"日".repeat(30), 50), "日".repeat(23) + "...");
        assert_eq!(shorten(&"👨‍👩‍👧".repeat(30), 9), "👨‍👩‍👧👨‍👩‍👧👨‍👩‍👧...");
    }

    #[test]
    fn statuses_have_colours_only_where_they_are_wanted() {
        let coloured = sessions(&sample(), &Style { colour: true, ..style(None) }, true);
        assert!(coloured.contains("\u{1b}["), "{coloured:?}");
        assert!(!sessions(&sample(), &style(None), true).contains('\u{1b}'));
        let detail = session(&sample()[1], &Style { colour: true, ..style(None) });
        assert!(detail.contains("IDLE\u{1b}["), "no blanks at the end: {detail:?}");
    }
}
