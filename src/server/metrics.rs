//! What the server counts, for Prometheus.

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;

use super::Server;
use super::error::{Failure, Result};
use super::openapi::Unavailable;
use crate::metrics::{MEDIA_TYPE, Present};
use crate::wire::{ErrorCode, Grouping, SessionQuery, StatsQuery, Status};

/// Counters and times of this server since its start, in Prometheus' text format.
#[utoipa::path(
    get, path = "/metrics", tag = "server",
    responses((status = 200, body = String, content_type = "text/plain"), Unavailable),
)]
pub async fn scrape(State(server): State<Server>) -> Result<impl IntoResponse> {
    let by_status = StatsQuery { count_by: vec![Grouping::Status], ..StatsQuery::default() };
    let stats = server.platform.session_stats(&SessionQuery::default(), &by_status).await?;
    let counts = stats.counts.get(&Grouping::Status);
    let count = |status: Status| counts.and_then(|counts| counts.get(status.as_str())).copied().unwrap_or(0);
    let activity = server.platform.activity().await;
    let present = Present {
        sessions: Status::ALL.iter().map(|status| (status.as_str(), count(*status))).collect(),
        active_runs: activity.active_runs,
        live_agents: activity.live_agents,
        started: server.identity.started_at.as_millis(),
    };
    let text = server.platform.metrics().text(&present).map_err(|error| {
        tracing::error!(%error, "cannot write the metrics");
        Failure::new(ErrorCode::Internal, "The metrics could not be written", None)
    })?;
    Ok(([(header::CONTENT_TYPE, MEDIA_TYPE)], text))
}
