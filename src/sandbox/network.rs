//! The network namespace of an agent whose network is an allow-list: every address leads to sockets of ours.
//!
//! `lo` gets a route that makes all of IPv4 local, so that a connection to any address arrives at a listener in this
//! namespace; the listeners are handed out to the server, which decides and relays. Where nobody listens, a connection
//! is refused at once. IPv6 has nothing but loopback.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, listen, netlink, sockopt,
};

use super::mounts::Step;
use super::protocol::{Failure, MOST_FDS, Report, report};
use crate::wire::Network;
use crate::wire::network::DNS_PORT;

/// What /etc/resolv.conf says in such a namespace.
pub(super) const RESOLV_CONF: &str = "nameserver 127.0.0.1\n";
/// So many connections wait to be accepted.
const BACKLOG: i32 = 256;
const LOOPBACK: u32 = 1;
const REQUEST_AND_ACK: u16 = 1 | 4;

/// Makes the network that this process's namespace is to have, and hands its sockets to the server. Must be called with
/// the rights over the namespace.
pub(super) fn make(network: &Network, control: &OwnedFd) -> Result<(), Failure> {
    if *network == Network::Host {
        return Ok(());
    }
    loopback_up().step("loopback")?;
    let Network::Allow(_) = network else { return Ok(()) };
    everything_is_here().step("local route")?;
    let mut sockets = vec![socket(SocketType::DGRAM, DNS_PORT)?, socket(SocketType::STREAM, DNS_PORT)?];
    for port in network.ports() {
        sockets.push(socket(SocketType::STREAM, port)?);
    }
    for some in sockets.chunks(MOST_FDS) {
        let fds: Vec<_> = some.iter().map(AsFd::as_fd).collect();
        report(control, &Report::Sockets, &fds).broken("hand out a socket")?;
    }
    Ok(())
}

fn socket(kind: SocketType, port: u16) -> Result<OwnedFd, Failure> {
    let open = || {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::INET, kind, flags, None)?;
        sockopt::set_socket_reuseaddr(&socket, true)?;
        bind(&socket, &SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port))?;
        if kind == SocketType::STREAM {
            listen(&socket, BACKLOG)?;
        }
        Ok::<_, Errno>(socket)
    };
    open().step(format!("listen at port {port}"))
}

/// Brings up `lo`, which is the first interface of every network namespace, by an RTM_NEWLINK message.
fn loopback_up() -> rustix::io::Result<()> {
    const NEW_LINK: u16 = 16;
    const UP: u32 = 1;
    // struct ifinfomsg: family, padding, type; index, flags, which flags.
    let mut body = vec![0; 4];
    body.extend(LOOPBACK.to_ne_bytes());
    body.extend(UP.to_ne_bytes());
    body.extend(UP.to_ne_bytes());
    ask(NEW_LINK, REQUEST_AND_ACK, &body)
}

/// Makes every IPv4 address one of this namespace's own: `ip route add local 0.0.0.0/0 dev lo`.
fn everything_is_here() -> rustix::io::Result<()> {
    const NEW_ROUTE: u16 = 24;
    const CREATE: u16 = 0x400;
    const OUTPUT_INTERFACE: u16 = 4;
    const INET: u8 = 2;
    const LOCAL_TABLE: u8 = 255;
    const BOOT: u8 = 3;
    const HOST_SCOPE: u8 = 254;
    const LOCAL: u8 = 2;
    // struct rtmsg: family, lengths of destination and source, tos; table, protocol, scope, type; flags.
    let mut body = vec![INET, 0, 0, 0, LOCAL_TABLE, BOOT, HOST_SCOPE, LOCAL, 0, 0, 0, 0];
    // struct rtattr: length, type, and the interface's index.
    body.extend(8_u16.to_ne_bytes());
    body.extend(OUTPUT_INTERFACE.to_ne_bytes());
    body.extend(LOOPBACK.to_ne_bytes());
    ask(NEW_ROUTE, REQUEST_AND_ACK | CREATE, &body)
}

/// One message to the kernel's routing, and its acknowledgement.
fn ask(kind: u16, flags: u16, body: &[u8]) -> rustix::io::Result<()> {
    let socket = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        // NETLINK_ROUTE is 0.
        None,
    )?;
    // struct nlmsghdr: length, type, flags, sequence, port.
    let mut message = Vec::with_capacity(64);
    message.extend(u32::try_from(16 + body.len()).map_err(|_| Errno::MSGSIZE)?.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend([0; 8]);
    message.extend(body);
    rustix::net::sendto(&socket, &message, SendFlags::empty(), &netlink::SocketAddrNetlink::new(0, 0))?;
    // struct nlmsgerr: a header, then an errno, negated; 0 is the acknowledgement.
    let mut answer = [0; 256];
    let (_, length) = rustix::net::recv(&socket, &mut answer[..], RecvFlags::empty())?;
    match answer.get(16..20).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes) {
        Some(0) if length >= 20 => Ok(()),
        Some(negated) if length >= 20 => Err(Errno::from_raw_os_error(negated.saturating_neg())),
        _ => Err(Errno::IO),
    }
}
