//! Tokens, as hashes.

use super::{Result, Store, parse, time};
use crate::fault;
use crate::wire::{Timestamp, Token};

/// A token and the SHA-256 of its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredToken {
    pub token: Token,
    pub hash: Vec<u8>,
}

#[derive(sqlx::FromRow)]
struct Row {
    id: String,
    hash: Vec<u8>,
    name: String,
    scope: String,
    created_at: i64,
    expires_at: Option<i64>,
    last_used_at: Option<i64>,
}

impl Row {
    fn read(self) -> Result<StoredToken> {
        let token = Token {
            id: self.id,
            name: self.name,
            scope: parse("a token's scope", &self.scope)?,
            created_at: Timestamp::from_millis(self.created_at),
            expires_at: time(self.expires_at),
            last_used_at: time(self.last_used_at),
        };
        Ok(StoredToken { token, hash: self.hash })
    }
}

impl Store {
    /// Keeps a token; says whether it did: there may be one of this name.
    pub async fn insert_token(&self, stored: &StoredToken) -> Result<bool> {
        let token = &stored.token;
        let insert = sqlx::query(
            "INSERT INTO tokens (id, hash, name, scope, created_at, expires_at)
             VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
        )
        .bind(&token.id)
        .bind(&stored.hash)
        .bind(&token.name)
        .bind(token.scope.as_str())
        .bind(token.created_at.as_millis())
        .bind(token.expires_at.map(Timestamp::as_millis))
        .execute(&self.write);
        Ok(fault::around("token.store", insert).await?.rows_affected() > 0)
    }

    /// The token with this ID.
    pub async fn token(&self, id: &str) -> Result<Option<StoredToken>> {
        let row: Option<Row> = sqlx::query_as(
            "SELECT id, hash, name, scope, created_at, expires_at, last_used_at FROM tokens WHERE id = $1",
        )
        .bind(id)
        .fetch_optional(&self.read)
        .await?;
        row.map(Row::read).transpose()
    }

    /// All of them, by name.
    pub async fn tokens(&self) -> Result<Vec<Token>> {
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT id, hash, name, scope, created_at, expires_at, last_used_at FROM tokens ORDER BY name",
        )
        .fetch_all(&self.read)
        .await?;
        rows.into_iter().map(|row| Ok(row.read()?.token)).collect()
    }

    /// Notes when a token was used.
    pub async fn use_token(&self, id: &str, at: i64) -> Result<()> {
        sqlx::query("UPDATE tokens SET last_used_at = $2 WHERE id = $1")
            .bind(id)
            .bind(at)
            .execute(&self.write)
            .await?;
        Ok(())
    }

    /// Forgets a token by its ID or its name; says whether it was there.
    pub async fn delete_token(&self, id_or_name: &str) -> Result<bool> {
        let delete = sqlx::query("DELETE FROM tokens WHERE id = $1 OR name = $1")
            .bind(id_or_name)
            .execute(&self.write);
        Ok(fault::around("token.delete", delete).await?.rows_affected() > 0)
    }
}
