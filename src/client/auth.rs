//! The calls about logins and tokens.

use reqwest::Method;

use super::request::percent_encoded;
use super::{Client, Result};
use crate::wire::auth::{AskToken, Decide, DeviceAnswer, DeviceCode, User, Validation};
use crate::wire::token::{CreateToken, NewToken, TokenList};
use crate::wire::{Scope, Token};

impl Client {
    /// `GET /auth/validate`: whom this client's token stands for. Error: nobody.
    pub async fn validate(&self) -> Result<User> {
        Ok(self.get::<Validation>("/auth/validate").await?.user)
    }

    /// `POST /auth/device-code`: begins a login that an owner has to approve.
    pub async fn device_code(&self) -> Result<DeviceCode> {
        self.post("/auth/device-code", &serde_json::json!({})).await
    }

    /// `POST /auth/device-token`: whether it was approved.
    pub async fn device_token(&self, device_code: &str) -> Result<DeviceAnswer> {
        self.post("/auth/device-token", &AskToken { device_code: device_code.to_owned() }).await
    }

    /// `POST /auth/device-approve`: an owner's word on a login.
    pub async fn decide_login(
        &self,
        user_code: &str,
        deny: bool,
        name: Option<String>,
        scope: Scope,
    ) -> Result<()> {
        let decide = Decide { user_code: user_code.to_owned(), deny, name, scope };
        self.post::<serde_json::Value>("/auth/device-approve", &decide).await.map(drop)
    }

    /// `POST /tokens`.
    pub async fn create_token(&self, wanted: &CreateToken) -> Result<NewToken> {
        self.post("/tokens", wanted).await
    }

    /// `GET /tokens`: all of them, by name.
    pub async fn tokens(&self) -> Result<Vec<Token>> {
        Ok(self.get::<TokenList>("/tokens").await?.tokens)
    }

    /// `DELETE /tokens/{id or name}`.
    pub async fn revoke_token(&self, token: &str) -> Result<()> {
        let request = self.request(Method::DELETE, &format!("/tokens/{}", percent_encoded(token)));
        self.ask(request).await.map(drop)
    }
}
