//! Sessions' changes as they come. A dropped connection is taken up again: the present states come first.

use std::collections::VecDeque;

use futures_util::{Stream, stream};
use reqwest::{Method, RequestBuilder, Response};

use super::ask::{Lost, Retries};
use super::{Client, Error, Result};
use crate::wire::sse::ChangeDecoder;
use crate::wire::{ErrorCode, SessionEvent, SessionId};

impl Client {
    /// `GET /sessions/watch`: the present states of these sessions, then every change of one of them. With none named,
    /// every change of any session from now on; such a stream ends when changes may have been missed, and is asked for
    /// anew by whoever reads it.
    ///
    /// Errors: a session that is not there; a server that does not come back.
    pub async fn watch(
        &self,
        ids: &[SessionId],
    ) -> Result<impl Stream<Item = Result<SessionEvent>> + Send + use<>> {
        let watch = Watch {
            client: self.clone(),
            response: Some(self.ask(self.watch_request(ids)).await?),
            ids: ids.to_vec(),
            decoder: ChangeDecoder::default(),
            ready: VecDeque::new(),
            retries: Retries::of_a_stream(self),
            finished: false,
        };
        Ok(stream::unfold(watch, |mut watch| async move { watch.next().await.map(|event| (event, watch)) }))
    }

    fn watch_request(&self, ids: &[SessionId]) -> RequestBuilder {
        let pairs: Vec<(&str, &str)> = ids.iter().map(|id| ("id", id.as_str())).collect();
        self.request(Method::GET, "/sessions/watch").query(&pairs)
    }
}

struct Watch {
    client: Client,
    ids: Vec<SessionId>,
    response: Option<Response>,
    decoder: ChangeDecoder,
    ready: VecDeque<SessionEvent>,
    retries: Retries,
    finished: bool,
}

impl Watch {
    async fn next(&mut self) -> Option<Result<SessionEvent>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                if let SessionEvent::Deleted(id) = &event
                    && !self.ids.is_empty()
                {
                    self.ids.retain(|known| known != id);
                    // A watch of none would be one of all.
                    self.finished = self.ids.is_empty();
                }
                return Some(Ok(event));
            }
            if self.finished {
                return None;
            }
            let lost = match &mut self.response {
                None => match self.client.stream(self.client.watch_request(&self.ids)).await {
                    Ok(response) => {
                        self.response = Some(response);
                        continue;
                    }
                    Err(lost) => match self.forget_missing(lost).await {
                        Ok(()) => continue,
                        Err(lost) => lost,
                    },
                },
                Some(response) => match response.chunk().await {
                    Ok(Some(bytes)) => {
                        self.retries.forget();
                        self.ready.extend(self.decoder.feed(&bytes));
                        continue;
                    }
                    Ok(None) if self.ids.is_empty() => {
                        self.finished = true;
                        continue;
                    }
                    Err(error) => Lost::midway(error),
                    Ok(None) => {
                        Lost::midway(Error::Protocol("the stream of changes ends again and again".into()))
                    }
                },
            };
            self.response = None;
            self.decoder = ChangeDecoder::default();
            // What changed meanwhile can't be known of one that watches all: whoever reads it asks anew.
            let lost = match self.ids.is_empty() {
                true => Err(lost.error),
                false => self.retries.pause(lost).await,
            };
            if let Err(error) = lost {
                self.finished = true;
                return Some(Err(error));
            }
        }
    }

    /// After a refusal: those that were forgotten while nobody listened are told as such, and watched no longer.
    async fn forget_missing(&mut self, refused: Lost) -> std::result::Result<(), Lost> {
        if !is_missing(&refused.error) {
            return Err(refused);
        }
        for id in &self.ids {
            match self.client.session(id).await {
                Ok(_) => {}
                Err(error) if is_missing(&error) => self.ready.push_back(SessionEvent::Deleted(id.clone())),
                Err(error) => return Err(Lost::midway(error)),
            }
        }
        if self.ready.is_empty() {
            return Err(refused);
        }
        Ok(())
    }
}

fn is_missing(error: &Error) -> bool {
    matches!(error, Error::Api { code: ErrorCode::NotFound, .. })
}
