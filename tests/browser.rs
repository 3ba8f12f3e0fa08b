//! The owner's page in a real browser, in which scripts are switched off.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::process::wait_for;
use crate::remote::Served;
use crate::request::over_tcp;
use crate::skipped::has;

/// A headless Chromium, spoken to by the WebDriver protocol (W3C).
struct Browser {
    driver: Child,
    /// Of the driver: `127.0.0.1:PORT`.
    address: String,
    session: String,
    _profile: TempDir,
}

impl Browser {
    fn open() -> Self {
        let profile = tempfile::tempdir().unwrap();
        // It looks for a free port first and binds it second, by when another test may have it: then it ends without one.
        let (driver, port) = (0..5).find_map(|_| start_driver(profile.path())).expect("a driver with a port");
        let address = format!("127.0.0.1:{port}");
        let args = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            &format!("--user-data-dir={}", profile.path().join("profile").display()),
        ];
        let options = json!({
            "args": args,
            "prefs": { "profile.managed_default_content_settings.javascript": 2 },
        });
        let wanted = json!({ "capabilities": { "alwaysMatch": { "goog:chromeOptions": options } } });
        let made = call(&address, "POST", "/session", &wanted);
        let session = made["sessionId"].as_str().unwrap_or_else(|| panic!("{made}")).to_owned();
        Self { driver, address, session, _profile: profile }
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        call(&self.address, method, &format!("/session/{}{path}", self.session), body)
    }

    fn go(&self, url: &str) {
        self.ask("POST", "/url", &json!({ "url": url }));
    }

    /// The path of the first element that fits a CSS selector, once it is there.
    fn element(&self, selector: &str) -> String {
        let wanted = json!({ "using": "css selector", "value": selector });
        wait_for(selector, || {
            let found = self.ask("POST", "/element", &wanted);
            Some(format!("/element/{}", found["element-6066-11e4-a52e-4f735466cecf"].as_str()?))
        })
    }

    fn text(&self, selector: &str) -> String {
        self.ask("GET", &format!("{}/text", self.element(selector)), &Value::Null)
            .as_str()
            .expect("a text")
            .to_owned()
    }

    fn write(&self, selector: &str, text: &str) {
        let element = self.element(selector);
        self.ask("POST", &format!("{element}/clear"), &json!({}));
        self.ask("POST", &format!("{element}/value"), &json!({ "text": text }));
    }

    fn click(&self, selector: &str) {
        self.ask("POST", &format!("{}/click", self.element(selector)), &json!({}));
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = over_tcp(&self.address, "DELETE", &format!("/session/{}", self.session), &[], "");
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// A driver and its port, unless it ends without one.
fn start_driver(home: &Path) -> Option<(Child, String)> {
    let mut driver = Command::new("chromedriver")
        .args(["--port=0"])
        .env("HOME", home)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines().map_while(Result::ok);
    let port = lines.find_map(|line| {
        Some(line.split_once("started successfully on port ")?.1.trim_end_matches('.').to_owned())
    });
    if port.is_none() {
        driver.wait().unwrap();
    }
    Some((driver, port?))
}

fn call(address: &str, method: &str, path: &str, body: &Value) -> Value {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    over_tcp(address, method, path, &[("Content-Type", "application/json")], &body).json()["value"].clone()
}

#[test]
fn an_owner_approves_a_login_in_a_browser() {
    if !has("chromedriver") || !has("chromium") {
        skip!("chromium and chromedriver are not on this machine");
    }
    let served = Served::new();
    let token = served.token("boss", "admin");
    let code = over_tcp(&served.address, "POST", "/v1/auth/device-code", &[], "").json();
    let browser = Browser::open();
    browser.go(code["verification_uri_complete"].as_str().unwrap());
    browser.write("#token", "ss_wrong");
    browser.click("button");
    assert_eq!(
        browser.text("[role=alert]"),
        "The token is not valid: it was revoked, has expired, or is another server's."
    );
    browser.write("#token", &token);
    browser.click("button");
    assert_eq!(browser.text(".code"), code["user_code"].as_str().unwrap());
    browser.write("#name", "not a name");
    browser.click("button[value=approve]");
    assert!(browser.text("[role=alert]").starts_with("'not a name' is no name for a token"));
    browser.write("#name", "phone");
    browser.click("button[value=approve]");
    assert_eq!(
        browser.text("[role=status]"),
        "The program has a token now, called phone. You can close this page."
    );
    let ask = json!({ "device_code": code["device_code"] }).to_string();
    let granted = over_tcp(&served.address, "POST", "/v1/auth/device-token", &[], &ask).json();
    let granted = granted["access_token"].as_str().expect("a token");
    assert_eq!(served.ask("GET", "/v1/auth/me", granted, "").json()["full_name"], "phone");
    // Logged in still: another code is typed, and denied.
    let other = over_tcp(&served.address, "POST", "/v1/auth/device-code", &[], "").json();
    browser.go(other["verification_uri"].as_str().unwrap());
    browser.write("#code", &other["user_code"].as_str().unwrap().to_lowercase().replace('-', " "));
    browser.click("button");
    browser.click("button.deny");
    assert_eq!(browser.text("h1"), "Denied");
}
