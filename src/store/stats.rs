//! What is counted over many sessions, by the database.

use std::collections::BTreeMap;

use sqlx::{QueryBuilder, Row, Sqlite, SqliteConnection};

use super::sessions::conditions;
use super::{Result, Store, unsigned};
use crate::metrics::Operation;
use crate::wire::{
    AgentId, Extreme, Grouping, Measure, Number, SessionQuery, SessionStats, StatsQuery, Timestamp,
};

fn measured(measure: Measure) -> &'static str {
    match measure {
        Measure::MessageCount => "s.message_count",
        Measure::CreatedAt => "s.created_at",
        Measure::LastActivityAt => "s.last_activity_at",
    }
}

fn extreme(measure: Measure, value: i64) -> Extreme {
    match measure {
        Measure::MessageCount => Extreme::Count(unsigned(value)),
        Measure::CreatedAt | Measure::LastActivityAt => Extreme::Moment(Timestamp::from_millis(value)),
    }
}

/// The statement that answers all but the counts by something: one row.
fn totals(query: &SessionQuery, agents: &[AgentId], now: i64, stats: &StatsQuery) -> QueryBuilder<Sqlite> {
    let mut sql = QueryBuilder::new("SELECT count(*)");
    for number in &stats.sum {
        match number {
            Number::MessageCount => sql.push(", coalesce(sum(s.message_count), 0)"),
        };
    }
    for (function, measures) in [(", min(", &stats.min), (", max(", &stats.max)] {
        for measure in measures {
            sql.push(function).push(measured(*measure)).push(")");
        }
    }
    sql.push(" FROM sessions s");
    conditions(&mut sql, query, agents, now);
    sql
}

/// The statement that counts by something: a row each, its name and how many there are.
fn counts(query: &SessionQuery, agents: &[AgentId], now: i64, by: Grouping) -> QueryBuilder<Sqlite> {
    let group = match by {
        Grouping::Agent | Grouping::AgentId => "s.agent_id",
        Grouping::Status => "s.status",
    };
    let mut sql = QueryBuilder::new(match by {
        // The names are looked up when all is counted. A deleted agent and a new one may bear the same.
        Grouping::Agent => "SELECT a.name, c.n FROM (",
        Grouping::AgentId | Grouping::Status => "",
    });
    sql.push("SELECT ").push(group).push(" AS g, count(*) AS n FROM sessions s");
    conditions(&mut sql, query, agents, now);
    sql.push(" GROUP BY ").push(group);
    if by == Grouping::Agent {
        sql.push(") c JOIN agents a ON a.id = c.g");
    }
    sql
}

impl Store {
    /// Counts over the sessions that a query's conditions hold for; its page and its fields don't count. `agents` are
    /// the query's agents, resolved; `now` is what idle times count to. All of it is of the same moment.
    pub async fn session_stats(
        &self,
        query: &SessionQuery,
        agents: &[AgentId],
        now: i64,
        stats: &StatsQuery,
    ) -> Result<SessionStats> {
        let _timed = self.timed(Operation::Stats);
        let mut transaction = self.read.begin().await?;
        let mut answer = read_totals(&mut transaction, query, agents, now, stats).await?;
        for by in &stats.count_by {
            let rows: Vec<(String, i64)> =
                counts(query, agents, now, *by).build_query_as().fetch_all(&mut *transaction).await?;
            let mut of: BTreeMap<String, u64> = BTreeMap::new();
            for (name, count) in rows {
                *of.entry(name).or_default() += unsigned(count);
            }
            answer.counts.insert(*by, of);
        }
        Ok(answer)
    }
}

async fn read_totals(
    connection: &mut SqliteConnection,
    query: &SessionQuery,
    agents: &[AgentId],
    now: i64,
    stats: &StatsQuery,
) -> Result<SessionStats> {
    let row = totals(query, agents, now, stats).build().fetch_one(connection).await?;
    let mut answer = SessionStats { count: unsigned(row.try_get(0)?), ..SessionStats::default() };
    let mut column = 1;
    for number in &stats.sum {
        answer.sum.insert(*number, unsigned(row.try_get(column)?));
        column += 1;
    }
    for (measures, found) in [(&stats.min, &mut answer.min), (&stats.max, &mut answer.max)] {
        for measure in measures {
            let value: Option<i64> = row.try_get(column)?;
            found.insert(*measure, value.map(|value| extreme(*measure, value)));
            column += 1;
        }
    }
    Ok(answer)
}
