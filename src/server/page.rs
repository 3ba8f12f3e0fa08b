//! The page on which an owner approves a program's login. Plain HTML, without scripts.
//!
//! An owner logs in with a token of the scope admin and has a cookie for an hour, which no other site can use.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::PoisonError;

use axum::extract::{Form, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;

use super::Server;
use super::access::peer;
use super::auth::named_after;
use super::error::Failure;
use crate::platform::{self, Decision, WaitingLogin};
use crate::wire::{Scope, Token};

const COOKIE: &str = "superserve_owner";
/// How long an owner stays logged in, in milliseconds.
const LIFE: i64 = 3600 * 1000;
/// So many owners may be logged in at a time; the one who came first has to log in again.
const MAX_OWNERS: usize = 100;

/// The owners who are logged in, by their cookies.
pub type Owners = HashMap<String, Owner>;

#[derive(Clone, Debug)]
pub struct Owner {
    token: Token,
    /// In milliseconds since the Unix epoch.
    until: i64,
    /// What a form must carry, so that it was ours.
    form: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Asked {
    code: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct LogIn {
    code: String,
    token: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Decided {
    code: String,
    form: String,
    name: String,
    scope: String,
    decision: String,
}

/// `GET /device`: asks for a token, then for a code, then for a word on it.
pub async fn show(State(server): State<Server>, Query(asked): Query<Asked>, headers: HeaderMap) -> Response {
    let Some(owner) = owner(&server, &headers).await else {
        return page(StatusCode::OK, &log_in_form(&asked.code, None));
    };
    if asked.code.is_empty() {
        return page(StatusCode::OK, &code_form(&owner, None));
    }
    match server.platform.waiting_login(&asked.code) {
        Some(login) => {
            page(StatusCode::OK, &decision_form(&owner, &login, &named_after(&login.user_code), None))
        }
        None => page(StatusCode::NOT_FOUND, &code_form(&owner, Some(&no_login(&asked.code)))),
    }
}

/// `POST /device/login`.
pub async fn log_in(State(server): State<Server>, request: Request) -> Response {
    let from = peer(request.extensions());
    let form = match read::<LogIn>(request).await {
        Ok(form) => form,
        Err(response) => return response,
    };
    let wrong = |sentence: &str| page(StatusCode::UNAUTHORIZED, &log_in_form(&form.code, Some(sentence)));
    let token = match server.platform.authenticate(form.token.trim()).await {
        Ok(Some(token)) => token,
        Ok(None) => {
            return match server.rates.stranger(from) {
                Ok(()) => {
                    wrong("The token is not valid: it was revoked, has expired, or is another server's.")
                }
                Err(failure) => failure.into_response(),
            };
        }
        Err(error) => return Failure::from(error).into_response(),
    };
    if token.scope != Scope::Admin {
        return wrong(&format!(
            "The token {} may not approve logins: that takes the scope admin.",
            token.name
        ));
    }
    let cookie = format!("{:032x}{:032x}", server.clock.random(), server.clock.random());
    let now = server.clock.now_millis();
    let owner = Owner { token, until: now + LIFE, form: format!("{:032x}", server.clock.random()) };
    {
        let mut owners = server.owners.lock().unwrap_or_else(PoisonError::into_inner);
        owners.retain(|_, owner| owner.until > now);
        if owners.len() >= MAX_OWNERS {
            let first = owners.iter().min_by_key(|(_, owner)| owner.until).map(|(cookie, _)| cookie.clone());
            first.and_then(|cookie| owners.remove(&cookie));
        }
        owners.insert(cookie.clone(), owner);
    }
    let secure = if server.door.has_tls { "; Secure" } else { "" };
    let set = format!(
        "{COOKIE}={cookie}; Path=/device; Max-Age={}; HttpOnly; SameSite=Strict{secure}",
        LIFE / 1000
    );
    let code: String = form.code.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
    ([(header::SET_COOKIE, set)], Redirect::to(&format!("/device?code={code}"))).into_response()
}

/// `POST /device/decide`.
pub async fn decide(State(server): State<Server>, headers: HeaderMap, request: Request) -> Response {
    let form = match read::<Decided>(request).await {
        Ok(form) => form,
        Err(response) => return response,
    };
    let Some(owner) = owner(&server, &headers).await.filter(|owner| owner.form == form.form) else {
        return page(StatusCode::UNAUTHORIZED, &log_in_form(&form.code, Some("Log in first.")));
    };
    let Some(login) = server.platform.waiting_login(&form.code) else {
        return page(StatusCode::NOT_FOUND, &code_form(&owner, Some(&no_login(&form.code))));
    };
    let decision = match (form.decision.as_str(), form.scope.parse()) {
        ("approve", Ok(scope)) => Decision::Approve { name: form.name.trim().to_owned(), scope },
        ("deny", _) => Decision::Deny,
        _ => {
            return page(
                StatusCode::UNPROCESSABLE_ENTITY,
                &decision_form(&owner, &login, &form.name, Some("Approve or deny it.")),
            );
        }
    };
    let done = match &decision {
        Decision::Deny => "<h1>Denied</h1><p role=\"status\">The program gets no token.</p>".to_owned(),
        Decision::Approve { name, .. } => format!(
            "<h1>Approved</h1><p role=\"status\">The program has a token now, called <b>{}</b>. You can close this page.</p>\
             <p>It can be taken back with <code>superserve tokens revoke {0}</code>.</p>",
            escaped(name)
        ),
    };
    match server.platform.decide_login(&form.code, decision).await {
        Ok(()) => {
            tracing::info!(owner = %owner.token.name, code = %login.user_code, decision = %form.decision.escape_default(), "a login was decided");
            page(StatusCode::OK, &done)
        }
        Err(error @ (platform::Error::Invalid { .. } | platform::Error::TokenTaken(_))) => {
            let sentence = format!("{error}. {}", error.hint().unwrap_or_default());
            page(
                StatusCode::UNPROCESSABLE_ENTITY,
                &decision_form(&owner, &login, &form.name, Some(&sentence)),
            )
        }
        Err(error) => Failure::from(error).into_response(),
    }
}

async fn read<T: serde::de::DeserializeOwned>(request: Request) -> Result<T, Response> {
    use axum::extract::FromRequest as _;
    match Form::<T>::from_request(request, &()).await {
        Ok(Form(form)) => Ok(form),
        Err(_) => Err(page(
            StatusCode::UNPROCESSABLE_ENTITY,
            "<h1>That was no form of this page</h1><p><a href=\"/device\">Begin anew</a></p>",
        )),
    }
}

/// The owner whose cookie a request carries, if its token still counts.
async fn owner(server: &Server, headers: &HeaderMap) -> Option<Owner> {
    let cookies = headers.get_all(header::COOKIE);
    let cookie =
        cookies.iter().filter_map(|value| value.to_str().ok()).flat_map(|text| text.split(';')).find_map(
            |pair| {
                let (name, value) = pair.trim().split_once('=')?;
                (name == COOKIE).then_some(value)
            },
        )?;
    let owner = server.owners.lock().unwrap_or_else(PoisonError::into_inner).get(cookie).cloned()?;
    let counts = owner.until > server.clock.now_millis() && server.platform.still_counts(&owner.token).await;
    counts.then_some(owner)
}

fn no_login(code: &str) -> String {
    format!("No login waits under the code {code}: a code counts for 15 minutes and once.")
}

fn log_in_form(code: &str, wrong: Option<&str>) -> String {
    format!(
        "<h1>Approve a login</h1>{}<form method=\"post\" action=\"/device/login\">\
         <input type=\"hidden\" name=\"code\" value=\"{}\">\
         <label for=\"token\">A token of this server with the scope admin</label>\
         <input id=\"token\" name=\"token\" type=\"password\" autocomplete=\"current-password\" required autofocus>\
         <button>Log in</button></form>\
         <p>On the server itself: <code>superserve tokens create NAME --scope admin</code> makes one, and \
         <code>superserve tokens approve CODE</code> approves without this page.</p>",
        told(wrong),
        escaped(code)
    )
}

fn code_form(owner: &Owner, wrong: Option<&str>) -> String {
    format!(
        "<h1>Approve a login</h1>{}<form method=\"get\" action=\"/device\">\
         <label for=\"code\">The code that the program shows</label>\
         <input id=\"code\" name=\"code\" placeholder=\"BCDF-GHJK\" autocomplete=\"off\" required autofocus>\
         <button>Go on</button></form>{}",
        told(wrong),
        logged_in(owner)
    )
}

fn decision_form(owner: &Owner, login: &WaitingLogin, name: &str, wrong: Option<&str>) -> String {
    let mut scopes = String::new();
    for (scope, about) in [
        ("read", "look at sessions"),
        ("write", "run agents and end sessions"),
        ("admin", "everything, tokens too"),
    ] {
        let chosen = if scope == Scope::default().as_str() { " selected" } else { "" };
        let _ = write!(scopes, "<option value=\"{scope}\"{chosen}>{scope}: {about}</option>");
    }
    format!(
        "<h1>Approve this login?</h1>{}<p>A program at <b>{}</b> asks for a token. Approve it only if it shows this code, and \
         if you or somebody you know has just started it:</p><p class=\"code\">{}</p>\
         <form method=\"post\" action=\"/device/decide\"><input type=\"hidden\" name=\"code\" value=\"{2}\">\
         <input type=\"hidden\" name=\"form\" value=\"{}\">\
         <label for=\"name\">What to call its token</label><input id=\"name\" name=\"name\" value=\"{}\" required maxlength=\"64\">\
         <label for=\"scope\">What it may do</label><select id=\"scope\" name=\"scope\">{scopes}</select>\
         <button name=\"decision\" value=\"approve\">Approve</button> \
         <button name=\"decision\" value=\"deny\" class=\"deny\" formnovalidate>Deny</button></form>{}",
        told(wrong),
        escaped(&login.from),
        escaped(&login.user_code),
        escaped(&owner.form),
        escaped(name),
        logged_in(owner)
    )
}

fn told(wrong: Option<&str>) -> String {
    wrong
        .map_or_else(String::new, |wrong| format!("<p role=\"alert\" class=\"wrong\">{}</p>", escaped(wrong)))
}

fn logged_in(owner: &Owner) -> String {
    format!("<p class=\"who\">Logged in with the token {}.</p>", escaped(&owner.token.name))
}

/// A text as HTML, in an element or between quotes.
fn escaped(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            c => html.push(c),
        }
    }
    html
}

const STYLE: &str = "body{font:1rem/1.5 system-ui,sans-serif;max-width:32rem;margin:3rem auto;padding:0 1rem;color:#1a1a1a;background:#fff}\
    h1{font-size:1.4rem}label{display:block;margin-top:1rem}input,select{font:inherit;width:100%;box-sizing:border-box;padding:.4rem}\
    button{font:inherit;margin-top:1rem;padding:.4rem 1.2rem}.code{font:700 1.6rem monospace;letter-spacing:.1em}\
    .wrong{border-left:.3rem solid #b00020;padding-left:.7rem}.who{color:#666}\
    @media(prefers-color-scheme:dark){body{color:#eee;background:#161616}.who{color:#aaa}}";

fn page(status: StatusCode, body: &str) -> Response {
    let html = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>superserve</title><style>{STYLE}</style></head><body>{body}</body></html>"
    );
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
        ),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        // Not `no-referrer`: with it browsers hide where a form came from, and we could not tell it from another site's.
        (header::REFERRER_POLICY, "same-origin"),
    ];
    (status, headers, html).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_asked_becomes_a_part_of_the_page() {
        let html = log_in_form("\"><script>alert('1')</script>", Some("<b>&"));
        assert!(!html.contains("<script") && !html.contains("<b>&<"), "{html}");
        assert!(
            html.contains("value=\"&quot;&gt;&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;\""),
            "{html}"
        );
    }
}
