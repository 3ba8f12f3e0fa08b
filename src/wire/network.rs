//! What of the network an agent sees, the rules of an allow-list, and what came of them.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::de::Error as _;
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use utoipa::openapi::schema::{AdditionalProperties, OneOfBuilder};
use utoipa::openapi::{ArrayBuilder, ObjectBuilder, RefOr, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

use super::Timestamp;

/// The ports of a rule that names none.
const DEFAULT_PORTS: [u16; 2] = [80, 443];
/// The port of the sandbox's own name server.
pub const DNS_PORT: u16 = 53;
/// The most ports that the rules of an agent may name together with 80 and 443: each is an open file a session.
const MOST_PORTS: usize = 32;
const MOST_RULES: usize = 256;
const FORMS: &str = "none, host, allow, or allow: with a list of rules";

/// What of the network an agent sees. Over the wire `"none"`, `"host"`, or `{"allow": ["api.example.com", …]}`;
/// `"allow"` is read as the default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Network {
    /// The names and addresses for which a rule stands, through the server.
    Allow(Vec<Rule>),
    /// The host's own network.
    Host,
    /// Loopback alone.
    None,
}

impl Default for Network {
    /// Every name, at the ports of the web.
    fn default() -> Self {
        Self::Allow(vec![Rule { host: Host::Any, ports: DEFAULT_PORTS.into(), text: "*:80,443".to_owned() }])
    }
}

impl Network {
    /// The word for it, without its rules.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Allow(_) => "allow",
            Self::Host => "host",
            Self::None => "none",
        }
    }

    /// The rules of an allow-list.
    pub fn rules(&self) -> &[Rule] {
        match self {
            Self::Allow(rules) => rules,
            Self::Host | Self::None => &[],
        }
    }

    /// The TCP ports at which something may be allowed, besides that of the name server.
    pub fn ports(&self) -> BTreeSet<u16> {
        let named = self.rules().iter().flat_map(|rule| rule.ports.iter().copied());
        named.chain(DEFAULT_PORTS).collect()
    }

    fn from_value(value: &Value) -> Result<Self, BadRule> {
        match value {
            Value::String(word) if word == "allow" => Ok(Self::default()),
            Value::String(word) if word == "host" => Ok(Self::Host),
            Value::String(word) if word == "none" => Ok(Self::None),
            Value::Object(keys) if keys.len() == 1 => match keys.get("allow") {
                Some(Value::Array(texts)) => Self::from_rules(texts),
                _ => Err(BadRule(format!("network is {FORMS}"))),
            },
            Value::String(word) => Err(BadRule(format!("network '{}' is not {FORMS}", short(word)))),
            _ => Err(BadRule(format!("network is {FORMS}"))),
        }
    }

    fn from_rules(texts: &[Value]) -> Result<Self, BadRule> {
        if texts.is_empty() {
            return Err(BadRule("network allows nothing: name a rule, or write network: none".to_owned()));
        }
        if texts.len() > MOST_RULES {
            return Err(BadRule(format!(
                "network has {} rules: at most {MOST_RULES} are taken",
                texts.len()
            )));
        }
        let rules = texts
            .iter()
            .map(|text| match text {
                Value::String(text) => text.parse(),
                other => Err(BadRule(format!("network rule {other} is not text"))),
            })
            .collect::<Result<Vec<Rule>, _>>()?;
        let network = Self::Allow(rules);
        match network.ports().len() {
            0..=MOST_PORTS => Ok(network),
            many => Err(BadRule(format!(
                "the network rules name {many} ports with 80 and 443: at most {MOST_PORTS} are taken"
            ))),
        }
    }
}

/// As a person reads it: `none`, `host`, or `allow` and the rules.
impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())?;
        self.rules().iter().try_for_each(|rule| write!(f, " {rule}"))
    }
}

impl PartialSchema for Network {
    fn schema() -> RefOr<Schema> {
        let words =
            ObjectBuilder::new().schema_type(Type::String).enum_values(Some(["none", "host", "allow"]));
        let rule = ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some(
                "`HOST[:PORT[,PORT…]]`, with ports 80 and 443 if none are named. A host is a name, `*.` and a name for all \
                 below it, `*` for every name, an IPv4 address or network, or an IPv6 one in brackets.",
            ))
            .examples(["api.example.com", "*.example.org:8443", "10.0.0.0/8:5432"])
            .min_length(Some(1));
        let rules = ArrayBuilder::new().items(rule).min_items(Some(1)).max_items(Some(MOST_RULES));
        let allow = ObjectBuilder::new()
            .schema_type(Type::Object)
            .property("allow", rules)
            .required("allow")
            .additional_properties(Some(AdditionalProperties::FreeForm(false)));
        Schema::OneOf(OneOfBuilder::new()
            .item(words)
            .item(allow)
            .description(Some("What of the network an agent sees. `allow` alone means every name, at the ports of the web."))
            .build()).into()
    }
}

impl ToSchema for Network {}

impl Serialize for Network {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Allow(rules) => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry("allow", &rules.iter().map(|rule| &rule.text).collect::<Vec<_>>())?;
                map.end()
            }
            Self::Host | Self::None => serializer.serialize_str(self.as_str()),
        }
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_value(&Value::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// A rule that makes no sense, in a sentence that names it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadRule(String);

/// One rule: `HOST[:PORT[,PORT…]]`, with ports 80 and 443 if none are named. A host is a name, `*.` and a name for all
/// below it, `*` for every name, an IPv4 address or network, or an IPv6 one in brackets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    host: Host,
    ports: Vec<u16>,
    text: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    Any,
    /// Every name that ends so; it begins with a dot.
    Below(String),
    Name(String),
    /// Every address whose first so many bits are these.
    Net(IpAddr, u8),
}

impl Rule {
    /// Whether the name may be asked for at some port. `name` in lower case, without a dot at its end.
    pub fn covers_name(&self, name: &str) -> bool {
        match &self.host {
            Host::Any => true,
            Host::Below(suffix) => name.len() > suffix.len() && name.ends_with(suffix.as_str()),
            Host::Name(own) => own == name,
            Host::Net(..) => false,
        }
    }

    /// Whether the name may be reached at this port.
    pub fn allows_name(&self, name: &str, port: u16) -> bool {
        self.ports.contains(&port) && self.covers_name(name)
    }

    /// Whether the rule names this very address, or its network, at this port.
    pub fn allows_address(&self, address: IpAddr, port: u16) -> bool {
        self.ports.contains(&port)
            && matches!(self.host, Host::Net(net, length) if in_net(address.to_canonical(), net, length))
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Rule {
    type Err = BadRule;

    fn from_str(text: &str) -> Result<Self, BadRule> {
        let bad = |why: &str| BadRule(format!("network rule '{}': {why}", short(text)));
        let (host, ports) = match text.strip_prefix('[').map(|rest| rest.split_once(']')) {
            Some(None) => return Err(bad("it has a '[' without ']'")),
            Some(Some((host, ""))) => (host, None),
            Some(Some((host, rest))) => match rest.strip_prefix(':') {
                Some(ports) => (host, Some(ports)),
                None => return Err(bad("after ']' comes :PORT or nothing")),
            },
            None => match text.split_once(':') {
                Some((host, ports)) => (host, Some(ports)),
                None => (text, None),
            },
        };
        if !text.starts_with('[') && ports.is_some_and(|ports| ports.contains(':')) {
            return Err(bad("an IPv6 address stands in brackets"));
        }
        let ports = match ports {
            None => DEFAULT_PORTS.to_vec(),
            Some(list) => list
                .split(',')
                .map(|port| match port.trim().parse() {
                    Ok(0) | Err(_) => Err(bad("a port is a number from 1 to 65535")),
                    Ok(DNS_PORT) => Err(bad("port 53 is that of the sandbox's own name server")),
                    Ok(port) => Ok(port),
                })
                .collect::<Result<_, _>>()?,
        };
        let brackets = text.starts_with('[');
        let host = host_of(host, brackets).map_err(|why| bad(&why))?;
        Ok(Self { host, ports, text: text.to_owned() })
    }
}

fn host_of(text: &str, brackets: bool) -> Result<Host, String> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    match address.parse::<IpAddr>() {
        Ok(address) if address.is_ipv6() != brackets => {
            return Err("brackets are for IPv6 addresses alone, and those need them".to_owned());
        }
        Ok(address) => {
            let most = if address.is_ipv4() { 32 } else { 128 };
            let length = match length {
                None => most,
                Some(text) => match text.parse::<u8>() {
                    Ok(length) if length <= most => length,
                    _ => return Err(format!("the length of a network is a number from 0 to {most}")),
                },
            };
            // A mapped network is one of IPv4.
            return Ok(match (address.to_canonical(), length) {
                (IpAddr::V4(address), 96..) => Host::Net(address.into(), length - 96),
                _ => Host::Net(address, length),
            });
        }
        Err(_) if brackets || length.is_some() => {
            return Err(format!("'{}' is no IP address", short(address)));
        }
        Err(_) => {}
    }
    if text == "*" {
        return Ok(Host::Any);
    }
    let lower = text.to_ascii_lowercase();
    let name = lower.strip_suffix('.').unwrap_or(&lower);
    let plain = name.strip_prefix("*.").unwrap_or(name);
    if !plain.is_ascii() {
        return Err("a name with other letters than a-z is written in its xn-- form".to_owned());
    }
    if plain.contains('*') {
        return Err("a '*' stands alone, or before the first dot".to_owned());
    }
    if !is_host_name(plain) {
        return Err(format!("'{}' is no host name", short(plain)));
    }
    if plain.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit())) {
        return Err(format!("'{plain}' is no IP address"));
    }
    Ok(match name.strip_prefix('*') {
        Some(suffix) => Host::Below(suffix.to_owned()),
        None => Host::Name(name.to_owned()),
    })
}

/// Whether a name could be that of a host: labels of letters, digits, `-` and `_`.
pub fn is_host_name(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    name.len() <= 253 && name.split('.').all(label)
}

fn in_net(address: IpAddr, net: IpAddr, length: u8) -> bool {
    let length = u32::from(length);
    match (address, net) {
        (IpAddr::V4(address), IpAddr::V4(net)) => {
            let mask = u32::MAX.checked_shl(32 - length).unwrap_or(0);
            address.to_bits() & mask == net.to_bits() & mask
        }
        (IpAddr::V6(address), IpAddr::V6(net)) => {
            let mask = u128::MAX.checked_shl(128 - length).unwrap_or(0);
            address.to_bits() & mask == net.to_bits() & mask
        }
        _ => false,
    }
}

fn short(text: &str) -> String {
    text.chars().take(100).collect()
}

/// What was decided about one connection, or one name that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    Allowed,
    Denied,
}

impl Decision {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
        }
    }
}

/// One decision about an agent's network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Egress {
    pub at: Timestamp,
    pub decision: Decision,
    /// The name that was asked for; the address, if it was none that a name stood for.
    pub host: String,
    /// None for a name that was refused before a connection could be made.
    #[schema(required = true, minimum = 1, maximum = 65535)]
    pub port: Option<u16>,
    /// How many bytes the agent has sent and received. Written when the connection is over.
    pub sent: u64,
    pub received: u64,
    /// Why it was denied, or why an allowed connection failed.
    #[schema(required = true)]
    pub reason: Option<String>,
}

impl Egress {
    /// `host:port`, or the host alone.
    pub fn target(&self) -> String {
        match self.port {
            Some(port) => format!("{}:{port}", self.host),
            None => self.host.clone(),
        }
    }
}

/// `GET /sessions/{id}/network`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EgressLog {
    pub entries: Vec<Egress>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn rule(text: &str) -> Rule {
        text.parse().expect(text)
    }

    #[test]
    fn rules_match_what_they_say() {
        for (text, name, port, allowed) in [
            ("api.example.com", "api.example.com", 443, true),
            ("api.example.com", "api.example.com", 80, true),
            ("api.example.com", "api.example.com", 8080, false),
            ("API.Example.com.", "api.example.com", 443, true),
            ("api.example.com", "xapi.example.com", 443, false),
            ("*.example.org:8443", "a.b.example.org", 8443, true),
            ("*.example.org:8443", "a.example.org", 443, false),
            ("*.example.org:8443", "example.org", 8443, false),
            ("*.example.org", "evilexample.org", 443, false),
            ("*:80,443", "anything.at.all", 443, true),
            ("*:80, 443", "anything.at.all", 443, true),
            ("*", "anything", 22, false),
            ("10.0.0.0/8", "10.0.0.1", 443, false),
        ] {
            assert_eq!(rule(text).allows_name(name, port), allowed, "{text} {name} {port}");
        }
        for (text, address, port, allowed) in [
            ("10.0.0.5:5432", "10.0.0.5", 5432, true),
            ("10.0.0.5:5432", "::ffff:10.0.0.5", 5432, true),
            ("10.0.0.5:5432", "10.0.0.6", 5432, false),
            ("192.168.0.0/16:80", "192.168.255.1", 80, true),
            ("192.168.0.0/16:80", "192.169.0.1", 80, false),
            ("0.0.0.0/0", "8.8.8.8", 443, true),
            ("[fd00::/8]:443", "fd12::1", 443, true),
            ("[fd00::/8]:443", "fe80::1", 443, false),
            ("[::1]", "::1", 80, true),
            ("[::ffff:10.0.0.0/104]", "10.1.2.3", 80, true),
            ("[::ffff:10.0.0.0/104]", "11.1.2.3", 80, false),
            ("[::ffff:10.0.0.0/8]", "10.1.2.3", 80, false),
            ("[::/0]", "10.0.0.1", 80, false),
            ("*", "10.0.0.1", 80, false),
        ] {
            let parsed = address.parse().expect(address);
            assert_eq!(rule(text).allows_address(parsed, port), allowed, "{text} {address} {port}");
        }
    }

    #[test]
    fn bad_rules_are_named() {
        for (text, says) in [
            ("", "'' is no host name"),
            ("a b.c", "no host name"),
            ("api.example.com:0", "a port is a number"),
            ("api.example.com:99999", "a port is a number"),
            ("api.example.com:", "a port is a number"),
            ("api.example.com:53", "port 53"),
            ("*example.com", "'*' stands alone"),
            ("a.*.com", "'*' stands alone"),
            ("10.0.0", "no IP address"),
            ("300.1.1.1", "no IP address"),
            ("10.0.0.0/33", "from 0 to 32"),
            ("fd00::1", "brackets"),
            ("[fd00::1", "without ']'"),
            ("[10.0.0.1]", "brackets"),
            ("[fd00::1]x", "after ']'"),
            ("grüße.de", "xn--"),
            ("https://example.com", "a port is a number"),
            ("example.com/24", "no IP address"),
        ] {
            let error = text.parse::<Rule>().expect_err(text).to_string();
            assert!(error.contains(says) && error.contains(&format!("'{text}'")), "{text}: {error}");
        }
    }

    #[test]
    fn goes_over_the_wire_and_back() {
        for value in [json!("none"), json!("host"), json!({"allow": ["api.example.com", "10.0.0.0/8:5432"]})]
        {
            let network: Network = serde_json::from_value(value.clone()).expect("a network");
            assert_eq!(serde_json::to_value(&network).expect("JSON"), value);
        }
        let plain: Network = serde_json::from_value(json!("allow")).expect("a network");
        assert_eq!(plain, Network::default());
        assert_eq!(serde_json::to_value(&plain).expect("JSON"), json!({"allow": ["*:80,443"]}));
        assert_eq!(plain.to_string(), "allow *:80,443");
        let many: Vec<String> = (1000..1031).map(|port| format!("a.b:{port}")).collect();
        for value in [
            json!("everything"),
            json!(7),
            json!({"allow": []}),
            json!({"allow": "x"}),
            json!({"allow": [7]}),
            json!({"allow": ["a.b:0"]}),
            json!({"deny": ["a.b"]}),
            json!({ "allow": many }),
        ] {
            let error = serde_json::from_value::<Network>(value.clone()).expect_err("refused").to_string();
            assert!(error.contains("network"), "{value}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic_and_what_is_read_is_read_again(text in ".{0,40}") {
            if let Ok(rule) = text.parse::<Rule>() {
                prop_assert_eq!(rule.to_string().parse::<Rule>().expect("again"), rule);
            }
        }

        #[test]
        fn a_network_holds_exactly_its_addresses(net: u32, other: u32, length in 0u8..=32) {
            let text = format!("{}/{length}:80", std::net::Ipv4Addr::from_bits(net));
            let same = (0..u32::from(length)).all(|bit| (net ^ other) >> (31 - bit) & 1 == 0);
            let address = std::net::Ipv4Addr::from_bits(other).into();
            prop_assert_eq!(rule(&text).allows_address(address, 80), same);
        }

        #[test]
        fn what_stands_below_a_name_is_what_ends_in_it(labels in proptest::collection::vec("[a-z]{1,5}", 1..4), port in 1u16..) {
            let name = format!("{}.example.org", labels.join("."));
            let rule = rule("*.example.org:8443");
            prop_assert!(rule.covers_name(&name));
            prop_assert_eq!(rule.allows_name(&name, port), port == 8443);
        }
    }
}
