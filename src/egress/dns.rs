//! The name server of one session: a name for which a rule stands has an address here, no other exists.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use simple_dns::rdata::{A, RData};
use simple_dns::{CLASS, Name, OPCODE, Packet, PacketFlag, QCLASS, QTYPE, RCODE, ResourceRecord, TYPE};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;

use super::Gate;
use super::names::Names;
use crate::wire::Network;
use crate::wire::network::is_host_name;

/// How long an answer may be kept, in seconds.
const TTL: u32 = 60;
/// The longest question that is read over UDP, in bytes.
const LONGEST: usize = 4096;
const MOST_CONNECTIONS: usize = 16;
/// How long a connection may be silent.
const SILENCE: Duration = Duration::from_secs(10);
/// How long it is waited after a failure that would come again at once, as having no files left.
const PAUSE: Duration = Duration::from_millis(100);
/// So many refused names are remembered, so that each is told once.
const MOST_REFUSED: usize = 1024;

/// What is answered to a question.
struct Reply {
    bytes: Vec<u8>,
    /// The name that was refused.
    refused: Option<String>,
}

/// The answer to a message; none to what isn't even the head of one, or is itself an answer.
fn answer(message: &[u8], network: &Network, names: &Names) -> Option<Reply> {
    let id = u16::from_be_bytes(message.get(..2)?.try_into().ok()?);
    let is_answer = message.get(2)? & 0x80 != 0;
    if message.len() < 12 || is_answer {
        return None;
    }
    let error = |code: RCODE| {
        let mut packet = Packet::new_reply(id);
        *packet.rcode_mut() = code;
        Some(Reply { bytes: packet.build_bytes_vec().ok()?, refused: None })
    };
    let Ok(asked) = Packet::parse(message) else { return error(RCODE::FormatError) };
    if asked.opcode() != OPCODE::StandardQuery {
        return error(RCODE::NotImplemented);
    }
    let [question] = asked.questions.as_slice() else { return error(RCODE::FormatError) };
    let mut packet = Packet::new_reply(id);
    packet.set_flags(PacketFlag::RECURSION_AVAILABLE | PacketFlag::AUTHORITATIVE_ANSWER);
    if asked.has_flags(PacketFlag::RECURSION_DESIRED) {
        packet.set_flags(PacketFlag::RECURSION_DESIRED);
    }
    packet.questions.push(question.clone());
    let name = question.qname.to_string().to_ascii_lowercase();
    let known = is_host_name(&name)
        && matches!(question.qclass, QCLASS::CLASS(CLASS::IN) | QCLASS::ANY)
        && network.rules().iter().any(|rule| rule.covers_name(&name));
    if !known {
        *packet.rcode_mut() = RCODE::NameError;
    } else if matches!(question.qtype, QTYPE::TYPE(TYPE::A) | QTYPE::ANY) {
        let address = A::from(names.address(&name));
        let owner: Name<'_> = question.qname.clone();
        packet.answers.push(ResourceRecord::new(owner, CLASS::IN, TTL, RData::A(address)));
    }
    let refused = (!known).then_some(name);
    match packet.build_bytes_vec() {
        Ok(bytes) => Some(Reply { bytes, refused }),
        Err(_) => error(RCODE::ServerFailure),
    }
}

impl Gate {
    async fn reply(&self, message: &[u8], told: &Told) -> Option<Vec<u8>> {
        let reply = answer(message, &self.network, &self.names)?;
        if let Some(name) = reply.refused.filter(|name| told.is_new(name)) {
            self.denied(printable(&name), None, "no rule names it").await;
        }
        Some(reply.bytes)
    }
}

/// A name as it may stand in a log.
fn printable(name: &str) -> String {
    name.chars().take(253).map(|c| if c.is_ascii_graphic() { c } else { '?' }).collect()
}

/// Names that were refused and told.
#[derive(Default)]
struct Told(Mutex<HashSet<String>>);

impl Told {
    fn is_new(&self, name: &str) -> bool {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if names.len() >= MOST_REFUSED {
            names.clear();
        }
        names.insert(name.to_owned())
    }
}

/// Answers what comes over UDP.
pub async fn serve_udp(gate: Arc<Gate>, socket: UdpSocket) {
    let told = Told::default();
    let mut buffer = [0; LONGEST];
    loop {
        match socket.recv_from(&mut buffer).await {
            Ok((length, from)) => {
                if let Some(reply) = gate.reply(buffer.get(..length).unwrap_or_default(), &told).await {
                    // Who doesn't wait for an answer gets none.
                    let _ = socket.try_send_to(&reply, from);
                }
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// Answers what comes over TCP.
pub async fn serve_tcp(gate: Arc<Gate>, listener: TcpListener) {
    let room = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let told = Arc::new(Told::default());
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let (serving, told) = (gate.clone(), told.clone());
                gate.spawn(async move {
                    let _permit = permit;
                    let _ = converse(&serving, stream, &told).await;
                });
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

async fn converse(gate: &Gate, mut stream: TcpStream, told: &Told) -> std::io::Result<()> {
    loop {
        let read = async {
            let length = stream.read_u16().await?;
            let mut message = vec![0; usize::from(length)];
            stream.read_exact(&mut message).await?;
            Ok::<_, std::io::Error>(message)
        };
        let message = tokio::time::timeout(SILENCE, read).await??;
        let Some(reply) = gate.reply(&message, told).await else { return Ok(()) };
        let length = u16::try_from(reply.len()).unwrap_or(u16::MAX);
        let whole = [&length.to_be_bytes()[..], &reply].concat();
        tokio::time::timeout(SILENCE, stream.write_all(&whole)).await??;
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;
    use simple_dns::Question;

    use super::*;

    fn network(rule: &str) -> Network {
        Network::Allow(vec![rule.parse().expect("a rule")])
    }

    fn question(name: &str, kind: TYPE) -> Vec<u8> {
        let mut packet = Packet::new_query(0x1234);
        let name = Name::new(name).expect("a name");
        packet.questions.push(Question::new(name, QTYPE::TYPE(kind), QCLASS::CLASS(CLASS::IN), false));
        packet.set_flags(PacketFlag::RECURSION_DESIRED);
        packet.build_bytes_vec().expect("bytes")
    }

    fn ask(name: &str, kind: TYPE) -> (RCODE, Vec<Ipv4Addr>, Option<String>) {
        let network = network("*.example.com:443");
        let reply = answer(&question(name, kind), &network, &Names::default()).expect("an answer");
        let packet = Packet::parse(&reply.bytes).expect("a packet");
        assert_eq!((packet.id(), packet.questions.len()), (0x1234, 1));
        assert!(packet.has_flags(PacketFlag::RESPONSE));
        let addresses = packet.answers.iter().map(|record| match &record.rdata {
            RData::A(a) => Ipv4Addr::from_bits(a.address),
            other => panic!("{other:?}"),
        });
        (packet.rcode(), addresses.collect(), reply.refused)
    }

    #[test]
    fn only_names_with_a_rule_exist() {
        let first = vec![Ipv4Addr::new(198, 18, 0, 1)];
        assert_eq!(ask("api.example.com", TYPE::A), (RCODE::NoError, first.clone(), None));
        assert_eq!(ask("API.Example.COM", TYPE::A), (RCODE::NoError, first, None));
        for kind in [TYPE::AAAA, TYPE::HTTPS, TYPE::TXT, TYPE::MX] {
            assert_eq!(ask("api.example.com", kind), (RCODE::NoError, Vec::new(), None), "{kind:?}");
        }
        for name in ["example.org", "example.com", "secret.data.evil.org"] {
            assert_eq!(ask(name, TYPE::A), (RCODE::NameError, Vec::new(), Some(name.to_owned())));
        }
    }

    #[test]
    fn what_makes_no_sense_is_answered_as_such_or_not_at_all() {
        let code = |message: &[u8]| {
            let reply = answer(message, &Network::default(), &Names::default())?;
            Some(Packet::parse(&reply.bytes).expect("a packet").rcode())
        };
        assert_eq!(code(b""), None);
        assert_eq!(code(b"0123456789"), None);
        let mut reply = question("a.com", TYPE::A);
        reply[2] |= 0x80;
        assert_eq!(code(&reply), None, "never an answer to an answer");
        assert_eq!(code(&question("a.com", TYPE::A)[..16]), Some(RCODE::FormatError));
        let mut update = question("a.com", TYPE::A);
        update[2] |= 0x28;
        assert_eq!(code(&update), Some(RCODE::NotImplemented));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            if let Some(reply) = answer(&bytes, &Network::default(), &Names::default()) {
                prop_assert_eq!(reply.bytes.get(..2), bytes.get(..2));
            }
        }

        #[test]
        fn nor_do_broken_questions(flips in proptest::collection::vec((0usize..40, any::<u8>()), 1..6)) {
            let mut bytes = question("api.example.com", TYPE::A);
            for (at, to) in flips {
                if let Some(byte) = bytes.get_mut(at) { *byte = to; }
            }
            let _ = answer(&bytes, &Network::default(), &Names::default());
        }
    }
}
