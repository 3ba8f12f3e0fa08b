//! Readers who are slow or stand still: they hold nobody back, cost no memory, and get everything once they read again.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::program::create;
use crate::served::{Checked, Served};
use crate::{at, goal, row, title};

/// So many stand still, and so many read a little at a time.
const STALLED: usize = 40;
const SLOW: usize = 10;
/// So many others read as fast as they can.
const OTHERS: usize = 20;
/// What the run prints that they read: lines of so many characters, so many seconds apart.
const LINES: u64 = 8000;
const WIDTH: usize = 1000;
const PAUSE: f64 = 0.002;
/// What the others' runs print.
const OTHER_LINES: u64 = 100;
const OTHER_PAUSE: f64 = 0.1;

pub async fn measure() {
    let served = Arc::new(Served::new().await);
    title(&format!(
        "{STALLED} readers that stand still and {SLOW} slow ones of a run of {} MB, beside {OTHERS} others",
        LINES * WIDTH as u64 / 1_000_000
    ));
    let mut others = Vec::new();
    for _ in 0..=OTHERS {
        let id = create(&served.client, "counter").await.id;
        read(&served, "POST", &format!("/sessions/{id}/messages"), 1, 0.0, 0).await;
        others.push(id.to_string());
    }
    let long = others.pop().expect("a session");
    // The same run with no reader but one, for comparison.
    let path = format!("/sessions/{long}/messages");
    read(&served, "POST", &path, LINES, PAUSE, WIDTH).await;
    let before = served.memory();
    let (_, mut alone) =
        tokio::join!(read(&served, "POST", &path, LINES, PAUSE, WIDTH), fast(&served, &others));
    let without = served.memory();

    let run = tokio::spawn({
        let (served, path) = (served.clone(), path.clone());
        async move { read(&served, "POST", &path, LINES, PAUSE, WIDTH).await }
    });
    while served.client.session(&long.parse().expect("an ID")).await.expect("a session").status
        != superserve::wire::Status::Active
    {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (wake, woken) = watch::channel(false);
    let mut held = JoinSet::new();
    for number in 0..STALLED + SLOW {
        let (served, long, woken) = (served.clone(), long.clone(), woken.clone());
        held.spawn(async move { hold(&served, &long, number >= STALLED, woken).await });
    }
    let mut beside = fast(&served, &others).await;
    let mut run = run.await.expect("a run");
    let during = served.memory();
    wake.send(true).expect("readers");
    let mut wrong = std::mem::take(&mut run.wrong);
    let mut again = 0;
    while let Some(done) = held.join_next().await {
        let (checked, connections) = done.expect("a reader");
        wrong.extend(checked.wrong);
        again += connections - 1;
    }
    let after = served.memory();
    for (what, checked) in [("without them", &mut alone), ("beside them", &mut beside)] {
        wrong.append(&mut checked.wrong);
        let [p50, p99, worst] = [0.5, 0.99, 1.0].map(|part| at(part, &mut checked.late));
        row(
            &format!("others {what}: p50 / p99 / worst, ms"),
            format!("{p50:.1} / {p99:.1} / {worst:.0}"),
            "",
        );
    }
    let ratio = at(0.5, &mut beside.late) / at(0.5, &mut alone.late);
    row("beside them over without them, p50", format!("{ratio:.2}"), "");
    let p99 = at(0.99, &mut run.late);
    row("the run's own reader, p99, ms", format!("{p99:.1}"), "");
    goal("lost, doubled or out of order, of all readers", wrong.len().to_string(), wrong.is_empty(), "0");
    wrong.iter().take(5).for_each(|what| println!("  {what}"));
    row("connections that the readers had to make anew", again.to_string(), "");
    let memory = format!("{before:.0} / {without:.0} / {during:.0} / {after:.0}");
    row("memory: before / a run without them / with / after, MB", memory, "");
    // What the readers have not read is 50 times the run.
    let grown = during - without;
    goal("grown by, with them, MB", format!("{grown:.0}"), grown < 50.0, "under 50, 1 a reader");
}

/// The others, all at once; what they saw, together.
async fn fast(served: &Arc<Served>, sessions: &[String]) -> Checked {
    let mut streams = JoinSet::new();
    for id in sessions {
        let (served, path) = (served.clone(), format!("/sessions/{id}/messages"));
        streams.spawn(async move { read(&served, "POST", &path, OTHER_LINES, OTHER_PAUSE, 0).await });
    }
    let mut all = Checked::default();
    for mut checked in streams.join_all().await {
        all.late.append(&mut checked.late);
        all.wrong.append(&mut checked.wrong);
    }
    all
}

async fn read(served: &Served, method: &str, path: &str, lines: u64, pause: f64, width: usize) -> Checked {
    let mut checked = Checked::default();
    let request = match method {
        "POST" => served.post(path, &json!({ "prompt": format!("{lines} {pause} {width}") })),
        _ => served.get(path),
    };
    let mut response = request.send().await.expect("an answer");
    while let Some(bytes) = response.chunk().await.expect("events") {
        checked.feed(&bytes);
    }
    checked.finish(lines);
    checked
}

/// Reads the events of a run with small buffers: nothing after the head until it is woken, or a little at a time. If the
/// connection breaks meanwhile, it asks for the rest. What it saw, and how many connections that took.
async fn hold(served: &Served, id: &str, slow: bool, mut woken: watch::Receiver<bool>) -> (Checked, usize) {
    let mut checked = Checked::default();
    let mut connections = 0;
    while !checked.ended && connections < 100 {
        connections += 1;
        checked.reconnected();
        let mut stream = ask(served, id, checked.events).await;
        let mut buffer = [0; 1024];
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read(&mut buffer[..1]).await {
                Ok(1) => head.push(buffer[0]),
                _ => break,
            }
        }
        loop {
            if !*woken.borrow() {
                if slow {
                    let _ = tokio::time::timeout(Duration::from_millis(20), woken.changed()).await;
                } else {
                    let _ = woken.changed().await;
                }
                if *woken.borrow() {
                    // A window of a few kB would make the rest a matter of the kernel's timers.
                    let _ = rustix::net::sockopt::set_socket_recv_buffer_size(&stream, 1 << 20);
                }
            }
            match stream.read(&mut buffer).await {
                Ok(count) if count > 0 => checked.feed(&buffer[..count]),
                _ => break,
            }
        }
    }
    checked.finish(LINES);
    (checked, connections)
}

/// Asks with HTTP/1.0, to which no chunks are answered, over a connection that takes little at a time.
async fn ask(served: &Served, id: &str, after: u64) -> TcpStream {
    let address = served.url.trim_start_matches("http://").parse().expect("an address");
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a small buffer");
    let mut stream = socket.connect(address).await.expect("a connection");
    let head = format!(
        "GET /v1/sessions/{id}/events?after={after} HTTP/1.0\r\nHost: {address}\r\nAuthorization: Bearer {}\r\n\r\n",
        served.token
    );
    stream.write_all(head.as_bytes()).await.expect("a request");
    stream
}
