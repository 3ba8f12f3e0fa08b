//! Tokens: made once, kept as hashes, checked at every request that comes over the network.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{Error, Platform, Result, millis};
use crate::clock::Clock;
use crate::store::StoredToken;
use crate::wire::token::{CreateToken, NewToken};
use crate::wire::{Timestamp, Token};

/// What every token begins with, so that people and scanners know one when they see it.
const PREFIX: &str = "ss_";
/// The longest name, in characters.
const MAX_NAME: usize = 64;
/// The most tokens that a server keeps.
const MAX_TOKENS: usize = 1000;
/// How exactly the last use is noted, in milliseconds: a write a request would cost more than the request.
const USE: u64 = 60_000;
/// The longest life of a token with an end.
const MAX_LIFE: Duration = Duration::from_secs(100 * 366 * 24 * 3600);

impl Platform {
    /// Makes a token. Errors: a name that is none or taken, a life that is none, too many.
    pub async fn create_token(&self, wanted: CreateToken) -> Result<NewToken> {
        check_name(&wanted.name)?;
        let life = wanted.expires_in.map(Duration::from_secs);
        if life.is_some_and(|life| life.is_zero() || life > MAX_LIFE) {
            return Err(invalid("A token lives from 1 second to 100 years", "Try --expires 30d."));
        }
        if self.0.store.tokens().await?.len() >= MAX_TOKENS {
            return Err(invalid(
                "There are 1000 tokens, which is all that a server keeps",
                "Revoke those that nobody uses: superserve tokens list, superserve tokens revoke NAME.",
            ));
        }
        let text = random_text(&self.0.clock, PREFIX);
        let created_at = Timestamp::from_millis(self.0.clock.now_millis());
        let token = Token {
            id: id_of(&text),
            name: wanted.name,
            scope: wanted.scope,
            created_at,
            expires_at: life.map(|life| created_at.plus_millis(millis(life))),
            last_used_at: None,
        };
        let stored = StoredToken { token, hash: hash(&text) };
        if !self.0.store.insert_token(&stored).await? {
            return Err(Error::TokenTaken(stored.token.name));
        }
        Ok(NewToken { token: text, about: stored.token })
    }

    /// All tokens, by name.
    pub async fn tokens(&self) -> Result<Vec<Token>> {
        Ok(self.0.store.tokens().await?)
    }

    /// Revokes a token by its ID or its name: it opens nothing any more. Error: no such token.
    pub async fn revoke_token(&self, id_or_name: &str) -> Result<()> {
        match self.0.store.delete_token(id_or_name).await? {
            true => Ok(()),
            false => Err(Error::TokenNotFound(id_or_name.to_owned())),
        }
    }

    /// Whether a token that was good is good still.
    pub async fn still_counts(&self, token: &Token) -> bool {
        let known = self.0.store.token(&token.id).await.ok().flatten();
        let now = self.0.clock.now_millis();
        known.is_some_and(|known| {
            known.token.scope == token.scope && known.token.expires_at.is_none_or(|at| at.as_millis() > now)
        })
    }

    /// The token with this text, unless there is none or its time is over. Notes that it was used.
    pub async fn authenticate(&self, text: &str) -> Result<Option<Token>> {
        if !text.starts_with(PREFIX) {
            return Ok(None);
        }
        let Some(stored) = self.0.store.token(&id_of(text)).await? else { return Ok(None) };
        let now = self.0.clock.now_millis();
        let is_it: bool = hash(text).ct_eq(&stored.hash).into();
        if !is_it || stored.token.expires_at.is_some_and(|at| at.as_millis() <= now) {
            return Ok(None);
        }
        let noted = stored.token.last_used_at.map(Timestamp::as_millis);
        let is_due = noted.is_none_or(|noted| now.abs_diff(noted) >= USE);
        if is_due && let Err(error) = self.0.store.use_token(&stored.token.id, now).await {
            // On a full disk the owner must still get in.
            tracing::warn!(%error, "cannot note that a token was used");
        }
        Ok(Some(stored.token))
    }
}

/// A text that nobody can guess: 32 random bytes.
pub(super) fn random_text(clock: &Clock, prefix: &str) -> String {
    let mut bytes = [0; 32];
    let (first, second) = bytes.split_at_mut(16);
    first.copy_from_slice(&clock.random().to_be_bytes());
    second.copy_from_slice(&clock.random().to_be_bytes());
    format!("{prefix}{}", URL_SAFE_NO_PAD.encode(bytes))
}

fn hash(text: &str) -> Vec<u8> {
    Sha256::digest(text.as_bytes()).to_vec()
}

/// The ID says nothing of the text: it is a part of the hash.
fn id_of(text: &str) -> String {
    hash(text).iter().take(8).fold("tok_".to_owned(), |id, byte| format!("{id}{byte:02x}"))
}

/// Whether a token may be called so: what can be said in a shell, printed, and put into a path. Error: why not.
pub(super) fn check_name(name: &str) -> Result<()> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '@' | '+');
    let is_good = name.chars().count() <= MAX_NAME
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(fits);
    // One that looks like an ID would hide the token with this ID.
    if is_good && !name.starts_with("tok_") {
        return Ok(());
    }
    Err(invalid(
        &format!("'{}' is no name for a token", name.escape_default()),
        "Take up to 64 letters, digits and - _ . @ +, the first one a letter or a digit: laptop, ci, ada@example.com.",
    ))
}

fn invalid(message: &str, hint: &str) -> Error {
    Error::Invalid { message: message.to_owned(), hint: Some(hint.to_owned()) }
}
