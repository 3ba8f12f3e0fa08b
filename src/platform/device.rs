//! Logins of programs without a browser (RFC 8628): a code for the program, one for its user, an owner's word.
//!
//! They live in memory alone: each is over after a quarter of an hour, and one that a restart forgets is begun anew.

use std::collections::HashMap;
use std::sync::PoisonError;

use super::tokens::{check_name, random_text};
use super::{Error, Platform, Result};
use crate::wire::auth::{DeviceAnswer, DeviceError};
use crate::wire::token::CreateToken;
use crate::wire::{Scope, Timestamp};

/// How long a code counts, in seconds.
pub const LIFE: u64 = 900;
/// How long a program waits between two polls, in seconds, and by how much longer once it was too fast.
pub const INTERVAL: u64 = 5;
/// So much too early a poll may come, in milliseconds: clocks and networks are not exact.
const TOLERANCE: i64 = 1000;
/// So many logins may wait at a time; more are refused, so that nobody fills the memory.
const MAX_WAITING: usize = 200;
/// The letters of a user's code: no vowels, so no words, and nothing that looks like something else.
const LETTERS: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";

/// The logins, by their device code.
#[derive(Debug, Default)]
pub struct Logins(HashMap<String, Login>);

#[derive(Clone, Debug)]
struct Login {
    user_code: String,
    /// Where it was asked for, for the owner to see.
    from: String,
    /// In milliseconds since the Unix epoch.
    until: i64,
    /// When the last poll came.
    polled: Option<i64>,
    interval: i64,
    decision: Option<Decision>,
}

/// An owner's word on a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Deny,
    Approve { name: String, scope: Scope },
}

/// What a poll finds.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Poll {
    Refused(DeviceError),
    Approved { name: String, scope: Scope },
}

/// A login that was begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begun {
    pub device_code: String,
    pub user_code: String,
}

/// A login that waits, as its owner sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    pub user_code: String,
    pub from: String,
    pub until: Timestamp,
}

impl Logins {
    fn begin(&mut self, begun: &Begun, from: &str, now: i64) -> bool {
        self.0.retain(|_, login| login.until > now);
        if self.0.len() >= MAX_WAITING || self.find(&begun.user_code, now).is_some() {
            return false;
        }
        let login = Login {
            user_code: begun.user_code.clone(),
            from: from.to_owned(),
            until: now + seconds(LIFE),
            polled: None,
            interval: seconds(INTERVAL),
            decision: None,
        };
        self.0.insert(begun.device_code.clone(), login);
        true
    }

    /// The login with this user's code that waits for a word.
    fn find(&mut self, user_code: &str, now: i64) -> Option<&mut Login> {
        let wanted = plain(user_code);
        self.0
            .values_mut()
            .find(|login| login.decision.is_none() && login.until > now && plain(&login.user_code) == wanted)
    }

    /// A poll with a device code. A code that was approved or denied is used up by it.
    fn poll(&mut self, device_code: &str, now: i64) -> Poll {
        let Some(login) = self.0.get_mut(device_code) else {
            return Poll::Refused(DeviceError::ExpiredToken);
        };
        if login.until <= now {
            self.0.remove(device_code);
            return Poll::Refused(DeviceError::ExpiredToken);
        }
        let too_early = login.polled.is_some_and(|polled| now - polled < login.interval - TOLERANCE);
        login.polled = Some(now);
        if too_early {
            login.interval += seconds(INTERVAL);
            return Poll::Refused(DeviceError::SlowDown);
        }
        match login.decision.clone() {
            None => Poll::Refused(DeviceError::AuthorizationPending),
            Some(decision) => {
                self.0.remove(device_code);
                match decision {
                    Decision::Deny => Poll::Refused(DeviceError::AccessDenied),
                    Decision::Approve { name, scope } => Poll::Approved { name, scope },
                }
            }
        }
    }
}

impl Platform {
    /// Begins a login. `from` is shown to the owner. Error: too many wait.
    pub fn begin_login(&self, from: &str) -> Result<Begun> {
        let now = self.0.clock.now_millis();
        // A user's code may be taken by chance, a few times in a row by no chance.
        for _ in 0..3 {
            let begun = Begun {
                device_code: random_text(&self.0.clock, "dc_"),
                user_code: user_code(self.0.clock.random()),
            };
            if self.logins().begin(&begun, from, now) {
                return Ok(begun);
            }
        }
        Err(Error::TooManyLogins)
    }

    /// The login that this user's code stands for, if it still waits for a word.
    pub fn waiting_login(&self, user_code: &str) -> Option<Waiting> {
        let now = self.0.clock.now_millis();
        self.logins().find(user_code, now).map(|login| Waiting {
            user_code: login.user_code.clone(),
            from: login.from.clone(),
            until: Timestamp::from_millis(login.until),
        })
    }

    /// An owner's word on a login. Errors: no login waits under this code; a name that is none or taken.
    pub async fn decide_login(&self, user_code: &str, decision: Decision) -> Result<()> {
        if let Decision::Approve { name, .. } = &decision {
            check_name(name)?;
            if self.tokens().await?.iter().any(|token| token.name == *name) {
                return Err(Error::TokenTaken(name.clone()));
            }
        }
        let now = self.0.clock.now_millis();
        match self.logins().find(user_code, now) {
            Some(login) => {
                login.decision = Some(decision);
                Ok(())
            }
            None => Err(Error::LoginNotFound(user_code.to_owned())),
        }
    }

    /// A program's poll: its token once an owner has approved.
    pub async fn poll_login(&self, device_code: &str) -> Result<DeviceAnswer> {
        let now = self.0.clock.now_millis();
        let polled = self.logins().poll(device_code, now);
        let (name, scope) = match polled {
            Poll::Refused(error) => return Ok(DeviceAnswer::Refused { error }),
            Poll::Approved { name, scope } => (name, scope),
        };
        match self.create_token(CreateToken { name, scope, expires_in: None }).await {
            Ok(new) => {
                Ok(DeviceAnswer::Granted { access_token: new.token, expires_at: new.about.expires_at })
            }
            // Somebody has made a token of this name since it was approved.
            Err(Error::TokenTaken(_)) => Ok(DeviceAnswer::Refused { error: DeviceError::AccessDenied }),
            Err(error) => Err(error),
        }
    }

    fn logins(&self) -> std::sync::MutexGuard<'_, Logins> {
        self.0.logins.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A code of eight letters out of a random number: 34 bits, of which an owner has to type the right one within a quarter
/// of an hour.
fn user_code(random: u128) -> String {
    let mut rest = random;
    let mut code = String::new();
    for place in 0..8 {
        if place == 4 {
            code.push('-');
        }
        let letter = usize::try_from(rest % LETTERS.len() as u128).unwrap_or_default();
        code.push(char::from(LETTERS[letter]));
        rest /= LETTERS.len() as u128;
    }
    code
}

/// A code as it is compared: people type small letters, blanks, no dash.
fn plain(code: &str) -> String {
    code.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_uppercase()).collect()
}

fn seconds(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX).saturating_mul(1000)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Begin,
        Poll(usize),
        Decide(usize, bool),
        Wait(i64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            Just(Step::Begin),
            (0usize..4).prop_map(Step::Poll),
            (0usize..4, any::<bool>()).prop_map(|(login, yes)| Step::Decide(login, yes)),
            (0i64..400_000).prop_map(Step::Wait),
        ];
        prop::collection::vec(step, 1..60)
    }

    proptest! {
        /// Whatever comes in whatever order: a token is granted once, after an approval, and never after the code's time.
        #[test]
        fn a_token_is_granted_once_and_only_to_the_approved(steps in steps()) {
            let mut logins = Logins::default();
            let mut now = 0;
            // When each was begun, what was decided on it, whether it is used up.
            let mut known: Vec<(i64, Option<bool>, bool)> = Vec::new();
            let codes = |n: usize| Begun { device_code: format!("dc_{n}"), user_code: user_code(n as u128) };
            for step in steps {
                match step {
                    Step::Begin => {
                        let begun = logins.begin(&codes(known.len()), "here", now);
                        prop_assert!(begun);
                        known.push((now, None, false));
                    }
                    Step::Wait(millis) => now += millis,
                    Step::Decide(n, yes) if n < known.len() => {
                        let (begun, decision, _) = &mut known[n];
                        let found = logins.find(&codes(n).user_code.to_lowercase(), now);
                        prop_assert_eq!(found.is_some(), decision.is_none() && now < *begun + seconds(LIFE));
                        if let Some(login) = found {
                            *decision = Some(yes);
                            login.decision = Some(match yes {
                                true => Decision::Approve { name: "n".into(), scope: Scope::Read },
                                false => Decision::Deny,
                            });
                        }
                    }
                    Step::Poll(n) if n < known.len() => {
                        let (begun, decision, used) = &mut known[n];
                        let over = *used || now >= *begun + seconds(LIFE);
                        match logins.poll(&codes(n).device_code, now) {
                            Poll::Refused(DeviceError::ExpiredToken) => prop_assert!(over),
                            Poll::Refused(DeviceError::SlowDown) => prop_assert!(!over),
                            Poll::Refused(DeviceError::AuthorizationPending) => {
                                prop_assert!(!over && decision.is_none());
                            }
                            Poll::Refused(DeviceError::AccessDenied) => {
                                prop_assert!(!over && *decision == Some(false));
                                *used = true;
                            }
                            Poll::Approved { .. } => {
                                prop_assert!(!over && *decision == Some(true));
                                *used = true;
                            }
                        }
                    }
                    Step::Decide(..) | Step::Poll(_) => {}
                }
            }
        }
    }

    #[test]
    fn who_polls_too_fast_must_wait_longer_each_time() {
        let mut logins = Logins::default();
        let begun = Begun { device_code: "d".into(), user_code: user_code(1) };
        assert!(logins.begin(&begun, "here", 0));
        let mut poll = |at: i64| logins.poll("d", at);
        let pending = Poll::Refused(DeviceError::AuthorizationPending);
        let slow = Poll::Refused(DeviceError::SlowDown);
        assert_eq!(poll(0), pending);
        assert_eq!(poll(4_000), pending, "a little early is on time");
        assert_eq!(poll(5_000), slow);
        assert_eq!(poll(10_000), slow, "10 s now");
        assert_eq!(poll(24_000), pending, "15 s now");
    }

    #[test]
    fn the_memory_is_bounded() {
        let mut logins = Logins::default();
        let begin = |logins: &mut Logins, n: usize, now| {
            let begun = Begun { device_code: n.to_string(), user_code: user_code(n as u128) };
            logins.begin(&begun, "here", now)
        };
        assert!((0..MAX_WAITING).all(|n| begin(&mut logins, n, 0)));
        assert!(!begin(&mut logins, MAX_WAITING, 1));
        assert!(begin(&mut logins, MAX_WAITING, seconds(LIFE)), "the old ones are over");
    }
}
