//! Asking, and asking again where that helps and does no harm.

use std::time::Duration;

use reqwest::header::RETRY_AFTER;
use reqwest::{Method, RequestBuilder, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Client, Error, Result};
use crate::wire::{ErrorBody, ErrorCode};

/// A server that wants to be left alone for longer is.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// What a server that has too much to do or leaves answers, or something before it that finds none: too many requests, bad
/// gateway, unavailable, gateway time-out.
const BUSY: [u16; 4] = [429, 502, 503, 504];

impl Client {
    pub(super) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base))
    }

    /// Sends a request; an answer that is an error is one. What can be asked twice without harm is asked again if the
    /// connection breaks, and anything is where the server says to wait.
    pub(super) async fn ask(&self, request: RequestBuilder) -> Result<Response> {
        self.again(request.build()?, false, async |response| Ok(response)).await
    }

    /// The same, of a request that does no harm if it is made twice.
    pub(super) async fn ask_again(&self, request: RequestBuilder) -> Result<Response> {
        self.again(request.build()?, true, async |response| Ok(response)).await
    }

    /// The answer, read from its JSON.
    pub(super) async fn call<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T> {
        self.again(request.build()?, false, json).await
    }

    /// The same, of a request that does no harm if it is made twice.
    pub(super) async fn call_again<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T> {
        self.again(request.build()?, true, json).await
    }

    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.call(self.request(Method::GET, path)).await
    }

    pub(super) async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T> {
        self.call(self.request(Method::POST, path).json(body)).await
    }

    /// Asks until the answer is read, or asking again doesn't help. `harmless`: also if it is no GET.
    async fn again<T>(
        &self,
        mut request: reqwest::Request,
        harmless: bool,
        read: impl AsyncFn(Response) -> Result<T>,
    ) -> Result<T> {
        let harmless = harmless || matches!(*request.method(), Method::GET | Method::HEAD);
        let mut retries = Retries::of_a_call(self);
        loop {
            // One whose body is read from somewhere can't be sent twice.
            let next = request.try_clone();
            let lost = match self.once(request, harmless).await {
                Ok(response) => match read(response).await {
                    Ok(answer) => return Ok(answer),
                    Err(error) => Lost { passes: harmless && is_broken(&error), wait: None, error },
                },
                Err(lost) => lost,
            };
            let Some(next) = next else { return Err(lost.error) };
            retries.pause(lost).await?;
            request = next;
        }
    }

    /// Asks once.
    async fn once(&self, request: reqwest::Request, harmless: bool) -> std::result::Result<Response, Lost> {
        let response = match self.http.execute(request).await {
            Ok(response) => response,
            // One that was never connected has sent nothing; the others may have been done.
            Err(error) => {
                let passes = (harmless || error.is_connect()) && !is_hopeless(&error);
                return Err(Lost { passes, wait: None, error: error.into() });
            }
        };
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let wait = told_to_wait(&response);
        // Too many requests were not done; of the others who knows.
        let passes = BUSY.contains(&status.as_u16()) && (harmless || status.as_u16() == 429);
        let passes = passes && wait.is_none_or(|wait| wait <= LONGEST_WAIT);
        Err(match refusal(response).await {
            Ok(error) => Lost { passes, wait, error: self.with_login(error) },
            Err(error) => Lost { passes: harmless, wait, error },
        })
    }

    /// A server doesn't know by which URL it was reached.
    fn with_login(&self, error: Error) -> Error {
        match error {
            Error::Api { code: code @ ErrorCode::Unauthenticated, message, hint: None } if !self.is_local => {
                let url = self.base.trim_end_matches("/v1");
                let hint = Some(format!("At this server: superserve login --url {url}"));
                Error::Api { code, message, hint }
            }
            error => error,
        }
    }

    /// A stream, asked for once: whoever reads it asks again.
    pub(super) async fn stream(&self, request: RequestBuilder) -> std::result::Result<Response, Lost> {
        match request.build() {
            Ok(request) => self.once(request, true).await,
            Err(error) => Err(Lost { passes: false, wait: None, error: error.into() }),
        }
    }
}

/// What went wrong with one attempt.
#[derive(Debug)]
pub(super) struct Lost {
    pub error: Error,
    /// Whether asking again may help, and does no harm.
    passes: bool,
    /// How long the server says to wait before.
    wait: Option<Duration>,
}

impl Lost {
    /// By an error in the middle of a stream.
    pub(super) fn midway(error: impl Into<Error>) -> Self {
        let error = error.into();
        let passes = is_broken(&error) || matches!(error, Error::Protocol(_));
        Self { error, passes, wait: None }
    }
}

/// How often and after what pauses the same is asked for again.
#[derive(Debug)]
pub(super) struct Retries {
    done: u32,
    /// How often in a row, before the error is told.
    most: u32,
    /// The first pause, which doubles.
    first: Duration,
    longest: Duration,
}

impl Retries {
    /// A call over the network; this machine's own server breaks off none while it lives.
    fn of_a_call(client: &Client) -> Self {
        let most = if client.is_local { 0 } else { 3 };
        Self { done: 0, most, first: Duration::from_millis(100), longest: Duration::from_secs(1) }
    }

    /// A stream: for half a minute of a network that is away, and for a moment of this machine's own server.
    pub(super) fn of_a_stream(client: &Client) -> Self {
        let most = if client.is_local { 3 } else { 12 };
        Self { done: 0, most, first: Duration::from_millis(50), longest: Duration::from_secs(5) }
    }

    /// Something has come: the next break is another one.
    pub(super) fn forget(&mut self) {
        self.done = 0;
    }

    /// Waits before the next attempt. Error: the one that was lost by, if it is not one that passes, or comes too often.
    pub(super) async fn pause(&mut self, lost: Lost) -> Result<()> {
        if !lost.passes || self.done == self.most {
            return Err(lost.error);
        }
        let pause = (self.first * 2u32.pow(self.done)).min(self.longest);
        tokio::time::sleep(lost.wait.unwrap_or(pause)).await;
        self.done += 1;
        Ok(())
    }
}

async fn json<T: DeserializeOwned>(response: Response) -> Result<T> {
    serde_json::from_slice(&response.bytes().await?).map_err(|error| Error::Protocol(error.to_string()))
}

fn told_to_wait(response: &Response) -> Option<Duration> {
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// Whether an answer broke off in the middle.
fn is_broken(error: &Error) -> bool {
    matches!(error, Error::Unreachable { .. })
}

/// Whether asking again can't help: a certificate stays what it is, a name too.
fn is_hopeless(error: &reqwest::Error) -> bool {
    error.is_builder() || super::error::cause(error).downcast_ref::<rustls::Error>().is_some()
}

/// What an answer that is an error says. Error: it broke off.
async fn refusal(response: Response) -> Result<Error> {
    let (status, server) = (response.status(), super::error::server_of(response.url()));
    let body = response.bytes().await?;
    Ok(match ErrorBody::read(status.as_u16(), &body) {
        Some(body) => body.into(),
        None if BUSY.contains(&status.as_u16()) => Error::Unreachable {
            message: format!("{server} answers {status}, without a word of superserve"),
            hint: Some(
                "Something before it, a proxy say, finds no server or has too much to do. Does it run?"
                    .into(),
            ),
        },
        None => Error::Protocol(format!("status {status} without a sentence")),
    })
}
