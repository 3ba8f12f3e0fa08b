//! A run's events, as they come.

use std::collections::VecDeque;

use reqwest::{Method, RequestBuilder, Response};

use super::ask::{Lost, Retries};
use super::{Client, Error, Result};
use crate::wire::sse::Decoder;
use crate::wire::{ErrorCode, NumberedEvent, RunId, SendMessage, SessionId};

impl Client {
    /// `POST /sessions/{id}/messages`: starts a run, and its events as they come.
    pub async fn send(&self, id: &SessionId, prompt: &str) -> Result<RunStream> {
        let body = SendMessage { prompt: prompt.to_owned(), run_id: None };
        let request = self.request(Method::POST, &format!("/sessions/{id}/messages")).json(&body);
        Ok(RunStream::new(self.clone(), id.clone(), self.ask(request).await?, 0))
    }

    /// The same; the run gets this ID. If the connection breaks, the same is asked again: the server begins one run of an
    /// ID.
    pub async fn send_as(&self, id: &SessionId, prompt: &str, run: RunId) -> Result<RunStream> {
        let body = SendMessage { prompt: prompt.to_owned(), run_id: Some(run) };
        let request = self.request(Method::POST, &format!("/sessions/{id}/messages")).json(&body);
        Ok(RunStream::new(self.clone(), id.clone(), self.ask_again(request).await?, 0))
    }

    /// `GET /sessions/{id}/events`: the latest run's events after the first `after`, then live.
    pub async fn events(&self, id: &SessionId, after: u64) -> Result<RunStream> {
        let response = self.ask(self.events_request(id, after)).await?;
        Ok(RunStream::new(self.clone(), id.clone(), response, after))
    }

    fn events_request(&self, id: &SessionId, after: u64) -> RequestBuilder {
        self.request(Method::GET, &format!("/sessions/{id}/events")).query(&[("after", after)])
    }
}

/// The events of one run. A dropped connection is taken up where it broke.
#[derive(Debug)]
pub struct RunStream {
    client: Client,
    id: SessionId,
    /// The run, once it is known.
    run: Option<RunId>,
    response: Option<Response>,
    decoder: Decoder,
    ready: VecDeque<NumberedEvent>,
    received: u64,
    retries: Retries,
    finished: bool,
}

impl RunStream {
    fn new(client: Client, id: SessionId, response: Response, received: u64) -> Self {
        Self {
            retries: Retries::of_a_stream(&client),
            client,
            id,
            run: None,
            response: Some(response),
            decoder: Decoder::default(),
            ready: VecDeque::new(),
            received,
            finished: false,
        }
    }

    /// The next event; `None` after the run's last one.
    pub async fn next(&mut self) -> Option<Result<NumberedEvent>> {
        loop {
            if self.finished {
                return None;
            }
            if let Some(event) = self.ready.pop_front() {
                // While nobody listened, the run has ended and the session was sent another message.
                if *self.run.get_or_insert_with(|| event.run_id.clone()) != event.run_id {
                    return Some(self.fail(Error::api(
                        ErrorCode::Conflict,
                        "the connection broke off, and meanwhile the session was sent another message",
                        "superserve sessions messages ID shows the whole reply.".to_owned(),
                    )));
                }
                if event.number <= self.received {
                    continue;
                }
                self.received = event.number;
                self.finished = event.event.is_last();
                return Some(Ok(event));
            }
            let lost = match &mut self.response {
                Some(response) => match response.chunk().await {
                    Ok(Some(bytes)) => {
                        self.retries.forget();
                        self.ready.extend(self.decoder.feed(&bytes));
                        continue;
                    }
                    Err(error) => Lost::midway(error),
                    Ok(None) => {
                        Lost::midway(Error::Protocol("the run's stream ended before the run did".into()))
                    }
                },
                None => match self.client.stream(self.client.events_request(&self.id, self.received)).await {
                    Ok(response) => {
                        self.response = Some(response);
                        continue;
                    }
                    Err(lost) => lost,
                },
            };
            self.response = None;
            self.decoder = Decoder::default();
            if let Err(error) = self.retries.pause(lost).await {
                return Some(self.fail(error));
            }
        }
    }

    fn fail(&mut self, error: Error) -> Result<NumberedEvent> {
        self.finished = true;
        Err(error)
    }
}
