//! Waiting until sessions are idle, done or failed: the server tells it when it happens, nobody asks again and again.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::select_all;
use rhai::plugin::*;
use rhai::{Map, NativeCallContext};

use super::duration::Span;
use super::failure::{At, Failure, Fallible};
use super::host::{Amount, Bar};
use super::runtime::Runtime;
use super::session::{OptionMap, Session};
use super::sessions::Sessions;
use super::suggestion;
use super::target::{Target, on_one_server};
use crate::client::{self, Client};
use crate::wire::{self, SessionEvent, SessionId, Status};

/// So many sessions are watched with one request: the most that the server takes.
const WATCHED: usize = 1000;
/// How often a bar is drawn anew while nothing happens.
const REDRAWN: Duration = Duration::from_millis(500);
/// So many of those that were not reached are named.
const NAMED: usize = 10;

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Until {
    Idle,
    Done,
    Failed,
}

/// Where a session stands towards that.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    Open,
    Reached,
    /// Never any more, unless somebody resumes it.
    Lost(String),
}

impl Until {
    const WORDS: [(&'static str, Self); 3] =
        [("idle", Self::Idle), ("done", Self::Done), ("failed", Self::Failed)];

    fn read(word: &str) -> Result<Self, Failure> {
        let words = Self::WORDS.map(|(word, _)| word);
        Self::WORDS.iter().find(|(known, _)| *known == word).map(|(_, until)| *until).ok_or_else(|| {
            Failure::Usage {
                message: format!("'{word}' can't be waited for"),
                hint: Some(
                    suggestion::did_you_mean(word, words.into_iter())
                        .unwrap_or_else(|| "Wait until idle, done or failed.".to_owned()),
                ),
            }
        })
    }

    fn word(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }

    fn verdict(self, session: &wire::Session) -> Verdict {
        let lost = || {
            let short = session.id.short();
            Verdict::Lost(match (&session.error, session.status) {
                (Some(error), Status::Failed) => format!("session {short} failed: {error}"),
                (None, Status::Failed) => format!("session {short} failed"),
                (_, status) => format!("session {short} is {status}"),
            })
        };
        match (self, session.status) {
            (_, Status::Active | Status::Pending) => Verdict::Open,
            (Self::Idle, Status::Idle | Status::Completed)
            | (Self::Done, Status::Completed | Status::Ended)
            | (Self::Failed, Status::Failed) => Verdict::Reached,
            (Self::Done | Self::Failed, Status::Idle) => Verdict::Open,
            (Self::Idle | Self::Done, Status::Failed)
            | (Self::Idle | Self::Failed, Status::Ended)
            | (Self::Failed, Status::Completed) => lost(),
        }
    }
}

struct Wanted {
    until: Until,
    timeout: Option<Span>,
    /// One is enough.
    any: bool,
}

impl Wanted {
    fn read(until: &str, options: Map) -> Result<Self, Failure> {
        let mut map = OptionMap::new(options, "wait", &["timeout", "any"])?;
        let until = Until::read(until)?;
        let timeout = match map.take("timeout") {
            None => None,
            Some(value) => Some(match value.clone().try_cast::<Span>() {
                Some(span) => span,
                None => Span::parse(
                    &value
                        .into_string()
                        .map_err(|_| map.wrong("timeout", "a duration: 5.minutes or \"5m\""))?,
                )?,
            }),
        };
        Ok(Self { until, timeout, any: map.flag("any")? })
    }
}

/// The sessions as they were last told.
struct Waiting {
    ids: Vec<SessionId>,
    reached: HashMap<SessionId, wire::Session>,
    /// Why others can't be reached any more.
    lost: HashMap<SessionId, String>,
}

impl Waiting {
    fn new(ids: Vec<SessionId>) -> Self {
        Self { ids, reached: HashMap::new(), lost: HashMap::new() }
    }

    /// Reads the changes until enough is known.
    async fn decide(&mut self, client: &Client, wanted: &Wanted, bar: &dyn Bar) -> client::Result<()> {
        let mut streams = Vec::new();
        for ids in self.ids.chunks(WATCHED) {
            streams.push(Box::pin(client.watch(ids).await?));
        }
        let mut changes = select_all(streams);
        loop {
            bar.set(self.reached.len() as u64);
            let open = self.ids.len() - self.reached.len() - self.lost.len();
            let enough = match wanted.any {
                true => open == 0 || !self.reached.is_empty(),
                false => open == 0 || !self.lost.is_empty(),
            };
            if enough {
                return Ok(());
            }
            match tokio::time::timeout(REDRAWN, changes.next()).await {
                // The bar shows how long it has taken.
                Err(_) => {}
                Ok(Some(Ok(event))) => self.take(event, wanted.until),
                Ok(Some(Err(error))) => return Err(error),
                Ok(None) => {
                    return Err(client::Error::Protocol("the stream of changes ended too early".into()));
                }
            }
        }
    }

    fn take(&mut self, event: SessionEvent, until: Until) {
        let (id, session) = match event {
            SessionEvent::Updated(session) => (session.id.clone(), Some(session)),
            SessionEvent::Deleted(id) => (id, None),
        };
        self.reached.remove(&id);
        self.lost.remove(&id);
        match session {
            None => {
                let why = format!("session {} was deleted", id.short());
                self.lost.insert(id, why);
            }
            Some(session) => match until.verdict(&session) {
                Verdict::Open => {}
                Verdict::Reached => {
                    self.reached.insert(id, session);
                }
                Verdict::Lost(why) => {
                    self.lost.insert(id, why);
                }
            },
        }
    }

    /// Those that were reached, in the order in which they were named; why not, if there are too few.
    fn ended(mut self, runtime: &Runtime, wanted: &Wanted, timed_out: bool) -> Result<Vec<Session>, Failure> {
        let others: Vec<&SessionId> = self.ids.iter().filter(|id| !self.reached.contains_key(id)).collect();
        if others.is_empty() || (wanted.any && !self.reached.is_empty()) {
            let reached = self.ids.iter().filter_map(|id| self.reached.remove(id));
            return Ok(reached.map(|session| runtime.session(session)).collect());
        }
        let state = wanted.until.word();
        if timed_out {
            let after = wanted.timeout.unwrap_or_default();
            let names = named(others.iter().map(|id| id.short()));
            let message = match self.ids.len() {
                1 => format!("Session {names} was not {state} after {after}"),
                all => format!("{} of {all} sessions were not {state} after {after}: {names}", others.len()),
            };
            let hint = Some("Give a longer time-out, or see superserve sessions get ID.".to_owned());
            return Err(Failure::Wait { message, hint, timed_out });
        }
        let lost: Vec<&str> = others.iter().filter_map(|id| self.lost.get(*id)).map(String::as_str).collect();
        let message = format!("Waited in vain until {state}: {}", named(lost.into_iter()));
        let hint = Some("See superserve sessions messages ID for what was said.".to_owned());
        Err(Failure::Wait { message, hint, timed_out })
    }
}

/// The first few, with commas between, and how many more there are.
fn named<'a>(texts: impl Iterator<Item = &'a str> + Clone) -> String {
    let shown: Vec<&str> = texts.clone().take(NAMED).collect();
    match texts.count().saturating_sub(NAMED) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// Waits; the sessions that were reached.
fn wait_for(runtime: &Runtime, targets: &[Target], wanted: &Wanted) -> Result<Vec<Session>, Failure> {
    if let Some(refusal) = targets.iter().find_map(Target::refusal) {
        return Err(refusal.into());
    }
    runtime.block_on(async {
        let client = runtime.client().await?;
        let mut ids: Vec<SessionId> = Vec::with_capacity(targets.len());
        let mut known = std::collections::HashSet::new();
        for target in targets {
            let id = target.id(&client).await?;
            if known.insert(id.clone()) {
                ids.push(id);
            }
        }
        if runtime.options().dry_run {
            // What was withheld never comes.
            let names = named(ids.iter().map(SessionId::short));
            runtime.would(&format!("wait until {names} {} {}", is_or_are(&ids), wanted.until.word()))?;
            let mut sessions = Vec::with_capacity(ids.len());
            for id in &ids {
                sessions.push(runtime.session(client.session(id).await?));
            }
            return Ok(sessions);
        }
        let bar = runtime.host().terminal.bar("waiting", Amount::Count(ids.len() as u64));
        let mut waiting = Waiting::new(ids);
        let deciding = waiting.decide(&client, wanted, bar.as_ref());
        let timed_out = match wanted.timeout {
            None => deciding.await.map(|()| false)?,
            Some(time) => {
                let time = Duration::from_millis(u64::try_from(time.0).unwrap_or(0));
                match tokio::time::timeout(time, deciding).await {
                    Ok(decided) => decided.map(|()| false)?,
                    Err(_) => true,
                }
            }
        };
        drop(bar);
        waiting.ended(runtime, wanted, timed_out)
    })
}

fn is_or_are(ids: &[SessionId]) -> &'static str {
    if ids.len() == 1 { "is" } else { "are" }
}

/// One session for one, a list for several.
fn waited(ctx: &NativeCallContext, who: Dynamic, wanted: Result<Wanted, Failure>) -> Fallible<Dynamic> {
    let wanted = wanted.at(ctx)?;
    let is_one = !who.is_array() && !who.is::<Sessions>();
    let targets = Target::read_all(who).at(ctx)?;
    let runtime = on_one_server(&Runtime::of(ctx)?, &targets).at(ctx)?;
    let mut reached = wait_for(&runtime, &targets, &wanted).at(ctx)?;
    Ok(match (is_one, reached.len()) {
        (true, 1) => Dynamic::from(reached.remove(0)),
        _ => Dynamic::from(Sessions::from(reached)),
    })
}

/// Waiting for sessions.
#[export_module]
pub mod wait_calls {
    use super::Span as Duration;

    /// Waits until a session is `idle` (it is ready for the next message: idle or completed), `done` (it is over:
    /// completed or ended) or `failed`; of an array or a list until all are. Takes IDs, beginnings of IDs and sessions.
    /// Gives the session, or the list, as it is then. Errors: `not_reached` if one of them can't get there any more
    /// (it has failed or ended, or was deleted), at once.
    ///
    /// ```rhai
    /// wait(list(#{ status: "active" }), "idle");
    /// ```
    #[rhai_fn(volatile, return_raw)]
    pub fn wait(ctx: NativeCallContext, who: Dynamic, until: &str) -> Fallible<Dynamic> {
        super::waited(&ctx, who, Until::read(until).map(|until| Wanted { until, timeout: None, any: false }))
    }

    /// The same for at most so long. Errors: `timed_out`, `not_reached`.
    ///
    /// ```rhai
    /// try { wait("@last", "idle", 5.minutes); } catch (e) { if e.code == "timed_out" { print("still at it"); } }
    /// ```
    #[rhai_fn(name = "wait", volatile, return_raw)]
    pub fn wait_at_most(
        ctx: NativeCallContext,
        who: Dynamic,
        until: &str,
        timeout: Duration,
    ) -> Fallible<Dynamic> {
        let wanted = Until::read(until).map(|until| Wanted { until, timeout: Some(timeout), any: false });
        super::waited(&ctx, who, wanted)
    }

    /// The same with options: `timeout` (a duration, or text like `5m`; no limit if not given), `any` (the first that gets
    /// there is enough; gives those that have). Errors: `timed_out`, `not_reached`; an unknown option.
    ///
    /// ```rhai
    /// let first = wait(list(#{ status: "active" }), "idle", #{ timeout: 5.minutes, any: true });
    /// ```
    #[rhai_fn(name = "wait", volatile, return_raw)]
    pub fn wait_with(ctx: NativeCallContext, who: Dynamic, until: &str, options: Map) -> Fallible<Dynamic> {
        super::waited(&ctx, who, Wanted::read(until, options))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_a_verdict_for_every_wish() {
        let session = |status| wire::Session {
            status,
            error: Some("it crashed".to_owned()),
            ..Session::not_made(&agent(), None, 0).0.to_wire()
        };
        let verdicts = |until: Until| {
            Status::ALL.map(|status| match until.verdict(&session(status)) {
                Verdict::Open => "open".to_owned(),
                Verdict::Reached => "reached".to_owned(),
                Verdict::Lost(why) => why.trim_start_matches("session 000000000000 ").to_owned(),
            })
        };
        let of = |until, status: Status| {
            let place = Status::ALL.iter().position(|known| *known == status).expect("a known one");
            verdicts(until)[place].clone()
        };
        for (status, idle, done, failed) in [
            (Status::Pending, "open", "open", "open"),
            (Status::Active, "open", "open", "open"),
            (Status::Idle, "reached", "open", "open"),
            (Status::Completed, "reached", "reached", "is completed"),
            (Status::Ended, "is ended", "reached", "is ended"),
            (Status::Failed, "failed: it crashed", "failed: it crashed", "reached"),
        ] {
            let found = [Until::Idle, Until::Done, Until::Failed].map(|until| of(until, status));
            assert_eq!(found, [idle, done, failed], "{status}");
        }
    }

    fn agent() -> wire::Agent {
        serde_json::from_value(serde_json::json!({
            "id": "agt_abc123def456", "name": "notes", "command": "sh agent.sh",
            "created_at": "2026-03-01T00:00:00Z", "updated_at": "2026-03-02T00:00:00Z", "revision": 1, "source_hash": "",
        }))
        .expect("an agent")
    }

    #[test]
    fn many_names_are_cut() {
        let names: Vec<String> = (0..12).map(|n| n.to_string()).collect();
        assert_eq!(named(names.iter().map(String::as_str)), "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more");
    }
}
